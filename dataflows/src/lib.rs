//! Jobs, the runtime that runs them, and the command line.
//!
//! Invariant: a job only composes; logic worth a unit test lives a floor below.

pub mod cli;
pub mod job_file;
pub mod operations;
pub mod runtime;
