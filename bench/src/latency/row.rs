//! One row: the engine under a load, decisions and the broker's echo timed over the same stretch of time.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use serde::Serialize;

use super::{
    broker::{Broker, Topics, prefix},
    engine::{self, Delivery, Engine, Place, Setting},
    figures::Percentiles,
    load::{Clock, ECHO_RATE, Load, Sent, echo},
    pool::Pool,
    reader::{Reader, Seen, cause, echoed},
    schedule::Schedule,
};
use crate::machine::{CoreTime, cpu_time_of, load};

/// Partitions of the events' and the decisions' topics.
pub const PARTITIONS: i32 = 4;

/// How long the engine may take to start, and to make its first decision.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long decisions are waited for after the load's end, beside the time from one checkpoint to the next.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);

/// A decision that is later than this after the end of the stretch is one that the engine could not keep up with.
const KEPT_UP: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Case {
    /// How the engine is run.
    #[serde(flatten)]
    pub setting: Setting,
    /// Events a second.
    pub rate: u64,
}

/// How long.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Under the same load, and left out.
    pub warm_up: Duration,
    /// What counts.
    pub measured: Duration,
}

/// What a row has come to.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    #[serde(flatten)]
    pub case: Case,
    /// Processes that wanted to run when it began, mean of a minute.
    pub load_before: Option<f64>,
    /// Decisions that the events of the stretch lead to.
    pub expected: u64,
    /// Of these, those that were never read.
    pub missing: u64,
    /// Decisions that were read more than once, or by no event's doing.
    pub doubled: u64,
    /// Events a second that were decided on within a second of the stretch's end, or, where decisions wait for checkpoints, of the next one.
    pub achieved: f64,
    /// The furthest that the generator fell behind its schedule.
    pub generator_behind_max_ms: f64,
    /// Events that the broker did not take.
    pub refused: u64,
    /// From the scheduled sending of an event to its decision.
    pub decision_ms: Percentiles,
    /// From the scheduled sending of a message to its coming back.
    pub echo_ms: Percentiles,
    /// Messages of the echo that never came back.
    pub echo_missing: u64,
    /// From the end of an epoch to the end of its work, that of the views included: 99 of 100 took no longer, as far as the bounds of
    /// the engine's histogram tell; none where they do not.
    pub epoch_p99_ms: Option<f64>,
    /// Cores that were busy in the stretch.
    pub cores: Cores,
    /// Most memory that the engine had resident.
    pub resident_peak_bytes: u64,
}

/// Cores that were busy, mean of the stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cores {
    /// With the engine.
    pub engine: f64,
    /// With the generator, the readers and the echo.
    pub bench: f64,
    /// With the broker and whatever else the machine did.
    pub others: f64,
    /// Taken away by other machines on the same hardware.
    pub stolen: f64,
}

impl Row {
    /// Whether the load was more than generator, broker and engine together could take.
    #[must_use]
    pub fn fell_behind(&self) -> bool {
        self.missing > 0 || self.refused > 0 || self.achieved < 0.99 * self.case.rate as f64
    }
}

/// Measures a row; gives the pool back for the next one.
///
/// # Errors
/// A broker or an engine that fails. One that is too slow is no error, but a row.
pub fn measure(
    broker: &Broker,
    case: Case,
    stretch: Stretch,
    pool: Pool,
    place: &Place,
) -> anyhow::Result<(Row, Pool)> {
    let load_before = load();
    let prefix = prefix();
    let topics = Topics::create(broker, &prefix, PARTITIONS)?;
    let decisions = Reader::start(broker, &topics.decisions, PARTITIONS, cause)?;
    let echoes = Reader::start(broker, &topics.echo, 1, echoed)?;
    let mut engine = engine::start(broker, &topics, case.setting, place)?;
    let mut load = Load::new(broker, &topics.events, pool)?;
    greet(&mut load, &mut engine, &decisions)?;

    let end = stretch.warm_up + stretch.measured;
    let schedule = Schedule { rate: case.rate };
    let clock = Clock::now();
    let echoing = echo(broker, &topics.echo, clock, end)?;
    let events = schedule.due(end);
    let sending = thread::spawn(move || load.run(schedule, events, clock));
    sleep_until(clock.start + stretch.warm_up);
    let (before, epochs_before) = (Usage::now(&engine), engine.epochs());
    sleep_until(clock.start + end);
    let cores = Usage::now(&engine).since(before);
    let epochs = engine.epochs().since(&epochs_before);
    let epoch_p99_ms = epochs.quantile_bound(0.99).map(|seconds| seconds * 1e3);
    let Ok((sent, pool)) = sending.join() else { bail!("the generator came down") };
    await_decisions(&decisions, &sent, case.setting, &mut engine);
    let echo_sent = echoing.join().unwrap_or_default();
    let (_, cost) = engine.stop()?;
    let times = Times { clock, schedule, stretch: stretch.warm_up..end };
    let mut row = times.row(case, &sent, &decisions.end());
    let echo = Times { schedule: Schedule { rate: ECHO_RATE }, ..times };
    (row.echo_ms, row.echo_missing) = echo.echo(echo_sent, &echoes.end());
    broker.remove(&prefix)?;
    Ok((Row { load_before, cores, epoch_p99_ms, resident_peak_bytes: cost.resident_peak_bytes, ..row }, pool))
}

