//! What the files of a lake are called.
//!
//! ```text
//! part-<run>-<worker>-<number>.parquet                                a run without checkpoints
//! part-<run>-g<generation>-c<checkpoint>-<worker>-<number>.parquet    a run with
//! ```
//! A name is used once: a run's own by the number, those of a run that was continued by the generation.

use crate::lake::RunId;

/// Who writes a file, and for which checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartName<'a> {
    pub(crate) run: &'a RunId,
    /// 0 in a run without checkpoints.
    pub(crate) generation: u64,
    /// Number of the manifest; 0 in a run without checkpoints.
    pub(crate) checkpoint: u64,
    pub(crate) worker: usize,
    pub(crate) number: u64,
}

impl PartName<'_> {
    /// The file's name.
    pub(crate) fn file(&self) -> String {
        let PartName { run, generation, checkpoint, worker, number } = self;
        let run = run.as_str();
        match generation {
            0 => format!("part-{run}-{worker:03}-{number:05}.parquet"),
            _ => format!("part-{run}-g{generation:04}-c{checkpoint:06}-{worker:03}-{number:05}.parquet"),
        }
    }
}

/// The checkpoint that a file of `run` was made for; none if it is another run's, or was made without checkpoints.
pub(crate) fn checkpoint_of(file: &str, run: &RunId) -> Option<u64> {
    let rest = file.strip_prefix("part-")?.strip_prefix(run.as_str())?.strip_prefix("-g")?.strip_suffix(".parquet")?;
    let mut parts = rest.split('-');
    let mut number = |prefix: &str| parts.next()?.strip_prefix(prefix)?.parse::<u64>().ok();
    let (_, checkpoint, _, _) = (number("")?, number("c")?, number("")?, number("")?);
    parts.next().is_none().then_some(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a name tells its checkpoint to its own run, and nothing to a run whose name begins alike.
    #[test]
    fn names_read_back() {
        let run = |name: &str| RunId::new(name).expect("a plain name");
        let (own, longer) = (run("a-1"), run("a-1-g0002"));
        let name = PartName { run: &own, generation: 2, checkpoint: 1_234_567, worker: 3, number: 17 }.file();
        assert_eq!(name, "part-a-1-g0002-c1234567-003-00017.parquet");
        assert_eq!(checkpoint_of(&name, &own), Some(1_234_567));
        assert_eq!(checkpoint_of(&name, &run("a")), None);
        assert_eq!(checkpoint_of(&name, &longer), None);
        let name = PartName { run: &longer, generation: 1, checkpoint: 5, worker: 0, number: 0 }.file();
        assert_eq!((checkpoint_of(&name, &own), checkpoint_of(&name, &longer)), (None, Some(5)));
        let plain = PartName { run: &own, generation: 0, checkpoint: 0, worker: 3, number: 17 }.file();
        assert_eq!((plain.as_str(), checkpoint_of(&plain, &own)), ("part-a-1-003-00017.parquet", None));
    }
}
