//! Lines that go from a file of NDJSON: each becomes white space of the same length, so that what a checkpoint says of the file stays true.
//! Readers pass over lines of white space.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use crate::{
    durable::{folder_of, sync_folder},
    error::{SinkError, io},
};

/// Blanks the lines of a file for which `goes` holds; how many there were. The file is replaced whole, or stays as it is.
///
/// # Errors
/// What the file system answers.
pub fn blank_lines(path: &Path, goes: &dyn Fn(&[u8]) -> bool) -> Result<u64, SinkError> {
    let mut input = BufReader::new(File::open(path).map_err(io("open", path))?);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut output = BufWriter::new(File::create(&new).map_err(io("create", &new))?);
    let (mut line, mut blanked) = (Vec::new(), 0);
    while input.read_until(b'\n', &mut line).map_err(io("read", path))? > 0 {
        let end = line.len() - usize::from(line.ends_with(b"\n"));
        if goes(&line[..end]) {
            line[..end].fill(b' ');
            blanked += 1;
        }
        output.write_all(&line).map_err(io("write", &new))?;
        line.clear();
    }
    let output = output.into_inner().map_err(|error| io("write", &new)(error.into_error()))?;
    output.sync_all().map_err(io("sync", &new))?;
    if blanked == 0 {
        std::fs::remove_file(&new).map_err(io("remove", &new))?;
    } else {
        std::fs::rename(&new, path).map_err(io("replace", path))?;
    }
    sync_folder(folder_of(path))?;
    Ok(blanked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_white_space_of_their_length() {
        // Goal: the length and all other lines stay, the last one without its end too; doing it again finds nothing.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.ndjson");
        std::fs::write(&path, "{\"a\":1}\n{\"b\":2}\n{\"a\":3}").unwrap();
        let goes = |line: &[u8]| line.starts_with(b"{\"a\"");
        assert_eq!(blank_lines(&path, &goes).unwrap(), 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "       \n{\"b\":2}\n       ");
        assert_eq!(blank_lines(&path, &goes).unwrap(), 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
