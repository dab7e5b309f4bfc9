//! What concerns one run of a job and not the job: how many workers, which place in a cluster, where to start and when to stop.

use super::cluster::Cluster;

/// The flags of `whisperer run` that are no part of the job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFlags {
    /// Worker threads of this process.
    pub workers: usize,
    /// Whether each worker is kept on a core of its own.
    pub pin: bool,
    /// This process's place among several; none where it is alone.
    pub cluster: Option<Cluster>,
    /// Start from this checkpoint and not from the newest one.
    pub restore: Option<u64>,
    /// Start from it even if what was put out since comes again.
    pub repeat_outputs: bool,
    /// End where a live source ends at the start of the run.
    pub until_end: bool,
}

impl RunFlags {
    /// Worker threads of all processes.
    #[must_use]
    pub fn all_workers(&self) -> usize {
        self.workers * self.cluster.as_ref().map_or(1, |cluster| cluster.addresses.len())
    }
}
