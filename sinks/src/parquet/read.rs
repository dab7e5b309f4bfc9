//! Reading a table's rows back, a batch at a time.

use std::{
    fs::{self, File},
    io::{Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
};

use ::parquet::arrow::{
    ProjectionMask,
    arrow_reader::{
        ArrowPredicate, ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
        RowFilter,
    },
};
use arrow::{
    array::{AsArray, BooleanArray, RecordBatch, StringArray},
    error::ArrowError,
};
use whisperer_schemas::{Row, TableSchema, batch_to_rows};

use xxhash_rust::xxh3::Xxh3;

use super::table_folder;
use crate::{
    error::{SinkError, io, parquet},
    sink::WrittenFile,
};

/// Rows that are decoded at a time.
const READ_BATCH_ROWS: usize = 8_192;

/// Bytes that are hashed at a time.
const HASH_BYTES: usize = 256 << 10;

/// A column of text and the value that it must have: the condition that is looked at before other columns are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextEquals<'a> {
    /// Name of the column.
    pub column: &'a str,
    /// The value.
    pub value: &'a str,
}

/// All rows of a job's table, file by file in the order of their paths.
///
/// # Errors
/// A file that cannot be read, or that has other columns than `schema`.
pub fn read_table(lake: &Path, job: &str, schema: &TableSchema) -> Result<Vec<Row>, SinkError> {
    read_where(lake, job, schema, &[])
}

/// The rows of a job's table for which all of `conditions` hold.
///
/// # Errors
/// A file that cannot be read, or that has other columns than `schema`.
pub fn read_where(
    lake: &Path,
    job: &str,
    schema: &TableSchema,
    conditions: &[TextEquals<'_>],
) -> Result<Vec<Row>, SinkError> {
    let mut rows = Vec::new();
    let scan_all = Scan { lake, job, schema, conditions };
    scan(scan_all, |row| rows.push(row))?;
    Ok(rows)
}

/// What [`scan`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// The lake.
    pub lake: &'a Path,
    /// The job whose files count; a lake may hold those of several.
    pub job: &'a str,
    /// The table.
    pub schema: &'a TableSchema,
    /// Which rows; all if there are none.
    pub conditions: &'a [TextEquals<'a>],
}

/// Gives the rows that `scan` asks for to `visit`, holding one batch in memory at a time.
///
/// # Errors
/// A file that cannot be read, or that has other columns than the schema.
pub fn scan(scan: Scan<'_>, mut visit: impl FnMut(Row)) -> Result<(), SinkError> {
    for path in parquet_files(&table_folder(scan.lake, scan.schema.name))? {
        let file = PartFile::open(path)?;
        if file.job() == Some(scan.job) {
            file.scan(&scan, &mut visit)?;
        }
    }
    Ok(())
}

/// The Parquet files in the folder of a table that `job` made.
pub(crate) fn files_of_job(table: &Path, job: &str) -> Result<Vec<PathBuf>, SinkError> {
    let mut files = Vec::new();
    for path in parquet_files(table)? {
        let file = PartFile::open(path)?;
        if file.job() == Some(job) {
            files.push(file.path);
        }
    }
    Ok(files)
}

/// The job and the run that made a file; none if it is not one of ours.
pub(crate) fn run_of(path: &Path) -> Result<Option<(String, String)>, SinkError> {
    let file = PartFile::open(path.into())?;
    Ok(file.fact("job").zip(file.fact("run")).map(|(job, run)| (job.into(), run.into())))
}

/// How many rows a file has.
#[cfg(feature = "delta")]
pub(crate) fn rows_of(path: &Path) -> Result<u64, SinkError> {
    Ok(PartFile::open(path.into())?.metadata.metadata().file_metadata().num_rows() as u64)
}

/// What a file in a lake holds: its footer and its bytes are read.
pub(crate) fn written_file(lake: &Path, path: &Path) -> Result<WrittenFile, SinkError> {
    let file = PartFile::open(lake.join(path))?;
    let table = file.fact("table").unwrap_or_default().to_owned();
    let rows = file.metadata.metadata().file_metadata().num_rows() as u64;
    let (mut reader, mut hasher, mut buffer) = (file.file, Xxh3::new(), vec![0; HASH_BYTES]);
    reader.rewind().map_err(io("read", &file.path))?;
    let mut bytes = 0;
    loop {
        let read = reader.read(&mut buffer).map_err(io("read", &file.path))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok(WrittenFile { path: path.into(), table, rows, bytes, xxh3: format!("{:016x}", hasher.digest()) })
}

/// The Parquet files in a folder and those below it, in the order of their paths; none if there is no such folder. Folders whose name
/// says that readers ignore them are passed over: a table's log is Parquet too, in part.
pub(crate) fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>, SinkError> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder).map_err(io("list", folder))? {
        let path = entry.map_err(io("list", folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['_', '.']));
        if hidden {
            continue;
        }
        if path.is_dir() {
            files.extend(parquet_files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A file whose footer was read.
struct PartFile {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
}

impl PartFile {
    fn open(path: PathBuf) -> Result<PartFile, SinkError> {
        let file = File::open(&path).map_err(io("open", &path))?;
        let metadata =
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(parquet("read", &path, ""))?;
        Ok(PartFile { path, file, metadata })
    }

    fn job(&self) -> Option<&str> {
        self.fact("job")
    }

    fn fact(&self, key: &str) -> Option<&str> {
        let pairs = self.metadata.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }

    fn scan(self, scan: &Scan<'_>, visit: &mut impl FnMut(Row)) -> Result<(), SinkError> {
        let table = scan.schema.name;
        let filter = self.filter(scan.conditions)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file, self.metadata);
        let reader = builder.with_batch_size(READ_BATCH_ROWS).with_row_filter(filter).build();
        for batch in reader.map_err(parquet("read", &self.path, table))? {
            let batch = batch.map_err(|error| parquet("read", &self.path, table)(error.into()))?;
            let rows = batch_to_rows(&batch, scan.schema);
            rows.map_err(|source| SinkError::Rows { table: table.into(), source })?.into_iter().for_each(&mut *visit);
        }
        Ok(())
    }

    fn filter(&self, conditions: &[TextEquals<'_>]) -> Result<RowFilter, SinkError> {
        let predicates = conditions.iter().map(|condition| self.predicate(condition));
        Ok(RowFilter::new(predicates.collect::<Result<_, _>>()?))
    }

    fn predicate(&self, condition: &TextEquals<'_>) -> Result<Box<dyn ArrowPredicate>, SinkError> {
        let parquet_schema = self.metadata.parquet_schema();
        let leaf = parquet_schema.columns().iter().position(|column| column.path().string() == condition.column);
        let leaf = leaf.ok_or_else(|| SinkError::Schema {
            path: self.path.clone(),
            detail: format!("it has no column \"{}\"", condition.column),
        })?;
        let value: Arc<str> = condition.value.into();
        let equals = move |batch: RecordBatch| text_equals(&batch, &value);
        Ok(Box::new(ArrowPredicateFn::new(ProjectionMask::leaves(parquet_schema, [leaf]), equals)))
    }
}

/// Which rows of the batch's only column are `value`.
fn text_equals(batch: &RecordBatch, value: &str) -> Result<BooleanArray, ArrowError> {
    let texts: &StringArray = batch
        .column(0)
        .as_string_opt()
        .ok_or_else(|| ArrowError::SchemaError("a condition on text needs a column of text".into()))?;
    Ok(texts.iter().map(|text| Some(text == Some(value))).collect())
}
