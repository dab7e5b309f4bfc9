//! Erasure: what is left after it is what a log would have given in which the person's records hold a position and an event time alone.
//!
//! ```text
//! run A   the log as it is; a tenth of the users is erased, by events in it and by requests while it runs, stops and goes on
//! run B   the log with the covered records of those users renamed to somebody whose every event is suppressed from the start
//! ```
//! What A's control log says is covered decides what is renamed for B. Then all tables, views and digests have to be equal.
//! `WHISPERER_ERASURE_USERS` gives the number of users (1,000), with ten events each.

mod running;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use running::job::{Ended, Job, Random};
use serde_json::Value;
use whisperer_schemas::time::{Micros, SECOND, format_micros, parse_rfc3339};

/// Somebody whose events are all suppressed in the other run; as long as any user's id.
const NOBODY: &str = "usr_0000000000000000";

/// Longest run of a job that is to end by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// Users of the log.
fn users() -> u64 {
    std::env::var("WHISPERER_ERASURE_USERS").ok().and_then(|users| users.parse().ok()).unwrap_or(1_000)
}

/// A line of the log: whose it is, and when it happened.
struct Line {
    text: String,
    user: Option<(String, String)>,
    time: Micros,
}

/// A log and the users in it who are to be erased.
struct Proof {
    lines: Vec<Line>,
    /// By requests: the others are erased by events in the log.
    asked: Vec<(String, String)>,
    /// Whom an event erases, by the offset behind it.
    events: HashMap<u64, String>,
}

/// Whom a job was asked to erase, by what the erasure is called.
type Asked = HashMap<String, String>;

fn whisperer(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    command.args(arguments).current_dir(folder).env("WHISPERER_LOG", "warn");
    command.output().expect("it runs")
}

fn parse(text: &str) -> Line {
    let line: Value = serde_json::from_str(text).expect("the log is of events");
    let member = |name: &str| line[name].as_str().expect("an id").to_owned();
    let time = parse_rfc3339(line["timestamp"].as_str().expect("a time").as_bytes()).expect("a time");
    // A clock that runs ahead of the log's counts as the log's.
    let received = line["metadata"]["received_at"].as_str().and_then(|time| parse_rfc3339(time.as_bytes()));
    let time = received.filter(|received| time > received + 5 * SECOND).unwrap_or(time);
    Line { text: text.to_owned(), user: Some((member("app_id"), member("user_id"))), time }
}

