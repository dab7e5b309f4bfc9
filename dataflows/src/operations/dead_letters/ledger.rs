//! The ledger of replays: what was put out, and what is about to be.
//!
//! ```text
//! <lake>/_replays/<job>/00000001.json      which dead letters, when, whereto       written second: from then on it counts
//! <lake>/_replays/<job>/00000001.records   partition, tab, record, on each line    written first
//! <lake>/_replays/<job>/00000001.done      it is out; the records are removed
//! ```

use std::{
    collections::HashSet,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use whisperer_schemas::Micros;
use whisperer_sinks::{
    SinkError,
    durable::{PathLock, create_folder, write_whole},
};

use super::LetterId;

/// The folder of ledgers in a lake; readers of tables ignore names that begin so.
const FOLDER: &str = "_replays";
/// The version of an entry.
const VERSION: u64 = 1;

/// Where replayed records go.
pub trait Target {
    /// Puts records out as the replay of this number, each with the partition that it came from; all or none. Doing it again with the same
    /// number does no harm.
    ///
    /// # Errors
    /// What the place answers; then none is out, or the next call finds out that all are.
    fn put(&mut self, number: u64, records: &[(u32, Vec<u8>)]) -> Result<(), SinkError>;

    /// How it is called in the ledger.
    fn name(&self) -> String;
}

/// A file that appears whole, with a record on each line.
#[derive(Debug)]
pub struct FileTarget {
    /// The file; it is not there yet.
    pub path: PathBuf,
}

impl Target for FileTarget {
    fn put(&mut self, _number: u64, records: &[(u32, Vec<u8>)]) -> Result<(), SinkError> {
        let mut text = Vec::new();
        for (_, record) in records {
            text.extend_from_slice(record);
            text.push(b'\n');
        }
        write_whole(&self.path, &text)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// One replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`VERSION`] when it was written.
    version: u64,
    /// Its number, from 1.
    pub number: u64,
    /// When, on the wall clock.
    pub written: Micros,
    /// Where its records go.
    pub target: String,
    /// Which dead letters it holds.
    pub letters: Vec<LetterId>,
}

/// The ledger of a job, held by one process at a time.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    entries: Vec<Entry>,
    _lock: PathLock,
}

impl Ledger {
    /// Opens the ledger of a job; none while another process has it.
    ///
    /// # Errors
    /// What the file system answers, and an entry that cannot be read.
    pub fn open(lake: &Path, job: &str) -> Result<Option<Ledger>, SinkError> {
        let folder = lake.join(FOLDER).join(job);
        create_folder(&folder)?;
        let Some(lock) = PathLock::take(folder.join("lock"))? else { return Ok(None) };
        let entries = read_entries(&folder)?;
        Ok(Some(Ledger { folder, entries, _lock: lock }))
    }

    /// All dead letters that were replayed, or are about to be.
    #[must_use]
    pub fn replayed(&self) -> HashSet<LetterId> {
        self.entries.iter().flat_map(|entry| entry.letters.iter().copied()).collect()
    }

    /// A replay that counts, and whose records may not be out yet.
    #[must_use]
    pub fn unfinished(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| !self.path(entry.number, "done").exists())
    }

    /// Notes a replay with its records; from then on it counts. Gives its number.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn begin(
        &mut self,
        target: &dyn Target,
        written: Micros,
        letters: Vec<LetterId>,
        records: &[(u32, Vec<u8>)],
    ) -> Result<u64, SinkError> {
        let number = self.entries.last().map_or(1, |entry| entry.number + 1);
        let mut lines = Vec::new();
        for (partition, record) in records {
            lines.extend_from_slice(format!("{partition}\t").as_bytes());
            lines.extend_from_slice(record);
            lines.push(b'\n');
        }
        write_whole(&self.path(number, "records"), &lines)?;
        let entry = Entry { version: VERSION, number, written, target: target.name(), letters };
        let path = self.path(number, "json");
        let text = serde_json::to_vec(&entry).map_err(json("write", &path))?;
        write_whole(&path, &text)?;
        self.entries.push(entry);
        Ok(number)
    }

    /// Puts the records of a replay out and notes that they are.
    ///
    /// # Errors
    /// What the target or the file system answers; the next call goes on from there.
    pub fn finish(&self, number: u64, target: &mut dyn Target) -> Result<usize, SinkError> {
        let path = self.path(number, "records");
        let lines = fs::read(&path).map_err(io("read", &path))?;
        let records = read_records(&lines).ok_or_else(|| io("read", &path)(ErrorKind::InvalidData.into()))?;
        target.put(number, &records)?;
        write_whole(&self.path(number, "done"), b"")?;
        // The records are out: what stays of them is only untidy.
        let _ = fs::remove_file(&path);
        Ok(records.len())
    }

    fn path(&self, number: u64, ending: &str) -> PathBuf {
        self.folder.join(format!("{number:08}.{ending}"))
    }
}

