//! Confluent's Python client writes what a job reads, and reads what it writes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    outside,
    running::{
        broker::{Broker, generate},
        job::Job,
        topics::{Told, Topics, Wiring, job},
    },
};

/// Events of a test.
const EVENTS: u32 = 20_000;

/// A stranger: a Python, and where its files are.
struct Stranger {
    python: PathBuf,
    broker: Broker,
    files: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Stranger {
    fn new(test: &str) -> Option<Stranger> {
        let python = outside::python(test)?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = generate(folder.path(), EVENTS, &[]);
        Some(Stranger { python, broker: Broker::new(), files, _folder: folder })
    }

    /// Writes the events into a new topic; gives its name, and what was written.
    fn write(&self, registry: Option<&str>) -> (String, Value) {
        let events = self.broker.topic("events");
        let mut asked = json!({"brokers": self.broker.address, "topic": events, "files": self.files});
        if let Some(registry) = registry {
            asked["registry"] = registry.into();
        }
        (events, self.run("outside/kafka_write.py", &asked))
    }

    fn read(&self, events: &str, topics: &Topics) -> Value {
        topics.await_committed(&self.broker);
        let Topics { decisions, profiles, dead_letters, .. } = topics;
        let tables = json!({"decisions": decisions, "profiles": profiles, "dead_letters": dead_letters});
        let mut asked = json!({"brokers": self.broker.address, "events": events});
        asked.as_object_mut().expect("an object").extend(tables.as_object().expect("an object").clone());
        self.run("outside/kafka_read.py", &asked)
    }

    fn run(&self, script: &str, asked: &Value) -> Value {
        let printed = outside::run(&self.python, Path::new("."), script, &asked.to_string());
        serde_json::from_str(&printed).expect("JSON")
    }
}

/// Compares what a stranger has counted in the topics with what the run says, and its ids with those in the job's own file.
fn assert_agrees(read: &Value, summary: &Value, job: &Job, delivery: &str) {
    let counts = &summary["counts"];
    let said = |kind: &str| -> Value {
        let of_kind = counts.as_object().expect("counts").iter().filter_map(|(name, count)| {
            // The stranger does not tell of what there is none of.
            (count != 0).then_some((name.strip_prefix(kind)?.to_owned(), count.clone()))
        });
        Value::Object(of_kind.collect())
    };
    let [decisions, profiles, dead] = ["decisions", "profiles", "dead_letters"].map(|table| &read[table]);
    assert_eq!(decisions["by_trigger"], said("decisions."), "{delivery}: decisions");
    let mut ids: Vec<String> = serde_json::from_value(decisions["ids"].clone()).expect("ids");
    ids.sort_unstable();
    assert_eq!(ids, job.outcome().decisions, "{delivery}: ids");
    assert_eq!(profiles["by_stage"], said("stage."), "{delivery}: the last profiles of the users");
    assert_eq!((&profiles["users"], &profiles["final"]), (&counts["users"], &counts["users"]), "{delivery}");
    assert_eq!(profiles["digest"], summary["digests"]["profiles"], "{delivery}: the sum of the rows' hashes");
    // Nothing removes a user yet: a tombstone would be a mistake.
    assert_eq!(profiles["tombstones"], 0, "{delivery}");
    assert_eq!(dead["by_reason"], said("dead."), "{delivery}: dead letters");
    assert_eq!(dead["places"], dead["rows"], "{delivery}: no record is a dead letter twice");
    assert_eq!(dead["records"], counts["read"], "{delivery}: what was read");
}

#[test]
fn a_stranger_finds_what_the_run_says() {
    // Goal: events that confluent-kafka has written, and records that are none, become decisions, a changelog and dead letters in which it
    // finds, with `read_committed`, the ids, counts and digests of the run and every dead record byte for byte; in both deliveries.
    let Some(stranger) = Stranger::new("a_stranger_finds_what_the_run_says") else { return };
    let (events, written) = stranger.write(None);
    let deliveries = ["idempotent", "exactly_once"];
    let wiring = |delivery| Wiring { delivery, ..Wiring::default() };
    let jobs = deliveries.map(|delivery| job(&stranger.broker, &events, &wiring(delivery)));
    let running = jobs.each_ref().map(|(job, _)| job.start_json(&["--until-end", "--workers", "2"]));
    for ((delivery, (job, topics)), running) in deliveries.iter().zip(&jobs).zip(running) {
        let summary = job.summary(running);
        assert_eq!(summary["counts"]["read"], written["records"], "{delivery}");
        let read = stranger.read(&events, topics);
        assert!(read["dead_letters"]["rows"].as_u64() >= written["strange"].as_u64(), "{delivery}: {read}");
        assert_agrees(&read, &summary, job, delivery);
    }
}

#[cfg(feature = "registry")]
#[test]
fn avro_of_a_stranger_is_read() {
    // Goal: the same events as Avro, framed by Confluent's serializer with a schema that it has registered itself, make the same decisions
    // and profiles as JSON does; what is no message is a dead letter with its bytes.
    let Some(stranger) = Stranger::new("avro_of_a_stranger_is_read") else { return };
    let registry = crate::stand_in::StandIn::new(Vec::new());
    let url = registry.options().url;
    let source = format!("format = \"avro\"\nids = \"strict\"\nevent_types = []\nregistry = {{ url = \"{url}\" }}");
    let ((json, _), (avro, written)) = (stranger.write(None), stranger.write(Some(&url)));
    assert!(written["encoded"].as_u64() > Some(u64::from(EVENTS) * 9 / 10), "most are Avro: {written}");
    let wirings = [(&json, ""), (&avro, source.as_str())];
    let jobs = wirings.map(|(events, source)| {
        (events, job(&stranger.broker, events, &Wiring { delivery: "exactly_once", source, ..Wiring::default() }))
    });
    let running = jobs.each_ref().map(|(_, (job, _))| job.start_json(&["--until-end"]));
    let told = jobs.iter().zip(running).map(|((events, (job, topics)), running)| {
        let summary = job.summary(running);
        assert_agrees(&stranger.read(events, topics), &summary, job, events);
        Told::read(&stranger.broker, topics)
    });
    let told: Vec<Told> = told.collect();
    assert_eq!(told[1].dead_letters.len(), told[0].dead_letters.len());
    let avro = Told { dead_letters: told[0].dead_letters.clone(), ..told[1].clone() };
    avro.assert_equals(&told[0], "Avro and JSON");
}