impl Proof {
    /// A generated log; half of those who are to be erased say so in it, at random places.
    fn new(random: &mut Random, users: u64) -> Proof {
        let (users, events) = (users.to_string(), (users * 10).to_string());
        let generated = whisperer(
            Path::new("."),
            &["generate", "-o", "-", "--users", &users, "--events", &events, "--malformed", "0", "--partitions", "1"],
        );
        let text = String::from_utf8(generated.stdout).expect("UTF-8");
        let mut lines: Vec<Line> = text.lines().map(parse).collect();
        let all: BTreeSet<_> = lines.iter().filter_map(|line| line.user.clone()).collect();
        let mut erased: Vec<_> = all.into_iter().filter(|_| random.below(10) == 0).collect();
        let asked = erased.split_off(erased.len() / 2);
        for (number, (app, user)) in erased.iter().enumerate() {
            let at = random.below(lines.len() as u64) as usize;
            let text = format!(
                r#"{{"event_id":"evt_{number:016}","app_id":"{app}","user_id":"{user}","event_type":"user_erased","timestamp":"{}"}}"#,
                format_micros(lines[at].time),
            );
            lines.insert(at + 1, parse(&text));
        }
        // Lines that are no events and name those who are erased.
        for (app, user) in asked.iter().chain(&erased) {
            let at = random.below(lines.len() as u64) as usize;
            let text =
                format!(r#"{{"app_id":"{app}","user_id":"{user}","event_type":"page_viewed","timestamp":"never"}}"#);
            lines.insert(at, Line { text, user: Some((app.clone(), user.clone())), time: Micros::MAX });
        }
        let mut events = HashMap::new();
        let mut offset = 0;
        for line in &lines {
            if line.text.contains("\"user_erased\"") {
                events.extend(line.user.clone().map(|(_, user)| (offset + 1, user)));
            }
            offset += line.text.len() as u64 + 1;
        }
        Proof { lines, asked, events }
    }

    fn write(&self, job: &Job) {
        let text: String = self.lines.iter().map(|line| format!("{}\n", line.text)).collect();
        fs::write(job.folder().join("events.ndjson"), text).expect("the log is written");
    }

    /// Writes the log with what the erasures of `erased` cover renamed.
    fn write_blanked(&self, (erased, asked): (&Job, &Asked), job: &Job) -> usize {
        let covered = self.covered_by(erased, asked);
        let (mut text, mut offset, mut blanked) = (String::new(), 0, 0);
        for line in &self.lines {
            let entries = line.user.as_ref().and_then(|(_, user)| covered.get(user)).map_or(&[][..], Vec::as_slice);
            let is_event = line.time != Micros::MAX;
            let covers = |(below, up_to): &(u64, Micros)| offset < *below || (is_event && line.time <= *up_to);
            let written = match (entries.iter().any(covers), is_event, &line.user) {
                (true, true, Some((_, user))) => line.text.replace(user.as_str(), NOBODY),
                // White space is no record, as a rejected one moves nothing.
                (true, false, _) => " ".repeat(line.text.len()),
                _ => line.text.clone(),
            };
            blanked += usize::from(written != line.text);
            offset += written.len() as u64 + 1;
            text.push_str(&written);
            text.push('\n');
        }
        fs::write(job.folder().join("events.ndjson"), text).expect("the log is written");
        blanked
    }

    /// Asks for the erasure of the next users; each `erase` prints the receipt of a pending erasure.
    fn ask(&self, job: &Job, users: std::ops::Range<usize>, asked: &mut Asked) {
        for (app, user) in &self.asked[users] {
            let receipt: Value = serde_json::from_str(&erase(job, &[user, "--app", app])).expect("a receipt");
            asked.insert(receipt["receipt"]["erasure"].as_str().expect("a name").to_owned(), user.clone());
        }
    }

    /// What the control log of a job covers: by user the offset below which everything is, and the time up to which.
    fn covered_by(&self, job: &Job, asked: &Asked) -> HashMap<String, Vec<(u64, Micros)>> {
        let control = job.folder().join("state/control");
        let mut covered: HashMap<String, Vec<(u64, Micros)>> = HashMap::new();
        let mut entries = 0;
        for file in fs::read_dir(&control).expect("a control log").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_prefix("entry-") else { continue };
            let entry: Value = serde_json::from_slice(&fs::read(file.path()).expect("readable")).expect("JSON");
            let below = entry["positions"]["0"].as_u64().unwrap_or(0);
            let user = asked.get(id).or_else(|| self.events.get(&below)).expect("somebody asked for it");
            covered.entry(user.clone()).or_default().push((below, entry["up_to"].as_i64().expect("a time")));
            assert!(control.join(format!("applied-{id}")).exists(), "{name} was applied");
            entries += 1;
        }
        assert!(entries >= asked.len(), "{entries} entries of {} requests", asked.len());
        covered
    }

    /// Runs the log in which the erased are blanked, and compares.
    fn assert_proven(&self, job: &Job, asked: &Asked, what: &str) {
        let blanked = Job::edited("blanked", of_file);
        let renamed = self.write_blanked((job, asked), &blanked);
        assert!(renamed > self.lines.len() / 50, "{what}: only {renamed} lines are covered");
        fs::create_dir(blanked.folder().join("state")).expect("a state folder");
        erase(&blanked, &[NOBODY, "--up-to", "9999-01-01T00:00:00Z"]);
        blanked.finish(&["--workers", "2"]);
        job.assert_equals(&blanked, what);
    }
}

/// The job over a file in its folder.
fn of_file(text: String) -> String {
    let begin = text.find("connector  = \"generator\"").expect("the source");
    let end = text[begin..].find("out_of_orderness").expect("its end") + begin;
    format!("{}connector = \"file\"\npath = \"events.ndjson\"\n{}", &text[..begin], &text[end..])
}

