//! Named points at which a test ends the process, or lets the disk of its thread fail.
//!
//! `WHISPERER_FAILPOINT="name:count"` aborts the process as it passes the point for the count-th time: what is left is what a `kill -9` at
//! that moment leaves. Generic points come before each kind of step that changes the disk; those of the lake and its log name a moment
//! of a commit.

use std::{
    env, io, process,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::fault;

/// The variable that arms a point.
pub const VARIABLE: &str = "WHISPERER_FAILPOINT";

/// All points of this crate, in the order in which a commit passes them.
pub const NAMES: [&str; 17] = [
    "sink.write",
    "sink.sync",
    "sink.sync_folder",
    "sink.rename",
    "sink.link",
    "sink.remove",
    "lake.staged",
    "lake.decided",
    "lake.renamed",
    "lake.logged",
    "lake.published",
    "lake.recovering",
    "lake.recovered",
    "lake.erasing",
    "lake.erased",
    "lake.finished",
    "log.checkpoint",
];

struct Armed {
    name: String,
    left: AtomicU64,
}

/// Passes the point `name`.
///
/// # Errors
/// What a [`fault::FaultyDisk`] on this thread answers.
pub(crate) fn pass(name: &'static str) -> io::Result<()> {
    debug_assert!(NAMES.contains(&name), "{name} is not listed");
    if let Some(armed) = armed()
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        process::abort();
    }
    fault::step(name)
}

fn armed() -> Option<&'static Armed> {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    ARMED.get_or_init(|| parse(&env::var(VARIABLE).ok()?)).as_ref()
}

/// A name without a count means the first passing. Points of other crates are none of ours.
fn parse(value: &str) -> Option<Armed> {
    let (name, count) = value.split_once(':').unwrap_or((value, "1"));
    let left = count.parse().ok().filter(|count| *count > 0)?;
    Some(Armed { name: name.into(), left: AtomicU64::new(left) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names and counts are told apart, and what is no count arms nothing.
    #[test]
    fn values_are_parsed() {
        let parsed = |value| parse(value).map(|armed| (armed.name, armed.left.into_inner()));
        assert_eq!(parsed("sink.rename:3"), Some(("sink.rename".into(), 3)));
        assert_eq!(parsed("sink.rename"), Some(("sink.rename".into(), 1)));
        assert_eq!(parsed("sink.rename:0"), None);
        assert_eq!(parsed("sink.rename:x"), None);
    }
}
