//! The remote store on S3, as a server of this machine speaks it.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use whisperer_connectors::state::{
    BaseKind, StoreError,
    remote::{ObjectRemote, Remote},
};

use crate::remote::{check_lost_machines, check_rules};

/// The server, as long as its input is open.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(python: &Path) -> Server {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state/s3.py");
        let mut command = Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("Python starts");
        let mut address = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut address).expect("the server speaks");
        assert!(address.starts_with("http://127.0.0.1:"), "the server gives its address: \"{address}\"");
        Server { child, address: address.trim().into() }
    }

    fn open(&self, url: &str) -> Result<ObjectRemote, StoreError> {
        let settings = [
            ("AWS_ENDPOINT", self.address.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("HOME", "/passed over"),
        ];
        ObjectRemote::s3(url, settings.map(|(name, value)| (name.into(), value.into())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The Python that `bin/setup --tests` has prepared. Where there is none, says so past the capture of test output, and fails where `CI` is set.
fn python() -> Option<PathBuf> {
    let home = |variable, below: &str| env::var_os(variable).map(|home| Path::new(&home).join(below));
    let venv = env::var_os("WHISPERER_VENV").map(PathBuf::from);
    let venv =
        venv.or_else(|| home("XDG_CACHE_HOME", "whisperer/venv")).or_else(|| home("HOME", ".cache/whisperer/venv"));
    let own = env::var_os("WHISPERER_PYTHON").map(PathBuf::from);
    let candidates = [own, venv.map(|venv| venv.join("bin/python")), Some("python3".into())];
    let found = candidates.into_iter().flatten().find(|python| {
        let mut imports = Command::new(python);
        imports.args(["-c", "import boto3, moto.server"]).stdout(Stdio::null()).stderr(Stdio::null());
        imports.status().is_ok_and(|status| status.success())
    });
    if found.is_none() {
        let _ =
            writeln!(std::io::stderr(), "\n*** SKIPPED: checkpoints on S3: no Python with moto: run bin/setup --tests");
        assert!(env::var_os("CI").is_none(), "CI runs every test");
    }
    found
}

#[test]
fn s3_keeps_the_rules() {
    // Goal: `s3://`, with conditional writes as the fence. Method: the suite, then a job whose machine is lost at every restart, then a
    // file of several parts, against a server that speaks S3.
    let Some(python) = python() else { return };
    let server = Server::start(&python);
    let open = |prefix: &str| -> Arc<dyn Remote> {
        Arc::new(server.open(&format!("s3://checkpoints/{prefix}")).expect("the bucket is there"))
    };
    check_rules(&open("jobs/engagement"), BaseKind::best());
    check_lost_machines(&open("jobs/live-chat"), BaseKind::best());
    check_parts(open("").as_ref());
}

fn check_parts(remote: &dyn Remote) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let content: Vec<u8> = (0..20_000_000_u32).map(|at| (at / 9) as u8).collect();
    std::fs::write(&from, &content).unwrap();
    remote.upload("base/large", &from).unwrap();
    assert!(remote.download("base/large", &to).unwrap());
    assert!(std::fs::read(&to).unwrap() == content, "what came back is what was sent");
}

#[test]
fn a_bucket_that_is_not_there_is_told_at_once() {
    // Goal: the run does not start to compute before its checkpoints have a place. Method: a wrong bucket.
    let Some(python) = python() else { return };
    let server = Server::start(&python);
    let error = server.open("s3://nowhere/jobs").unwrap_err();
    assert!(matches!(error, StoreError::Remote { .. }), "{error}");
}
