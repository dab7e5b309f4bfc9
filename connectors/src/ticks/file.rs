//! `FileTickLog`: ticks in a folder, a file for each writer.
//!
//! ```text
//! <folder>/<generation>-adopted.ticks              what earlier generations left, written by the first process of a generation
//! <folder>/<generation>-<worker>-<number>.ticks    what a worker of that generation appended; a new number past FILE_BYTES_MAX
//!
//! file  = "WSPTICK1" frame*
//! frame = crc32 of the rest, number of ticks, (partition u32, offset u64, time i64)*; all little-endian
//! ```
//! A frame is one append, durable as a whole. A writer never goes on in a file that it finds, so only the last frame of a file can be
//! torn, and its ticks had no effect yet: it is left out.
//!
//! A generation begins by adopting: what the earlier ones left is copied into one file and theirs are removed. From then on files of
//! earlier generations are not read, so a process that wakes up late writes where nobody looks.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use whisperer_schemas::{Micros, PartitionId};

use super::{Tick, TickLog, TickWriter, is_held};
use crate::source::{Positions, SourceError};

const MAGIC: &[u8; 8] = b"WSPTICK1";
const TICK_BYTES: usize = 20;
const ENDING: &str = "ticks";

/// Bytes of a file after which its writer begins another one, so that old ones can go while a partition stays idle for weeks: an hour
/// of sixteen idle partitions.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// Ticks in a folder.
#[derive(Clone, Debug)]
pub struct FileTickLog {
    folder: PathBuf,
    generation: u64,
}

impl FileTickLog {
    /// Begins a generation: adopts what earlier ones left. To be called once a generation, by the process that claimed it, before any
    /// other process of it [joins](FileTickLog::join).
    ///
    /// # Errors
    /// Where the folder cannot be made, read or written.
    pub fn begin(folder: &Path, generation: u64) -> Result<FileTickLog, SourceError> {
        fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        let log = FileTickLog { folder: folder.to_owned(), generation };
        log.write_adopted(&latest(read_all(&log.files()?)?))?;
        for file in log.all_files()?.iter().filter(|file| file.generation < generation) {
            remove(&file.path)?;
        }
        Ok(log)
    }

    /// The log of a generation that has begun.
    #[must_use]
    pub fn join(folder: &Path, generation: u64) -> FileTickLog {
        FileTickLog { folder: folder.to_owned(), generation }
    }

    fn adopted_path(&self) -> PathBuf {
        self.folder.join(format!("{:08}-adopted.{ENDING}", self.generation))
    }

    /// Writes the generation's first file, whole or not at all.
    fn write_adopted(&self, ticks: &[Tick]) -> Result<(), SourceError> {
        let path = self.adopted_path();
        let part = path.with_extension("part");
        let write = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(MAGIC)?;
            file.write_all(&frame(ticks))?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            sync_folder(&self.folder)
        };
        write().map_err(|source| failed(&path, source))
    }

    /// The adopted file marks where the generation begins, so it stays, with less in it.
    fn shorten_adopted(
        &self,
        file: &TickFile,
        positions: &Positions,
        clocks: &BTreeMap<PartitionId, Micros>,
    ) -> Result<(), SourceError> {
        let mut ticks = read_file(&file.path)?;
        let count = ticks.len();
        ticks.retain(|tick| !is_held(tick, positions, clocks));
        if ticks.len() == count || file.path != self.adopted_path() { Ok(()) } else { self.write_adopted(&ticks) }
    }

    /// The files that count: those of the newest generation that adopted and of later ones; where none did, all.
    fn files(&self) -> Result<Vec<TickFile>, SourceError> {
        let mut files = self.all_files()?;
        let adopted = files.iter().filter(|file| file.writer == Writer::Adopted).map(|file| file.generation).max();
        files.retain(|file| adopted.is_none_or(|adopted| file.generation >= adopted));
        Ok(files)
    }

    /// Those that do not count too.
    fn all_files(&self) -> Result<Vec<TickFile>, SourceError> {
        let entries = match fs::read_dir(&self.folder) {
            // On a machine that joins with a disk of its own.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| failed(&self.folder, source))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| failed(&self.folder, source))?.path();
            files.extend(TickFile::parse(path));
        }
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }
}

impl TickLog for FileTickLog {
    fn ticks(&self) -> Result<Vec<Tick>, SourceError> {
        read_all(&self.files()?)
    }

    fn writer(&self, worker: usize) -> Result<Box<dyn TickWriter>, SourceError> {
        Ok(Box::new(FileTickWriter { log: self.clone(), worker, number: 0, file: None }))
    }

    fn forget_before(&self, positions: &Positions, clocks: &BTreeMap<PartitionId, Micros>) -> Result<(), SourceError> {
        let files = self.files()?;
        for file in &files {
            let Writer::Worker { worker, number } = file.writer else {
                self.shorten_adopted(file, positions, clocks)?;
                continue;
            };
            // The newest file of a writer may be open.
            let is_newer = |other: &TickFile| match other.writer {
                Writer::Worker { worker: of, number: later } => of == worker && later > number,
                Writer::Adopted => false,
            };
            let is_done = files.iter().any(|other| other.generation == file.generation && is_newer(other));
            if is_done && read_file(&file.path)?.iter().all(|tick| is_held(tick, positions, clocks)) {
                remove(&file.path)?;
            }
        }
        Ok(())
    }
}

