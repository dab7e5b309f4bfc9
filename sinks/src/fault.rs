//! Faults for tests: a sink that fails on demand, and a disk that fills up or loses its power at any step.

mod disk;

use std::io::{self, ErrorKind};

use whisperer_schemas::Row;

use crate::{
    error::SinkError,
    sink::{CommitFacts, StagedFile, TableSink, WrittenFile},
};

pub use disk::FaultyDisk;

pub(crate) use disk::{Change, aside, note, step};

/// Which call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// `write`, after so many calls that succeed.
    Write(u32),
    /// `stage`, after so many calls that succeed.
    Stage(u32),
    /// `publish`, after so many calls that succeed.
    Publish(u32),
}

/// A sink around `inner` whose disk is full at the call that `failing` names, and ever after.
#[derive(Debug)]
pub struct FaultyTable<S> {
    inner: S,
    failing: Failing,
    broken: bool,
}

impl<S: TableSink> FaultyTable<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, failing: Failing) -> FaultyTable<S> {
        FaultyTable { inner, failing, broken: false }
    }

    fn step(&mut self, call: fn(u32) -> Failing) -> Result<(), SinkError> {
        if self.broken {
            return Err(SinkError::Broken { table: "faulty".into() });
        }
        let (Failing::Write(left) | Failing::Stage(left) | Failing::Publish(left)) = self.failing;
        if self.failing != call(left) {
            return Ok(());
        }
        if left > 0 {
            self.failing = call(left - 1);
            return Ok(());
        }
        self.broken = true;
        Err(SinkError::Io { doing: "write", path: "faulty".into(), source: io::Error::from(ErrorKind::StorageFull) })
    }
}

impl<S: TableSink> TableSink for FaultyTable<S> {
    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        self.step(Failing::Write)?;
        self.inner.write(rows)
    }

    fn stage(&mut self, facts: &CommitFacts) -> Result<Vec<StagedFile>, SinkError> {
        self.step(Failing::Stage)?;
        self.inner.stage(facts)
    }

    fn hold(&mut self, hold: bool) {
        self.inner.hold(hold);
    }

    fn held(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        self.step(Failing::Stage)?;
        self.inner.held()
    }

    fn publish(&mut self, staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError> {
        self.step(Failing::Publish)?;
        self.inner.publish(staged)
    }
}
