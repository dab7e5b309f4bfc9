//! Disks that are full: an error that says so, and a job that goes on from its last checkpoint.

use std::{fs, process::Command, time::Duration};

use crate::{
    outside,
    running::job::{Ended, Job},
};

/// How long a run may take that is to fail.
const RUN_MAX: Duration = Duration::from_secs(60);

/// Has the call made by a shell that runs `script` first; `"$@"` is the call.
fn by_shell(call: &Command, shell: &[&str], script: &str) -> Command {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", script, "sh"]).arg(call.get_program()).args(call.get_args());
    command.current_dir(call.get_current_dir().expect("the job's folder"));
    command.envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn a_write_that_is_refused_ends_the_job() {
    // Goal: a write that the system refuses, in whatever file, ends a run with 1 and the file's name; with room it goes on and ends as if
    // there had always been some. Method: the shell bounds the length of files, in blocks of 512 bytes, from too short for the first to long
    // enough for most.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&[]);
    let mut refused = 0;
    for blocks in [8, 64, 200, 600, 2_000] {
        let job = Job::new("refused");
        // Otherwise the system would end the process before the write can fail.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let child = job.start_command(by_shell(&job.command(&["--workers", "2"], &[]), &["sh"], &script));
        match job.ended_within(child, RUN_MAX) {
            Ended::Done => {}
            Ended::Killed => panic!("{blocks} blocks: it was killed, or hangs: {}", job.log()),
            Ended::Failed(code, log) => {
                refused += 1;
                assert_eq!(code, 1, "{blocks} blocks: {log}");
                let path = job.folder().display().to_string();
                let told = log.lines().any(|line| line.contains("too large") && line.contains(&path));
                assert!(told, "{blocks} blocks: no error names a file: {log}");
                job.finish(&["--workers", "2"]);
            }
        }
        job.assert_equals(&undisturbed, &format!("{blocks} blocks"));
    }
    assert!(refused >= 3, "only {refused} runs met the bound");
}

/// What a shell exits with that may not mount.
const NO_MOUNT: i32 = 99;

#[test]
fn a_full_disk_ends_the_job() {
    // Goal: with its checkpoints on a disk that is full, a run ends with 1 and says so; with room it goes on and ends as if there had always been
    // some. Method: a file system in memory, in a mount namespace that the test may make without being root on most machines.
    let test = "a_full_disk_ends_the_job";
    let job = Job::new("full");
    fs::create_dir(job.folder().join("state")).expect("a folder");
    let script = format!(
        "mount -t tmpfs -o size=1m none state || exit {NO_MOUNT}; \"$@\"; echo $? > code; \
         mount -o remount,size=64m state; exec \"$@\""
    );
    let call = by_shell(
        &job.command(&["--workers", "2"], &[]),
        &["unshare", "--user", "--map-root-user", "--mount", "sh"],
        &script,
    );
    let may = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return outside::skipped(test, "this machine lets nobody make a mount namespace (unshare)");
    }
    match job.ended_within(job.start_command(call), RUN_MAX) {
        Ended::Done => {}
        Ended::Killed => panic!("it hangs: {}", job.log()),
        Ended::Failed(NO_MOUNT, log) => return outside::skipped(test, &format!("no file system in memory: {log}")),
        Ended::Failed(code, log) => panic!("with room: exit code {code}: {log}"),
    }
    let code = fs::read_to_string(job.folder().join("code")).expect("an exit code");
    assert_eq!(code.trim(), "1", "{}", job.log());
    assert!(job.log().contains("No space left on device"), "{}", job.log());
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&["--workers", "2"]);
    job.assert_equals(&undisturbed, "full, then not");
}