/// Sends the first event, a marked one, and waits until it is decided on: the engine is up then.
fn greet(load: &mut Load, engine: &mut Engine, decisions: &Reader) -> anyhow::Result<()> {
    load.hello(Clock::now().wall)?;
    let asked = Instant::now();
    while decisions.seen.get() == 0 {
        if !engine.live.runs() || asked.elapsed() > START_PATIENCE {
            bail!("the engine makes no decision on the first event");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn await_decisions(decisions: &Reader, sent: &Sent, setting: Setting, engine: &mut Engine) {
    let patience = DRAIN_PATIENCE + waits(setting);
    let ended = Instant::now();
    while decisions.seen.get() < sent.deciding.len() as u64 && ended.elapsed() < patience && engine.live.runs() {
        thread::sleep(Duration::from_millis(20));
    }
}

/// How long a decision may wait for its checkpoint.
fn waits(setting: Setting) -> Duration {
    match (setting.delivery, setting.checkpoint_ms) {
        (Delivery::ExactlyOnce, Some(interval)) => Duration::from_millis(interval),
        _ => Duration::ZERO,
    }
}

fn sleep_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}

/// Time on the cores up to some moment.
#[derive(Clone, Copy)]
struct Usage {
    at: Instant,
    engine: Duration,
    bench: Duration,
    machine: CoreTime,
}

impl Usage {
    fn now(engine: &Engine) -> Usage {
        let of = |process| cpu_time_of(process).unwrap_or_default();
        Usage {
            at: Instant::now(),
            engine: of(engine.live.id()),
            bench: of(std::process::id()),
            machine: CoreTime::now(),
        }
    }

    fn since(self, before: Usage) -> Cores {
        let seconds = (self.at - before.at).as_secs_f64();
        let cores = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / seconds;
        let (engine, bench) = (cores(self.engine, before.engine), cores(self.bench, before.bench));
        let others = (cores(self.machine.busy, before.machine.busy) - engine - bench).max(0.0);
        Cores { engine, bench, others, stolen: cores(self.machine.stolen, before.machine.stolen) }
    }
}

/// What turns moments into latencies.
#[derive(Clone)]
struct Times {
    clock: Clock,
    schedule: Schedule,
    stretch: Range<Duration>,
}

impl Times {
    /// Events of the load carry numbers from 1 on: number 0 is the greeting.
    fn row(&self, case: Case, sent: &Sent, seen: &[Seen]) -> Row {
        let counted = self.schedule.between(self.stretch.start, self.stretch.end);
        let mut read = HashMap::new();
        let (mut doubled, deciding) = (0, sent.deciding.iter().copied().collect::<HashSet<u64>>());
        for (number, at) in seen {
            doubled += u64::from(!deciding.contains(number) || read.insert(*number, *at).is_some());
        }
        let expected =
            sent.deciding.iter().filter(|number| counted.contains(&number.saturating_sub(1)) && **number > 0);
        // An event that was never sent for want of time would have been decided on too.
        let unsent = counted.end.saturating_sub(sent.events.saturating_sub(1).max(counted.start));
        let (mut latencies, mut in_time, mut missing) = (Vec::new(), 0, 0);
        let bound = self.clock.start + self.stretch.end + KEPT_UP + waits(case.setting);
        for number in expected {
            let Some(at) = read.get(number) else {
                missing += 1;
                continue;
            };
            in_time += u64::from(*at <= bound);
            latencies.push(at.saturating_duration_since(self.clock.start + self.schedule.time_of(number - 1)));
        }
        let expected = latencies.len() as u64 + missing;
        let sent_share = 1.0 - unsent as f64 / (counted.end - counted.start).max(1) as f64;
        Row {
            case,
            load_before: None,
            expected,
            missing,
            doubled,
            achieved: case.rate as f64 * sent_share * in_time as f64 / expected.max(1) as f64,
            generator_behind_max_ms: sent.behind_max.as_secs_f64() * 1e3,
            refused: sent.failed,
            decision_ms: Percentiles::of(latencies),
            echo_ms: Percentiles::default(),
            echo_missing: 0,
            cores: Cores::default(),
            epoch_p99_ms: None,
            resident_peak_bytes: 0,
        }
    }

    fn echo(&self, sent: u64, seen: &[Seen]) -> (Percentiles, u64) {
        let counted = self.schedule.between(self.stretch.start, self.stretch.end);
        let counted = counted.start..counted.end.min(sent);
        let mut latencies = Vec::new();
        for (number, at) in seen.iter().filter(|(number, _)| counted.contains(number)) {
            latencies.push(at.saturating_duration_since(self.clock.start + self.schedule.time_of(*number)));
        }
        let missing = (counted.end.saturating_sub(counted.start)).saturating_sub(latencies.len() as u64);
        (Percentiles::of(latencies), missing)
    }
}

#[cfg(test)]
mod tests {
    use super::{engine::Job, *};

    const SECOND: Duration = Duration::from_secs(1);

    fn times() -> Times {
        Times { clock: Clock::now(), schedule: Schedule { rate: 1_000 }, stretch: SECOND..3 * SECOND }
    }

    fn case(delivery: Delivery) -> Case {
        Case { setting: Setting { job: Job::J, checkpoint_ms: Some(1_000), delivery }, rate: 1_000 }
    }

    /// A decision on every tenth event, read `late` after the event's time.
    fn seen(times: &Times, late: Duration) -> (Sent, Vec<Seen>) {
        let deciding: Vec<u64> = (0..=3_000).step_by(10).collect();
        let at = |number: u64| times.clock.start + times.schedule.time_of(number.saturating_sub(1)) + late;
        let seen = deciding.iter().map(|number| (*number, at(*number))).collect();
        (Sent { events: 3_001, deciding, ..Sent::default() }, seen)
    }

    #[test]
    fn latencies_count_from_the_schedule_and_only_in_the_stretch() {
        // Goal: decisions on events of the warm-up are left out, others count from their event's time; a steady delay is that delay.
        let times = times();
        let late = Duration::from_millis(12);
        let (sent, seen) = seen(&times, late);
        let row = times.row(case(Delivery::Idempotent), &sent, &seen);
        assert_eq!((row.expected, row.missing, row.doubled), (200, 0, 0));
        assert_eq!((row.decision_ms.p50, row.decision_ms.p99, row.decision_ms.max), (12.0, 12.0, 12.0));
        assert_eq!(row.achieved, 1_000.0);
        assert!(!row.fell_behind());
    }

    #[test]
    fn what_is_late_or_missing_is_told() {
        // Goal: neither a decision that never came, nor one that came twice, nor a backlog can hide behind good percentiles.
        let times = times();
        let (sent, mut all) = seen(&times, Duration::from_millis(12));
        all.push(all[7]);
        all.retain(|(number, _)| *number != 2_000);
        let row = times.row(case(Delivery::Idempotent), &sent, &all);
        assert_eq!((row.expected, row.missing, row.doubled), (200, 1, 1));
        assert!(row.fell_behind());
        let (sent, all) = seen(&times, 2 * SECOND);
        let behind = times.row(case(Delivery::Idempotent), &sent, &all);
        assert!(behind.fell_behind() && behind.achieved < 600.0, "{}", behind.achieved);
        assert!(!times.row(case(Delivery::ExactlyOnce), &sent, &all).fell_behind(), "it waits for its checkpoint");
        let cut = Sent { events: 2_001, ..sent };
        assert!(times.row(case(Delivery::ExactlyOnce), &cut, &all).achieved < 600.0, "half of it was never sent");
    }
}
