//! Crashes: a job that is killed at any moment, and started again on however many workers and processes, ends exactly as one that was not.
//!
//! Each test runs the built binary over the same generated input, ends it in some way, goes on, and compares digests, the rows of the
//! tables and the lines of the decision file with those of an undisturbed run. `WHISPERER_CRASH_ROUNDS` says how often (20; the whole test is
//! 200), `WHISPERER_CRASH_SEED` repeats one run of it.

mod cluster;
mod disks;
mod filing;
#[cfg(feature = "kafka")]
mod history;
#[cfg(feature = "kafka")]
mod kafka;
#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../outside/mod.rs"]
mod outside;
#[path = "../running/mod.rs"]
mod running;
mod signals;
#[cfg(feature = "object-store")]
mod stores;

use std::time::Duration;

use running::job::{Ended, Job, Random};

/// Kills of one test.
fn rounds() -> u64 {
    std::env::var("WHISPERER_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20)
}

/// Runs and kills the job until it comes to its end; gives how often it was killed.
fn kill_until_done(job: &Job, random: &mut Random) -> u64 {
    let mut kills = 0;
    loop {
        let workers = 1 + random.below(3);
        let after = Duration::from_millis(20 + random.below(900));
        match job.run_for(&["--workers", &workers.to_string()], &[], after) {
            Ended::Done => return kills,
            Ended::Killed => kills += 1,
            Ended::Failed(code, told) => panic!("seed {}: exit code {code}: {told}", random.seed()),
        }
    }
}

#[test]
fn a_job_that_is_killed_ends_as_if_it_was_not() {
    // Goal: kill -9 at random moments on 1 to 3 workers loses nothing and doubles nothing.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&["--workers", "2"]);
    let mut random = Random::new();
    let mut kills = 0;
    while kills < rounds() {
        let job = Job::new("killed");
        kills += kill_until_done(&job, &mut random);
        job.assert_equals(&undisturbed, &format!("seed {}, {kills} kills", random.seed()));
    }
}

#[test]
fn a_job_that_dies_at_a_failpoint_ends_as_if_it_had_not() {
    // Goal: the same at every named point around syncs, links, renames and publications, on its first, a middle and a late passing.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&[]);
    let points = whisperer_connectors::state::failpoint::POINTS.iter().chain(&whisperer_sinks::failpoint::NAMES);
    let mut reached = 0;
    for (at, point) in points.enumerate() {
        // Files at each checkpoint, so that what closes and publishes them is passed as often.
        let edit = |text: String| text.replace("\ntable     =", "\ncommit_interval = \"1us\"\ntable     =");
        let job = Job::edited("failpoint", edit);
        let passing = [1, 3, 9][at % 3];
        let variable = format!("{point}:{passing}");
        match job.run_for(&[], &[("WHISPERER_FAILPOINT", &variable)], Duration::from_secs(60)) {
            Ended::Killed => {
                reached += 1;
                job.finish(&["--workers", "2"]);
            }
            Ended::Done => {}
            Ended::Failed(code, told) => panic!("{variable}: exit code {code}: {told}"),
        }
        job.assert_equals(&undisturbed, &variable);
    }
    assert!(reached >= 20, "only {reached} points were reached");
}

#[test]
fn a_start_from_the_cut_before_the_first_record_loses_nothing() {
    // Goal: a job that dies after the cut that comes before its first record, goes on from there and dies after the next cut, has the rows
    // of the epochs between in that. Method: both times it ends with the second manifest that it creates, its claim being the first.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&[]);
    let job = Job::new("first");
    for manifests in [2, 4] {
        let variables = [("WHISPERER_FAILPOINT", "manifest-created:2")];
        assert!(matches!(job.run_for(&["--workers", "2"], &variables, Duration::from_secs(60)), Ended::Killed));
        assert_eq!(job.manifest_max(), manifests);
    }
    job.finish(&["--workers", "2"]);
    job.assert_equals(&undisturbed, "after both");
}

#[test]
fn a_checkpoint_resumes_on_any_number_of_workers() {
    // Goal: a checkpoint taken on 2 workers goes on on 1, 3 and 4, and back on 2.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&["--workers", "2"]);
    for workers in ["1", "3", "4", "2"] {
        let job = Job::new("rescaled");
        job.begin(&["--workers", "2"]);
        job.finish(&["--workers", workers]);
        job.assert_equals(&undisturbed, &format!("2 to {workers} workers"));
    }
}