fn read_entries(folder: &Path) -> Result<Vec<Entry>, SinkError> {
    let mut entries: Vec<Entry> = Vec::new();
    for file in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = file.map_err(io("list", folder))?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let text = fs::read(&path).map_err(io("read", &path))?;
        let entry: Entry = serde_json::from_slice(&text).map_err(json("read", &path))?;
        if entry.version != VERSION {
            let detail = format!("version {} of a ledger of replays, {VERSION} is known here", entry.version);
            return Err(SinkError::Schema { path, detail });
        }
        entries.push(entry);
    }
    entries.sort_by_key(|entry| entry.number);
    Ok(entries)
}

fn read_records(lines: &[u8]) -> Option<Vec<(u32, Vec<u8>)>> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = |line: &[u8]| {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let partition = std::str::from_utf8(&line[..tab]).ok()?.parse().ok()?;
        Some((partition, line[tab + 1..].to_vec()))
    };
    lines.map(read).collect()
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SinkError {
    move |source| SinkError::Io { doing, path: path.into(), source }
}

fn json(doing: &'static str, path: &Path) -> impl FnOnce(serde_json::Error) -> SinkError {
    move |source| SinkError::Json { doing, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use whisperer_schemas::Digest;

    use super::*;

    /// A target that fails as often as it is told to, and keeps what it took by number.
    #[derive(Default)]
    struct Shaky {
        failures: usize,
        taken: std::collections::BTreeMap<u64, Vec<(u32, Vec<u8>)>>,
    }

    impl Target for Shaky {
        fn put(&mut self, number: u64, records: &[(u32, Vec<u8>)]) -> Result<(), SinkError> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(io("write", Path::new("there"))(ErrorKind::StorageFull.into()));
            }
            self.taken.insert(number, records.to_vec());
            Ok(())
        }

        fn name(&self) -> String {
            "there".into()
        }
    }

    #[test]
    fn a_replay_that_was_interrupted_is_carried_out_once() {
        // Goal: a replay counts as soon as it is noted; whoever opens the ledger next finds it, with its records, until it is out.
        let lake = tempfile::tempdir().expect("a temporary folder");
        let open = || Ledger::open(lake.path(), "job").expect("opens").expect("free");
        let mut target = Shaky { failures: 1, ..Shaky::default() };
        let letters = vec![LetterId(0, 7, Digest(1)), LetterId(2, 9, Digest(2))];
        let records = vec![(0, b"{\"tab\":\"\\t\"}".to_vec()), (2, b"{}".to_vec())];
        let mut ledger = open();
        assert!(Ledger::open(lake.path(), "job").expect("opens").is_none(), "two at a time");
        let number = ledger.begin(&target, 5, letters.clone(), &records).expect("noted");
        assert!(ledger.finish(number, &mut target).is_err());
        drop(ledger);
        let ledger = open();
        assert_eq!(ledger.replayed(), letters.into_iter().collect());
        assert_eq!(ledger.unfinished().map(|entry| (entry.number, entry.written)), Some((1, 5)));
        assert_eq!(ledger.finish(1, &mut target).expect("out"), 2);
        drop(ledger);
        assert_eq!(open().unfinished(), None);
        assert_eq!(target.taken[&1], records);
        assert_eq!(target.taken.len(), 1);
    }
}
