//! A remote store that fails on demand, and counts.

use std::{
    io::ErrorKind,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::state::{StoreError, remote::Remote};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteFailure {
    /// Nothing.
    None,
    /// The call of this number, from 0, and all after it are refused.
    Down(u64),
    /// The call of this number, from 0, is carried out, and its answer is lost.
    Lost(u64),
}

/// A remote store around `inner`.
#[derive(Debug)]
pub struct BrokenRemote {
    inner: Arc<dyn Remote>,
    failure: Mutex<RemoteFailure>,
    calls: AtomicU64,
    uploads: Mutex<Vec<String>>,
}

impl BrokenRemote {
    /// Wraps `inner`; nothing fails yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Remote>) -> BrokenRemote {
        let (failure, calls, uploads) = (Mutex::new(RemoteFailure::None), AtomicU64::new(0), Mutex::new(Vec::new()));
        BrokenRemote { inner, failure, calls, uploads }
    }

    /// What goes wrong from now on, calls being counted anew.
    pub fn fail(&self, failure: RemoteFailure) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        self.calls.store(0, Ordering::Relaxed);
    }

    /// Calls since the last [`BrokenRemote::fail`].
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Names that were uploaded since the last call of this.
    #[must_use]
    pub fn uploads(&self) -> Vec<String> {
        std::mem::take(&mut self.uploads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn call<T>(&self, name: &str, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let failed = || StoreError::Remote {
            doing: "reach",
            name: name.into(),
            source: std::io::Error::from(ErrorKind::ConnectionReset).into(),
        };
        match *self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            RemoteFailure::Down(from) if number >= from => Err(failed()),
            RemoteFailure::Lost(at) if number == at => act().and(Err(failed())),
            _ => act(),
        }
    }
}

impl Remote for BrokenRemote {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.call(folder, || self.inner.list(folder))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(name, || self.inner.read(name))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        self.call(name, || self.inner.create(name, bytes))
    }

    fn upload(&self, name: &str, from: &Path) -> Result<(), StoreError> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).push(name.into());
        self.call(name, || self.inner.upload(name, from))
    }

    fn download(&self, name: &str, to: &Path) -> Result<bool, StoreError> {
        self.call(name, || self.inner.download(name, to))
    }

    fn clean(&self, folder: &str) -> Result<(), StoreError> {
        self.call(folder, || self.inner.clean(folder))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.call(name, || self.inner.remove(name))
    }
}
