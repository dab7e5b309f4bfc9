//! The command line as its users meet it: the built binary, what it prints where, and how it ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use whisperer_dataflows::job_file::{self, Overrides};
use whisperer_operators::job::CompiledJob;
use whisperer_schemas::TableSchema;
use whisperer_sinks::digest_of_table;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const INVALID: i32 = 2;

/// Lines and columns of a terminal as small as people have them.
const SCREEN: (usize, usize) = (40, 110);

/// What a call of the binary came to.
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Calls the binary in `folder`, without a terminal.
fn whisperer_in(folder: &Path, arguments: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    let Output { status, stdout, stderr } =
        command.current_dir(folder).args(arguments).env("WHISPERER_LOG", "error").output().expect("the binary runs");
    Answer {
        code: status.code().expect("it was not killed"),
        stdout: String::from_utf8(stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(stderr).expect("stderr is UTF-8"),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// Calls the binary at the root of the repository; it must end with `code`.
fn whisperer(code: i32, arguments: &[&str]) -> Answer {
    let answer = whisperer_in(&root(), arguments);
    assert_eq!(answer.code, code, "{arguments:?}\n{}{}", answer.stdout, answer.stderr);
    answer
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).expect("the file is there").lines().map(json).collect()
}

const ENGAGEMENT: &str = "config/jobs/engagement.toml";

/// The arguments of a small run of the main job into `output`.
fn small_run<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let run = ["run", ENGAGEMENT, "--events", "20000", "--users", "2000", "--output", output];
    run.iter().chain(more).copied().collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

#[test]
fn a_run_leaves_tables_and_says_what_it_did() {
    // Goal: the main job on a small generated input: a summary on stderr, nothing on stdout, decisions and a manifest on disk.
    let lake = tempfile::tempdir().expect("a temporary folder");
    let answer = whisperer(DONE, &small_run(text(lake.path()), &[]));
    assert_eq!(answer.stdout, "");
    for word in
        ["read", "accepted", "duplicate", "dead", "late", "all users", "churned", "win_back", "events/s", "digests"]
    {
        assert!(answer.stderr.contains(word), "no \"{word}\" in\n{}", answer.stderr);
    }
    assert!(answer.stderr.contains("20,000"), "{}", answer.stderr);
    assert!(!lines(&lake.path().join("decisions.ndjson")).is_empty());
    let manifests: Vec<_> = fs::read_dir(lake.path().join("_runs")).expect("manifests").collect();
    assert_eq!(manifests.len(), 1);
    for table in ["profiles", "decisions", "dead_letters"] {
        assert!(lake.path().join(table).is_dir(), "{table}");
    }
}

#[test]
fn a_summary_for_programs_adds_up() {
    // Goal: `--json` puts one object on stdout whose counts add up, with the same digests whatever the number of workers.
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let summaries = [(&one, "1"), (&two, "2")].map(|(lake, workers)| {
        json(&whisperer(DONE, &small_run(text(lake.path()), &["--json", "--workers", workers])).stdout)
    });
    let count = |name: &str| summaries[0]["counts"][name].as_u64().unwrap_or_else(|| panic!("no count of {name}"));
    assert_eq!(count("read"), 20_000);
    assert_eq!(count("read"), count("accepted") + count("duplicate") + count("dead"));
    assert_eq!(count("accepted"), count("on_time") + count("late"));
    let of = |kind: &str| -> u64 {
        let counts = summaries[0]["counts"].as_object().expect("counts").iter();
        counts.filter(|(name, _)| name.starts_with(kind)).filter_map(|(_, count)| count.as_u64()).sum()
    };
    assert_eq!(of("stage."), count("users"));
    assert_eq!(of("dead."), count("dead"));
    assert_eq!(of("decisions."), lines(&one.path().join("decisions.ndjson")).len() as u64);
    assert_eq!(summaries[0]["digests"], summaries[1]["digests"]);
    assert_eq!(summaries[0]["counts"], summaries[1]["counts"]);
}

#[test]
fn the_files_add_up_to_the_digests() {
    // Goal: what readers see is what the engine made: each table read back from its files has the digest of the run.
    let lake = tempfile::tempdir().expect("a temporary folder");
    let summary = json(&whisperer(DONE, &small_run(text(lake.path()), &["--json", "--workers", "2"])).stdout);
    let loaded = job_file::load_with(&root().join(ENGAGEMENT), &Overrides::default(), CompiledJob::new);
    let Ok((_, job)) = loaded else { panic!("the job does not compile") };
    let dead_letters = TableSchema::dead_letters();
    for table in
        [&*job.decisions, &*job.profiles, &dead_letters].into_iter().chain(job.views.tables().map(|table| &**table))
    {
        let digest = digest_of_table(lake.path(), &job.name, table).expect("the files can be read");
        assert_eq!(summary["digests"][table.name], digest.to_string(), "{}", table.name);
    }
}

#[test]
fn earlier_output_is_replaced_or_kept() {
    // Goal: a second run takes the place of the first; with `--keep` it is refused, and the first run's output stays as it was.
    let lake = tempfile::tempdir().expect("a temporary folder");
    whisperer(DONE, &small_run(text(lake.path()), &[]));
    whisperer(DONE, &small_run(text(lake.path()), &["--no-pin"]));
    let decisions = fs::read(lake.path().join("decisions.ndjson")).expect("decisions");
    let refused = whisperer(FAILED, &small_run(text(lake.path()), &["--keep"]));
    assert!(refused.stderr.starts_with("error: "), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    assert_eq!(fs::read(lake.path().join("decisions.ndjson")).expect("decisions"), decisions);
    assert_eq!(fs::read_dir(lake.path().join("_runs")).expect("manifests").count(), 1);
}

#[test]
fn generated_files_run_like_the_generator() {
    // Goal: `generate` writes what the source `generator` would give, so a run over the files decides the same.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [events, direct, read] = ["events", "direct", "read"].map(|name| text(folder.path()).to_owned() + "/" + name);
    let answer = whisperer(
        DONE,
        &["generate", "--events", "20000", "--users", "2000", "--partitions", "1", "--output", events.as_str()],
    );
    assert_eq!(answer.stdout, "");
    assert!(answer.stderr.contains("20000 lines"), "{}", answer.stderr);
    let input = format!("{events}/events-0.ndjson");
    assert_eq!(fs::read(&input).expect("the file").iter().filter(|byte| **byte == b'\n').count(), 20_000);
    let job = folder.path().join("job.toml");
    let engagement = fs::read_to_string(root().join(ENGAGEMENT)).expect("the job");
    let models = format!("model  = \"{}/config/jobs/models/", root().display());
    let engagement = engagement.replace("connector  = \"generator\"", "connector  = \"generator\"\npartitions = 1");
    fs::write(&job, engagement.replace("model = \"models/", &models).replace("model  = \"models/", &models))
        .expect("written");
    let run = |output: &str, more: &[&str]| {
        let arguments: Vec<&str> =
            ["run", text(&job), "--json", "--output", output].iter().chain(more).copied().collect();
        json(&whisperer(DONE, &arguments).stdout)
    };
    let direct = run(&direct, &["--events", "20000", "--users", "2000"]);
    let read = run(&read, &["--input", &input]);
    assert_eq!(direct["counts"], read["counts"]);
    for table in ["decisions", "profiles"] {
        assert_eq!(direct["digests"][table], read["digests"][table], "{table}");
    }
}

#[test]
fn one_partition_goes_to_stdout() {
    // Goal: `generate --output -` gives data on stdout and the rest on stderr; several partitions are refused there.
    let one = whisperer(DONE, &["generate", "--events", "100", "--users", "10", "--partitions", "1", "--output", "-"]);
    assert_eq!(one.stdout.lines().count(), 100);
    assert!(one.stderr.contains("100 lines"));
    let several = whisperer(FAILED, &["generate", "--events", "100", "--users", "10", "--output", "-"]);
    assert!(several.stderr.contains("--partitions 1"), "{}", several.stderr);
    assert_eq!(several.stdout, "");
}

#[test]
fn wrong_rates_are_wrong_arguments() {
    // Goal: a flag that cannot be is answered with what it may be; nothing is written.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = whisperer(INVALID, &["generate", "--start", "yesterday", "--output", text(folder.path())]);
    assert!(start.stderr.contains("\"yesterday\""), "{}", start.stderr);
    let unknown = whisperer(INVALID, &["run", ENGAGEMENT, "--worker", "2"]);
    assert!(unknown.stderr.contains("--workers"), "{}", unknown.stderr);
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[test]
fn a_good_job_is_called_valid() {
    // Goal: `check` says so on stdout, for every job of the repository.
    for job in [ENGAGEMENT, "config/jobs/retail.toml", "docs/first/job.toml"] {
        let answer = whisperer(DONE, &["check", job]);
        assert!(answer.stdout.contains("is valid"), "{}", answer.stdout);
        assert_eq!(answer.stderr, "");
    }
}

#[test]
fn a_wrong_job_is_answered_with_place_and_nearest_name() {
    // Goal: all mistakes at once, each with file, line, column and what was probably meant; `run` and `plan` say the same.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = fs::read_to_string(root().join("docs/first/job.toml")).expect("the job");
    let wrong = first.replace("payment_failures >= 2", "payment_failure >= 2").replace("\"7d\"", "\"90m\"");
    fs::write(folder.path().join("job.toml"), wrong).expect("written");
    let answers = [["check"], ["run"], ["plan"]].map(|[verb]| whisperer_in(folder.path(), &[verb, "job.toml"]));
    for answer in &answers {
        assert_eq!((answer.code, answer.stdout.as_str()), (INVALID, ""));
        for part in [
            "job.toml:15:14",
            "the nearest are \"1h\" or \"2h\"",
            "job.toml:23:11",
            "did you mean \"payment_failures\"?",
        ] {
            assert!(answer.stderr.contains(part), "no {part} in\n{}", answer.stderr);
        }
        assert!(answer.stderr.contains("2 mistakes"), "{}", answer.stderr);
        assert_eq!(answer.stderr, answers[0].stderr);
    }
}

#[test]
fn a_job_that_is_not_there_is_an_invalid_job() {
    // Goal: a missing job file is the caller's mistake, said with its name.
    let answer = whisperer(INVALID, &["check", "no/such/job.toml"]);
    assert!(answer.stderr.contains("no/such/job.toml"), "{}", answer.stderr);
    let input = whisperer(INVALID, &["run", "docs/first/job.toml", "--input", "no/such/*.ndjson"]);
    assert!(input.stderr.contains("no/such/*.ndjson"), "{}", input.stderr);
}

#[test]
fn a_plan_has_three_forms() {
    // Goal: the compiled dataflow as text, as JSON that parses, and as a Mermaid diagram, on stdout.
    let plan = |form: &str| whisperer(DONE, &["plan", ENGAGEMENT, "--format", form]).stdout;
    let words = plan("text");
    for part in ["apply_keyed", "exchange by key group", "state per user", "timers"] {
        assert!(words.contains(part), "no {part} in\n{words}");
    }
    let tree = json(&plan("json"));
    assert_eq!(tree["job"], "engagement");
    assert!(tree["features"].as_array().expect("features").iter().any(|name| name == "session_count"));
    assert!(tree["edges"].as_array().expect("edges").iter().all(|edge| edge["from"].is_string()));
    assert!(plan("mermaid").starts_with("flowchart LR\n"));
}

#[test]
fn a_user_is_explained() {
    // Goal: profile, contributions, triggers, timers and decisions of a user, as text and as JSON; an unknown user is an error.
    let lake = tempfile::tempdir().expect("a temporary folder");
    let lake = text(lake.path());
    whisperer(DONE, &small_run(lake, &[]));
    let decision = &lines(&Path::new(lake).join("decisions.ndjson"))[0];
    let user = decision["user_id"].as_str().expect("a user");
    let words = whisperer(DONE, &["explain", ENGAGEMENT, user, "--output", lake]).stdout;
    let trigger = decision["trigger"].as_str().expect("a trigger");
    for part in [user, "churn_risk_contributions", "timers", "lifecycle_stage", trigger] {
        assert!(words.contains(part), "no {part} in\n{words}");
    }
    let tree = json(&whisperer(DONE, &["explain", ENGAGEMENT, user, "--output", lake, "--format", "json"]).stdout);
    let decisions = tree["decisions"].as_array().expect("decisions");
    assert!(decisions.iter().any(|other| other["decision_id"] == decision["decision_id"]));
    assert_eq!(tree["profiles"][0]["final"], true);
    let nobody = whisperer(FAILED, &["explain", ENGAGEMENT, "usr_nobody0000000000", "--output", lake]);
    assert!(nobody.stderr.contains("usr_nobody0000000000"), "{}", nobody.stderr);
    let nothing = whisperer(FAILED, &["explain", ENGAGEMENT, user, "--output", &format!("{lake}/nothing")]);
    assert!(nothing.stderr.contains("run it first"), "{}", nothing.stderr);
}

/// A job with a view, over some generated events, with a checkpoint every ten small epochs.
const SEEN: &str = r#"
[job]
name = "seen"
[source]
connector = "generator"
users = 500
events = 5000
span = "30d"
[epoch]
bytes = 16384
[checkpoint]
dir = "state"
interval_ms = 100
[[feature]]
name = "events"
aggregate = "count"
[[view]]
name = "users"
aggregate = "count"
[[sink]]
connector = "parquet"
table = "views/*"
path = "lake"
"#;

#[test]
fn views_are_shown_as_they_are_and_as_they_were() {
    // Goal: the list of views, the contents of one at the end and as of an earlier day, its changes one by one, and a misspelt name.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    fs::write(folder.join("job.toml"), SEEN).expect("the job is written");
    let done = |arguments: &[&str]| {
        let answer = whisperer_in(folder, arguments);
        assert_eq!(answer.code, DONE, "{arguments:?}\n{}", answer.stderr);
        answer.stdout
    };
    let counts = json(&done(&["run", "job.toml", "--json", "--workers", "2"]))["counts"].clone();
    let listed = done(&["views", "job.toml"]);
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["users", "1"]);
    assert_eq!(json(&done(&["views", "job.toml", "users", "--format", "json"]))["users"], counts["users"]);
    assert!(done(&["views", "job.toml", "users"]).contains(&counts["users"].to_string()));
    let then = done(&["views", "job.toml", "users", "--format", "json", "--as-of", "2026-01-10T00:00:00Z"]);
    let then = json(&then)["users"].as_u64().expect("a count");
    assert!(then > 0 && then < counts["users"].as_u64().expect("a count"), "{then} of {counts}");

    let mut follow = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    let follow = follow.args(["views", "job.toml", "users", "--follow"]).current_dir(folder).stdout(Stdio::piped());
    let mut follow = follow.spawn().expect("the binary runs");
    let changes = BufReader::new(follow.stdout.take().expect("it is piped")).lines();
    let mut users = 0;
    for change in changes {
        let change = json(&change.expect("a line"));
        users += change["users"].as_i64().expect("a count") * change["_diff"].as_i64().expect("a diff");
        if users == counts["users"].as_i64().expect("a count") {
            break;
        }
    }
    follow.kill().expect("it runs until it is ended");
    follow.wait().expect("it has ended");

    let wrong = whisperer_in(folder, &["views", "job.toml", "user"]);
    assert_eq!(
        (wrong.code, wrong.stderr.as_str()),
        (FAILED, "error: the job has no view \"user\"; did you mean \"users\"?\n")
    );
}

#[test]
fn help_fits_a_screen() {
    // Goal: `-h` of every verb can be read without scrolling, and names every verb.
    let short = whisperer(DONE, &["-h"]).stdout;
    for verb in ["run", "check", "plan", "generate", "explain"] {
        assert!(short.contains(&format!("  {verb} ")), "{verb}");
        let help = whisperer(DONE, &[verb, "-h"]).stdout;
        for (screen, help) in [(SCREEN, &short), (SCREEN, &help)] {
            let widest = help.lines().map(|line| line.chars().count()).max().unwrap_or_default();
            assert!(help.lines().count() <= screen.0 && widest <= screen.1, "{verb}:\n{help}");
        }
    }
    assert_eq!(whisperer(INVALID, &[]).stdout, "");
}
