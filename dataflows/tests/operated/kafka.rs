//! Live jobs: with a real broker (`WHISPERER_KAFKA=host:port`), or librdkafka's mock cluster where there is none.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use whisperer_schemas::time::format_micros;

use super::{Job, PATIENCE, samples, sum, until};
use crate::{fetch, json};

/// Partitions of every topic of the tests.
const PARTITIONS: i32 = 2;

/// A broker, real or not.
struct Broker {
    address: String,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

impl Broker {
    fn new() -> Broker {
        if let Ok(address) = std::env::var("WHISPERER_KAFKA") {
            return Broker { address, mock: None };
        }
        eprintln!(
            "WHISPERER_KAFKA IS NOT SET: these tests meet librdkafka's mock cluster, and no real broker (bin/broker up)"
        );
        let mock = MockCluster::new(1).expect("a mock cluster");
        Broker { address: mock.bootstrap_servers(), mock: Some(mock) }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.address);
        client
    }

    /// A topic of its own.
    fn topic(&self, name: &str) -> String {
        let topic = format!("{name}-{}", now_micros());
        if let Some(mock) = &self.mock {
            mock.create_topic(&topic, PARTITIONS, 1).expect("created");
            return topic;
        }
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let created = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).expect("an answer");
        created.into_iter().for_each(|one| drop(one.expect("created")));
        topic
    }

    /// Produces lines in small batches, each to the partition of its user and with its time.
    fn produce(&self, topic: &str, lines: impl IntoIterator<Item = Line>) {
        let mut client = self.client();
        client.set("linger.ms", "5").set("batch.num.messages", "100").set("batch.size", "16384");
        let producer: ThreadedProducer<DefaultProducerContext> = client.create().expect("a producer");
        for line in lines {
            let (partition, key) = (line.user as i32 % PARTITIONS, line.user.to_string());
            let record = BaseRecord::to(topic).partition(partition).timestamp(line.time / 1_000);
            let mut sent = producer.send(record.payload(&line.text).key(&key));
            while let Err((_, record)) = sent {
                std::thread::sleep(Duration::from_millis(5));
                sent = producer.send(record);
            }
        }
        producer.flush(PATIENCE).expect("acknowledged");
    }

    /// Offsets of a topic, over its partitions.
    fn end(&self, topic: &str) -> i64 {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let end = |partition| consumer.fetch_watermarks(topic, partition, PATIENCE).expect("the broker answers").1;
        (0..PARTITIONS).map(end).sum()
    }
}

/// A record to be.
struct Line {
    user: u64,
    time: i64,
    text: String,
}

fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64
}

