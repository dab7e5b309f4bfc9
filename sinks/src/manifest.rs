//! The manifest of a run: what it read, what it wrote and the digests that prove it; `<lake>/_runs/<run>.json`.
//!
//! Versioned: a manifest that any release wrote stays readable. Members that this release does not know are passed over.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use whisperer_schemas::{
    Digest, Micros, PartitionId,
    time::{format_micros, parse_rfc3339},
};

use crate::{
    durable::write_whole,
    error::{SinkError, io},
    sink::{CommitFacts, WrittenFile},
};

/// The newest version of the manifest, which this release writes.
pub const MANIFEST_VERSION: u64 = 1;

const RUNS: &str = "_runs";

/// What a run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunManifest {
    /// Version of the manifest's layout: [`MANIFEST_VERSION`].
    pub version: u64,
    /// The run.
    pub run: String,
    /// The job.
    pub job: String,
    /// The version of its file, as the author counts.
    pub job_version: u32,
    /// Hash of the compiled job.
    pub fingerprint: String,
    /// When it started, on the wall clock.
    #[serde(with = "instant")]
    pub started: Micros,
    /// When it ended, on the wall clock.
    #[serde(with = "instant")]
    pub ended: Micros,
    /// Workers that ran it.
    pub workers: u32,
    /// The last epoch.
    pub epoch: u64,
    /// For each partition of the source the offset at which reading would go on.
    pub positions: BTreeMap<u32, u64>,
    /// The watermark at the end, in event time; null if nothing was read.
    #[serde(with = "maybe_instant")]
    pub watermark: Option<Micros>,
    /// Counts by name, such as `read`, `late` or `decisions.win_back`.
    pub counts: BTreeMap<String, u64>,
    /// Digest of each output, in hex.
    pub digests: BTreeMap<String, String>,
    /// The files, relative to the lake where they are in it.
    pub files: Vec<WrittenFile>,
}

impl RunManifest {
    /// Takes over what the last commit covers.
    pub fn set_facts(&mut self, facts: &CommitFacts) {
        self.epoch = facts.epoch.0;
        self.positions = facts.positions.iter().map(|(PartitionId(partition), at)| (*partition, *at)).collect();
    }

    /// Takes over the digest of an output.
    pub fn set_digest(&mut self, output: &str, digest: Digest) {
        self.digests.insert(output.into(), digest.to_string());
    }

    /// Writes it to `path`, whole or not at all.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn write(&self, path: &Path) -> Result<(), SinkError> {
        let json = serde_json::to_vec_pretty(self).map_err(|source| SinkError::Json {
            doing: "write",
            path: path.into(),
            source,
        })?;
        write_whole(path, &json)
    }

    /// Reads a manifest of any version so far.
    ///
    /// # Errors
    /// No such file, no manifest, or one that a newer release wrote.
    pub fn read(path: &Path) -> Result<RunManifest, SinkError> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let json = fs::read(path).map_err(io("read", path))?;
        let bad = |source| SinkError::Json { doing: "read", path: path.into(), source };
        // The version comes first: the rest of a newer one may have changed its types.
        let Version { version } = serde_json::from_slice(&json).map_err(bad)?;
        if version > MANIFEST_VERSION {
            return Err(SinkError::Version { path: path.into(), found: version, known: MANIFEST_VERSION });
        }
        serde_json::from_slice(&json).map_err(bad)
    }
}

/// Where the manifest of `run` is.
#[must_use]
pub fn path(lake: &Path, run: &str) -> PathBuf {
    lake.join(RUNS).join(format!("{run}.json"))
}

/// The manifest of the job's run that ended last; none if no run of it has.
///
/// # Errors
/// A manifest of the lake that cannot be read.
pub fn latest(lake: &Path, job: &str) -> Result<Option<RunManifest>, SinkError> {
    let runs = of_job(lake, job)?.into_iter().map(|(_, run)| run);
    Ok(runs.max_by(|one, other| (one.ended, &one.run).cmp(&(other.ended, &other.run))))
}

