//! A disk that fails on demand: full, slow, or torn in the middle of a write.

use std::{
    io::{self, ErrorKind, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::state::disk::{Disk, DiskFile};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// After so many operations that change something the disk is full, and stays so.
    Full(u64),
    /// The operation of this number, from 0, is refused once.
    Once(u64),
    /// The operation of this number, from 0, is torn where it is a write: half of it is done and reported as an error.
    Torn(u64),
    /// Every operation takes this long.
    Slow(Duration),
}

/// A disk around `inner`; only what changes something fails.
#[derive(Clone, Debug)]
pub struct BrokenDisk<D> {
    inner: D,
    failure: Failure,
    done: Arc<AtomicU64>,
}

impl<D: Disk> BrokenDisk<D> {
    /// Wraps `inner`.
    pub fn new(inner: D, failure: Failure) -> BrokenDisk<D> {
        BrokenDisk { inner, failure, done: Arc::new(AtomicU64::new(0)) }
    }

    /// Operations that were tried so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn step(&self) -> io::Result<()> {
        step(self.failure, &self.done).map(|_| ())
    }
}

/// Counts an operation; whether it is to be torn.
fn step(failure: Failure, done: &AtomicU64) -> io::Result<bool> {
    let number = done.fetch_add(1, Ordering::Relaxed);
    match failure {
        Failure::Full(from) if number >= from => Err(ErrorKind::StorageFull.into()),
        Failure::Once(at) if number == at => Err(ErrorKind::TimedOut.into()),
        Failure::Torn(at) => Ok(number == at),
        Failure::Slow(duration) => {
            thread::sleep(duration);
            Ok(false)
        }
        _ => Ok(false),
    }
}

struct BrokenFile {
    inner: Box<dyn DiskFile>,
    failure: Failure,
    done: Arc<AtomicU64>,
}

impl Write for BrokenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if step(self.failure, &self.done)? {
            self.inner.write_all(&bytes[..bytes.len() / 2])?;
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl DiskFile for BrokenFile {
    fn sync(&mut self) -> io::Result<()> {
        step(self.failure, &self.done)?;
        self.inner.sync()
    }
}

impl<D: Disk> Disk for BrokenDisk<D> {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step()?;
        Ok(Box::new(BrokenFile { inner: self.inner.create(path)?, failure: self.failure, done: self.done.clone() }))
    }

    fn read_at(&self, path: &Path, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(path, offset, bytes)
    }

    fn bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.bytes(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.inner.list(folder)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.inner.create_folder(folder)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.inner.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.inner.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.step()?;
        self.inner.sync_folder(folder)
    }
}
