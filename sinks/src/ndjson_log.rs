//! Rows as NDJSON that can be seen as they are made: the lines of a file or a stream in a run with checkpoints.
//!
//! A file is appended to; a checkpoint remembers its length, and a run that goes on from it begins another file with so much of it, in its
//! place: what came after is made again. What a stream has said it has said: after a crash it says the lines since the last checkpoint again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self as std_io, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use whisperer_schemas::{Row, TableSchema};

use crate::{
    durable::{create_folder, folder_of, sync_folder},
    error::{SinkError, io},
    lake::Existing,
    log::{LogSink, Removal},
    ndjson::Lines,
};

/// Writes a table's rows as NDJSON, line by line.
pub struct NdjsonLog {
    lines: Lines,
    to: To,
    buffer: Vec<u8>,
}

enum To {
    File { path: PathBuf, file: Option<File>, existing: Existing, bytes: u64 },
    Stdout,
}

impl NdjsonLog {
    /// To a file. `existing` says what becomes of one that is there at a first start.
    #[must_use]
    pub fn file(schema: TableSchema, path: &Path, existing: Existing) -> NdjsonLog {
        let to = To::File { path: path.to_owned(), file: None, existing, bytes: 0 };
        NdjsonLog { lines: Lines::new(schema), to, buffer: Vec::new() }
    }

    /// To standard output.
    #[must_use]
    pub fn stdout(schema: TableSchema) -> NdjsonLog {
        NdjsonLog { lines: Lines::new(schema), to: To::Stdout, buffer: Vec::new() }
    }
}

impl To {
    fn open(&mut self, position: Option<u64>) -> Result<(), SinkError> {
        let To::File { path, file, existing, bytes } = self else { return Ok(()) };
        create_folder(folder_of(path))?;
        let found = match fs::metadata(&*path) {
            Err(error) if error.kind() == std_io::ErrorKind::NotFound => None,
            found => Some(found.map_err(io("open", path))?),
        };
        let length = found.as_ref().map_or(0, fs::Metadata::len);
        if position.is_none() && length > 0 && *existing == Existing::Refuse {
            return Err(io("create", path)(std_io::ErrorKind::AlreadyExists.into()));
        }
        *bytes = position.unwrap_or(0);
        if length < *bytes {
            let detail = format!("it has {length} bytes, and a checkpoint says {bytes}");
            return Err(io("go on with", path)(std_io::Error::other(detail)));
        }
        *file = Some(match found {
            // A pipe or a device is what it is.
            Some(found) if !found.is_file() => OpenOptions::new().write(true).open(&*path).map_err(io("open", path))?,
            _ => take_over(path, *bytes)?,
        });
        Ok(())
    }

    fn append(&mut self, text: &[u8]) -> Result<(), SinkError> {
        match self {
            To::File { path, file, bytes, .. } => {
                let file = file.as_mut().expect("a log is recovered before it is written");
                file.write_all(text).map_err(io("write", path))?;
                *bytes += text.len() as u64;
                Ok(())
            }
            To::Stdout => {
                let mut stdout = std_io::stdout().lock();
                let written = stdout.write_all(text).and_then(|()| stdout.flush());
                written.map_err(io("write", Path::new("standard output")))
            }
        }
    }
}

/// Puts another file with the same first bytes in the place of a log. An earlier generation that still runs, or sleeps and will wake up,
/// goes on with the one that it has open, which nobody sees any more.
fn take_over(path: &Path, bytes: u64) -> Result<File, SinkError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    if bytes > 0 {
        fs::copy(path, &new).map_err(io("copy", path))?;
    }
    let opened = OpenOptions::new().create(true).truncate(bytes == 0).write(true).open(&new);
    let mut opened = opened.map_err(io("create", &new))?;
    opened.set_len(bytes).map_err(io("shorten", &new))?;
    opened.seek(SeekFrom::End(0)).map_err(io("shorten", &new))?;
    opened.sync_all().map_err(io("sync", &new))?;
    fs::rename(&new, path).map_err(io("replace", path))?;
    sync_folder(folder_of(path))?;
    Ok(opened)
}

impl LogSink for NdjsonLog {
    fn recover(&mut self, positions: &[String]) -> Result<(), SinkError> {
        let position = positions.iter().filter_map(|position| position.parse().ok()).max();
        self.to.open(position)
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        self.buffer.clear();
        for row in &rows {
            self.lines.append(row, &mut self.buffer)?;
            self.buffer.push(b'\n');
        }
        self.to.append(&self.buffer)
    }

    fn remove(&mut self, _keys: &[Removal]) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<String, SinkError> {
        if let To::File { path, file: Some(file), bytes, .. } = &self.to {
            file.sync_data().map_err(io("sync", path))?;
            return Ok(bytes.to_string());
        }
        Ok(String::new())
    }

    fn caught_up(&mut self) {}

    fn passed_over(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use whisperer_schemas::{Epoch, Value};

    use super::*;

    fn row(reason: &str) -> Row {
        let mut values = vec![Value::Null; TableSchema::dead_letters().columns.len()];
        values[0] = Value::text(reason);
        Row { values, epoch: Epoch(0), position: None }
    }

    #[test]
    fn a_file_is_cut_where_the_checkpoint_was() {
        // Goal: what was written after the checkpoint is gone when a run goes on from it, and comes once.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.ndjson");
        let open = || NdjsonLog::file(TableSchema::dead_letters(), &path, Existing::Refuse);
        let mut log = open();
        log.recover(&[]).unwrap();
        log.write(vec![row("kept")]).unwrap();
        let position = log.flush().unwrap();
        log.write(vec![row("again")]).unwrap();
        let mut log = open();
        log.recover(&[position]).unwrap();
        log.write(vec![row("again")]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let reasons: Vec<bool> = text.lines().map(|line| line.contains("\"again\"")).collect();
        assert_eq!(reasons, [false, true]);
        assert!(open().recover(&[]).is_err(), "a first start refuses a file that is there");
    }

    #[test]
    fn who_was_there_before_writes_to_nobody() {
        // Goal: a writer that wakes up after another has taken over adds nothing to what readers see.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.ndjson");
        let open = || NdjsonLog::file(TableSchema::dead_letters(), &path, Existing::Replace);
        let mut asleep = open();
        asleep.recover(&[]).unwrap();
        asleep.write(vec![row("first")]).unwrap();
        let position = asleep.flush().unwrap();
        let mut log = open();
        log.recover(&[position]).unwrap();
        asleep.write(vec![row("late"), row("late")]).unwrap();
        log.write(vec![row("second")]).unwrap();
        asleep.write(vec![row("late")]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().count(), text.contains("late")), (2, false), "{text}");
    }
}