/// Appends to files of its own, the first of which is made with the first tick.
struct FileTickWriter {
    log: FileTickLog,
    worker: usize,
    number: u32,
    file: Option<(PathBuf, File, u64)>,
}

impl TickWriter for FileTickWriter {
    fn append(&mut self, ticks: &[Tick]) -> Result<(), SourceError> {
        if ticks.is_empty() {
            return Ok(());
        }
        let (path, file, bytes) = match &mut self.file {
            Some(open) if open.2 < FILE_BYTES_MAX => open,
            _ => self.open_next()?,
        };
        let frame = frame(ticks);
        *bytes += frame.len() as u64;
        file.write_all(&frame).and_then(|()| file.sync_data()).map_err(|source| failed(path, source))
    }
}

impl FileTickWriter {
    fn open_next(&mut self) -> Result<&mut (PathBuf, File, u64), SourceError> {
        loop {
            let name = format!("{:08}-{:05}-{:08}.{ENDING}", self.log.generation, self.worker, self.number);
            self.number += 1;
            let path = self.log.folder.join(name);
            match create(&path) {
                Ok(file) => return Ok(self.file.insert((path, file, MAGIC.len() as u64))),
                // A writer of this worker and generation before this one: its file stays as it is.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(failed(&path, source)),
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let folder = path.parent().expect("a file lies in a folder");
    fs::create_dir_all(folder)?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(MAGIC)?;
    file.sync_all()?;
    sync_folder(folder)?;
    Ok(file)
}

#[derive(Debug, PartialEq, Eq)]
enum Writer {
    Adopted,
    Worker { worker: u32, number: u32 },
}

struct TickFile {
    path: PathBuf,
    generation: u64,
    writer: Writer,
}

impl TickFile {
    /// None for what is no file of ticks.
    fn parse(path: PathBuf) -> Option<TickFile> {
        if path.extension() != Some(OsStr::new(ENDING)) {
            return None;
        }
        let (generation, writer) = path.file_stem()?.to_str()?.split_once('-')?;
        let generation = generation.parse().ok()?;
        let writer = match writer.split_once('-') {
            None if writer == "adopted" => Writer::Adopted,
            None => return None,
            Some((worker, number)) => Writer::Worker { worker: worker.parse().ok()?, number: number.parse().ok()? },
        };
        Some(TickFile { path, generation, writer })
    }
}

/// Of the ticks at one place only the last one matters to a replay, which applies them all together.
fn latest(mut ticks: Vec<Tick>) -> Vec<Tick> {
    ticks.reverse();
    ticks.dedup_by_key(|tick| (tick.partition, tick.offset));
    ticks.reverse();
    ticks
}

fn read_all(files: &[TickFile]) -> Result<Vec<Tick>, SourceError> {
    let mut ticks = Vec::new();
    for file in files {
        ticks.extend(read_file(&file.path)?);
    }
    ticks.sort_unstable();
    ticks.dedup();
    Ok(ticks)
}

fn read_file(path: &Path) -> Result<Vec<Tick>, SourceError> {
    let bytes = fs::read(path).map_err(|source| SourceError::Io { path: path.to_owned(), source })?;
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        // A crash can leave a file with less than its first bytes; what is no beginning of them is not ours.
        return match MAGIC.starts_with(&bytes) {
            true => Ok(Vec::new()),
            false => Err(failed(path, io::Error::new(io::ErrorKind::InvalidData, "this is no tick log of version 1"))),
        };
    };
    let mut ticks = Vec::new();
    while let Some((frame, after)) = parse_frame(rest) {
        ticks.extend(frame);
        rest = after;
    }
    if !rest.is_empty() {
        tracing::warn!(path = %path.display(), bytes = rest.len(), "the last append to a tick log is torn and left out");
    }
    Ok(ticks)
}

fn frame(ticks: &[Tick]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend((ticks.len() as u32).to_le_bytes());
    for tick in ticks {
        bytes.extend(tick.partition.0.to_le_bytes());
        bytes.extend(tick.offset.to_le_bytes());
        bytes.extend(tick.time.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The ticks of the first frame, and what follows it; none where it is torn.
fn parse_frame(bytes: &[u8]) -> Option<(Vec<Tick>, &[u8])> {
    let checksum = u32::from_le_bytes(*bytes.first_chunk()?);
    let count = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    let end = count.checked_mul(TICK_BYTES)?.checked_add(8)?;
    let body = bytes.get(4..end)?;
    if crc32fast::hash(body) != checksum {
        return None;
    }
    let ticks = body[4..].chunks_exact(TICK_BYTES).map(|bytes| Tick {
        partition: PartitionId(u32::from_le_bytes(*bytes.first_chunk().expect("20 bytes"))),
        offset: u64::from_le_bytes(*bytes[4..].first_chunk().expect("16 bytes")),
        time: i64::from_le_bytes(*bytes[12..].first_chunk().expect("8 bytes")),
    });
    Some((ticks.collect(), &bytes[end..]))
}

fn remove(path: &Path) -> Result<(), SourceError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(path, source)),
        _ => Ok(()),
    }
}

/// Makes names durable: those that were created, renamed or removed in the folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn failed(path: &Path, source: io::Error) -> SourceError {
    SourceError::Ticks { path: path.to_owned(), source }
}
