//! What the runs come to: medians with their spread, a table of them, and the floors below which nothing may fall.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use whisperer_dataflows::cli::grouped;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Job J by hand.
    Baseline,
    /// `bench/jobs/j.toml`.
    J,
    /// `config/jobs/engagement.toml` without its views.
    Engagement,
    /// The same, whole.
    EngagementViews,
}

impl Job {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Job::Baseline => "J by hand",
            Job::J => "J",
            Job::Engagement => "engagement",
            Job::EngagementViews => "engagement with views",
        }
    }
}

/// What is repeated: a job on so many workers over the input with so many users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Case {
    /// Users of the input.
    pub input_users: u32,
    /// The job.
    pub job: Job,
    /// Worker threads.
    pub workers: u16,
}

/// One run, raw.
#[derive(Clone, Debug, Serialize)]
pub struct RunFigures {
    /// What was run.
    #[serde(flatten)]
    pub case: Case,
    /// Which repetition.
    pub round: u32,
    /// Processes that wanted to run when it began, mean of a minute.
    pub load_before: Option<f64>,
    /// Lines read.
    pub read: u64,
    /// Of these duplicates.
    pub duplicates: u64,
    /// Users seen.
    pub users: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Timers that led to an evaluation; the baseline does not count its own.
    pub timers: Option<u64>,
    /// Wall-clock time of the process.
    pub seconds: f64,
    /// Time on the cores.
    pub cpu_seconds: f64,
    /// Bytes of state per user at the end, as the program counts them.
    pub bytes_per_user: f64,
    /// Most memory resident.
    pub resident_peak_bytes: u64,
}

impl RunFigures {
    pub(crate) fn events_per_second(&self) -> f64 {
        self.read as f64 / self.seconds
    }

    pub(crate) fn cpu_ns_per_event(&self) -> f64 {
        self.cpu_seconds * 1e9 / self.read as f64
    }
}

/// The middle of some numbers and their ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half lie below; of an even number, the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one number.
    #[must_use]
    pub fn of(mut numbers: Vec<f64>) -> Spread {
        numbers.sort_by(f64::total_cmp);
        let at = |place: usize| numbers.get(place).copied().unwrap_or(f64::NAN);
        let (lower, upper) = (numbers.len().saturating_sub(1) / 2, numbers.len() / 2);
        let last = numbers.len().saturating_sub(1);
        Spread { median: (at(lower) + at(upper)) / 2.0, min: at(0), max: at(last) }
    }

    fn map(self, each: impl Fn(f64) -> f64) -> Spread {
        Spread { median: each(self.median), min: each(self.min), max: each(self.max) }
    }
}

/// The runs of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What was run.
    #[serde(flatten)]
    pub case: Case,
    /// Users seen.
    pub users: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Lines per second of wall-clock time.
    pub events_per_second: Spread,
    /// Nanoseconds on the cores per line.
    pub cpu_ns_per_event: Spread,
    /// Time on the cores, divided by that of the baseline in the same round.
    pub cpu_to_baseline: Spread,
    /// Bytes of state per user.
    pub bytes_per_user: Spread,
    /// Most memory resident.
    pub resident_peak_bytes: Spread,
}

/// Sums up runs, case by case, in the order of users, job and workers.
#[must_use]
pub fn summarize(runs: &[RunFigures]) -> Vec<Summary> {
    let mut cases: BTreeMap<Case, Vec<&RunFigures>> = BTreeMap::new();
    runs.iter().for_each(|run| cases.entry(run.case).or_default().push(run));
    let of_case = |(case, of_case): (Case, Vec<&RunFigures>)| {
        let spread = |each: &dyn Fn(&RunFigures) -> f64| Spread::of(of_case.iter().map(|run| each(run)).collect());
        let last = of_case.last()?;
        Some(Summary {
            case,
            users: last.users,
            decisions: last.decisions,
            events_per_second: spread(&RunFigures::events_per_second),
            cpu_ns_per_event: spread(&RunFigures::cpu_ns_per_event),
            cpu_to_baseline: spread(&|run| run.cpu_ns_per_event() / baseline_of(runs, run)),
            bytes_per_user: spread(&|run| run.bytes_per_user),
            resident_peak_bytes: spread(&|run| run.resident_peak_bytes as f64),
        })
    };
    cases.into_iter().filter_map(of_case).collect()
}

/// CPU per event of the baseline that ran in the same round over the same input.
fn baseline_of(runs: &[RunFigures], run: &RunFigures) -> f64 {
    let same = |other: &&RunFigures| {
        let (case, own) = (other.case, run.case);
        case.job == Job::Baseline && case.input_users == own.input_users && other.round == run.round
    };
    runs.iter().find(same).map_or(f64::NAN, RunFigures::cpu_ns_per_event)
}

