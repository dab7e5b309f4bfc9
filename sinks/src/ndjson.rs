//! Rows as NDJSON, one object a line: to a file that appears whole, or to a stream such as standard output.
//!
//! Numbers are in the shortest form that reads back, times in RFC 3339, lists are arrays of objects, nulls are written.
//! All columns are there, `_position` and `_epoch` too. Bytes are written as text, what is no UTF-8 in them as U+FFFD.
//!
//! A file is one for all workers: one writer per path, for which a lock stands. Each commit replaces the file
//! by one that has the new rows too, at the cost of copying it: meant for runs that commit once, at their end. A stream's lines can be
//! seen as they are written; its commit flushes.

use std::{
    fmt,
    fs::{self, File},
    io::{self as std_io, ErrorKind, Write},
    mem,
    path::{Path, PathBuf},
};

use whisperer_schemas::{ColumnType, Row, TableSchema, Value, time::format_micros};

use crate::{
    durable::{HashedFile, PathLock, create_folder, folder_of, rename, staged_name, sync_folder},
    error::{SinkError, io},
    lake::Existing,
    sink::{CommitFacts, StagedFile, TableSink, WrittenFile},
};

/// Bytes that are gathered before they are written.
const PENDING_BYTES_MAX: usize = 64 << 10;

/// Writes a table's rows as NDJSON.
pub struct Ndjson {
    lines: Lines,
    /// Lines not written yet. They wait beyond the bound only between staging and publishing.
    pending: Vec<u8>,
    pending_rows: u64,
    target: Target,
    broken: bool,
}

/// Writes a table's rows as lines into a buffer.
#[derive(Clone, Debug)]
pub struct Lines {
    schema: TableSchema,
    /// `"name":` of each column, encoded once.
    names: Vec<Vec<u8>>,
}

impl Lines {
    /// For the rows of `schema`.
    #[must_use]
    pub fn new(schema: TableSchema) -> Lines {
        let names = schema.columns.iter().map(|column| encoded_name(&column.name)).collect();
        Lines { schema, names }
    }

    /// The table.
    #[must_use]
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// Appends a row as a JSON object, without the line's end.
    ///
    /// # Errors
    /// A row that does not have the table's columns.
    pub fn append(&self, row: &Row, out: &mut Vec<u8>) -> Result<(), SinkError> {
        let (values, columns) = (row.values.len(), self.names.len());
        if values != columns {
            let detail = format!("it has {values} values for {columns} columns");
            return Err(SinkError::Row { table: self.schema.name.into(), detail });
        }
        let fields = self.schema.columns.iter().zip(&self.names).zip(&row.values);
        for (index, ((column, name), value)) in fields.enumerate() {
            out.push(if index == 0 { b'{' } else { b',' });
            out.extend_from_slice(name);
            write_value(out, &column.kind, value);
        }
        out.push(b'}');
        Ok(())
    }
}

enum Target {
    Stream { name: PathBuf, writer: Box<dyn Write + Send> },
    File(Box<WholeFile>),
}

/// The file in the making.
struct WholeFile {
    path: PathBuf,
    /// None before the first line of a commit.
    file: Option<HashedFile>,
    /// Rows in `file`, or in the published file if there is none.
    rows: u64,
    /// Whether `file` is staged: nothing may be added until it is published.
    staged: bool,
    /// Whether this writer has published before, so that the file at `path` is its own.
    published: bool,
    /// Held while the writer lives; on a file beside, as the staged file comes and goes.
    _lock: PathLock,
}

impl Ndjson {
    /// A writer of the file `path`.
    ///
    /// # Errors
    /// A file that is there and may not be replaced, another writer of it, or a folder that cannot be written.
    pub fn file(schema: TableSchema, path: &Path, existing: Existing) -> Result<Ndjson, SinkError> {
        let path = std::path::absolute(path).map_err(io("find", path))?;
        let table = schema.name.to_owned();
        create_folder(folder_of(&path))?;
        let lock = lock_beside(&path, table.clone())?;
        if path.exists() && existing == Existing::Refuse {
            return Err(SinkError::Occupied { path: path.clone(), job: table, files: 1, first: path });
        }
        remove_if_there(&staged_name(&path))?;
        let file = WholeFile { path, file: None, rows: 0, staged: false, published: false, _lock: lock };
        Ok(Ndjson::new(schema, Target::File(Box::new(file))))
    }

    /// A writer to a stream that is called `name` in errors.
    #[must_use]
    pub fn stream(schema: TableSchema, name: &str, writer: Box<dyn Write + Send>) -> Ndjson {
        Ndjson::new(schema, Target::Stream { name: name.into(), writer })
    }