/// All manifests of the job.
pub(crate) fn of_job(lake: &Path, job: &str) -> Result<Vec<(PathBuf, RunManifest)>, SinkError> {
    let folder = lake.join(RUNS);
    let mut runs = Vec::new();
    if !folder.is_dir() {
        return Ok(runs);
    }
    for entry in fs::read_dir(&folder).map_err(io("list", &folder))? {
        let path = entry.map_err(io("list", &folder))?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let run = RunManifest::read(&path)?;
            runs.push((path, run));
        }
    }
    runs.retain(|(_, run)| run.job == job);
    Ok(runs)
}

/// An instant as RFC 3339.
mod instant {
    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, Micros, Serializer, format_micros, parse_rfc3339};

    pub(super) fn serialize<S: Serializer>(time: &Micros, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_micros(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Micros, D::Error> {
        let text = String::deserialize(from)?;
        parse_rfc3339(text.as_bytes()).ok_or_else(|| D::Error::custom(format!("{text:?} is not a time")))
    }
}

/// An instant as RFC 3339, or null.
mod maybe_instant {
    use super::{Deserialize, Deserializer, Micros, Serialize, Serializer, instant};

    #[derive(Serialize, Deserialize)]
    struct Instant(#[serde(with = "instant")] Micros);

    #[allow(clippy::ref_option)] // serde's `with` asks for this signature.
    pub(super) fn serialize<S: Serializer>(time: &Option<Micros>, to: S) -> Result<S::Ok, S::Error> {
        time.map(Instant).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Micros>, D::Error> {
        Ok(Option::<Instant>::deserialize(from)?.map(|Instant(time)| time))
    }
}

#[cfg(test)]
mod tests {
    use whisperer_schemas::Epoch;

    use super::*;

    fn sample(run: &str, job: &str, ended: Micros) -> RunManifest {
        let mut manifest = RunManifest {
            version: MANIFEST_VERSION,
            run: run.into(),
            job: job.into(),
            job_version: 3,
            fingerprint: "00ff".into(),
            started: 1_767_398_400_000_000,
            ended,
            workers: 2,
            epoch: 0,
            positions: BTreeMap::new(),
            watermark: None,
            counts: BTreeMap::from([("read".into(), 10)]),
            digests: BTreeMap::new(),
            files: vec![WrittenFile {
                path: "decisions/event_date=2026-01-03/part-r-000-00000.parquet".into(),
                table: "decisions".into(),
                rows: 4,
                bytes: 1_234,
                xxh3: "0123456789abcdef".into(),
            }],
        };
        let positions = BTreeMap::from([(PartitionId(0), 99)]);
        manifest.set_facts(&CommitFacts { epoch: Epoch(7), positions, checkpoint: 0 });
        manifest.set_digest("decisions", Digest(1));
        manifest
    }

    /// Goal: what was written is read back, and `latest` tells jobs and times apart.
    #[test]
    fn latest_reads_back() {
        let lake = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(latest(lake.path(), "a").expect("no runs"), None);
        for (run, job, ended) in [("1", "a", 1_000), ("2", "a", 3_000_001), ("3", "a", 2_000), ("4", "b", 9_000)] {
            sample(run, job, ended).write(&path(lake.path(), run)).expect("write");
        }
        let mut expected = sample("2", "a", 3_000_001);
        assert_eq!(latest(lake.path(), "a").expect("read"), Some(expected.clone()));
        expected.watermark = Some(-1);
        expected.write(&path(lake.path(), "2")).expect("write");
        assert_eq!(latest(lake.path(), "a").expect("read"), Some(expected));
    }

    /// Goal: the fixture of version 1 stays readable, and what this release writes today is still that.
    #[test]
    fn version_1_stays_readable() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/run_manifest.v1.json");
        let manifest = RunManifest::read(&fixture).expect("version 1 is readable");
        let mut expected = sample("r1", "engagement", 1_767_398_460_500_000);
        expected.watermark = Some(1_767_398_399_999_999);
        assert_eq!(manifest, expected);
    }

    /// Goal: a newer version is refused by number, not misread.
    #[test]
    fn newer_version_is_refused() {
        let lake = tempfile::tempdir().expect("a temporary folder");
        let path = lake.path().join("new.json");
        fs::write(&path, r#"{"version": 2, "run": 7}"#).expect("write");
        let error = RunManifest::read(&path).expect_err("too new");
        assert!(matches!(error, SinkError::Version { found: 2, known: 1, .. }), "{error}");
    }
}