/// The table for a terminal, or as Markdown.
#[must_use]
pub fn table(summaries: &[Summary], markdown: bool) -> String {
    let mut table = Table::new();
    table.load_style(if markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
    table.set_header([
        "users seen",
        "job",
        "workers",
        "thousand events/s",
        "CPU ns/event",
        "x by hand",
        "state B/user",
        "peak MB",
        "decisions",
    ]);
    for summary in summaries {
        table.add_row([
            grouped(summary.users),
            summary.case.job.name().to_owned(),
            summary.case.workers.to_string(),
            shown(summary.events_per_second.map(|rate| rate / 1e3), 0),
            shown(summary.cpu_ns_per_event, 0),
            shown(summary.cpu_to_baseline, 2),
            grouped(summary.bytes_per_user.median.round() as u64),
            grouped((summary.resident_peak_bytes.max / 1e6).round() as u64),
            grouped(summary.decisions),
        ]);
    }
    for column in table.column_iter_mut().enumerate().filter_map(|(at, column)| (at != 1).then_some(column)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// `median (min-max)`, or the median alone where all are alike.
fn shown(spread: Spread, decimals: usize) -> String {
    let [median, min, max] = [spread.median, spread.min, spread.max].map(|number| format!("{number:.decimals$}"));
    if min == max { median } else { format!("{median} ({min}-{max})") }
}

/// Most time on the cores per event, with [`FLOOR_CPU_USERS`] on one worker.
const FLOOR_CPU_NS: f64 = 1_500.0;
/// Users of the input for which the bound on time holds.
const FLOOR_CPU_USERS: u32 = 200_000;
/// Most bytes of state per user, with [`FLOOR_STATE_USERS`].
const FLOOR_STATE_BYTES: f64 = 400.0;
/// Users of the input for which the bound on memory holds.
const FLOOR_STATE_USERS: u32 = 1_000_000;

/// Least throughput with views, as a share of that without, with [`FLOOR_CPU_USERS`].
const FLOOR_VIEWS: f64 = 0.6;

/// The floors that the medians break, each as a sentence.
#[must_use]
pub fn broken_floors(summaries: &[Summary]) -> Vec<String> {
    let mut broken = Vec::new();
    let bounded = |summary: &&Summary| matches!(summary.case.job, Job::J | Job::Engagement);
    for summary in summaries.iter().filter(bounded) {
        let Case { input_users, job, workers } = summary.case;
        let (cpu, state) = (summary.cpu_ns_per_event.median, summary.bytes_per_user.median);
        if input_users == FLOOR_CPU_USERS && workers == 1 && cpu > FLOOR_CPU_NS {
            broken.push(format!("\"{}\" takes {cpu:.0} ns per event, more than {FLOOR_CPU_NS}", job.name()));
        }
        if input_users == FLOOR_STATE_USERS && state > FLOOR_STATE_BYTES {
            let name = job.name();
            broken.push(format!("\"{name}\" takes {state:.0} bytes per user, more than {FLOOR_STATE_BYTES}"));
        }
    }
    broken.extend(summaries.iter().filter_map(|summary| views_cost_too_much(summary, summaries)));
    broken
}

fn views_cost_too_much(with: &Summary, summaries: &[Summary]) -> Option<String> {
    let Case { input_users, job, workers } = with.case;
    if job != Job::EngagementViews || input_users != FLOOR_CPU_USERS {
        return None;
    }
    let case = Case { job: Job::Engagement, ..with.case };
    let without = summaries.iter().find(|summary| summary.case == case)?.events_per_second.median;
    let share = with.events_per_second.median / without;
    let (at_most, lost) = ((1.0 - FLOOR_VIEWS) * 100.0, (1.0 - share) * 100.0);
    let told = || format!("views take {lost:.0} % of the throughput on {workers} workers, more than {at_most:.0}");
    (share < FLOOR_VIEWS).then(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(job: Job, workers: u16, round: u32, cpu_seconds: f64) -> RunFigures {
        RunFigures {
            case: Case { input_users: FLOOR_CPU_USERS, job, workers },
            round,
            load_before: None,
            read: 1_000_000,
            duplicates: 0,
            users: 1_234,
            decisions: 5,
            timers: None,
            seconds: cpu_seconds / f64::from(workers),
            cpu_seconds,
            bytes_per_user: 300.4,
            resident_peak_bytes: 12_000_000,
        }
    }

    #[test]
    fn a_spread_has_a_middle() {
        // Goal: the median of odd and even numbers of runs, in whatever order they come.
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }

    #[test]
    fn runs_are_held_against_the_baseline_of_their_round() {
        // Goal: a round in which the machine was slow does not spoil the ratio, and the table shows what was measured.
        let mut runs = Vec::new();
        for (round, slow) in [(0, 1.0), (1, 2.0)] {
            runs.push(run(Job::J, 1, round, 0.75 * slow));
            runs.push(run(Job::Baseline, 1, round, 0.5 * slow));
        }
        let summaries = summarize(&runs);
        assert_eq!(summaries.len(), 2);
        assert_eq!(summaries[1].cpu_to_baseline, Spread { median: 1.5, min: 1.5, max: 1.5 });
        let table = table(&summaries, true);
        let row = table.lines().last().expect("a row");
        assert_eq!(
            row.split('|').map(str::trim).collect::<Vec<_>>(),
            ["", "1,234", "J", "1", "1000 (667-1333)", "1125 (750-1500)", "1.50", "300", "12", "5", ""]
        );
    }

    #[test]
    fn floors_are_checked() {
        // Goal: a median above a floor is told, at the number of users for which the floor is meant, of the engine alone.
        let slow = [run(Job::Baseline, 1, 0, 2.0), run(Job::J, 1, 0, 2.0), run(Job::J, 2, 0, 2.0)];
        assert_eq!(broken_floors(&summarize(&slow)), ["\"J\" takes 2000 ns per event, more than 1500"]);
        let mut large = run(Job::Engagement, 2, 0, 1.0);
        (large.case.input_users, large.bytes_per_user) = (FLOOR_STATE_USERS, 401.0);
        let broken = broken_floors(&summarize(&[large]));
        assert_eq!(broken, ["\"engagement\" takes 401 bytes per user, more than 400"]);
        let views = |seconds| [run(Job::Engagement, 2, 0, 1.0), run(Job::EngagementViews, 2, 0, seconds)];
        assert!(broken_floors(&summarize(&views(1.6))).is_empty());
        let told = ["views take 41 % of the throughput on 2 workers, more than 40"];
        assert_eq!(broken_floors(&summarize(&views(1.7))), told);
    }
}
