//! Files that appear whole or not at all, and that stay when the power goes.
//!
//! A file is written under another name, synced, renamed, and then the folder is synced that holds the new name: without
//! the last step a rename that was seen may be gone after a power cut.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

use crate::error::{SinkError, io};

/// Ending of a staged file: no reader's `*.parquet` or `*.json` matches it.
pub const STAGED_SUFFIX: &str = ".staged";

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never a part.
///
/// # Errors
/// What the file system answers.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), SinkError> {
    create_folder(folder_of(path))?;
    let staged = staged_name(path);
    let mut file = File::create(&staged).map_err(io("create", &staged))?;
    file.write_all(bytes).map_err(io("write", &staged))?;
    file.sync_all().map_err(io("sync", &staged))?;
    rename(&staged, path)?;
    sync_folder(folder_of(path))
}

/// Creates a folder and those above it, each synced into the one that holds it.
///
/// # Errors
/// What the file system answers.
pub fn create_folder(folder: &Path) -> Result<(), SinkError> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder_of(folder);
    if above != folder {
        create_folder(above)?;
    }
    match fs::create_dir(folder) {
        // Another worker was faster.
        Err(_) if folder.is_dir() => Ok(()),
        Err(_) if folder.exists() => Err(io("use as a folder", folder)(ErrorKind::NotADirectory.into())),
        Err(error) => Err(io("create", folder)(error)),
        Ok(()) => sync_folder(above),
    }
}

/// Syncs a folder: names created in it, and names gone from it, last.
///
/// # Errors
/// What the file system answers.
pub fn sync_folder(folder: &Path) -> Result<(), SinkError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync", folder))
}

/// Renames a file within a file system.
///
/// # Errors
/// What the file system answers.
pub fn rename(from: &Path, to: &Path) -> Result<(), SinkError> {
    fs::rename(from, to).map_err(io("rename into place", to))
}

/// The folder that holds `path`; `.` for a bare name.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => path,
    }
}

/// The name beside `path` under which it is staged: hidden, and with [`STAGED_SUFFIX`].
#[must_use]
pub fn staged_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(STAGED_SUFFIX);
    path.with_file_name(name)
}

/// A file that is only appended to, hashed while it is written, and whose handle can be given back meanwhile: there
/// may be more files in the making than a process may hold open.
pub struct HashedFile {
    path: PathBuf,
    handle: Option<File>,
    bytes: u64,
    hasher: Box<Xxh3>,
}

impl HashedFile {
    /// Creates `path`, which must not exist, and the folders above it.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn create(path: PathBuf) -> Result<HashedFile, SinkError> {
        create_folder(folder_of(&path))?;
        let file = OpenOptions::new().append(true).create_new(true).open(&path).map_err(io("create", &path))?;
        Ok(HashedFile::over(path, file))
    }

    /// Goes on with `file`, which is empty, under its name.
    #[must_use]
    pub fn over(path: PathBuf, file: File) -> HashedFile {
        HashedFile { path, handle: Some(file), bytes: 0, hasher: Box::new(Xxh3::new()) }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds a file handle at the moment.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.handle.is_some()
    }

    /// Gives the handle back until the next write. What was written is synced first: a write that the disk refuses
    /// later would otherwise be reported to nobody.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn park(&mut self) -> Result<(), SinkError> {
        let Some(handle) = self.handle.take() else { return Ok(()) };
        handle.sync_data().map_err(io("sync", &self.path))
    }

    /// Syncs the file; gives its length and the xxh3-64 of its bytes in hex.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn sync(&mut self) -> Result<(u64, String), SinkError> {
        let path = self.path.clone();
        self.handle().and_then(|handle| handle.sync_all()).map_err(io("sync", &path))?;
        Ok((self.bytes, format!("{:016x}", self.hasher.digest())))
    }

    fn handle(&mut self) -> io::Result<&mut File> {
        if self.handle.is_none() {
            self.handle = Some(OpenOptions::new().append(true).open(&self.path)?);
        }
        Ok(self.handle.as_mut().expect("opened just above"))
    }
}

impl fmt::Debug for HashedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashedFile").field("path", &self.path).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.handle()?.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lock on a file that exists for it alone, and only while the lock is held or its holder died.
#[derive(Debug)]
pub struct PathLock {
    path: PathBuf,
    file: File,
}

impl PathLock {
    /// Takes the lock; none if another process or writer holds it.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn take(path: PathBuf) -> Result<Option<PathLock>, SinkError> {
        loop {
            let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io("create", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(io("lock", &path)(error)),
            }
            let lock = PathLock { path: path.clone(), file };
            if lock.is_current() {
                return Ok(Some(lock));
            }
            // The holder before removed the file between our opening and locking it: this lock is on nothing.
        }
    }

    /// Whether the path still names the locked file.
    fn is_current(&self) -> bool {
        let number = |metadata: io::Result<Metadata>| metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()));
        number(self.file.metadata()) == number(fs::metadata(&self.path))
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // A file that stays is only untidy: the next writer takes the lock on it.
        if self.is_current() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::error::Fault;

    /// Goal: a file that was parked between writes is the same as one that was not, and its hash is that of its bytes.
    #[test]
    fn parked_file_goes_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut file = HashedFile::create(folder.path().join("a/b/c")).expect("create");
        file.write_all(b"one ").expect("write");
        file.park().expect("park");
        assert!(!file.is_open());
        file.write_all(b"two").expect("write");
        let (bytes, hash) = file.sync().expect("sync");
        assert_eq!(fs::read(file.path()).expect("read"), b"one two");
        assert_eq!((bytes, hash), (7, format!("{:016x}", xxh3_64(b"one two"))));
    }

    /// Goal: a full disk (Linux has one to try it on) is reported as such, at the write or at the sync.
    #[test]
    fn full_disk_is_reported() {
        let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else { return };
        let mut file = HashedFile::over("/dev/full".into(), full);
        let error = file.write_all(b"x").map_err(io("write", file.path())).expect_err("no room");
        assert_eq!((error.fault(), error.retry()), (Fault::External, true));
    }

    /// Goal: a path below a file is the user's mistake and said so.
    #[test]
    fn file_in_the_way_is_reported() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("file"), "").expect("write");
        let error = write_whole(&folder.path().join("file/below/it"), b"x").expect_err("no folder");
        assert_eq!(error.fault(), Fault::User, "{error}");
    }

    /// Goal: writing a whole file replaces the old one and leaves nothing else behind.
    #[test]
    fn whole_file_replaces() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        write_whole(&path, b"old").expect("write");
        write_whole(&path, b"new").expect("write");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
    }
}
