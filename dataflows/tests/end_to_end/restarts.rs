//! A real broker that is restarted while a job reads from it and writes to it.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    faults::{DELIVERIES, Live, all_events, undisturbed},
    outside,
    running::broker::Broker,
};

/// A broker that takes a minute to come back on a busy machine must not outlast a transaction.
const PATIENT: &str = "\"transaction.timeout.ms\" = \"300000\"";

/// A broker that no other test uses, taken down however the test ends.
struct Own(String);

impl Own {
    const PORT: &'static str = "29392";

    fn start() -> Own {
        Own(Own::call(&["up", "--fresh"]))
    }

    /// Calls bin/broker, which bounds its own waits; gives what it prints.
    fn call(command: &[&str]) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin/broker");
        let mut call = Command::new(path);
        let output = call.args(command).env("WHISPERER_BROKER_PORT", Own::PORT).stdin(Stdio::null()).output();
        let output = output.expect("it starts");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        Own::call(&["down", "--wipe"]);
    }
}

#[test]
fn a_broker_may_restart_amid_a_run() {
    // Goal: a real broker that goes and comes back with what it has on disk, while events are on their way in and decisions on their way
    // out, loses nothing and doubles nothing, in either delivery. What counts is what the topic then holds: events have the timestamps of
    // long ago, so a broker that restarts has forgotten their producer and may take a batch twice.
    if std::env::var_os("WHISPERER_KAFKA").is_none() {
        return outside::skipped("a_broker_may_restart_amid_a_run", "set WHISPERER_KAFKA (bin/broker up)");
    }
    let own = Own::start();
    let broker = Broker::at(own.0.clone());
    let (topic, feed) = (broker.topic("events"), broker.producer());
    let mut jobs = DELIVERIES.map(|delivery| Live::start(&broker, &topic, (delivery, PATIENT)));
    jobs.iter_mut().for_each(Live::await_checkpoint);
    let parts: Vec<_> = all_events().chunks(all_events().len().div_ceil(4)).collect();
    for (at, part) in parts.iter().enumerate() {
        feed.send(&topic, *part);
        thread::sleep(Duration::from_millis(500));
        if at == 1 {
            Own::call(&["restart"]);
        }
        jobs.iter_mut().for_each(|live| live.assert_runs(&format!("part {at}")));
    }
    feed.flush();
    let [one, other] = jobs;
    let expected = undisturbed(&broker, &topic);
    one.assert_unharmed(&broker, &expected);
    other.assert_unharmed(&broker, &expected);
}
