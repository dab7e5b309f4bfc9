//! The few operations on files that checkpoints are made of, behind one trait, so that tests can stand in for the disk: fail, tear, and
//! lose what was not synced.
//!
//! What a disk promises, and what not:
//! * bytes stay once their file was synced;
//! * a name stays (or stays gone) once the folder that holds it was synced;
//! * links and renames happen whole or not at all.

use std::{
    fmt::Debug,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use super::failpoint;

/// A disk.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file. One that is there is not emptied: it may have a second name, under which it is to stay.
    ///
    /// # Errors
    /// What the disk answers, so everywhere; [`ErrorKind::AlreadyExists`] where the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// A whole file.
    ///
    /// # Errors
    /// As above.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes(path)? as usize];
        self.read_at(path, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` with what stands from `offset` on.
    ///
    /// # Errors
    /// As above, and a file that is too short.
    fn read_at(&self, path: &Path, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// The length of a file.
    ///
    /// # Errors
    /// As above.
    fn bytes(&self, path: &Path) -> io::Result<u64>;

    /// The names in a folder, sorted; none where there is no such folder.
    ///
    /// # Errors
    /// As above.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Creates a folder and those above it, and syncs each into the one that holds it.
    ///
    /// # Errors
    /// As above.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// Gives a file a second name, which must be free.
    ///
    /// # Errors
    /// As above; [`ErrorKind::AlreadyExists`] where the name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file, in place of another one if there is one.
    ///
    /// # Errors
    /// As above.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; that there is none is no error.
    ///
    /// # Errors
    /// As above.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes names in a folder last.
    ///
    /// # Errors
    /// As above.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub trait DiskFile: Write + Send {
    /// Makes its bytes last.
    ///
    /// # Errors
    /// What the disk answers.
    fn sync(&mut self) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        failpoint::around("file-sync", || self.sync_all())
    }
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(failpoint::around("file-create", || File::create_new(path))?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        File::open(path)?.read_exact_at(bytes, offset)
    }

    fn bytes(&self, path: &Path) -> io::Result<u64> {
        fs::metadata(path).map(|metadata| metadata.len())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let name =
            |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names = entries.map(name).collect::<io::Result<Vec<String>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.create_folder(above)?;
        match fs::create_dir(folder) {
            // Another process was faster.
            Err(_) if folder.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_folder(above),
        }
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        failpoint::around("file-link", || fs::hard_link(from, to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        failpoint::around("file-rename", || fs::rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match failpoint::around("file-remove", || fs::remove_file(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        failpoint::around("folder-sync", || File::open(folder)?.sync_all())
    }
}
