//! Named points at which a crash test ends the process, as kill -9 would: `WHISPERER_FAILPOINT="manifest-linked:3"` aborts at the third
//! passing of that point. Without the variable a point costs a look at a static.

use std::{
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// The variable that names a point and the passing at which the process ends there.
pub const VARIABLE: &str = "WHISPERER_FAILPOINT";

/// All points of this crate, for a test that visits each. Those of files come before and after each operation of that kind, whatever it is
/// for; the others stand where a step of a checkpoint begins or ends.
pub const POINTS: &[&str] = &[
    "before-file-create",
    "after-file-create",
    "before-file-sync",
    "after-file-sync",
    "before-file-link",
    "after-file-link",
    "before-file-rename",
    "after-file-rename",
    "before-file-remove",
    "after-file-remove",
    "before-folder-sync",
    "after-folder-sync",
    "delta-begun",
    "delta-half-written",
    "delta-written",
    "manifest-begun",
    "manifest-created",
    "control-written",
    "merge-begun",
    "merge-half-done",
    "merge-done",
    "upload-begun",
    "upload-done",
];

/// A point and how many passings are left.
struct Armed {
    point: String,
    left: AtomicU64,
}

/// Passes a point: the process may end here.
pub fn pass(point: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    if let Some(armed) = ARMED.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?))
        && armed.point == point
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // Past the log and its buffers: what follows is nobody's to flush.
        eprintln!("{VARIABLE}: the process ends at \"{point}\"");
        process::abort();
    }
}

/// Does something between the points `before-…` and `after-…`.
pub(crate) fn around<T>(operation: &'static str, act: impl FnOnce() -> T) -> T {
    pass_named("before-", operation);
    let done = act();
    pass_named("after-", operation);
    done
}

fn pass_named(prefix: &str, operation: &str) {
    static ARMED: OnceLock<bool> = OnceLock::new();
    // Only a crash test pays for the name.
    if *ARMED.get_or_init(|| std::env::var_os(VARIABLE).is_some()) {
        pass(&format!("{prefix}{operation}"));
    }
}

/// `point` or `point:count`; a count that is no number from 1 on is the first passing.
fn parse(text: &str) -> Option<Armed> {
    let (point, count) = text.split_once(':').unwrap_or((text, "1"));
    let left = AtomicU64::new(count.parse().unwrap_or(1).max(1));
    (!point.is_empty()).then(|| Armed { point: point.into(), left })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_and_its_count_are_read() {
        // Goal: a crash test gets the passing that it asked for. Method: texts with and without a count.
        let read = |text| parse(text).map(|armed| (armed.point, armed.left.into_inner()));
        assert_eq!(read("delta-written:3"), Some(("delta-written".into(), 3)));
        assert_eq!(read("delta-written"), Some(("delta-written".into(), 1)));
        assert_eq!(read("delta-written:0"), Some(("delta-written".into(), 1)));
        assert_eq!(read(""), None);
    }
}