    /// A writer to standard output.
    #[must_use]
    pub fn stdout(schema: TableSchema) -> Ndjson {
        Ndjson::stream(schema, "<stdout>", Box::new(std_io::stdout()))
    }

    fn new(schema: TableSchema, target: Target) -> Ndjson {
        Ndjson { lines: Lines::new(schema), pending: Vec::new(), pending_rows: 0, target, broken: false }
    }

    fn unless_broken<T>(&mut self, step: impl FnOnce(&mut Ndjson) -> Result<T, SinkError>) -> Result<T, SinkError> {
        if self.broken {
            return Err(SinkError::Broken { table: self.lines.schema.name.into() });
        }
        let result = step(self);
        self.broken = result.is_err();
        result
    }

    fn take(&mut self, rows: &[Row]) -> Result<(), SinkError> {
        for row in rows {
            self.encode(row)?;
            if self.pending.len() >= PENDING_BYTES_MAX && self.target.takes_lines() {
                self.write_pending()?;
            }
        }
        Ok(())
    }

    fn encode(&mut self, row: &Row) -> Result<(), SinkError> {
        self.lines.append(row, &mut self.pending)?;
        self.pending.push(b'\n');
        self.pending_rows += 1;
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), SinkError> {
        let (lines, rows) = (mem::take(&mut self.pending), mem::take(&mut self.pending_rows));
        match &mut self.target {
            Target::Stream { name, writer } => writer.write_all(&lines).map_err(io("write", name)),
            Target::File(file) => file.append(&lines, rows),
        }
    }

    fn make_durable(&mut self) -> Result<Vec<StagedFile>, SinkError> {
        self.write_pending()?;
        match &mut self.target {
            Target::Stream { name, writer } => writer.flush().map_err(io("write", name)).map(|()| Vec::new()),
            Target::File(file) => Ok(vec![file.stage(self.lines.schema.name)?]),
        }
    }
}

impl fmt::Debug for Ndjson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match &self.target {
            Target::Stream { name, .. } => name,
            Target::File(file) => &file.path,
        };
        f.debug_struct("Ndjson").field("table", &self.lines.schema.name).field("path", path).finish_non_exhaustive()
    }
}

impl TableSink for Ndjson {
    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        self.unless_broken(|sink| sink.take(&rows))
    }

    fn stage(&mut self, _facts: &CommitFacts) -> Result<Vec<StagedFile>, SinkError> {
        self.unless_broken(Ndjson::make_durable)
    }

    fn publish(&mut self, staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError> {
        self.unless_broken(|_| staged.iter().map(publish_file).collect())
    }
}

impl Target {
    /// Whether lines can be written now: not between staging and publishing.
    fn takes_lines(&self) -> bool {
        match self {
            Target::Stream { .. } => true,
            // The commit may have been published by the lake, with those of other tables.
            Target::File(file) => !file.staged || !staged_name(&file.path).exists(),
        }
    }
}

impl WholeFile {
    fn append(&mut self, lines: &[u8], rows: u64) -> Result<(), SinkError> {
        let file = self.open()?;
        file.write_all(lines).map_err(io("write", &staged_name(&self.path)))?;
        self.rows += rows;
        Ok(())
    }

    fn stage(&mut self, table: &str) -> Result<StagedFile, SinkError> {
        let (bytes, xxh3) = self.open()?.sync()?;
        let staged = staged_name(&self.path);
        sync_folder(folder_of(&staged))?;
        self.staged = true;
        let (place, rows) = (self.path.clone(), self.rows);
        Ok(StagedFile { staged, place, replaces: true, table: table.into(), rows, bytes, xxh3, checkpoint: 0 })
    }

    /// The file to add lines to: after a commit a new one, which begins as a copy of the published one.
    fn open(&mut self) -> Result<&mut HashedFile, SinkError> {
        let staged = staged_name(&self.path);
        if self.staged && !staged.exists() {
            self.file = None;
            self.published = true;
        }
        self.staged = false;
        if self.file.is_none() {
            let mut file = HashedFile::create(staged)?;
            if self.published {
                let mut before = File::open(&self.path).map_err(io("open", &self.path))?;
                std_io::copy(&mut before, &mut file).map_err(io("copy", &self.path))?;
            }
            self.file = Some(file);
        }
        Ok(self.file.as_mut().expect("made just above if it was not there"))
    }
}

/// Takes the right to write `path`: the lock on a file beside it.
fn lock_beside(path: &Path, job: String) -> Result<PathLock, SinkError> {
    let mut beside = staged_name(path).into_os_string();
    beside.push(".lock");
    let lock = PathLock::take(beside.into())?;
    lock.ok_or_else(|| SinkError::Busy { path: path.into(), job, run: "another".into() })
}

