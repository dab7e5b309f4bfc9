//! Operations from outside: metrics as Prometheus reads them, probes, the server's life, busy operators, traces, signals.

mod operated;
mod outside;
mod support;

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use serde_json::Value;
use timely::dataflow::operators::{Inspect, Probe, ToStream};
use whisperer_dataflows::{
    job_file::{ClusterSettings, OperationsSettings, ReadySettings, ServerSettings},
    operations::{
        CheckpointFacts, JobNames, Metrics, Operations, Part, Phase, Server, Stop, register_timely_logging, server,
    },
};
use whisperer_operators::keys::Counts;

fn names() -> JobNames {
    JobNames { job: "shop".into(), version: 3, triggers: vec!["win_back".into(), "rescue".into()] }
}

/// The operations of a job with one worker and a server on a free port.
fn operations() -> Operations {
    operations_of(1, Duration::from_millis(200))
}

/// The same with so many workers, which may hang for so long.
fn operations_of(workers: usize, watchdog: Duration) -> Operations {
    let settings = OperationsSettings {
        checkpoint: whisperer_dataflows::job_file::CheckpointSettings::at("state".into()),
        state: Default::default(),
        ready: ReadySettings { lag_ms_max: 5_000 },
        cluster: ClusterSettings { watchdog_ms: watchdog.as_millis() as u64 },
        server: ServerSettings { listen: Some("127.0.0.1:0".into()) },
        telemetry: Default::default(),
    };
    Operations::start(&settings, names(), workers, Stop::default()).expect("a free port")
}

