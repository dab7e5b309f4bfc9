//! Which files a path names, in which order, and what their endings say.

use std::{
    cmp::Ordering,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    Limits, io_error,
    parquet::{self, ParquetRows},
    window::Window,
};
use crate::source::SourceError;

const ENDINGS: &str = ".ndjson, .jsonl, .json or .csv, each also with .gz or .zst, or in .parquet";

/// A file to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InputFile {
    pub(super) path: PathBuf,
    pub(super) shape: Shape,
    encoding: Encoding,
    /// Bytes on the disk when the source was made; of a Parquet file, its rows.
    length: u64,
}

/// What the text of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Ndjson,
    Csv,
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl InputFile {
    pub(super) fn is_plain_ndjson(&self) -> bool {
        self.shape == Shape::Ndjson && self.encoding == Encoding::Plain
    }

    /// Whether its offsets count rows.
    pub(super) fn is_parquet(&self) -> bool {
        self.shape == Shape::Parquet
    }

    /// How many offsets it has, where that is known before it is read: bytes of its text, or rows.
    pub(super) fn offsets(&self) -> Option<u64> {
        (self.encoding == Encoding::Plain).then_some(self.length)
    }

    /// Opens the file as it is, without decompressing it.
    pub(super) fn open_plain(&self, limits: Limits) -> Result<Window<File>, SourceError> {
        let file = File::open(&self.path).map_err(|error| io_error(&self.path, error))?;
        Ok(Window::new(file, 0, self.length, limits))
    }

    /// Its rows from row `at` on, if it is a Parquet file.
    pub(super) fn open_rows(&self, at: u64, limits: Limits) -> Result<ParquetRows, SourceError> {
        ParquetRows::open(&self.path, self.length, at, limits).map_err(|error| io_error(&self.path, error))
    }

    /// Its text from byte `at` on; at its end where it is not that long.
    pub(super) fn open_text(&self, at: u64, limits: Limits) -> Result<Window<Box<dyn Read>>, SourceError> {
        self.try_open_text(at, limits).map_err(|error| io_error(&self.path, error))
    }

    fn try_open_text(&self, at: u64, limits: Limits) -> io::Result<Window<Box<dyn Read>>> {
        let mut file = File::open(&self.path)?;
        let mut text: Box<dyn Read> = match self.encoding {
            Encoding::Plain => {
                let at = at.min(self.length);
                file.seek(SeekFrom::Start(at))?;
                return Ok(Window::new(Box::new(file), at, self.length, limits));
            }
            // A gzip file may have several members, a zstd file several frames: both read on to the end of the file.
            Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(256 << 10, file))),
            Encoding::Zstd => Box::new(zstd::Decoder::new(file)?),
        };
        let skipped = io::copy(&mut text.by_ref().take(at), &mut io::sink())?;
        Ok(Window::new(text, skipped, u64::MAX, limits))
    }
}

/// The files that `path` names, in natural name order.
pub(super) fn list(root: &Path, path: &str) -> Result<Vec<InputFile>, SourceError> {
    let whole = root.join(path);
    if whole.is_file() {
        let ending = || SourceError::Settings(format!("\"{}\" does not end in {ENDINGS}", whole.display()));
        let (shape, encoding) = kind(&whole).ok_or_else(ending)?;
        return Ok(vec![measured(whole.clone(), shape, encoding)?]);
    }
    let mut paths = if whole.is_dir() { folder(&whole)? } else { matches(&whole)? };
    paths.sort_by(|left, right| natural_order(left, right));
    let known = paths.into_iter().filter_map(|path| kind(&path).map(|(shape, encoding)| (path, shape, encoding)));
    let files: Vec<_> =
        known.map(|(path, shape, encoding)| measured(path, shape, encoding)).collect::<Result<_, _>>()?;
    match files.is_empty() {
        true => Err(SourceError::NoFile { pattern: whole.display().to_string() }),
        false => Ok(files),
    }
}

fn measured(path: PathBuf, shape: Shape, encoding: Encoding) -> Result<InputFile, SourceError> {
    let length = match shape {
        Shape::Parquet => parquet::count_rows(&path),
        Shape::Ndjson | Shape::Csv => fs::metadata(&path).map(|file| file.len()),
    };
    let length = length.map_err(|error| io_error(&path, error))?;
    Ok(InputFile { path, shape, encoding, length })
}

/// The files of a folder, without those below it and without hidden ones, which are mostly half-written.
fn folder(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|error| io_error(path, error))?;
    let visible = entries.iter().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    Ok(visible.map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

fn matches(pattern: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let text = pattern.to_string_lossy();
    let wrong = |detail: String| SourceError::Pattern { pattern: text.to_string(), detail };
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let paths = glob::glob_with(&text, options).map_err(|error| wrong(error.to_string()))?;
    let paths: Vec<PathBuf> =
        paths.collect::<Result<_, _>>().map_err(|error| io_error(error.path(), io::Error::other(error.to_string())))?;
    Ok(paths.into_iter().filter(|path| path.is_file()).collect())
}

/// By the names of folders and files along the path, numbers in them by value: `part-2` comes before `part-10`.
fn natural_order(left: &Path, right: &Path) -> Ordering {
    let names = |path: &Path| -> Vec<String> { path.iter().map(|name| name.to_string_lossy().into_owned()).collect() };
    let (left_names, right_names) = (names(left), names(right));
    let differing = left_names.iter().zip(&right_names).map(|(left, right)| natord::compare(left, right));
    differing.fold(Ordering::Equal, Ordering::then).then_with(|| left.cmp(right))
}

fn kind(path: &Path) -> Option<(Shape, Encoding)> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let (stem, encoding) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
        (Some(stem), _) => (stem, Encoding::Gzip),
        (_, Some(stem)) => (stem, Encoding::Zstd),
        (None, None) => (name.as_str(), Encoding::Plain),
    };
    match stem.rsplit_once('.')?.1 {
        // What is compressed there is its columns.
        "parquet" => (encoding == Encoding::Plain).then_some((Shape::Parquet, encoding)),
        "ndjson" | "jsonl" | "json" => Some((Shape::Ndjson, encoding)),
        "csv" => Some((Shape::Csv, encoding)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_order_by_value() {
        // Goal: natural name order, folder by folder, and the same order for every listing.
        let mut paths: Vec<PathBuf> =
            ["d10/a.csv", "d2/b10.csv", "d2/b9.csv", "d2/b09.csv"].iter().map(PathBuf::from).collect();
        paths.sort_by(|left, right| natural_order(left, right));
        let expected: Vec<PathBuf> =
            ["d2/b09.csv", "d2/b9.csv", "d2/b10.csv", "d10/a.csv"].iter().map(PathBuf::from).collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn endings_say_shape_and_encoding() {
        // Goal: every documented ending, in any case, and nothing else.
        let kind = |name| kind(Path::new(name));
        assert_eq!(kind("a.ndjson"), Some((Shape::Ndjson, Encoding::Plain)));
        assert_eq!(kind("a.b.JSONL.gz"), Some((Shape::Ndjson, Encoding::Gzip)));
        assert_eq!(kind("a.json.zst"), Some((Shape::Ndjson, Encoding::Zstd)));
        assert_eq!(kind("a.csv.zst"), Some((Shape::Csv, Encoding::Zstd)));
        assert_eq!(kind("a.gz"), None);
        assert_eq!(kind("csv"), None);
        assert_eq!(kind("a.Parquet"), Some((Shape::Parquet, Encoding::Plain)));
        assert_eq!(kind("a.parquet.gz"), None);
    }
}