fn remove_if_there(path: &Path) -> Result<(), SinkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn publish_file(file: &StagedFile) -> Result<WrittenFile, SinkError> {
    rename(&file.staged, &file.place)?;
    sync_folder(folder_of(&file.place))?;
    Ok(WrittenFile::of(file, file.place.clone()))
}

/// A row as one line of JSON, its end included, as the sink writes it.
///
/// # Errors
/// A row that does not have the table's columns.
pub fn line(schema: &TableSchema, row: &Row) -> Result<Vec<u8>, SinkError> {
    let mut line = Vec::new();
    Lines::new(schema.clone()).append(row, &mut line)?;
    line.push(b'\n');
    Ok(line)
}

/// `"name":`.
fn encoded_name(name: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    write_json(&mut encoded, name);
    encoded.push(b':');
    encoded
}

fn write_value(out: &mut Vec<u8>, kind: &ColumnType, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(truth) => write_json(out, truth),
        Value::Int(number) => write_json(out, number),
        Value::Number(number) => write_json(out, number),
        Value::Text(text) => write_json(out, text.as_str()),
        Value::Bytes(bytes) => write_json(out, &String::from_utf8_lossy(bytes)),
        Value::Time(time) => {
            out.push(b'"');
            write!(out, "{}", format_micros(*time)).expect("a vector takes all bytes");
            out.push(b'"');
        }
        Value::List(structs) => write_list(out, kind, structs),
    }
}

fn write_list(out: &mut Vec<u8>, kind: &ColumnType, structs: &[Vec<Value>]) {
    let fields: &[_] = if let ColumnType::List(fields) = kind { fields } else { &[] };
    out.push(b'[');
    for (index, values) in structs.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        for (index, ((name, kind), value)) in fields.iter().zip(values).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_json(out, name);
            out.push(b':');
            write_value(out, kind, value);
        }
        out.push(b'}');
    }
    out.push(b']');
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("numbers, texts and truth values always have a JSON form");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each kind of value has the form that the module promises, and awkward numbers read back bit by bit.
    #[test]
    fn forms_of_values() {
        let list = ColumnType::List(vec![("due", ColumnType::Time), ("reason", ColumnType::Text)]);
        let cases = [
            (ColumnType::Text, Value::Null, "null"),
            (ColumnType::Bool, Value::Bool(true), "true"),
            (ColumnType::Int, Value::Int(i64::MIN), "-9223372036854775808"),
            (ColumnType::Number, Value::Number(3.0), "3.0"),
            (ColumnType::Text, Value::text("a\"\n\u{1f642}"), "\"a\\\"\\n\u{1f642}\""),
            (ColumnType::Bytes, Value::Bytes(Box::from(&b"a\xff"[..])), "\"a\u{fffd}\""),
            (ColumnType::Time, Value::Time(1_500_000), "\"1970-01-01T00:00:01.500000Z\""),
            (list.clone(), Value::List(vec![]), "[]"),
            (
                list,
                Value::List(vec![vec![Value::Time(0), Value::Null], vec![Value::Null, Value::text("")]]),
                r#"[{"due":"1970-01-01T00:00:00Z","reason":null},{"due":null,"reason":""}]"#,
            ),
        ];
        for (kind, value, expected) in cases {
            assert_eq!(form(&kind, &value), expected);
        }
        for number in
            [0.1, 0.1 + 0.2, -1.5e-300, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e21, -0.0, 123_456_789.123_456_79]
        {
            let text = form(&ColumnType::Number, &Value::Number(number));
            let read: f64 = text.parse().expect("a number");
            assert_eq!(read.to_bits(), number.to_bits(), "{text}");
        }
    }

    fn form(kind: &ColumnType, value: &Value) -> String {
        let mut out = Vec::new();
        write_value(&mut out, kind, value);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    /// Goal: a stream that refuses lines fails the commit, and the sink for good.
    #[test]
    fn refusing_stream_breaks_the_sink() {
        let schema = crate::conformance::sample_schema();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let Ok(full) = full else { return };
        let mut sink = Ndjson::stream(schema, "<full>", Box::new(full));
        sink.write(vec![crate::conformance::sample_row(1)]).expect("rows wait");
        let error = sink.commit(&CommitFacts::default()).expect_err("no room");
        assert!(error.retry(), "{error}");
        assert!(matches!(sink.commit(&CommitFacts::default()), Err(SinkError::Broken { .. })));
    }
}
