//! Checkpoints: what stands in a manifest, and in the delta file of a worker.
//!
//! ```text
//! manifest-1  claim of generation 1
//! manifest-2  checkpoint: epoch 1000 = base (≤ 0)    + deltas of epoch 1000
//! manifest-3  checkpoint: epoch 2000 = base (≤ 0)    + deltas of epochs 1000, 2000
//! manifest-4  claim of generation 2
//! manifest-5  checkpoint: epoch 3000 = base (≤ 1000) + deltas of epochs 2000, 3000
//! ```
//! Manifests are numbered from 1 and created only if absent: of two processes that create the same number one fails, and stops.
//! That is the fence between generations. A manifest without a [`Cut`] claims its number for a generation.
//!
//! [`delta`] is the form of delta files.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::{Digest, Epoch, KeyHash, Micros};

pub mod delta;

/// The version of manifests. Since 2 they may list [`Cut::rows`], which a reader must not pass over.
pub const MANIFEST_VERSION: u32 = 2;

/// One entry of the sequence of manifests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`] when it was written.
    pub version: u32,
    /// Its place in the sequence, from 1.
    pub number: u64,
    /// The incarnation of the cluster that wrote it, from 1.
    pub generation: u64,
    /// The job's name.
    pub job: String,
    /// The version of its file.
    pub job_version: u32,
    /// Fingerprint of what the job computes.
    pub fingerprint: String,
    /// When it was written, on the wall clock.
    pub written: Micros,
    /// Of a claim: the number of the checkpoint that its generation starts from; none where it starts from nothing. What lies between
    /// that number and the claim is no part of the job's history any more.
    #[serde(default)]
    pub restored: Option<u64>,
    /// The checkpoint; none where the manifest only claims its number for a generation.
    pub cut: Option<Cut>,
}

/// A consistent cut: everything after the same epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// The last epoch that is in it, whole.
    pub epoch: Epoch,
    /// Workers, over all processes, that took it.
    pub workers: u32,
    /// The next offset of each partition.
    pub positions: BTreeMap<u32, u64>,
    /// The largest event time of each partition that is not null; recorded idle advances included.
    pub clocks: BTreeMap<u32, Micros>,
    /// Partitions that have ended.
    pub ended: Vec<u32>,
    /// The global watermark, which never goes back: not behind this either. None before the first event, and in manifests older than it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Micros>,
    /// Name and length of each tick log, as far as it belongs to the cut.
    pub ticks: BTreeMap<String, u64>,
    /// The compacted base: the epoch up to which it holds everything, and its files where they are copied away.
    pub base: Base,
    /// Delta files that come on top of the base, by epoch, oldest first.
    pub deltas: Vec<FileFacts>,
    /// Delta files with rows that are in no file of their table yet, oldest first. Their states may be in the base.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<FileFacts>,
    /// Files that sinks have staged for this checkpoint, as the sinks describe them, by sink.
    pub staged: BTreeMap<String, Vec<String>>,
    /// What sinks need to go on, by sink and, where each has its own, worker.
    pub sinks: BTreeMap<String, String>,
    /// Digest of everything that was put out, by table.
    pub digests: BTreeMap<String, Digest>,
    /// Numbers by name, for reports.
    pub counts: BTreeMap<String, u64>,
    /// What names the run in its files: the same in every generation.
    #[serde(default)]
    pub run: String,
    /// Event time before which decisions are not news; fixed at the job's first start.
    pub deliver_from: Option<Micros>,
    /// Whether a bounded input has come to its end and everything that the end brings is out: nothing is left to do.
    #[serde(default)]
    pub finished: bool,
}

/// The compacted base as a manifest sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// Everything up to this epoch is in the base; the deltas after it are listed beside it.
    pub epoch: Epoch,
    /// Its files on the remote store; empty where the base is only local.
    pub files: Vec<FileFacts>,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileFacts {
    /// Its name, relative to the state folder; of a copied base, relative to the remote store, where it holds the checksum.
    pub name: String,
    /// The epoch of the checkpoint that it was written for.
    pub epoch: Epoch,
    /// Its length.
    pub bytes: u64,
    /// xxh3-128 of its bytes, in hex.
    pub xxh3: String,
}

/// Length and xxh3-128 of bytes that come one after the other.
#[derive(Clone, Default)]
pub struct Checksum {
    hasher: Box<Xxh3>,
    bytes: u64,
}

impl Checksum {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The facts of a file that holds these bytes.
    #[must_use]
    pub fn facts(&self, name: impl Into<String>, epoch: Epoch) -> FileFacts {
        FileFacts { name: name.into(), epoch, bytes: self.bytes, xxh3: format!("{:032x}", self.hasher.digest128()) }
    }
}

/// What one worker adds to a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// The epoch of the checkpoint.
    pub epoch: Epoch,
    /// The worker, over all processes.
    pub worker: u32,
    /// What the encoded states mean: the layout of the job that wrote them, opaque here.
    pub layout: Vec<u8>,
    /// Whether it holds all states of the worker's key groups, and not only those that changed: everything older is void then. Either all
    /// workers write full deltas at an epoch or none does. A change of layout needs full deltas.
    pub full: bool,
    /// States that changed since the last checkpoint, sorted by (key group, key); none where the key was removed. Many share a block of
    /// memory: one of its own for each would be more work than its encoding.
    pub states: Vec<(KeyHash, Option<Bytes>)>,
    /// Everything else that the worker has to find again, by name.
    pub parts: BTreeMap<String, Vec<u8>>,
    /// Rows that wait for the checkpoint to be committed before they leave, encoded, by sink.
    pub outbox: BTreeMap<String, Vec<u8>>,
}
