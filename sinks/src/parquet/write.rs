//! The writer of a table's Parquet files.
//!
//! ```text
//! rows ─▶ pending: rows per date ─▶ batch ─▶ open file per date ─▶ full files ─▶ stage: footers, fsync
//!          BATCH_*, PENDING_BYTES_MAX         ENCODING_BYTES_MAX    FILE_*_MAX
//! ```
//! A full file keeps its footer for the commit, because the footer says what the commit covers. Memory and file
//! handles are bounded however many dates come at once.
//!
//! Between two commits of files there may be checkpoints. They keep what has been encoded since the one before ([`TableSink::held`]), a second
//! time and in a form of its own, while the files grow on: up to so many rows as are worth a file.

use std::{collections::BTreeMap, mem, sync::Arc};

use arrow::array::RecordBatch;
use whisperer_schemas::{Row, TableSchema, Value, rows_to_batch, time::DAY, time::utc_date};

use super::{
    BATCH_BYTES_MAX, BATCH_ROWS_MAX, ENCODING_BYTES_MAX, HELD_BYTES_MAX, OPEN_FILES_MAX, PENDING_BYTES_MAX,
    ROW_GROUP_ROWS_MAX,
    file::{Finish, OpenFile, Place},
    partition_folder, table_folder,
};
use crate::{
    durable::STAGED_SUFFIX,
    error::{SinkError, io},
    failpoint,
    lake::{Lake, LakeOptions, PartName},
    outbox::RowsWriter,
    sink::{CommitFacts, StagedFile, TableSink, WrittenFile},
};

/// Days since the Unix epoch; none for a table without partitions.
type Day = Option<i64>;

/// Rows of a date that wait to become a batch.
#[derive(Default)]
struct Pending {
    rows: Vec<Row>,
    bytes: usize,
}

/// Writes one table's rows of one worker into a lake.
pub struct ParquetTable {
    lake: Arc<Lake>,
    schema: TableSchema,
    worker: usize,
    /// Number of the next file.
    sequence: u64,
    pending: BTreeMap<Day, Pending>,
    pending_bytes: usize,
    open: BTreeMap<Day, OpenFile>,
    full: Vec<OpenFile>,
    /// Rows since the last checkpoint, for it to keep; none where they are staged.
    held: Option<RowsWriter>,
    /// Rows and bytes that checkpoints keep since the last commit.
    held_rows: usize,
    held_bytes: usize,
    broken: bool,
}

impl ParquetTable {
    pub(crate) fn new(lake: Arc<Lake>, schema: TableSchema, worker: usize) -> ParquetTable {
        ParquetTable {
            lake,
            schema,
            worker,
            sequence: 0,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            open: BTreeMap::new(),
            full: Vec::new(),
            held: None,
            held_rows: 0,
            held_bytes: 0,
            broken: false,
        }
    }

    /// Runs `step`; an error breaks the writer, for its files may lack rows from then on.
    fn unless_broken<T>(
        &mut self,
        step: impl FnOnce(&mut ParquetTable) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        if self.broken {
            return Err(SinkError::Broken { table: self.schema.name.into() });
        }
        let result = step(self);
        self.broken = result.is_err();
        result
    }

    fn take(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        for row in rows {
            let day = self.day(&row)?;
            let bytes = row_bytes(&row);
            let pending = self.pending.entry(day).or_default();
            pending.rows.push(row);
            pending.bytes += bytes;
            self.pending_bytes += bytes;
            if pending.rows.len() >= BATCH_ROWS_MAX || pending.bytes >= BATCH_BYTES_MAX {
                self.encode(day)?;
            } else if self.pending_bytes > PENDING_BYTES_MAX {
                self.encode_largest()?;
            }
        }
        Ok(())
    }

    fn day(&self, row: &Row) -> Result<Day, SinkError> {
        let Some(index) = self.schema.partition_by else { return Ok(None) };
        let Some(Value::Time(time)) = row.values.get(index) else {
            let column = self.schema.columns.get(index).map_or("", |column| &column.name);
            let detail = format!("\"{column}\", whose date is the row's partition, is no time");
            return Err(SinkError::Row { table: self.schema.name.into(), detail });
        };
        Ok(Some(time.div_euclid(DAY)))
    }

    /// The date with the most waiting bytes; it has at least its share of the bound, so batches stay worth their cost.
    fn encode_largest(&mut self) -> Result<(), SinkError> {
        let largest = self.pending.iter().max_by_key(|(_, pending)| pending.bytes).map(|(day, _)| *day);
        largest.map_or(Ok(()), |day| self.encode(day))
    }

    /// Turns the waiting rows of `day` into a batch of its file.
    fn encode(&mut self, day: Day) -> Result<(), SinkError> {
        let Some(Pending { rows, bytes }) = self.pending.remove(&day) else { return Ok(()) };
        self.pending_bytes -= bytes;
        let batch = rows_to_batch(&self.schema, &rows)
            .map_err(|source| SinkError::Rows { table: self.schema.name.into(), source })?;
        self.hold_batch(&batch)?;
        self.file_with_room(day, rows.len())?.write(&batch)?;
        self.bound_encoding()?;
        self.bound_open_files(day)
    }

    /// Keeps rows for the checkpoint, unless there are so many that they are worth files.
    fn hold_batch(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let Some(held) = &mut self.held else { return Ok(()) };
        held.write(batch)?;
        self.held_rows += batch.num_rows();
        if self.held_rows > ROW_GROUP_ROWS_MAX || self.held_bytes + held.bytes() > HELD_BYTES_MAX {
            self.held = None;
        }
        Ok(())
    }