/// A GET without a client library: status, content type and body.
fn fetch(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: whisperer\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default().to_owned();
    (status, kind, body.to_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Metrics with something in each of them.
fn fed() -> Metrics {
    let metrics = Metrics::new(names());
    let mut partition = metrics.partition(7);
    partition.read(1000);
    partition.lag(42, Some(Duration::from_millis(1500)));
    let mut worker = metrics.worker(0);
    let before = Counts { on_time: 500, decisions: vec![9, 9], ..Counts::default() };
    worker.start_from(&before);
    let now = Counts {
        on_time: 1390,
        late: 10,
        duplicates: 5,
        timers: 20,
        decisions: vec![12, 9],
        suppressed: vec![0, 4],
        warming: 2,
        nulls: 1,
        keys: 300,
        cold_keys: 100,
        state_bytes: 4096,
        cold_bytes: 512,
        ..before
    };
    worker.follow(&now);
    worker.follow(&now);
    worker.frontier_delay(Duration::from_millis(12));
    worker.epoch_done(Duration::from_millis(4));
    worker.epoch_done(Duration::from_secs(60));
    metrics.dead_letters("bad_time", 3);
    metrics.watermark(1_500_000);
    metrics.sink("decisions \"a\\b\"").wrote(12, Duration::from_millis(250));
    let took = Duration::from_millis(80);
    metrics.checkpoint_committed(CheckpointFacts { number: 17, bytes: 9000, took });
    metrics.checkpoint_failed();
    // The partition leaves only at the end: its lag goes with it.
    std::mem::forget(partition);
    metrics
}

/// What [`fed`] must say, apart from what depends on clock and machine.
const EXPECTED: [(&str, f64); 26] = [
    ("whisperer_job_info{name=shop,version=3}", 1.0),
    ("whisperer_read_records_total{partition=7}", 1000.0),
    ("whisperer_lag_records{partition=7}", 42.0),
    ("whisperer_lag_seconds{partition=7}", 1.5),
    ("whisperer_accepted_records_total", 900.0),
    ("whisperer_late_records_total", 10.0),
    ("whisperer_duplicate_records_total", 5.0),
    ("whisperer_fired_timers_total", 20.0),
    ("whisperer_warming_edges_total", 2.0),
    ("whisperer_null_results_total", 1.0),
    ("whisperer_decisions_total{trigger=win_back}", 3.0),
    ("whisperer_decisions_total{trigger=rescue}", 0.0),
    ("whisperer_suppressed_decisions_total{trigger=rescue}", 4.0),
    ("whisperer_dead_letters_total{reason=bad_time}", 3.0),
    ("whisperer_state_keys{tier=hot,worker=0}", 200.0),
    ("whisperer_state_bytes{tier=cold,worker=0}", 512.0),
    ("whisperer_frontier_delay_seconds{worker=0}", 0.012),
    ("whisperer_watermark_seconds", 1.5),
    ("whisperer_epoch_latency_seconds_bucket{le=0.005}", 1.0),
    ("whisperer_epoch_latency_seconds_count", 2.0),
    ("whisperer_sink_rows_total{sink=decisions \"a\\b\"}", 12.0),
    ("whisperer_sink_wait_seconds_total{sink=decisions \"a\\b\"}", 0.25),
    ("whisperer_checkpoint_number", 17.0),
    ("whisperer_checkpoint_bytes", 9000.0),
    ("whisperer_checkpoints_total", 1.0),
    ("whisperer_checkpoint_failures_total", 1.0),
];

#[test]
fn prometheus_reads_the_metrics() {
    // Goal: the parser of Prometheus' own client finds every number where the documentation says, with labels as they were given.
    let Some(python) = outside::python("prometheus_reads_the_metrics") else { return };
    let folder = env::temp_dir();
    let samples = outside::run(&python, &folder, "outside/metrics.py", &fed().text());
    let samples: BTreeMap<String, f64> = serde_json::from_str(&samples).expect("samples");
    for (name, value) in EXPECTED {
        assert_eq!(samples.get(name), Some(&value), "{name} in {samples:#?}");
    }
    assert!(samples["whisperer_checkpoint_age_seconds"] < 60.0);
    assert!(samples["whisperer_process_resident_bytes"] > 1e6);
    assert!(samples.contains_key("whisperer_process_cpu_seconds_total"));
}

#[test]
fn metrics_keep_to_the_house_style() {
    // Goal: every family is called whisperer_<noun>_<unit>, has help, ends in its unit where it has one, and stands in the docs; the
    // text ends as OpenMetrics wants it.
    let text = fed().text();
    let docs =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).expect("the docs");
    let mut families = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("name and type");
        let parts: Vec<&str> = name.split('_').collect();
        assert!(parts[0] == "whisperer" && parts.iter().all(|part| !part.is_empty()), "{name}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        if let Some(unit) = text.lines().find_map(|line| line.strip_prefix(&format!("# UNIT {name} "))) {
            assert!(name.ends_with(&format!("_{unit}")), "{name} in {unit}");
        }
        let shown = match kind {
            "counter" => format!("`{name}_total`"),
            "info" => format!("`{name}_info`"),
            _ => format!("`{name}`"),
        };
        assert!(docs.contains(&shown), "docs/operations.md lacks {shown}");
        families += 1;
    }
    assert!(families > 25, "{families}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_partition_that_goes_takes_its_lag_along() {
    // Goal: after another process has taken a partition over, this one does not go on telling its last lag; the records stay counted.
    let metrics = Metrics::new(names());
    let mut partition = metrics.partition(1);
    partition.read(5);
    partition.lag(3, None);
    assert!(metrics.text().contains("whisperer_lag_records{partition=\"1\"} 3\n"));
    drop(partition);
    let text = metrics.text();
    assert!(!text.contains("whisperer_lag_records{"), "{text}");
    assert!(text.contains("whisperer_read_records_total{partition=\"1\"} 5\n"), "{text}");
}

#[test]
fn probes_follow_the_job() {
    // Goal: /readyz says 503 with the reason until the job runs and has caught up; /livez until a worker hangs; /metrics always.
    let operations = operations();
    let address = operations.address().expect("there is a server");
    let (status, kind, body) = fetch(address, "/readyz");
    assert_eq!((status, kind.as_str()), (503, "application/json"));
    assert_eq!((&json(&body)["ready"], &json(&body)["detail"]), (&false.into(), &"starting".into()));
    operations.health.enter(Phase::Running);
    let lag = operations.health.lag_of(Part::Partition(3));
    lag.measured(Duration::from_secs(7));
    let (status, _, body) = fetch(address, "/readyz");
    assert_eq!((status, &json(&body)["why"]["part"]["partition"]), (503, &3.into()));
    lag.measured(Duration::ZERO);
    assert_eq!(fetch(address, "/readyz").0, 200);
    assert_eq!(fetch(address, "/livez").0, 200);
    let (status, kind, body) = fetch(address, "/metrics");
    assert_eq!(status, 200);
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(body.contains("whisperer_job_info{name=\"shop\""), "{body}");
    assert_eq!(fetch(address, "/nothing").0, 404);
}

#[test]
fn a_hung_worker_is_seen_from_outside() {
    // Goal: a worker that stops giving signs makes /livez say 503 and name it, before the watchdog ends the process.
    let (tell, told) = mpsc::channel();
    let limit = Duration::from_millis(400);
    let watchdog = whisperer_dataflows::operations::Watchdog::start_with(1, limit, move |hang| {
        tell.send(hang).expect("the test waits");
    });
    let served = server::Served { watchdog: Arc::new(watchdog), ..operations().served() };
    let server = Server::start("127.0.0.1:0", server::router(served.clone())).expect("a free port");
    served.watchdog.feed(0);
    assert_eq!(fetch(server.address(), "/livez").0, 200);
    let hang = told.recv_timeout(Duration::from_secs(20)).expect("the watchdog acts");
    let (status, _, body) = fetch(server.address(), "/livez");
    assert_eq!((status, &json(&body)["worker"]), (503, &hang.worker.into()));
}

#[test]
fn a_port_that_is_taken_is_told_at_the_start() {
    // Goal: the error names the address, and comes before anything runs; a host that does not exist is one as well.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("bound").to_string();
    let error = Server::start(&listen, Router::new()).expect_err("taken");
    assert_eq!(error.to_string(), format!("cannot listen on \"{listen}\""));
    let cause = std::error::Error::source(&error).expect("the system's reason").to_string();
    assert!(cause.contains("in use"), "{cause}");
}

#[test]
fn routes_can_be_added_and_the_server_stops() {
    // Goal: other routers are merged with the job's; a server that is dropped ends soon, though a connection is open, and frees its port.
    let router = server::router(operations().served()).merge(Router::new().route("/hello", get(|| async { "there" })));
    let server = Server::start("127.0.0.1:0", router).expect("a free port");
    let address = server.address();
    assert_eq!(fetch(address, "/hello"), (200, "text/plain; charset=utf-8".into(), "there".into()));
    let _idle = TcpStream::connect(address).expect("the server listens");
    let began = Instant::now();
    drop(server);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(TcpListener::bind(address).is_ok());
}

#[test]
fn busy_operators_are_found() {
    // Goal: the time that an operator spends is charged to it by name, not to the scope around it, and sleep to the worker.
    let metrics = Arc::new(Metrics::new(names()));
    let fed = metrics.clone();
    timely::execute_directly(move |worker| {
        register_timely_logging(worker, &fed);
        let probe = worker.dataflow::<u64, _, _>(|scope| {
            (0..5u64)
                .to_stream(scope)
                .container::<Vec<_>>()
                .inspect(|_| thread::sleep(Duration::from_millis(20)))
                .probe()
                .0
        });
        while !probe.done() {
            worker.step();
        }
        worker.step_or_park(Some(Duration::from_millis(30)));
        worker.step();
    });
    let text = metrics.text();
    let busy = |operator: &str| -> f64 {
        let start = format!("whisperer_operator_busy_seconds_total{{operator=\"{operator}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {operator} in\n{text}")).parse().expect("seconds")
    };
    assert!((0.1..5.0).contains(&busy("InspectBatch")), "{text}");
    assert!(busy("Dataflow") < busy("InspectBatch") / 2.0, "{text}");
    assert!(text.contains("whisperer_worker_parked_seconds_total{worker=\"0\"} "), "{text}");
}

