//! A job whose spans are taken by a collector.

use super::{Job, until};
use crate::{Collected, collector};

#[test]
fn the_spans_of_a_job_reach_a_collector() {
    // Goal: a run that is stopped and goes on tells of its recovery, its epochs, and all parts of its checkpoints.
    let (address, told) = collector();
    let job = Job::new(&format!(
        r#"
[job]
name = "traced"
[source]
connector = "generator"
events = 400000
users = 2000
partitions = 2
[epoch]
records = 100
[checkpoint]
interval_ms = 1000
[telemetry]
otlp = "http://{address}"
[[feature]]
name = "events_7d"
aggregate = "count"
window = "7d"
[[trigger]]
name = "busy"
when = "events_7d >= 5"
[[sink]]
connector = "parquet"
table = "decisions"
path = "lake"
"#
    ));
    let mut process = job.start(&["--workers", "2"]);
    until("a checkpoint", || {
        process.assert_alive();
        let manifests = std::fs::read_dir(job.folder().join("state/manifests"));
        manifests.is_ok_and(|manifests| manifests.count() > 3).then_some(())
    });
    assert_eq!(process.stop(), Some(0), "{}", job.log());
    let mut collected = Collected::default();
    collected.take(&told);
    for name in ["run", "recovery", "epoch", "checkpoint", "cut", "write", "commit", "publish", "flush"] {
        assert!(collected.holds(name), "no span \"{name}\"");
    }
    assert!(!collected.holds("load"), "there was nothing to load");
    drop(process);
    assert_eq!(job.start(&["--workers", "1"]).end(), Some(0), "{}", job.log());
    collected.take(&told);
    assert!(collected.holds("load"), "no span \"load\"");
}
