//! What rows come to: percentiles, tables, and the floors.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use whisperer_dataflows::cli::grouped;

use super::{
    engine::{Delivery, Job},
    row::Row,
    saturation::Reading,
};
use crate::figures::Spread;

/// At this rate, with checkpoints on, decisions at once …
const FLOOR_RATE: u64 = 100_000;

/// … come at most so much later than the broker's echo, at their 99th percentiles.
const FLOOR_OVER_ECHO_MS: f64 = 50.0;

/// Checkpoints take at most this share of the throughput.
const FLOOR_CHECKPOINTS: f64 = 0.10;

/// The middle and the ends of some latencies, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many there are; without any, all the rest is 0.
    pub samples: u64,
    /// Half are at most this.
    pub p50: f64,
    /// Nine in ten.
    pub p90: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// All but one in a thousand.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// All.
    pub max: f64,
}

impl Percentiles {
    /// Of these, each the smallest latency that so many in a thousand do not exceed (nearest rank): one that occurred, never a mean.
    #[must_use]
    pub fn of(mut latencies: Vec<Duration>) -> Percentiles {
        latencies.sort_unstable();
        let count = latencies.len();
        let of_thousand = |share: usize| {
            let rank = (count * share).div_ceil(1_000).max(1);
            latencies.get(rank - 1).map_or(0.0, |latency| (latency.as_secs_f64() * 1e6).round() / 1e3)
        };
        Percentiles {
            samples: count as u64,
            p50: of_thousand(500),
            p90: of_thousand(900),
            p99: of_thousand(990),
            p999: of_thousand(999),
            max: of_thousand(1_000),
        }
    }
}

impl Row {
    /// How much later than the echo decisions come, at the 99th percentiles.
    #[must_use]
    pub fn p99_over_echo_ms(&self) -> f64 {
        self.decision_ms.p99 - self.echo_ms.p99
    }
}

/// What checkpoints cost: one setting against none, round by round.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointCost {
    /// The job.
    pub job: Job,
    /// From one checkpoint to the next; none is the yardstick itself.
    pub checkpoint_ms: Option<u64>,
    /// Events a second of wall-clock time.
    pub events_per_second: Spread,
    /// Microseconds on the cores an event.
    pub cpu_us_per_event: Spread,
    /// Share of the throughput that they take, in the same round.
    pub throughput_lost: Spread,
    /// What they add to the time on the cores, as a share, in the same round.
    pub cpu_added: Spread,
}

/// Sums up readings, by job and setting.
#[must_use]
pub fn costs(readings: &[Reading]) -> Vec<CheckpointCost> {
    let mut settings: BTreeMap<(Job, Option<u64>), Vec<&Reading>> = BTreeMap::new();
    for reading in readings {
        settings.entry((reading.setting.job, reading.setting.checkpoint_ms)).or_default().push(reading);
    }
    let cost = |((job, checkpoint_ms), of): ((Job, Option<u64>), Vec<&Reading>)| {
        let spread = |each: &dyn Fn(&Reading) -> f64| Spread::of(of.iter().map(|reading| each(reading)).collect());
        let against = |each: fn(&Reading) -> f64, reading: &Reading| {
            let same = |other: &&Reading| {
                let setting = other.setting;
                setting.job == job && setting.checkpoint_ms.is_none() && other.round == reading.round
            };
            each(reading) / readings.iter().find(same).map_or(f64::NAN, each)
        };
        CheckpointCost {
            job,
            checkpoint_ms,
            events_per_second: spread(&Reading::events_per_second),
            cpu_us_per_event: spread(&Reading::cpu_us_per_event),
            throughput_lost: spread(&|reading| 1.0 - against(Reading::events_per_second, reading)),
            cpu_added: spread(&|reading| against(Reading::cpu_us_per_event, reading) - 1.0),
        }
    };
    settings.into_iter().map(cost).collect()
}

