//! A stand-in for a schema registry: the part of its HTTP interface that readers of messages use, on a port of its own.
//!
//! Answers are those of Confluent's registry, version 8: members, codes of errors, content type.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};
use whisperer_connectors::format::RegistryOptions;

/// A registry that runs until it is dropped.
pub struct StandIn {
    address: String,
    state: Arc<Mutex<State>>,
    server: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// Members `id`, `subject`, `version`, `schemaType`, `schema` and `references`.
    schemas: Vec<Value>,
    /// What an `Authorization` header must say.
    authorization: Option<String>,
    /// How the next requests fail.
    failures: Vec<Failure>,
    requests: Vec<String>,
    stopped: bool,
}

/// How a request fails.
#[derive(Clone, Copy, PartialEq)]
pub enum Failure {
    /// The connection is closed without an answer.
    Closed,
    /// This status, without a body that a client of a registry could read.
    Status(u16),
}

impl StandIn {
    pub fn new(schemas: Vec<Value>) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { schemas, ..State::default() }));
        let shared = state.clone();
        let server = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.lock().unwrap().stopped {
                    return;
                }
                // A client that goes away is none of the server's business.
                let _ = serve(&stream.unwrap(), &shared);
            }
        });
        StandIn { address, state, server: Some(server) }
    }

    /// A registry that holds one schema, of id 1.
    pub fn of(kind: &str, schema: &str) -> StandIn {
        StandIn::new(vec![json!({"id": 1, "subject": "s", "version": 1, "schemaType": kind, "schema": schema})])
    }

    pub fn options(&self) -> RegistryOptions {
        RegistryOptions::new(format!("http://{}/", self.address))
    }

    pub fn add(&self, schema: Value) {
        self.state.lock().unwrap().schemas.push(schema);
    }

    /// Lets the next requests fail.
    pub fn fail(&self, failures: &[Failure]) {
        self.state.lock().unwrap().failures = failures.iter().rev().copied().collect();
    }

    pub fn require(&self, authorization: &str) {
        self.state.lock().unwrap().authorization = Some(authorization.to_owned());
    }

    /// The paths that were asked for since this was called last.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.state.lock().unwrap().stopped = true;
        // Wakes the server up.
        let _ = TcpStream::connect(&self.address);
        self.server.take().unwrap().join().unwrap();
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut authorization = None;
    for line in lines {
        match line?.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = Some(value.to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    let mut state = state.lock().unwrap();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    state.requests.push(path.clone());
    let (status, body) = match state.failures.pop() {
        Some(Failure::Closed) => return Ok(()),
        Some(Failure::Status(status)) => (status, "<html>proxy</html>".to_owned()),
        None if state.authorization.is_some() && state.authorization != authorization => {
            (401, json!({"error_code": 401, "message": "Unauthorized"}).to_string())
        }
        None => answer(&path, &state.schemas),
    };
    write!(
        &*stream,
        "HTTP/1.1 {status} Answer\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn answer(path: &str, schemas: &[Value]) -> (u16, String) {
    let parts: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    let missing = |code: u16, message: String| (404, json!({"error_code": code, "message": message}).to_string());
    match parts[..] {
        ["", "schemas", "ids", id] => match schemas.iter().find(|schema| schema["id"].as_u64() == id.parse().ok()) {
            Some(schema) => (200, registered(schema, &["schemaType", "schema", "references", "subject", "version"])),
            None => missing(40_403, format!("Schema {id} not found")),
        },
        ["", "subjects"] => {
            let subjects: Vec<&Value> = schemas.iter().map(|schema| &schema["subject"]).collect();
            (200, json!(subjects).to_string())
        }
        ["", "subjects", subject, "versions", version] => {
            let subject = subject.replace("%2F", "/");
            let found = schemas
                .iter()
                .find(|schema| schema["subject"] == subject && schema["version"].as_u64() == version.parse().ok());
            match found {
                Some(schema) => {
                    (200, registered(schema, &["id", "schemaType", "schema", "references", "subject", "version"]))
                }
                None => missing(40_401, format!("Subject '{subject}' not found.")),
            }
        }
        _ => (404, "<html>no such page</html>".to_owned()),
    }
}

/// The registry leaves the type of Avro schemas out, and references where there are none.
fn registered(schema: &Value, members: &[&str]) -> String {
    let there = |name: &&&str| match **name {
        "schemaType" => schema["schemaType"] != "AVRO",
        "references" => schema["references"].as_array().is_some_and(|references| !references.is_empty()),
        _ => true,
    };
    let members = members.iter().filter(there).map(|name| ((*name).to_owned(), schema[*name].clone()));
    Value::Object(members.collect()).to_string()
}
