//! Clusters: two processes that run a job together, one of which dies.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    rounds,
    running::job::{Job, Random},
};

/// How long a process may live on after its peer has died.
const ORPHAN_MAX: Duration = Duration::from_secs(30);

/// Writes a hosts file with two free ports.
fn hosts(job: &Job) -> String {
    let free = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let (one, other) = (free(), free());
    let address = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
    let path = job.folder().join("hosts");
    fs::write(&path, format!("{}\n{}\n", address(&one), address(&other))).expect("written");
    path.display().to_string()
}

/// Starts both processes of a cluster.
fn start(job: &Job) -> [Child; 2] {
    let hosts = hosts(job);
    ["0", "1"].map(|process| {
        let mut command = job.command(&["--process", process, "--hosts", &hosts], &[]);
        let log = fs::File::create(job.folder().join(format!("log-{process}"))).expect("a log");
        command.stderr(log).stdin(Stdio::null()).spawn().expect("the binary runs")
    })
}

/// Waits until the cluster has committed something, or has ended.
fn await_checkpoint(job: &Job, children: &mut [Child; 2]) {
    let before = job.manifest_max();
    // The claim is one, what follows is a checkpoint.
    while job.manifest_max() < before + 2 {
        if children.iter_mut().any(|child| child.try_wait().expect("it can be waited for").is_some()) {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for both; gives whether both came to a good end.
fn wait(job: &Job, children: &mut [Child; 2]) -> bool {
    let started = Instant::now();
    loop {
        let ended = children.each_mut().map(|child| child.try_wait().expect("it can be waited for"));
        if let [Some(one), Some(other)] = ended {
            return one.success() && other.success();
        }
        if started.elapsed() > ORPHAN_MAX {
            children.iter_mut().for_each(|child| child.kill().expect("it is there"));
            let log = |at: &str| fs::read_to_string(job.folder().join(at)).unwrap_or_default();
            panic!("a process lives on: {}\n{}", log("log-0"), log("log-1"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_cluster_that_loses_a_process_stops_and_goes_on() {
    // Goal: whichever process is killed, the other one ends by itself; restarted, they end as one process would have.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&[]);
    let mut random = Random::new();
    let job = Job::new("cluster");
    let mut kills = 0;
    let most = rounds().div_ceil(4);
    loop {
        let mut children = start(&job);
        if kills < most {
            // Only once they run together: before that each waits for the other, and a restart of the dead one is what it waits for.
            await_checkpoint(&job, &mut children);
            thread::sleep(Duration::from_millis(random.below(400)));
            // One that has come to its end meanwhile cannot be killed any more.
            let _ = children[random.below(2) as usize].kill();
            kills += 1;
        }
        if wait(&job, &mut children) {
            break;
        }
        assert!(kills <= most, "seed {}: it failed without being killed", random.seed());
        if kills == most {
            kills += 1;
        }
    }
    job.assert_equals(&undisturbed, &format!("seed {}", random.seed()));
}

#[test]
fn a_checkpoint_of_two_workers_resumes_in_two_processes() {
    // Goal: what two workers of a process have begun, two processes with one worker each bring to its end.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&[]);
    let job = Job::new("split");
    job.begin(&["--workers", "2"]);
    assert!(wait(&job, &mut start(&job)), "the cluster comes to its end");
    job.assert_equals(&undisturbed, "2 workers to 2 processes");
}