fn erase(job: &Job, arguments: &[&str]) -> String {
    let arguments: Vec<&str> = ["erase", "job.toml", "--state", "state"].iter().chain(arguments).copied().collect();
    let output = whisperer(job.folder(), &arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn await_manifests(job: &Job, more: u64) {
    let from = job.manifest_max();
    let started = std::time::Instant::now();
    while job.manifest_max() < from + more && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_erased_log_equals_a_blanked_one() {
    // Goal: requests before, while and after a job runs, on changing numbers of workers, events in the log, and a crash leave what a blanked log
    // gives. Method: the two runs of the module's documentation.
    let mut random = Random::new();
    let proof = Proof::new(&mut random, users());
    let job = Job::edited("erased", of_file);
    proof.write(&job);
    let (part, mut asked) = (proof.asked.len() / 4, Asked::new());
    let child = job.start(&["--workers", "2"], &[]);
    await_manifests(&job, 4);
    proof.ask(&job, 0..part, &mut asked);
    await_manifests(&job, 6);
    child.signal("TERM");
    job.assert_done(child);
    proof.ask(&job, part..2 * part, &mut asked);
    let child = job.start(&["--workers", "3"], &[]);
    await_manifests(&job, 3);
    drop(child);
    proof.ask(&job, 2 * part..3 * part, &mut asked);
    job.finish(&["--workers", "1"]);
    // The input has ended: one more start applies what is asked for now, and the next has nothing to do.
    proof.ask(&job, 3 * part..proof.asked.len(), &mut asked);
    job.finish(&["--workers", "4"]);
    let before = job.manifest_max();
    job.finish(&["--workers", "2"]);
    assert_eq!(job.manifest_max(), before, "nothing is left to do");
    proof.assert_proven(&job, &asked, &format!("seed {}", random.seed()));
}

#[test]
fn nothing_is_held_on_an_erased_user() {
    // Goal: after an erasure of the state, the tables, the waiting rows and the file of decisions nothing of the user is found; the receipt says
    // so, is valid as it was signed, and final once the checkpoints from before are gone.
    let mut random = Random::new();
    let proof = Proof::new(&mut random, 300);
    let job = Job::edited("gone", |text| format!("{}retain = 2\n", of_file(text)));
    proof.write(&job);
    job.finish(&["--workers", "2"]);
    let (app, user) = proof.asked.first().expect("somebody is erased").clone();
    let held = |job: &Job| {
        whisperer(job.folder(), &["export", "job.toml", &user, "--output", "out", "--state", "state"]).status.success()
    };
    assert!(held(&job));
    let receipt = erase(&job, &[&user, "--app", &app]);
    assert!(receipt.contains("\"pending\"") && !receipt.contains(&user), "{receipt}");
    job.finish(&["--workers", "1"]);
    assert!(!held(&job), "something is held on {user}");
    let decisions = fs::read_to_string(job.folder().join("out/decisions.ndjson")).expect("decisions");
    assert!(!decisions.contains(&user));
    let receipts = erase(&job, &["--status"]);
    let id = serde_json::from_str::<Value>(&receipt).expect("JSON")["receipt"]["erasure"].clone();
    let ours = receipts.lines().find(|line| line.contains(id.as_str().expect("an id"))).expect("its receipt");
    let parsed: Value = serde_json::from_str(ours).expect("JSON");
    assert!(parsed["receipt"]["rows"]["profiles"].as_u64() > Some(0), "{ours}");
    assert_eq!(parsed["receipt"]["status"], "final", "an ended job keeps nothing from before: {ours}");
    fs::write(job.folder().join("receipt.json"), ours).expect("written");
    let verified = whisperer(job.folder(), &["erase", "--verify", "receipt.json"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    fs::write(job.folder().join("receipt.json"), ours.replace("\"files\":", "\"files\":1")).expect("written");
    assert!(!whisperer(job.folder(), &["erase", "--verify", "receipt.json"]).status.success());
}

#[test]
fn an_erasure_survives_crashes_between_its_steps() {
    // Goal: killed at each named point of an erasure, once and again, a job ends as one over a blanked log.
    let mut random = Random::new();
    let proof = Proof::new(&mut random, 400);
    let mut killed = 0;
    for point in ["control-written:9", "lake.erasing", "lake.renamed:2", "lake.erased"] {
        let job = Job::edited("killed", of_file);
        proof.write(&job);
        job.begin(&["--workers", "2"]);
        let mut asked = Asked::new();
        proof.ask(&job, 0..proof.asked.len(), &mut asked);
        for _ in 0..2 {
            match job.run_for(&[], &[("WHISPERER_FAILPOINT", point)], PATIENCE) {
                Ended::Killed => killed += 1,
                Ended::Done => {}
                Ended::Failed(code, told) => panic!("{point}: exit code {code}: {told}"),
            }
        }
        job.finish(&["--workers", "3"]);
        proof.assert_proven(&job, &asked, &format!("seed {}, {point}", random.seed()));
    }
    assert!(killed >= 4, "only {killed} were killed");
}