fn event(number: u64, user: u64, kind: &str, time: i64) -> Line {
    let at = format_micros(time);
    let ids = format!(r#""event_id":"evt_{number:016}","app_id":"app_0000000000000001","user_id":"usr_{user:016}""#);
    Line { user, time, text: format!(r#"{{{ids},"event_type":"{kind}","timestamp":"{at}"}}"#) }
}

/// A job from a topic into a topic and a lake. Its fetching is slowed down, so that a backlog lasts.
fn job(broker: &Broker, events: &str, decisions: &str) -> Job {
    let address = &broker.address;
    if let Some(mock) = &broker.mock {
        // The mock cluster makes no topic when it is asked to, and the sink would wait for that.
        mock.create_topic(&format!("whisperer.operated.{decisions}.commits"), 1, 1).expect("created");
    }
    Job::new(&format!(
        r#"
[job]
name = "operated"
deliver_from = "beginning"
[source]
connector = "kafka"
brokers = "{address}"
topic = "{events}"
idle_timeout_ms = 1000
[source.properties]
"queued.max.messages.kbytes" = "32"
"fetch.message.max.bytes" = "16384"
"fetch.queue.backoff.ms" = "50"
[checkpoint]
interval_ms = 500
[state]
memory_bytes_max = "1MiB"
[[feature]]
name = "events_1h"
aggregate = "count"
window = "1h"
[[feature]]
name = "failures"
aggregate = "count"
where = "event_type = 'payment_failed'"
[[trigger]]
name = "failed"
when = "failures >= 1"
[[sink]]
connector = "kafka"
brokers = "{address}"
topic = "{decisions}"
table = "decisions"
delivery = "exactly_once"
[[sink]]
connector = "parquet"
table = "dead_letters"
path = "lake"
"#
    ))
}

/// Users of the backlog, each with two events.
const USERS: u64 = 8_000;

fn backlog(start: i64) -> impl Iterator<Item = Line> {
    (0..2 * USERS).map(move |number| event(number, number % USERS, "user_login", start + number as i64 * 1_000))
}

#[test]
fn every_metric_of_a_live_job_is_fed() {
    // Goal: a job with a backlog is not ready, and says which partition is behind; once it has caught up it is, and every number that the
    // docs name is served and is right; after a restart counters count what this process did. Method: the built binary on two workers, a
    // backlog that it can only fetch slowly, then records of every fate.
    let broker = Broker::new();
    let (events, decisions) = (broker.topic("events"), broker.topic("decisions"));
    let start = now_micros() - 600_000_000;
    broker.produce(&events, backlog(start));
    let job = job(&broker, &events, &decisions);
    let mut process = job.start(&["--workers", "2"]);
    let address = process.address();
    let mut behind = BTreeSet::new();
    until("caught up", || {
        process.assert_alive();
        let (status, _, body) = fetch(address, "/readyz");
        let why = &json(&body)["why"];
        if status == 503 && why["reason"] == "lag" {
            behind.insert(why["part"].to_string());
            let lag_ms = why["lag_ms"].as_u64().expect("a number");
            assert!(lag_ms > 5_000, "{body}");
        }
        (status == 200).then_some(())
    });
    assert!(behind.iter().any(|part| part.contains("partition")), "never seen behind: {behind:?}");
    let read = sum(&samples(&fetch(address, "/metrics").2), "whisperer_read_records_total");
    assert_eq!(read, Some(2.0 * USERS as f64), "ready means that all was read");

    let now = now_micros();
    let mut more: Vec<Line> = (0..5).map(|user| event(900_000 + user, user, "payment_failed", now)).collect();
    more.extend([3, 4].map(|user| event(900_000 + user, user, "payment_failed", now)));
    more.push(event(910_000, 7, "user_login", start));
    more.extend((0..3).map(|user| Line { user, time: now, text: "no event".to_owned() }));
    broker.produce(&events, more);
    // The decisions are out once a checkpoint has them; a commit, or a marker of one, follows in each partition that was written to.
    until("decisions", || (broker.end(&decisions) >= 5).then_some(()));
    let text = until("records of every fate", || {
        let text = fetch(address, "/metrics").2;
        let samples = samples(&text);
        // At the end of its partitions, a reader knows it a moment after their last records.
        let at_end = sum(&samples, "whisperer_lag_seconds") == Some(0.0);
        let done = at_end && sum(&samples, "whisperer_sink_rows_total") == Some(8.0);
        (done && sum(&samples, "whisperer_accepted_records_total") == Some(2.0 * USERS as f64 + 6.0)).then_some(text)
    });
    assert_numbers(&text, &decisions);
    assert_documented(&text);
    assert_eq!(fetch(address, "/readyz").0, 200);
    assert_eq!(process.stop(), Some(0), "{}", job.log());
    let number = sum(&samples(&text), "whisperer_checkpoint_number").expect("a number");
    drop(process);

    let mut process = job.start(&["--workers", "1"]);
    let address = process.address();
    let samples = until("a checkpoint after the restart", || {
        process.assert_alive();
        let samples = samples(&fetch(address, "/metrics").2);
        (sum(&samples, "whisperer_checkpoints_total") > Some(0.0) && fetch(address, "/readyz").0 == 200)
            .then_some(samples)
    });
    for counter in ["accepted_records", "late_records", "duplicate_records", "decisions", "null_results"] {
        let name = format!("whisperer_{counter}_total");
        assert_eq!(sum(&samples, &name), Some(0.0), "{name} counts what this process did");
    }
    assert_eq!(sum(&samples, "whisperer_dead_letters_total"), None);
    assert!(sum(&samples, "whisperer_checkpoint_number") > Some(number));
    assert_eq!(sum(&samples, "whisperer_state_keys"), Some(USERS as f64));
    assert_eq!(process.stop(), Some(0), "{}", job.log());
}

fn assert_numbers(text: &str, decisions: &str) {
    let samples = samples(text);
    let exact = [
        ("whisperer_late_records_total".to_owned(), 1.0),
        ("whisperer_duplicate_records_total".to_owned(), 2.0),
        ("whisperer_dead_letters_total{reason=\"invalid_json\"}".to_owned(), 3.0),
        ("whisperer_decisions_total{trigger=\"failed\"}".to_owned(), 5.0),
        ("whisperer_read_records_total".to_owned(), 2.0 * USERS as f64 + 11.0),
        ("whisperer_lag_records".to_owned(), 0.0),
        (format!("whisperer_sink_rows_total{{sink=\"kafka/{decisions}\"}}"), 5.0),
        ("whisperer_sink_rows_total{sink=\"parquet/lake/dead_letters\"}".to_owned(), 3.0),
        ("whisperer_state_keys".to_owned(), USERS as f64),
        ("whisperer_checkpoint_failures_total".to_owned(), 0.0),
    ];
    for (name, value) in exact {
        assert_eq!(sum(&samples, &name), Some(value), "{name} in\n{text}");
    }
    let sum = |name: &str| sum(&samples, name).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    for partition in 0..PARTITIONS {
        assert!(sum(&format!("whisperer_read_records_total{{partition=\"{partition}\"}}")) >= USERS as f64);
        assert_eq!(sum(&format!("whisperer_lag_seconds{{partition=\"{partition}\"}}")), 0.0);
    }
    for worker in 0..2 {
        let of = |name: &str| sum(&format!("whisperer_{name}{{worker=\"{worker}\"}}"));
        assert!((0.0..5.0).contains(&of("frontier_delay_seconds")), "{text}");
        assert!(of("worker_parked_seconds_total") > 0.0, "{text}");
        for tier in ["hot", "cold"] {
            for metric in ["keys", "bytes"] {
                let name = format!("whisperer_state_{metric}{{worker=\"{worker}\",tier=\"{tier}\"}}");
                assert!(sum(&name) > 0.0, "{name} in\n{text}");
            }
        }
    }
    let epochs = sum("whisperer_epoch_latency_seconds_count");
    // A job that keeps up has ended the work of an epoch before the clock ends the epoch, so the sum may be 0.
    assert!(epochs > 100.0 && sum("whisperer_epoch_latency_seconds_sum") < epochs, "{text}");
    assert!(sum("whisperer_operator_busy_seconds_total{operator=\"ApplyKeyed\"}") > 0.0, "{text}");
    assert!(sum("whisperer_sink_wait_seconds_total") > 0.0, "{text}");
    let (checkpoints, number) = (sum("whisperer_checkpoints_total"), sum("whisperer_checkpoint_number"));
    // The first manifest is a claim.
    assert!(checkpoints >= 2.0 && number == checkpoints + 1.0, "{text}");
    assert_eq!(sum("whisperer_checkpoint_duration_seconds_count"), checkpoints);
    assert!(sum("whisperer_checkpoint_duration_seconds_sum") > 0.0 && sum("whisperer_checkpoint_bytes") > 0.0);
    assert!(sum("whisperer_checkpoint_age_seconds") < 60.0, "{text}");
    let watermark = sum("whisperer_watermark_seconds") - now_micros() as f64 / 1e6;
    assert!((-700.0..5.0).contains(&watermark), "{watermark}");
}

/// Every metric of the docs has a sample, and every one that is served stands in the docs.
fn assert_documented(text: &str) {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).expect("the docs");
    let (_, section) = docs.split_once("\n## Metrics\n").expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let names: BTreeSet<String> = cells
        .flat_map(|cell| cell.split('`').filter(|name| name.starts_with("whisperer_")).map(str::to_owned))
        .collect();
    assert!(names.len() > 30, "{names:?}");
    let mut served = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("name and type");
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let of_histogram = if kind == "histogram" { "_count" } else { "" };
        assert!(sum(&samples(text), &format!("{name}{suffix}{of_histogram}")).is_some(), "{name} has no sample");
        served.insert(format!("{name}{suffix}"));
    }
    assert_eq!(names, served, "the docs, and what is served");
}

#[test]
fn an_idle_topic_is_ready() {
    // Goal: a topic without a record, and partitions that nobody reads because there are more workers, make no job unready.
    let broker = Broker::new();
    let (events, decisions) = (broker.topic("events"), broker.topic("decisions"));
    let job = job(&broker, &events, &decisions);
    let mut process = job.start(&["--workers", "3"]);
    let address = process.address();
    until("ready", || {
        process.assert_alive();
        (fetch(address, "/readyz").0 == 200).then_some(())
    });
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        let (status, _, body) = fetch(address, "/readyz");
        assert_eq!(status, 200, "{body}");
    }
    let samples = samples(&fetch(address, "/metrics").2);
    assert_eq!(sum(&samples, "whisperer_lag_records"), Some(0.0));
    assert_eq!(sum(&samples, "whisperer_lag_seconds"), Some(0.0));
    assert_eq!(process.stop(), Some(0), "{}", job.log());
}

#[test]
fn a_state_that_was_lost_is_told() {
    // Goal: a topic that records checkpoints which the state folder does not know is an error that says so, not outputs that are passed over;
    // where they may come again, they do.
    let broker = Broker::new();
    let (events, decisions) = (broker.topic("events"), broker.topic("decisions"));
    let now = now_micros();
    broker.produce(&events, (0..50).map(|user| event(user, user, "payment_failed", now)));
    let job = job(&broker, &events, &decisions);
    assert_eq!(job.start(&["--until-end"]).end(), Some(0), "{}", job.log());
    let out = broker.end(&decisions);
    assert!(out >= 50, "{out}: {}", job.log());
    fs::remove_dir_all(job.folder().join("state")).expect("removed");
    assert_eq!(job.start(&["--until-end"]).end(), Some(1), "{}", job.log());
    let told = job.log();
    assert!(told.contains("has put out checkpoint") && told.contains("--repeat-outputs"), "{told}");
    assert_eq!(broker.end(&decisions), out);
    assert_eq!(job.start(&["--until-end", "--repeat-outputs"]).end(), Some(0), "{}", job.log());
    assert!(broker.end(&decisions) >= out + 50);
}
