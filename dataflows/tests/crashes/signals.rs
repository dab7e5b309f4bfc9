//! Signals: a job that is asked to stop, and one that sleeps while another takes over.

use std::{thread, time::Duration};

use crate::running::job::{Ended, Job, Process};

/// Waits until a job has taken a checkpoint.
fn await_checkpoint(job: &Job, child: &mut Process) {
    while !job.has_checkpoint() {
        assert!(!child.has_ended(), "it ended before its first checkpoint");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_job_that_is_asked_to_stop_takes_a_checkpoint_and_ends_well() {
    // Goal: SIGTERM ends a job with 0; it goes on from there and ends as if it had not stopped.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&[]);
    let job = Job::new("stopped");
    let mut child = job.start(&["--workers", "2"], &[]);
    await_checkpoint(&job, &mut child);
    child.signal("TERM");
    assert!(matches!(job.ended(child), Ended::Done), "a stop is no failure");
    assert!(!job.folder().join("out/_runs").exists(), "the run has not come to its end");
    job.finish(&["--workers", "1"]);
    job.assert_equals(&undisturbed, "stopped and gone on");
}

#[test]
fn a_generation_that_wakes_up_too_late_commits_nothing() {
    // Goal: a process that slept (SIGSTOP) while a new one took over and came to the end stops when it wakes up, and changes nothing.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&[]);
    let job = Job::new("zombie");
    let mut zombie = job.start(&[], &[]);
    await_checkpoint(&job, &mut zombie);
    zombie.signal("STOP");
    job.finish(&["--workers", "2"]);
    job.assert_equals(&undisturbed, "while the other one sleeps");
    zombie.signal("CONT");
    let Ended::Failed(code, _) = job.ended(zombie) else { panic!("the zombie did not fail") };
    assert_eq!(code, 1);
    job.assert_equals(&undisturbed, "after the other one woke up");
}
