//! Views: whatever is asked about all users at once has the answer that a computation from scratch gives, whichever way the input was cut,
//! on any number of workers, and across stops and restarts on another number of them.

mod support;

use std::sync::Arc;

use support::{
    compile, jobs, logs, property, reference,
    viewed::{Interrupted, Tables, format, same, whole},
    views,
};
use whisperer_operators::spec::{Aggregate, FeatureSpec, JobSpec, ViewKind, ViewSpec};
use whisperer_sinks::MemoryTable;

#[test]
fn views_equal_a_computation_from_scratch() {
    // Goal: for random jobs with views of every kind over random logs, late events and disorder included, what the tables add up to equals
    // the oracle's answers, at 1 to 4 workers and as many random cuts.
    let cuts = [logs::cuts(), logs::cuts(), logs::cuts(), logs::cuts()];
    let strategy = (jobs::job(), views::dice(7), logs::log(60), cuts);
    property::check(
        250,
        &strategy,
        |(job, dice, log, _)| {
            format!("{}{}{}", job.show(), views::show(&views::with_views(job.spec(), dice)), log.show())
        },
        |(job, dice, log, cuts)| {
            let spec = views::with_views(job.spec(), dice);
            let oracle = reference(&spec, &log.partitions(&cuts[0]), &format());
            let job = compile(&spec);
            for (workers, cuts) in (1..).zip(cuts) {
                let ours = whole(&job, &log.partitions(cuts), workers)?;
                same(&ours, &oracle.views).map_err(|error| format!("{workers} workers: {error}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn views_go_on_after_a_restart() {
    // Goal: the same where the run is stopped at a random record, and again, and goes on on another number of workers: tables and digests
    // are those of a run that was never stopped.
    let stops = ((1..=4_usize, 1..60_i64), (1..=4_usize, 1..40_i64), 1..=4_usize, 1..5_u64);
    let strategy = (jobs::job(), views::dice(6), logs::log(60), logs::cuts(), stops);
    property::check(
        120,
        &strategy,
        |(job, dice, log, _, stops)| {
            format!("{stops:?}\n{}{}{}", job.show(), views::show(&views::with_views(job.spec(), dice)), log.show())
        },
        |(job, dice, log, cuts, (first, second, last, every))| {
            let spec = views::with_views(job.spec(), dice);
            let partitions = log.partitions(cuts);
            let oracle = reference(&spec, &partitions, &format());
            let job = Interrupted::new(&spec, *every);
            let undisturbed = job.undisturbed(&partitions)?;
            let mut report = job.run(&partitions, first.0, first.1)?;
            for (workers, records) in [*second, (*last, i64::MAX)] {
                if !report.finished {
                    report = job.run(&partitions, workers, records)?;
                }
            }
            same(&job.tables.contents(&job.job, &report)?, &oracle.views)?;
            match report.digests == undisturbed {
                true => Ok(()),
                false => Err(format!("digests differ: {:?} and {undisturbed:?}", report.digests)),
            }
        },
    );
}

#[test]
fn a_job_with_other_views_goes_on() {
    // Goal: where a job goes on with one view as it was, one that is another now and a new one, users who come no more are in all of them, and
    // each table adds up to what a whole run of the new job gives. Method: sixty users, of whom half come before the change only.
    let event = |at: u32| support::event(at, if at < 120 { at % 60 } else { at % 30 }, support::s(i64::from(at)));
    let lines = (0..240).map(|at| event(at).line()).collect();
    let partitions = vec![support::partition(lines, vec![vec![5, 5]; 24])];
    let job = |views: Vec<ViewSpec>| {
        let mut spec = JobSpec { views, ..JobSpec::default() };
        spec.features.push(FeatureSpec::new("events", Aggregate::Count));
        spec
    };
    let users = || ViewSpec::new("users", ViewKind::Count);
    let sum = ViewSpec::new("sum", ViewKind::Sum { of: "events".into() }).by(&["app_id"]);
    let before = job(vec![users(), ViewSpec::new("grouped", ViewKind::Count).by(&["app_id"])]);
    let after = job(vec![users(), ViewSpec::new("grouped", ViewKind::Count).by(&["events"]), sum]);

    let first = Interrupted::new(&before, 2);
    let report = first.run(&partitions, 2, 150).expect("the run is stopped");
    assert!(!report.finished && report.read >= 120, "{} records", report.read);
    let (fixed, mut views) = (first.tables.fixed.clone(), first.tables.views.clone());
    views.push(MemoryTable::default());
    let (spec, job, tables) = (Arc::new(after.clone()), compile(&after), Tables { fixed, views });
    let second = Interrupted { spec, job, store: first.store.clone(), tables, every: 2 };
    let report = second.run(&partitions, 3, i64::MAX).expect("the run ends");
    let ours = second.tables.contents(&second.job, &report).expect("the digests are those of the rows");
    let theirs = whole(&compile(&after), &partitions, 1).expect("the whole run ends");
    same(&ours, &theirs).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ours["users"].len() + ours["sum"].len(), 2);
    assert!(ours["grouped"].len() > 1, "{ours:?}");
}
