//! Object stores that are busy, that refuse, and whose answers are lost: checkpoints on S3, as a server of this machine speaks it, behind a
//! proxy that does the worst.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    outside,
    running::job::{Ended, Job, Process},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// It is carried out.
    Good,
    /// It is refused for now.
    Busy,
    /// It is refused for good.
    Denied,
    /// It is carried out, and the answer is lost.
    Lost,
}

const MOODS: [Mood; 4] = [Mood::Good, Mood::Busy, Mood::Denied, Mood::Lost];

/// Between a job and its object store: one request a connection.
struct Proxy {
    address: String,
    mood: Arc<AtomicU8>,
}

impl Proxy {
    /// It goes with the test process.
    fn start(store: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let (mood, store) = (Arc::new(AtomicU8::new(0)), store.trim_start_matches("http://").to_owned());
        let shared = mood.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mood, store) = (shared.clone(), store.clone());
                // A job that is killed leaves its requests.
                thread::spawn(move || drop(serve(&stream, &store, &mood)));
            }
        });
        Proxy { address, mood }
    }

    fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }
}

fn serve(mut client: &TcpStream, store: &str, mood: &AtomicU8) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let (mut head, mut bytes) = (String::new(), 0);
    loop {
        let from = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
        match head[from..].trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => bytes = value.parse().unwrap_or(0),
            Some((name, _)) if name.eq_ignore_ascii_case("connection") => head.truncate(from),
            _ if head.ends_with("\r\n\r\n") => break,
            _ => {}
        }
    }
    let mut body = Vec::new();
    reader.take(bytes).read_to_end(&mut body)?;
    let refusal = |status: &str, code: &str| {
        let xml = format!("<Error><Code>{code}</Code><Message>by the test</Message></Error>");
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{xml}", xml.len())
    };
    match MOODS[usize::from(mood.load(Ordering::SeqCst))] {
        Mood::Busy => return client.write_all(refusal("503 Slow Down", "SlowDown").as_bytes()),
        Mood::Denied => return client.write_all(refusal("403 Forbidden", "AccessDenied").as_bytes()),
        Mood::Good | Mood::Lost => {}
    }
    let mut upstream = TcpStream::connect(store)?;
    upstream.write_all(head.trim_end().as_bytes())?;
    upstream.write_all(b"\r\nConnection: close\r\n\r\n")?;
    upstream.write_all(&body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    if MOODS[usize::from(mood.load(Ordering::SeqCst))] != Mood::Lost {
        client.write_all(&answer)?;
    }
    client.shutdown(Shutdown::Both)
}

/// Starts the server; gives its address. It ends when its input is closed, at the latest with the test.
fn start_store(python: &Path) -> (Process, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../connectors/tests/state/s3.py");
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Process::start(command);
    let mut address = String::new();
    let stdout = server.stdout.as_mut().expect("a pipe");
    BufReader::new(stdout).read_line(&mut address).expect("the server speaks");
    assert!(address.starts_with("http://127.0.0.1:"), "the server gives its address: \"{address}\"");
    (server, address.trim().to_owned())
}

/// A job whose checkpoints are on the store.
fn job(prefix: &str) -> Job {
    Job::edited(prefix, |text| format!("{text}remote = \"s3://checkpoints/{prefix}\"\n"))
}

fn start(job: &Job, proxy: &Proxy) -> Process {
    let variables = [
        ("AWS_ENDPOINT", proxy.address.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    job.start(&["--workers", "2"], &variables)
}

/// Waits until the job has taken some checkpoints.
fn await_checkpoints(job: &Job, child: &mut Process) {
    let started = Instant::now();
    while job.log().matches("checkpoint committed").count() < 4 {
        assert!(!child.has_ended(), "it ended before its checkpoints: {}", job.log());
        assert!(started.elapsed() < PATIENCE, "no checkpoints: {}", job.log());
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_object_store_that_fails_loses_nothing() {
    // Goal: a store that is busy for a while is waited for; one that refuses ends the job with 1 and an error that names it; whether it did
    // what it gave no answer to does not matter. Then the job goes on, on a machine that has lost its folder, and ends as any other.
    let Some(python) = outside::python("an_object_store_that_fails_loses_nothing") else { return };
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&["--workers", "2"]);
    let (_server, address) = start_store(&python);
    let proxy = Proxy::start(&address);
    for (mood, prefix) in [(Mood::Busy, "busy"), (Mood::Denied, "denied"), (Mood::Lost, "lost")] {
        let job = job(prefix);
        let mut child = start(&job, &proxy);
        await_checkpoints(&job, &mut child);
        proxy.set(mood);
        thread::sleep(Duration::from_millis(500));
        if mood != Mood::Denied {
            proxy.set(Mood::Good);
        }
        match job.ended_within(child, PATIENCE) {
            Ended::Done => assert_ne!(mood, Mood::Denied, "it goes on without its store"),
            Ended::Killed => panic!("{prefix}: it hangs: {}", job.log()),
            Ended::Failed(code, log) => {
                assert_ne!(mood, Mood::Busy, "{log}");
                assert_eq!(code, 1, "{prefix}: {log}");
                assert!(log.contains("on the remote store"), "{prefix}: the error says what failed: {log}");
                proxy.set(Mood::Good);
                // What is on the store is enough.
                fs::remove_dir_all(job.folder().join("state")).expect("removed");
                job.assert_done(start(&job, &proxy));
            }
        }
        job.assert_equals(&undisturbed, prefix);
    }
}