/// A collector that takes what is posted to it and hands the requests on, head and body, as they came.
fn collector() -> (SocketAddr, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).expect("a head") > 0 {}
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok()).flatten()
            });
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).expect("a body");
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            reader.get_mut().write_all(answer.as_bytes()).expect("answered");
            if tell.send((head, body)).is_err() {
                return;
            }
        }
    });
    (address, told)
}

#[cfg(feature = "otel")]
#[test]
fn spans_reach_a_collector() {
    // Goal: the spans of a run arrive over OTLP under their names, with the service's, when telemetry ends at the latest; other spans do not.
    use whisperer_dataflows::operations::{
        logs::{self, Telling},
        traces,
    };
    let (address, told) = collector();
    let telling = Telling {
        flag: Some("error".into()),
        otlp: Some(format!("http://{address}")),
        service: "whisperer-shop".into(),
        ..Telling::default()
    };
    let telemetry = logs::start(&telling).expect("a collector");
    let run = traces::run("shop", 2);
    drop(traces::recovery(&run));
    let checkpoint = traces::checkpoint(&run, 1000);
    for span in [
        traces::cut(&checkpoint, 0),
        traces::write(&checkpoint, 0),
        traces::commit(&checkpoint, 5),
        traces::publish(&checkpoint, 5),
    ] {
        span.in_scope(|| drop(tracing::info_span!("foreign")));
    }
    drop((checkpoint, run));
    drop(telemetry);
    let mut collected = Collected::default();
    collected.take(&told);
    for name in ["run", "recovery", "checkpoint", "cut", "write", "commit", "publish"] {
        assert!(collected.holds(name), "no span \"{name}\"");
    }
    assert!(!collected.holds("foreign"));
    let service = b"whisperer-shop";
    assert!(collected.0.windows(service.len()).any(|window| window == service));
}

