//! Tests of reading that need no error text; those are golden, in `tests/job_errors.rs`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use whisperer_connectors::format::{
    EventTypes, Ids,
    mapping::{Constant, From, Member, TimeUnit},
};
#[cfg(feature = "kafka")]
use whisperer_connectors::kafka::Start;
use whisperer_operators::{
    job::CompiledJob,
    spec::{Aggregate, Entity, ModelValue, ScoreBody, Transform},
};
use whisperer_schemas::time::{DAY, HOUR, MINUTE, SECOND};
use whisperer_sinks::TableLog;

use super::{shape::ALL, *};

const MINIMAL: &str = "[job]\nname = \"default\"\n[source]\nconnector = \"generator\"\n";

fn config(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(path)
}

/// Reads a job file with this text, in a folder of its own.
fn load_text(text: &str) -> Result<JobFile, JobFileErrors> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("job.toml");
    fs::write(&path, text).expect("a file in a temporary folder");
    load(&path, &Overrides::default())
}

fn messages(text: &str) -> Vec<String> {
    let errors = load_text(text).expect_err("a wrong job");
    errors.errors().iter().map(|error| error.message.clone()).collect()
}

#[test]
fn every_example_loads() {
    // Goal: what a data team copies is right. Every job of `config/` is read and compiled without a mistake.
    let jobs = fs::read_dir(config("jobs")).expect("config/jobs");
    let mut count = 0;
    let in_this_build = |path: &Path| cfg!(feature = "kafka") || !path.ends_with("live.toml");
    for path in jobs.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file() && in_this_build(path)) {
        let job = load_with(&path, &Overrides::default(), CompiledJob::new);
        let (job, _) = job.unwrap_or_else(|errors| panic!("{errors}"));
        assert!(job.spec.triggers.len() >= 5 && !job.sinks.is_empty(), "{}", path.display());
        count += 1;
    }
    assert_eq!(count, if cfg!(feature = "kafka") { 3 } else { 2 });
}

