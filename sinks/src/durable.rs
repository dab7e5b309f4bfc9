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

use crate::{
    error::{SinkError, io},
    failpoint,
    fault::{self, Change},
};

/// Ending of a staged file: no reader's `*.parquet` or `*.json` matches it.
pub const STAGED_SUFFIX: &str = ".staged";

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never a part.
///
/// # Errors
/// What the file system answers.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), SinkError> {
    let staged = staged_name(path);
    write_beside(&staged, bytes)?;
    rename(&staged, path)?;
    sync_folder(folder_of(path))
}

/// Writes `bytes` to `path` unless there is such a file; says whether there was none. Of two that do this at once, one succeeds. `writer`
/// tells them apart: no two that may be at work at the same time have the same.
///
/// # Errors
/// What the file system answers.
pub fn write_new(path: &Path, bytes: &[u8], writer: &str) -> Result<bool, SinkError> {
    let mut staged = staged_name(path).into_os_string();
    staged.push(format!(".{writer}"));
    let staged = PathBuf::from(staged);
    write_beside(&staged, bytes)?;
    failpoint::pass("sink.link").map_err(io("link", path))?;
    match fs::hard_link(&staged, path) {
        Ok(()) => fault::note(|| Change::Linked(path.into())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return remove(&staged).map(|()| false),
        Err(error) => return Err(io("link", path)(error)),
    }
    sync_folder(folder_of(path))?;
    remove(&staged)?;
    Ok(true)
}

fn write_beside(staged: &Path, bytes: &[u8]) -> Result<(), SinkError> {
    create_folder(folder_of(staged))?;
    failpoint::pass("sink.write").map_err(io("write", staged))?;
    let mut file = File::create(staged).map_err(io("create", staged))?;
    fault::note(|| Change::Created(staged.into()));
    file.write_all(bytes).map_err(io("write", staged))?;
    sync_file(&file, staged)
}

fn sync_file(file: &File, path: &Path) -> Result<(), SinkError> {
    failpoint::pass("sink.sync").and_then(|()| file.sync_all()).map_err(io("sync", path))?;
    fault::note(|| Change::Synced(path.into()));
    Ok(())
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
    let sync = |()| File::open(folder).and_then(|folder| folder.sync_all());
    failpoint::pass("sink.sync_folder").and_then(sync).map_err(io("sync", folder))?;
    fault::note(|| Change::FolderSynced(folder.into()));
    Ok(())
}

/// Renames a file within a file system.
///
/// # Errors
/// What the file system answers.
pub fn rename(from: &Path, to: &Path) -> Result<(), SinkError> {
    failpoint::pass("sink.rename").map_err(io("rename into place", to))?;
    let aside = fault::aside().filter(|aside| fs::hard_link(to, aside).is_ok());
    fs::rename(from, to).map_err(io("rename into place", to))?;
    fault::note(|| Change::Renamed { from: from.into(), to: to.into(), aside });
    Ok(())
}

/// Removes a file; one that is gone already is no error.
///
/// # Errors
/// What the file system answers.
pub fn remove(path: &Path) -> Result<(), SinkError> {
    failpoint::pass("sink.remove").map_err(io("remove", path))?;
    let aside = fault::aside().filter(|aside| fs::hard_link(path, aside).is_ok());
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", path)(error)),
        _ => aside.into_iter().for_each(|aside| fault::note(|| Change::Removed { path: path.into(), aside })),
    }
    Ok(())
}

/// Removes a folder with all that is in it.
///
/// # Errors
/// What the file system answers.
pub fn remove_folder(folder: &Path) -> Result<(), SinkError> {
    failpoint::pass("sink.remove").and_then(|()| fs::remove_dir_all(folder)).map_err(io("remove", folder))
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
        failpoint::pass("sink.write").map_err(io("create", &path))?;
        let file = OpenOptions::new().append(true).create_new(true).open(&path).map_err(io("create", &path))?;
        fault::note(|| Change::Created(path.clone()));
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
        failpoint::pass("sink.sync").and_then(|()| handle.sync_data()).map_err(io("sync", &self.path))
    }

    /// Syncs the file; gives its length and the xxh3-64 of its bytes in hex.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn sync(&mut self) -> Result<(u64, String), SinkError> {
        let path = self.path.clone();
        sync_file(self.handle().map_err(io("open", &path))?, &path)?;
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
        if let Err(full) = failpoint::pass("sink.write") {
            // A disk that fills up takes a part of it.
            let torn = self.handle()?.write(&bytes[..bytes.len() / 2]);
            return torn.and(Err(full));
        }
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

    /// Goal: of two writers of a new file the first succeeds, the second is told, and neither leaves anything else.
    #[test]
    fn new_file_is_written_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("0.json");
        assert!(write_new(&path, b"first", "a").expect("write"));
        assert!(!write_new(&path, b"second", "b").expect("write"));
        assert_eq!(fs::read(&path).expect("read"), b"first");
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
    }

    /// Goal: a power cut takes back what was not synced and nothing else: the test of the simulated disk itself.
    #[test]
    fn power_cut_takes_back() {
        let (folder, aside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("another"));
        let path = |name: &str| folder.path().join(name);
        write_whole(&path("kept"), b"old").expect("write");
        let disk = fault::FaultyDisk::after(u64::MAX, aside.path());
        write_whole(&path("synced"), b"x").expect("write");
        write_beside(&path("staged"), b"new").expect("write");
        rename(&path("staged"), &path("kept")).expect("rename");
        remove(&path("synced")).expect("remove");
        HashedFile::create(path("torn"))
            .and_then(|mut file| file.write_all(b"x").map_err(io("write", &path("torn"))))
            .expect("write");
        disk.cut_power(|| true);
        assert_eq!(fs::read(path("kept")).expect("read"), b"old");
        assert_eq!(fs::read(path("synced")).expect("read"), b"x");
        assert!(!path("torn").exists() && !path("staged").exists());
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