/// Says which floors are broken.
#[must_use]
pub fn broken_floors(rows: &[Row], costs: &[CheckpointCost]) -> Vec<String> {
    let mut broken = Vec::new();
    for row in rows.iter().filter(|row| row.doubled > 0) {
        broken.push(format!("{}: {} decisions came twice", name(row), row.doubled));
    }
    let held = |row: &&Row| {
        let (setting, at_once) = (row.case.setting, row.case.setting.delivery == Delivery::Idempotent);
        row.case.rate == FLOOR_RATE && setting.checkpoint_ms.is_some() && at_once
    };
    for row in rows.iter().filter(held) {
        let over = row.p99_over_echo_ms();
        if row.fell_behind() {
            broken.push(format!("{}: the load was more than could be taken", name(row)));
        } else if over.is_nan() || over >= FLOOR_OVER_ECHO_MS {
            broken.push(format!("{}: p99 lies {over:.0} ms over the echo, not below {FLOOR_OVER_ECHO_MS}", name(row)));
        }
    }
    for cost in costs.iter().filter(|cost| cost.throughput_lost.median >= FLOOR_CHECKPOINTS) {
        broken.push(format!(
            "{}: checkpoints {} take {:.1} % of the throughput, not below {:.0}",
            cost.job.name(),
            every(cost.checkpoint_ms),
            cost.throughput_lost.median * 100.0,
            FLOOR_CHECKPOINTS * 100.0
        ));
    }
    broken
}

fn name(row: &Row) -> String {
    let case = row.case;
    format!(
        "{} at {}/s, checkpoints {}",
        case.setting.job.name(),
        grouped(case.rate),
        every(case.setting.checkpoint_ms)
    )
}

/// From one checkpoint to the next, in words.
#[must_use]
pub fn every(checkpoint_ms: Option<u64>) -> String {
    match checkpoint_ms {
        None => "off".to_owned(),
        Some(interval) if interval.is_multiple_of(1_000) => format!("every {} s", interval / 1_000),
        Some(interval) => format!("every {interval} ms"),
    }
}

/// The table of rows, for a terminal or as Markdown.
#[must_use]
pub fn rows_table(rows: &[Row], markdown: bool) -> String {
    let header = [
        "job",
        "events/s",
        "checkpoints",
        "delivery",
        "decisions p50 / p99 / p99.9 ms",
        "echo p50 / p99 / p99.9 ms",
        "p99 over echo",
        "epoch p99 ms",
        "cores: engine + bench + others",
        "kept up",
    ];
    let three = |of: &Percentiles| format!("{:.1} / {:.1} / {:.1}", of.p50, of.p99, of.p999);
    let lines = rows.iter().map(|row| {
        let (setting, cores) = (row.case.setting, row.cores);
        let kept_up = match row.fell_behind() {
            true => format!("no: {:.0} %, {} missing", row.achieved * 100.0 / row.case.rate as f64, row.missing),
            false => "yes".to_owned(),
        };
        let delivery = match setting.delivery {
            Delivery::Idempotent => "idempotent",
            Delivery::ExactlyOnce => "exactly_once",
        };
        vec![
            setting.job.name().to_owned(),
            grouped(row.case.rate),
            every(setting.checkpoint_ms),
            delivery.to_owned(),
            three(&row.decision_ms),
            three(&row.echo_ms),
            format!("{:.1}", row.p99_over_echo_ms()),
            row.epoch_p99_ms.map_or_else(|| "-".to_owned(), |bound| format!("<= {bound:.0}")),
            format!("{:.2} + {:.2} + {:.2}", cores.engine, cores.bench, cores.others),
            kept_up,
        ]
    });
    table(&header, lines, markdown)
}

/// The table of what checkpoints cost.
#[must_use]
pub fn costs_table(costs: &[CheckpointCost], markdown: bool) -> String {
    let header = ["job", "checkpoints", "thousand events/s", "CPU us/event", "throughput lost %", "CPU added %"];
    let shown = |spread: Spread, scale: f64, decimals: usize| {
        let [median, min, max] =
            [spread.median, spread.min, spread.max].map(|number| format!("{:.decimals$}", number * scale));
        if min == max { median } else { format!("{median} ({min} to {max})") }
    };
    let lines = costs.iter().map(|cost| {
        vec![
            cost.job.name().to_owned(),
            every(cost.checkpoint_ms),
            shown(cost.events_per_second, 1e-3, 0),
            shown(cost.cpu_us_per_event, 1.0, 2),
            shown(cost.throughput_lost, 100.0, 1),
            shown(cost.cpu_added, 100.0, 1),
        ]
    });
    table(&header, lines, markdown)
}