#[test]
fn the_engagement_job_is_that_of_the_event_contract() {
    // Goal: its eight metrics, six scores, the levels of churn risk and the five named stages are there.
    let job = load(&config("jobs/engagement.toml"), &Overrides::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let spec = &job.spec;
    let features: BTreeSet<&str> = spec.features.iter().map(|f| f.name.value.as_str()).collect();
    let scores: BTreeSet<&str> = spec.scores.iter().map(|s| s.name.value.as_str()).collect();
    for metric in [
        "session_count",
        "avg_session_duration",
        "days_since_last_activity",
        "feature_adoption_rate",
        "error_encounter_count",
        "engagement_trend",
        "support_ticket_count",
        "conversion_likelihood",
    ] {
        assert!(features.contains(metric) || scores.contains(metric), "{metric}");
    }
    for score in [
        "churn_risk",
        "engagement_level",
        "monetization_readiness",
        "feature_satisfaction",
        "support_satisfaction",
        "overall_health",
    ] {
        assert!(scores.contains(score), "{score}");
    }
    let levels: Vec<_> = spec.scores[0].levels.iter().map(|(name, bound)| (name.value.as_str(), *bound)).collect();
    assert_eq!(levels, [("low", 0.0), ("medium", 0.3), ("high", 0.6), ("critical", 0.85)]);
    let stages: Vec<_> = spec.stages.iter().map(|s| s.name.value.as_str()).collect();
    assert_eq!(stages, ["churned", "at_risk", "onboarding", "power_user", "activated"]);
}

#[test]
fn default_toml_gives_the_defaults() {
    // Goal: a value in `config/default.toml` is what leaving its key out gives.
    let shown = load(&config("default.toml"), &Overrides::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let default = load_text(MINIMAL).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(shown.spec, default.spec);
    assert_eq!(shown.source, default.source);
    assert_eq!(shown.format, default.format);
    assert_eq!(shown.epoch, default.epoch);
    assert_eq!(shown.sinks, default.sinks);
    assert_eq!((shown.delivery, shown.history), (default.delivery, default.history));
    assert_eq!(shown.operations, default.operations);
}

#[test]
fn default_toml_holds_every_key() {
    // Goal: no key is secret. Every key of every shape stands in its section of `config/default.toml`, commented out or not.
    let text = fs::read_to_string(config("default.toml")).expect("config/default.toml");
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in text.lines().map(|line| line.trim_start_matches("# ")) {
        if line.starts_with('[') {
            section = line.split([' ', '#']).next().unwrap_or("").to_owned();
            keys.insert(("the job file".to_owned(), section.trim_matches(['[', ']']).to_owned()));
        } else if let Some((key, _)) = line.split_once('=') {
            keys.insert((section.clone(), key.trim().to_owned()));
        }
    }
    for shape in ALL.iter().filter(|shape| shape.title != "a field of [source.map]") {
        for key in shape.keys.iter().filter(|key| !["map", "registry", "link", "unlink"].contains(*key)) {
            assert!(keys.contains(&(shape.title.to_owned(), (*key).to_owned())), "{} {key}", shape.title);
        }
    }
    for key in shape::MEMBER.keys {
        assert!(text.contains(&format!("{key} = ")), "{key}");
    }
}

#[test]
fn connector_keys_are_keys_of_the_source() {
    // Goal: the lists that say which key belongs to which connector name no key that the section does not have.
    for key in shape::FILE_KEYS.iter().chain(shape::GENERATOR_KEYS).chain(shape::KAFKA_KEYS) {
        assert!(shape::SOURCE.keys.contains(key), "{key}");
    }
}

/// The design's example, as far as it belongs to this version, with every key that it leaves out.
const EXAMPLE: &str = r#"
[job]
name   = "engagement"
version = 3
entity = ["user_id"]
decay_days = 30
distinct_max = 100
deliver_from = "beginning"
expires_after = "3d"
[source]
connector = "file"
path = "events/*.ndjson"
partitioned = true
format = "json"
out_of_orderness = "30s"
event_types = ["page_teleported"]
event_bytes_max = 4096
future_max = "2h"
[source.map]
user_id    = "user.id"
timestamp  = { field = "ts", unit = "ms" }
app_id     = { value = "shop" }
event_type = { field = "page", rename = { NextSong = "feature_used", Error = "error_encountered" }, otherwise = "page_viewed" }
properties = { feature = "page", duration = "length", paid = { value = true } }
[epoch]
records = 100
interval_ms = 20
[dedup]
horizon = "10m"
[[feature]]
name = "errors_24h"
aggregate = "count"
where = "event_type in ('error_encountered', 'app_crashed')"
window = "24h"
[[feature]]
name = "feature_adoption_rate"
aggregate = "distinct"
of = "properties.feature"
window = "30d"
divide_by = 12
[[score]]
name = "churn_risk"
expr = "errors_24h / 10"
levels = { critical = 0.85, low = 0.0, medium = 0.3, high = 0.6 }
[[stage]]
name = "churned"
when = "errors_24h >= 30"
[[trigger]]
name     = "win_back"
when     = "churn_risk >= 0.7 and lifecycle_stage <> 'churned'"
rearm    = "churn_risk < 0.5"
cooldown = "7d"
priority = 10
action   = { template = "win_back", channels = ["email", "push"], share = 0.5, tries = 3 }
[[sink]]
connector = "parquet"
table = "profiles"
path  = "data/lake"
commit_interval = "90s"
[[sink]]
connector = "stdout"
[snapshot]
every      = "1h"
full_every = "1d"
[checkpoint]
dir = "state"
interval_ms = 2000
retain = 5
remote = "file:///backup/state"
[ready]
lag_ms_max = 250
[cluster]
watchdog_ms = 30000
[server]
listen = "127.0.0.1:9184"
[telemetry]
log = "debug"
"#;

#[test]
fn the_example_of_the_design_is_read() {
    // Goal: every key of the design's example that belongs to this version is accepted, and what it says arrives.
    let job = load_text(EXAMPLE).unwrap_or_else(|errors| panic!("{errors}"));
    let spec = &job.spec;
    assert_eq!((spec.name.as_str(), spec.version, spec.entity), ("engagement", 3, Entity::User));
    assert_eq!((spec.decay_days, spec.distinct_max, spec.dedup_horizon), (30, 100, 10 * MINUTE));
    assert_eq!(spec.out_of_orderness, 30 * SECOND);
    assert_eq!((spec.snapshot.every, spec.snapshot.full_every), (Some(HOUR), Some(DAY)));
    assert_eq!(spec.features[0].window.as_ref().map(|window| window.value), Some(DAY));
    assert_eq!((spec.features[1].aggregate, spec.features[1].divide_by), (Aggregate::Distinct, Some(12.0)));
    assert_eq!(spec.triggers[0].cooldown, 7 * DAY);
    let action = r#"{"template":"win_back","channels":["email","push"],"share":0.5,"tries":3}"#;
    assert_eq!(spec.triggers[0].action.as_deref(), Some(action));
    let levels: Vec<_> = spec.scores[0].levels.iter().map(|(name, _)| name.value.as_str()).collect();
    assert_eq!(levels, ["low", "medium", "high", "critical"]);
    assert_eq!(job.epoch, EpochSettings { size: EpochSize::Records(100), interval_ms: 20 });
    assert_eq!(job.sinks[1], SinkSettings::Stdout);
    let (table, commit_interval, log) = (LakeTable::Profiles, 90 * SECOND, TableLog::None);
    assert_eq!(job.sinks[0], SinkSettings::Parquet { table, path: "data/lake".into(), commit_interval, log });
    check_source(&job);
    check_operations(&job);
}

fn check_operations(job: &JobFile) {
    let delivery = DeliverySettings { deliver_from: DeliverFrom::Beginning, expires_after: Some(3 * DAY) };
    assert_eq!((job.delivery, &job.history), (delivery, &None));
    let checkpoint = CheckpointSettings {
        dir: Some("state".into()),
        interval_ms: 2000,
        retain: 5,
        remote: Some(Remote::Folder("/backup/state".into())),
    };
    let operations = &job.operations;
    assert_eq!(operations.checkpoint, checkpoint);
    assert_eq!((operations.ready.lag_ms_max, operations.cluster.watchdog_ms), (250, 30_000));
    assert_eq!(operations.server.listen.as_deref(), Some("127.0.0.1:9184"));
    assert_eq!(operations.telemetry, TelemetrySettings { otlp: None, log: Some("debug") });
}

fn check_source(job: &JobFile) {
    let SourceSettings::File(file) = &job.source else { panic!("{:?}", job.source) };
    assert_eq!((file.path.as_str(), file.partitioned, file.event_bytes_max), ("events/*.ndjson", true, 4096));
    assert_eq!(file.epoch_size, EpochSize::Records(100));
    assert_eq!(file.root, job.files[0].0.parent().expect("the folder"));
    let format = &job.format;
    assert_eq!((format.ids, format.future_max, format.app_id.as_str()), (Ids::Any, 2 * HOUR, "engagement"));
    assert_eq!(format.event_types, EventTypes::Contract(vec!["page_teleported".into()]));
    let mapping = format.format.mapping().expect("a mapping");
    let member = |path: &[&str]| Member { path: path.iter().map(|s| (*s).to_owned()).collect(), ..Member::default() };
    assert_eq!(mapping.user_id, Some(From::Member(member(&["user", "id"]))));
    assert_eq!(mapping.timestamp, Some(From::Member(Member { unit: Some(TimeUnit::Millis), ..member(&["ts"]) })));
    assert_eq!(mapping.app_id, Some(From::Value(Constant::Text("shop".into()))));
    let rename = [("NextSong", "feature_used"), ("Error", "error_encountered")];
    let rename = rename.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    let page = Member { rename, otherwise: Some("page_viewed".into()), ..member(&["page"]) };
    assert_eq!(mapping.event_type, Some(From::Member(page)));
    assert_eq!(mapping.properties[1], ("duration".to_owned(), From::Member(member(&["length"]))));
    assert_eq!(mapping.properties[2], ("paid".to_owned(), From::Value(Constant::Bool(true))));
}

#[test]
fn spans_are_the_contents_of_strings() {
    // Goal: an expression's span is the text between its quotes, in all four kinds of strings, so that a place inside the
    // expression is the span's start plus its offset.
    let expressions = ["\"a > 1\"", "'b > 1'", "\"\"\"\nc > 1\nand d < 2\"\"\"", "'''e > 'x' '''", "\"\"\"f\"\"\""];
    let stages = expressions.iter().enumerate();
    let stages = stages.map(|(i, when)| format!("[[stage]]\nname = \"s{i}\"\nwhen = {when}\n"));
    let text = format!("{MINIMAL}{}", stages.collect::<String>());
    let job = load_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    for stage in &job.spec.stages {
        assert_eq!(&text[stage.when.span.bytes.clone()], stage.when.value);
        assert_eq!(&text[stage.name.span.bytes.clone()], stage.name.value);
    }
}

#[test]
fn model_files_are_read_beside_the_job() {
    // Goal: paths of models are relative to the job file, spans name the model file, every transform is understood.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = "intercept = -1\n\
        [[feature]]\nname = \"n\"\nweight = 2\n\
        [[feature]]\nname = \"n\"\nweight = 0.5\ntransform = \"log1p\"\nnull = 3\nreference = 1\n\
        [[feature]]\nname = \"n\"\nweight = 1\ntransform = { standard = { mean = 3, sd = 2 } }\n\
        [[feature]]\nname = \"n\"\nweight = 1\ntransform = { clip = { min = 0, max = 9.5 } }\n\
        [[feature]]\nname = \"p\"\nweight = 1\ntransform = { one_hot = \"pro\" }\nnull = \"free\"\n";
    let job =
        format!("{MINIMAL}[[score]]\nname = \"a\"\nmodel = \"m.toml\"\n[[score]]\nname = \"b\"\nmodel = \"m.toml\"\n");
    fs::write(folder.path().join("m.toml"), model).expect("the model");
    fs::write(folder.path().join("job.toml"), job).expect("the job");
    let job = load(&folder.path().join("job.toml"), &Overrides::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(job.files.len(), 2);
    assert_eq!(job.spec.scores[0].body, job.spec.scores[1].body);
    let ScoreBody::Model(read) = &job.spec.scores[0].body else { panic!("no model") };
    assert_eq!(read.intercept, -1.0);
    let transforms: Vec<_> = read.terms.iter().map(|term| term.transform.clone()).collect();
    let expected = [
        Transform::Identity,
        Transform::Log1p,
        Transform::Standard { mean: 3.0, sd: 2.0 },
        Transform::Clip { min: 0.0, max: 9.5 },
        Transform::OneHot("pro".into()),
    ];
    assert_eq!(transforms, expected);
    assert_eq!(read.terms[1].null, Some(ModelValue::Number(3.0)));
    assert_eq!(read.terms[1].reference, Some(ModelValue::Number(1.0)));
    assert_eq!(read.terms[4].null, Some(ModelValue::Text("free".into())));
    let name = &read.terms[4].name;
    assert_eq!((name.span.file, &model[name.span.bytes.clone()]), (1, "p"));
}

#[test]
fn flags_lie_over_the_job() {
    // Goal: each flag changes what it names, and nothing else.
    let path = config("jobs/engagement.toml");
    let flags = Overrides { events: Some(10), users: Some(5), output: Some("out".into()), ..Overrides::default() };
    let job = load(&path, &flags).unwrap_or_else(|errors| panic!("{errors}"));
    let SourceSettings::Generator(generator) = &job.source else { panic!("{:?}", job.source) };
    assert_eq!((generator.events, generator.users), (10, 5));
    for sink in &job.sinks {
        match sink {
            SinkSettings::Parquet { path, .. } => assert_eq!(path, Path::new("out")),
            SinkSettings::File { path } => assert_eq!(path, Path::new("out/decisions.ndjson")),
            SinkSettings::Stdout | SinkSettings::Kafka(_) => panic!("the job has none"),
        }
    }
    let job = load(&path, &Overrides { input: Some("e.ndjson".into()), ..Overrides::default() });
    let SourceSettings::File(file) = job.unwrap_or_else(|errors| panic!("{errors}")).source else { panic!("no file") };
    assert_eq!((file.path.as_str(), file.root.as_path()), ("e.ndjson", Path::new("")));
}

const TOPIC: &str = "[job]\nname = \"j\"\n[source]\nconnector = \"kafka\"\nbrokers = \"a:1,b:2\"\ntopic = \"events\"\n";

#[cfg(feature = "kafka")]
#[test]
fn a_topic_is_read_with_every_key() {
    // Goal: each key arrives, properties also where TOML takes their dots for tables; what is left out is the default.
    let topic =
        |more: &str| match load_text(&format!("{TOPIC}{more}")).unwrap_or_else(|errors| panic!("{errors}")).source {
            SourceSettings::Kafka(options) => options,
            other => panic!("{other:?}"),
        };
    let default =
        KafkaOptions { group: "whisperer-j".into(), headers: false, ..KafkaOptions::new("a:1,b:2", "events") };
    assert_eq!(topic(""), default);
    let keys = "group = \"g\"\nkeyed = false\nallow_repartition = true\nidle_timeout_ms = 2000\nuntil_end = true\n\
                out_of_orderness = \"1m\"\nevent_bytes_max = 4096\nstart = \"latest\"\n\
                [source.properties]\nsocket.keepalive.enable = true\n\"fetch.wait.max.ms\" = 50\nclient.rack = \"${HOME}\"\n\
                [epoch]\nrecords = 7\n";
    let home = std::env::var("HOME").expect("a home");
    let properties = [("socket.keepalive.enable", "true"), ("fetch.wait.max.ms", "50"), ("client.rack", home.as_str())];
    let expected = KafkaOptions {
        group: "g".into(),
        keyed: false,
        allow_repartition: true,
        idle_timeout: 2 * SECOND,
        until_end: true,
        out_of_orderness: MINUTE,
        event_bytes_max: 4096,
        start: Start::Latest,
        epoch_size: EpochSize::Records(7),
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..default
    };
    assert_eq!(topic(keys), expected);
    let start = topic("start = 2026-01-01T00:00:00Z\n").start;
    assert_eq!(start, topic("start = \"2026-01-01T00:00:00Z\"\n").start);
    assert_eq!(start, Start::Time(1_767_225_600 * SECOND));
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_build_without_kafka_says_so() {
    // Goal: a job that asks for what the build lacks is told which feature it is.
    let errors = load_text(TOPIC).expect_err("no Kafka");
    assert!(errors.render().contains("--features kafka"), "{errors}");
}

#[test]
#[cfg(feature = "kafka")]
fn topics_are_sinks() {
    // Goal: what a sink into Kafka says arrives; dotted properties may be quoted or not; what is left out has its default.
    let sinks = "[[sink]]\nconnector = \"kafka\"\nbrokers = \"a:1,b:2\"\ntopic = \"d.e_c-1\"\n\
        [[sink]]\nconnector = \"kafka\"\nbrokers = \"a:1\"\ntopic = \"p\"\ntable = \"profiles\"\n\
        delivery = \"exactly_once\"\ncreate = { partitions = 12 }\n\
        [sink.properties]\nsasl.password = \"s\"\n\"linger.ms\" = 5\nssl.key.x = true\n";
    let job = load_text(&format!("{MINIMAL}{sinks}")).unwrap_or_else(|errors| panic!("{errors}"));
    let decisions = KafkaSink {
        table: LakeTable::Decisions,
        brokers: "a:1,b:2".into(),
        topic: "d.e_c-1".into(),
        delivery: Delivery::Idempotent,
        changes: Changes::Upsert,
        create: None,
        properties: std::collections::BTreeMap::new(),
    };
    let properties = [("sasl.password", "s"), ("linger.ms", "5"), ("ssl.key.x", "true")];
    let profiles = KafkaSink {
        table: LakeTable::Profiles,
        brokers: "a:1".into(),
        topic: "p".into(),
        delivery: Delivery::ExactlyOnce,
        changes: Changes::Upsert,
        create: Some(TopicShape { partitions: Some(12), replication: None }),
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    assert_eq!(job.sinks, [SinkSettings::Kafka(decisions), SinkSettings::Kafka(profiles)]);
}

#[test]
#[cfg(feature = "kafka")]
fn mistakes_of_topics() {
    // Goal: what cannot be a sink into Kafka is told with its reason.
    let sink = |rest: &str| format!("{MINIMAL}[[sink]]\nconnector = \"kafka\"\nbrokers = \"a:1\"\n{rest}");
    let cases = [
        (sink(""), "[[sink]] needs \"topic\""),
        (sink("topic = \"a b\"\n"), "\"a b\" is no name of a topic"),
        (sink("topic = \"a\"\npath = \"x\"\n"), "\"path\" belongs to the connectors \"file\" and \"parquet\""),
        (sink("topic = \"a\"\nproperties = { acks = 1 }\n"), "the property \"acks\" cannot be set"),
        (
            sink("topic = \"a\"\nproperties = { a.b = [1] }\n"),
            "the property \"a.b\" must be a text, a number or true or false",
        ),
        (
            sink("topic = \"a\"\nproperties = { a.b = \"${NO_SUCH_VARIABLE}\" }\n"),
            "the environment has no variable \"NO_SUCH_VARIABLE\"",
        ),
        (sink("topic = \"a\"\ncreate = { partition = 1 }\n"), "unknown key \"partition\" in \"create\""),
        (
            sink("topic = \"a\"\n") + "[[sink]]\nconnector = \"kafka\"\nbrokers = \"c:1\"\ntopic = \"a\"\n",
            "another sink writes to this topic already",
        ),
        (
            format!("{MINIMAL}[[sink]]\nconnector = \"stdout\"\ntopic = \"a\"\n"),
            "\"topic\" belongs to the connector \"kafka\"",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(messages(&text), [message]);
    }
}

#[test]
#[cfg(not(feature = "kafka"))]
fn a_build_without_kafka_says_so() {
    // Goal: a job that needs what the build lacks names the feature.
    let text = format!("{MINIMAL}[[sink]]\nconnector = \"kafka\"\nbrokers = \"a:1\"\ntopic = \"a\"\n");
    assert_eq!(messages(&text), ["the connector \"kafka\" is not in this build"]);
}

#[test]
fn flags_of_a_run_lie_over_the_operations() {
    // Goal: the state folder and the address of this run take the place of the job's; an address that is none is a mistake.
    let path = config("jobs/engagement.toml");
    let flags = Overrides { state: Some("here".into()), listen: Some("localhost:0".into()), ..Overrides::default() };
    let job = load(&path, &flags).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(job.operations.checkpoint.dir.as_deref(), Some(Path::new("here")));
    assert_eq!(job.operations.server.listen.as_deref(), Some("localhost:0"));
    let errors = load(&path, &Overrides { listen: Some("9184".into()), ..Overrides::default() });
    assert!(errors.expect_err("no address").render().contains("\"--listen\": \"9184\" is not an address"));
}

#[test]
fn what_is_delivered_is_read() {
    // Goal: `deliver_from` takes two words and instants, both as text and as TOML's own.
    let read = |value: &str| {
        let text = MINIMAL.replace("[source]", &format!("deliver_from = {value}\n[source]"));
        load_text(&text).map(|job| job.delivery.deliver_from)
    };
    assert_eq!(read("\"now\""), Ok(DeliverFrom::Now));
    assert_eq!(read("\"beginning\""), Ok(DeliverFrom::Beginning));
    for instant in ["\"1970-01-02T00:00:00Z\"", "1970-01-02T00:00:00Z"] {
        assert_eq!(read(instant), Ok(DeliverFrom::At(DAY)));
    }
    assert!(read("\"yesterday\"").is_err_and(|errors| errors.render().contains("\"beginning\"")));
}

#[test]
fn checkpoints_lie_between_epochs() {
    // Goal: their interval is a multiple of the epoch's: another one is an error with the nearest two, and the default follows.
    let text = |epoch: u64, more: &str| format!("{MINIMAL}[epoch]\ninterval_ms = {epoch}\n[checkpoint]\n{more}");
    let interval = |text: &str| load_text(text).map(|job| job.operations.checkpoint.interval_ms);
    assert_eq!(interval(&text(30, "interval_ms = 90")), Ok(90));
    assert_eq!(interval(&text(300, "")), Ok(10_200));
    let errors = interval(&text(30, "interval_ms = 100")).expect_err("no multiple");
    assert!(errors.render().contains("the nearest are 90 or 120"), "{errors}");
}

#[test]
fn what_a_build_lacks_is_said_with_its_feature() {
    // Goal: a job asks for memory bounds, object stores and traces; a build without them names the feature, the full build reads it.
    let text = format!(
        "{MINIMAL}[checkpoint]\nremote = \"s3://bucket/prefix\"\n[state]\nmemory_bytes_max = \"1GiB\"\n\
         [telemetry]\notlp = \"http://localhost:4318/\"\n"
    );
    let features = [
        (cfg!(feature = "object-store"), "\"object-store\""),
        (cfg!(feature = "rocksdb"), "\"rocksdb\""),
        (cfg!(feature = "otel"), "\"otel\""),
    ];
    match load_text(&text) {
        Ok(job) => {
            assert!(features.iter().all(|(built, _)| *built));
            let operations = job.operations;
            assert_eq!(operations.state.memory_bytes_max, Some(1 << 30));
            assert_eq!(operations.telemetry.otlp.as_deref(), Some("http://localhost:4318"));
            assert_eq!(operations.checkpoint.remote, Some(Remote::ObjectStore("s3://bucket/prefix".into())));
        }
        Err(errors) => {
            let shown = errors.render();
            features.iter().for_each(|(built, name)| assert_eq!(!built, shown.contains(name), "{shown}"));
        }
    }
}

#[test]
fn flags_for_another_source_are_refused() {
    // Goal: a flag that would do nothing is an error.
    let flags = Overrides { events: Some(10), ..Overrides::default() };
    let errors = load(&config("jobs/retail.toml"), &flags).expect_err("no generator");
    assert!(errors.render().contains("\"--events\" is for a job whose source is the generator"), "{errors}");
}

#[test]
fn mistakes_of_both_steps_are_shown_together() {
    // Goal: the compiler sees the job even where the file has mistakes; its mistakes are added, except where one is known.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("job.toml");
    let text = format!("{MINIMAL}[[stage]]\nname = \"un known\"\nwhen = \"x > 1\"\n");
    fs::write(&path, text).expect("the job");
    let errors = load_with(&path, &Overrides::default(), |spec| {
        let error = |place: &Span| JobError { span: place.clone(), message: "compiler".into(), hint: None };
        Err::<(), _>(vec![error(&spec.stages[0].name.span), error(&spec.stages[0].when.span)])
    });
    let errors = errors.expect_err("two mistakes");
    let messages: Vec<_> = errors.errors().iter().map(|error| error.message.as_str()).collect();
    assert_eq!(messages, ["\"un known\" is not a name", "compiler"]);
}

#[test]
fn a_job_file_that_is_not_there_is_an_error() {
    // Goal: an I/O error is told with the path.
    let errors = load(Path::new("no/such/job.toml"), &Overrides::default()).expect_err("no file");
    assert!(errors.render().contains("cannot read the job file"), "{errors}");
    assert!(errors.render().contains("no/such/job.toml"), "{errors}");
}

#[test]
fn any_key_of_any_wrong_type_is_a_mistake_and_no_panic() {
    // Goal: a bad job file is data. Every key of every section is tried with a value of each type; nothing panics, and a key
    // that takes none of the wrong types says so.
    let values = ["1", "-1.5", "true", "\"\"", "\"é\"", "[]", "[1]", "{}", "{ a = 1 }", "2026-01-01", "nan", "'x'"];
    for shape in ALL.iter().filter(|shape| shape.title.starts_with('[')) {
        for (key, value) in shape.keys.iter().flat_map(|key| values.iter().map(move |value| (key, value))) {
            let text = format!("{}\n{key} = {value}\n", shape.title);
            let errors = load_text(&text).expect_err("a name is missing");
            assert!(!errors.render().is_empty());
        }
    }
}

#[test]
fn names_are_distinct_and_free() {
    // Goal: features and scores share one namespace with the fixed columns and the columns derived from them.
    let feature = |name: &str, rest: &str| format!("[[feature]]\nname = \"{name}\"\naggregate = \"count\"\n{rest}");
    let score = |name: &str| format!("[[score]]\nname = \"{name}\"\nexpr = \"1\"\nlevels = {{ low = 0 }}\n");
    let cases = [
        (feature("a", "") + &feature("a", ""), "the name \"a\" is taken by the feature \"a\""),
        (feature("a", "") + &score("a"), "the name \"a\" is taken by the feature \"a\""),
        (feature("a_level", "") + &score("a"), "the name \"a_level\" is taken by the feature \"a_level\""),
        (feature("user_id", ""), "the name \"user_id\" is taken by a column of every profiles table"),
        (feature("trigger", ""), "the name \"trigger\" is taken by a column of every decisions table"),
        (score("lifecycle_stage"), "the name \"lifecycle_stage\" is taken by a column of every profiles table"),
        (feature("Case", ""), "\"Case\" is a word of the expression language, not a name"),
        (feature("_x", ""), "\"_x\" is not a name"),
    ];
    for (text, message) in cases {
        assert_eq!(messages(&format!("{MINIMAL}{text}")), [message]);
    }
}