    fn encode_all(&mut self) -> Result<(), SinkError> {
        let days: Vec<Day> = self.pending.keys().copied().collect();
        days.into_iter().try_for_each(|day| self.encode(day))
    }

    fn take_held(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        if self.held.is_none() {
            return Ok(None);
        }
        self.encode_all()?;
        let held = self.held.take().map(RowsWriter::finish).transpose()?;
        if let Some(bytes) = &held {
            self.held_bytes += bytes.len();
            self.held = Some(RowsWriter::new(self.schema.name));
        }
        Ok(held)
    }

    fn file_with_room(&mut self, day: Day, rows: usize) -> Result<&mut OpenFile, SinkError> {
        if let Some(mut file) = self.open.remove(&day) {
            if file.has_room(rows) {
                return Ok(self.open.entry(day).or_insert(file));
            }
            file.flush()?;
            file.park()?;
            self.full.push(file);
        }
        let place = self.next_place(day);
        let file = OpenFile::create(&self.schema, place)?;
        Ok(self.open.entry(day).or_insert(file))
    }

    fn next_place(&mut self, day: Day) -> Place {
        let number = self.sequence;
        self.sequence += 1;
        let name = format!("part-{:03}-{number:05}{STAGED_SUFFIX}", self.worker);
        let date = day.map(|day| utc_date(day * DAY));
        let folder = partition_folder(&self.schema, date.as_deref());
        let staged = table_folder(&self.lake.staging(), self.schema.name).join(&folder);
        let folder = table_folder(self.lake.root(), self.schema.name).join(folder);
        Place { staged: staged.join(name), folder, number }
    }

    fn bound_encoding(&mut self) -> Result<(), SinkError> {
        let mut bytes: usize = self.open.values().map(OpenFile::encoding_bytes).sum();
        while bytes > ENCODING_BYTES_MAX {
            let Some(largest) = self.open.values_mut().max_by_key(|file| file.encoding_bytes()) else { break };
            bytes -= largest.encoding_bytes();
            largest.flush()?;
        }
        Ok(())
    }

    fn bound_open_files(&mut self, keep: Day) -> Result<(), SinkError> {
        if self.open.values().filter(|file| file.is_open()).count() <= OPEN_FILES_MAX {
            return Ok(());
        }
        self.open.iter_mut().filter(|(day, _)| **day != keep).try_for_each(|(_, file)| file.park())
    }

    fn finish_files(&mut self, facts: &CommitFacts) -> Result<Vec<StagedFile>, SinkError> {
        self.encode_all()?;
        (self.held, self.held_rows, self.held_bytes) = (None, 0, 0);
        let mut files = mem::take(&mut self.full);
        files.extend(mem::take(&mut self.open).into_values());
        let (LakeOptions { run, generation, .. }, checkpoint) = (self.lake.options(), facts.checkpoint);
        let name = |number| PartName { run, generation: *generation, checkpoint, worker: self.worker, number }.file();
        let finish = Finish { metadata: &self.metadata(facts), checkpoint, name: &name };
        let files = files.into_iter().map(|file| file.finish(&finish)).collect::<Result<Vec<_>, SinkError>>()?;
        failpoint::pass("lake.staged").map_err(io("stage", &self.lake.staging()))?;
        Ok(files)
    }

    fn metadata(&self, facts: &CommitFacts) -> Vec<(&'static str, String)> {
        let options = self.lake.options();
        let mut metadata = vec![
            ("job", options.job.clone()),
            ("job_version", options.job_version.to_string()),
            ("run", options.run.as_str().into()),
            ("worker", self.worker.to_string()),
            ("table", self.schema.name.into()),
            ("table_version", self.schema.version.to_string()),
            ("epoch", facts.epoch.0.to_string()),
            ("source_positions", facts.positions_json()),
        ];
        if options.generation > 0 {
            metadata.push(("generation", options.generation.to_string()));
            metadata.push(("checkpoint", facts.checkpoint.to_string()));
        }
        metadata
    }
}

impl TableSink for ParquetTable {
    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        self.unless_broken(|table| table.take(rows))
    }

    fn stage(&mut self, facts: &CommitFacts) -> Result<Vec<StagedFile>, SinkError> {
        self.unless_broken(|table| table.finish_files(facts))
    }

    fn hold(&mut self, hold: bool) {
        self.held = hold.then(|| RowsWriter::new(self.schema.name));
    }

    fn held(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        self.unless_broken(ParquetTable::take_held)
    }

    fn publish(&mut self, staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError> {
        self.unless_broken(|table| table.lake.publish(staged))
    }
}

/// The memory that a row takes, roughly: its values and what they point to.
fn row_bytes(row: &Row) -> usize {
    mem::size_of::<Row>() + values_bytes(&row.values)
}

fn values_bytes(values: &[Value]) -> usize {
    mem::size_of_val(values) + values.iter().map(pointed_bytes).sum::<usize>()
}

fn pointed_bytes(value: &Value) -> usize {
    match value {
        // Shorter texts lie in the value itself.
        Value::Text(text) if text.is_heap_allocated() => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(structs) => structs.iter().map(|fields| mem::size_of_val(fields) + values_bytes(fields)).sum(),
        _ => 0,
    }
}
