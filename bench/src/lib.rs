//! Benchmarks: what an event costs, on this machine, at this commit.
//!
//! Invariant: a number without its command is no number. Results carry the commit, the machine, the command and every raw run.
//!
//! * [`input`]: the events, the same on every machine
//! * [`baseline`]: job J by hand, the yardstick that runs beside the engine
//! * [`child`]: each run is a process of its own, which tells what it has used
//! * [`throughput`]: the runs, in turns
//! * [`figures`]: medians, tables, floors
//! * [`latency`]: from topic to topic, under a load
//! * [`state`]: states that do not fit into memory, and starts from a checkpoint
//! * [`views`]: what questions about all users cost
//! * [`peers`]: job J in other engines
//! * [`jobs`]: the jobs of the repository, with and without views
//! * [`instructions`]: what an event costs, on a busy machine too
//! * [`machine`]: where and of what the numbers are
//! * [`metrics`]: what a running engine tells
//! * [`results`]: the files that they go to

pub mod baseline;
pub mod child;
pub mod decisions;
pub mod figures;
pub mod input;
pub mod instructions;
pub mod jobs;
pub mod latency;
pub mod machine;
pub mod metrics;
pub mod peers;
pub mod results;
pub mod state;
pub mod throughput;
pub mod views;