fn table(header: &[&str], lines: impl Iterator<Item = Vec<String>>, markdown: bool) -> String {
    let mut table = Table::new();
    table.load_style(if markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
    table.set_header(header);
    table.add_rows(lines);
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::{
        engine::Setting,
        row::{Case, Cores},
    };

    fn row(rate: u64, checkpoint_ms: Option<u64>, p99: f64) -> Row {
        let percentiles = |p99| Percentiles { samples: 100, p99, ..Percentiles::default() };
        let setting = Setting { job: Job::J, checkpoint_ms, delivery: Delivery::Idempotent };
        Row {
            case: Case { setting, rate },
            load_before: None,
            expected: 100,
            missing: 0,
            doubled: 0,
            achieved: rate as f64,
            generator_behind_max_ms: 0.0,
            refused: 0,
            decision_ms: percentiles(p99),
            echo_ms: percentiles(8.0),
            echo_missing: 0,
            cores: Cores::default(),
            epoch_p99_ms: None,
            resident_peak_bytes: 0,
        }
    }

    fn reading(checkpoint_ms: Option<u64>, round: u32, seconds: f64) -> Reading {
        let setting = Setting { job: Job::J, checkpoint_ms, delivery: Delivery::Idempotent };
        Reading { setting, round, load_before: None, events: 1_000_000, seconds, cpu_seconds: seconds }
    }

    #[test]
    fn percentiles_are_latencies_that_occurred() {
        // Goal: nearest ranks, at sizes that a percentile divides and at others, in whatever order the latencies come.
        let of = |count: u64| Percentiles::of((1..=count).rev().map(Duration::from_millis).collect());
        let thousand = of(1_000);
        assert_eq!((thousand.p50, thousand.p90, thousand.p99, thousand.p999), (500.0, 900.0, 990.0, 999.0));
        assert_eq!((thousand.max, thousand.samples), (1_000.0, 1_000));
        let few = of(3);
        assert_eq!((few.p50, few.p99, few.max), (2.0, 3.0, 3.0));
        assert_eq!(of(0), Percentiles::default());
        assert_eq!(Percentiles::of(vec![Duration::from_nanos(1_234_567)]).p50, 1.235);
    }

    #[test]
    fn checkpoints_are_held_against_the_same_round() {
        // Goal: a round in which the machine was slow does not spoil what checkpoints are said to cost.
        let readings: Vec<Reading> = [(0, 1.0), (1, 2.0)]
            .into_iter()
            .flat_map(|(round, slow)| [reading(None, round, 4.0 * slow), reading(Some(1_000), round, 5.0 * slow)])
            .collect();
        let costs = costs(&readings);
        assert_eq!(costs.len(), 2);
        assert!((costs[1].throughput_lost.median - 0.2).abs() < 1e-9 && costs[1].throughput_lost.max < 0.21);
        assert!((costs[1].cpu_added.median - 0.25).abs() < 1e-9);
        assert_eq!(costs[0].throughput_lost.median, 0.0);
        let broken = broken_floors(&[], &costs);
        assert_eq!(broken, ["J: checkpoints every 1 s take 20.0 % of the throughput, not below 10"]);
        assert!(costs_table(&costs, true).lines().last().is_some_and(|line| line.contains("20.0")));
    }

    #[test]
    fn floors_are_checked_over_the_echo() {
        // Goal: p99 counts above the echo of the same row, at the floor's rate, with checkpoints; a load that was too much breaks it.
        let every_second = Some(1_000);
        assert!(broken_floors(&[row(100_000, every_second, 57.9)], &[]).is_empty());
        assert!(broken_floors(&[row(200_000, every_second, 99.0), row(100_000, None, 99.0)], &[]).is_empty());
        let broken = broken_floors(&[row(100_000, every_second, 58.0)], &[]);
        assert_eq!(broken, ["J at 100,000/s, checkpoints every 1 s: p99 lies 50 ms over the echo, not below 50"]);
        let behind = Row { missing: 1, ..row(100_000, every_second, 9.0) };
        assert_eq!(broken_floors(std::slice::from_ref(&behind), &[]).len(), 1);
        assert!(rows_table(&[behind], true).contains("no: 100 %, 1 missing"));
    }
}