/// The bodies that a collector was sent.
#[cfg(feature = "otel")]
#[derive(Default)]
struct Collected(Vec<u8>);

#[cfg(feature = "otel")]
impl Collected {
    /// Takes what has come, until nothing comes any more.
    fn take(&mut self, told: &mpsc::Receiver<(String, Vec<u8>)>) {
        while let Ok((head, body)) = told.recv_timeout(Duration::from_millis(500)) {
            assert!(head.starts_with("POST /v1/traces "), "{head}");
            self.0.extend(body);
        }
    }

    /// A span's name is field 5 of its message: tag, length, text.
    fn holds(&self, name: &str) -> bool {
        let encoded = [&[0x2a, name.len() as u8], name.as_bytes()].concat();
        self.0.windows(encoded.len()).any(|window| window == encoded)
    }
}

/// Tells a copy of this test binary that it is the one to be stopped.
const STOPPED: &str = "WHISPERER_TEST_STOPPED";

#[test]
fn one_signal_asks_and_a_second_one_ends() {
    // Goal: SIGTERM sets the flag and nothing else, so that the job can drain; the next one ends a process that does not, with code 1.
    const NAME: &str = "one_signal_asks_and_a_second_one_ends";
    if env::var_os(STOPPED).is_some() {
        return wait_to_be_stopped();
    }
    let copy = env::current_exe().expect("this test");
    let mut child = Command::new(copy)
        .args(["--exact", NAME, "--nocapture"])
        .env(STOPPED, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a copy of this test");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let pid = child.id().to_string();
    let terminate = || assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    assert!(lines.any(|line| line.ends_with("waiting")));
    terminate();
    assert!(lines.any(|line| line.ends_with("asked to stop")));
    assert_eq!(child.try_wait().expect("a child"), None);
    terminate();
    assert_eq!(child.wait().expect("a child").code(), Some(1));
}

fn wait_to_be_stopped() {
    let stop = Stop::on_signals().expect("signals can be handled");
    println!("waiting");
    while !stop.requested() {
        thread::sleep(Duration::from_millis(5));
    }
    println!("asked to stop");
    // A job that hangs while it drains; the parent's second signal ends it long before.
    thread::sleep(Duration::from_secs(60));
}
