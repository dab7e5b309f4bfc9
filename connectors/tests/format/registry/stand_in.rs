//! A stand-in for a schema registry: the part of its HTTP interface that writers and readers of messages use, on a port of its own.
//!
//! Answers are those of Confluent's registry, version 8: members, codes of errors, content type.

use std::{
    io::{BufRead, BufReader, Read, Write},
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

/// A request, as far as it is looked at.
#[derive(Default)]
struct Request {
    path: String,
    authorization: Option<String>,
    /// What a `POST` brings.
    body: Vec<u8>,
}

fn request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut line, mut bytes) = (Request::default(), String::new(), 0);
    reader.read_line(&mut line)?;
    request.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.to_owned()),
            "content-length" => bytes = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    reader.take(bytes).read_to_end(&mut request.body)?;
    Ok(request)
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let Request { path, authorization, body } = request(stream)?;
    let mut state = state.lock().unwrap();
    state.requests.push(path.clone());
    let (status, body) = match state.failures.pop() {
        Some(Failure::Closed) => return Ok(()),
        Some(Failure::Status(status)) => (status, "<html>proxy</html>".to_owned()),
        None if state.authorization.is_some() && state.authorization != authorization => {
            (401, json!({"error_code": 401, "message": "Unauthorized"}).to_string())
        }
        None if !body.is_empty() => register(&path, &body, &mut state.schemas),
        None => answer(&path, &state.schemas),
    };
    write!(
        &*stream,
        "HTTP/1.1 {status} Answer\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Takes a schema in under a subject, or finds it there; gives its id.
fn register(path: &str, body: &[u8], schemas: &mut Vec<Value>) -> (u16, String) {
    let parts: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    let (["", "subjects", subject, "versions"], Ok(Value::Object(mut schema))) =
        (&parts[..], serde_json::from_slice(body))
    else {
        return (404, "<html>no such page</html>".to_owned());
    };
    let known = schemas.iter().find(|known| known["subject"] == *subject && known["schema"] == schema["schema"]);
    let id = known.map_or(schemas.len() as u64 + 1, |known| known["id"].as_u64().unwrap());
    if known.is_none() {
        let version = schemas.iter().filter(|known| known["subject"] == *subject).count() + 1;
        schema.entry("schemaType").or_insert(json!("AVRO"));
        schema.extend(
            [("id", json!(id)), ("subject", json!(subject)), ("version", json!(version))]
                .map(|(name, value)| (name.to_owned(), value)),
        );
        schemas.push(Value::Object(schema));
    }
    (200, json!({"id": id}).to_string())
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
