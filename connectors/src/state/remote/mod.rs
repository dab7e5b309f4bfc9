//! A state store of which the truth lies elsewhere, on an object store or in a folder that outlives the machine; the local state folder is
//! a copy of what it needs.
//!
//! ```text
//! <remote>/manifests/00000000000000000001.json     create-if-absent: the fence, and the commit
//! <remote>/deltas/<epoch>-<generation>-<worker>.delta
//! <remote>/base/<xxh3>-<file>                      files of the base, by content: a merge uploads only those that are new
//! ```
//! A checkpoint is committed when its manifest exists on the remote store; every file that it names was uploaded before. The processes of a
//! cluster need not share a folder: each fetches what it loads. The coordinating process keeps its copies in the state folder; the others
//! have a folder of their own in it, which goes with them.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    fs,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use whisperer_schemas::{
    Epoch,
    checkpoint::{Base, Checksum, Cut, Delta, FileFacts, Manifest},
};

use super::{
    BaseKind, CONTROL, FolderStore, Role, StateStore, States,
    disk::LocalDisk,
    error::{StoreError, damaged, io},
    failpoint,
    files::{self, folder_of},
    folder::REMOTE,
    manifest_file::{self, MANIFESTS},
    resolve::{BASE, DELTAS, base_serves},
};

mod folder;
#[cfg(feature = "object-store")]
mod object;

#[cfg(feature = "object-store")]
pub use self::object::ObjectRemote;
pub use folder::FolderRemote;

/// Where the copy of a base is put together, or fetched to, in the state folder.
const BASE_COPY: &str = "base-copy";
/// Bytes read at once where a file is checked or copied.
const READ_BYTES: usize = 1 << 20;

/// A place for named files, shared by machines. Every call that writes lasts when it returns.
pub trait Remote: Debug + Send + Sync {
    /// What it is called in settings and messages.
    fn url(&self) -> &str;

    /// The names of the files in a folder, without the folder, sorted.
    ///
    /// # Errors
    /// What the store answers, so everywhere.
    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError>;

    /// A whole file, if it is there.
    ///
    /// # Errors
    /// As above.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a file only if there is none of that name; whether there was none.
    ///
    /// # Errors
    /// As above; the file may or may not be there then.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError>;

    /// Writes a file from one of this machine.
    ///
    /// # Errors
    /// As above.
    fn upload(&self, name: &str, from: &Path) -> Result<(), StoreError>;

    /// Writes a file to this machine, where there is none of that name, and syncs it; whether there was something to write.
    ///
    /// # Errors
    /// As above, and what the disk answers.
    fn download(&self, name: &str, to: &Path) -> Result<bool, StoreError>;

    /// Removes a file; that there is none is no error.
    ///
    /// # Errors
    /// As above.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// Removes what dead writers have left unfinished in a folder, if that shows at all. A writer that is not dead after all fails.
    ///
    /// # Errors
    /// As above.
    fn clean(&self, folder: &str) -> Result<(), StoreError> {
        let _ = folder;
        Ok(())
    }
}

/// Opens what `checkpoint.remote` names: `file:///folder`, or `s3://bucket/prefix` with the usual `AWS_` variables of the environment.
///
/// # Errors
/// A URL that cannot be used, or not with this build.
pub fn open_remote(url: &str) -> Result<Arc<dyn Remote>, StoreError> {
    let refused = |detail: &str| Err(StoreError::Url { url: url.into(), detail: detail.into() });
    match url.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => Ok(Arc::new(FolderRemote::new(url, Path::new(path)))),
        Some(("file", _)) => refused("write \"file:///\" and an absolute path"),
        #[cfg(feature = "object-store")]
        Some(("s3", _)) => Ok(Arc::new(ObjectRemote::s3(url, std::env::vars())?)),
        #[cfg(not(feature = "object-store"))]
        Some(("s3", _)) => refused("this build lacks the feature \"object-store\""),
        _ => refused("write \"file:///folder\" or \"s3://bucket/prefix\""),
    }
}

/// A state store over a remote one.
#[derive(Debug)]
pub struct RemoteStore {
    remote: Arc<dyn Remote>,
    local: FolderStore,
    /// One merge at a time.
    merging: Mutex<()>,
    uploaded: Mutex<Uploaded>,
}

/// What this process knows to be on the remote store.
#[derive(Debug, Default)]
struct Uploaded {
    /// The base that the next manifest names.
    base: Base,
    /// Names of its files, and of those that are being uploaded for the next one.
    known: BTreeSet<String>,
}

impl RemoteStore {
    /// Opens a remote store, with copies in a state folder.
    ///
    /// # Errors
    /// A state folder that belongs to another remote store, or to none.
    pub fn open(remote: Arc<dyn Remote>, folder: &Path, role: Role) -> Result<RemoteStore, StoreError> {
        RemoteStore::over(remote, folder, role, BaseKind::best())
    }

    /// The same with a base of a kind.
    ///
    /// # Errors
    /// As above.
    pub fn over(remote: Arc<dyn Remote>, folder: &Path, role: Role, kind: BaseKind) -> Result<RemoteStore, StoreError> {
        let folder = match role {
            Role::Coordinator => folder.to_owned(),
            Role::Member(process) => own_folder(folder, &format!("member-{process}"))?,
            Role::Reader => own_folder(folder, &format!("reader-{}", std::process::id()))?,
        };
        let local = FolderStore::over(&folder, role, Arc::new(LocalDisk), kind)?;
        mark(&local, remote.url())?;
        Ok(RemoteStore { remote, local, merging: Mutex::new(()), uploaded: Mutex::new(Uploaded::default()) })
    }

    fn uploaded(&self) -> MutexGuard<'_, Uploaded> {
        // Whoever panicked has only added names.
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_coordinator(&self) -> bool {
        self.local.role() == Role::Coordinator
    }

    /// Fetches a file that a manifest names, unless it is there.
    fn fetch(&self, file: &FileFacts) -> Result<(), StoreError> {
        let path = self.local.path(&file.name);
        if files::check_length(self.local.disk(), &path, file).is_ok() {
            return Ok(());
        }
        fs::create_dir_all(folder_of(&path)).map_err(io("create", folder_of(&path)))?;
        self.fetch_to(file, &path)
    }

    fn fetch_to(&self, file: &FileFacts, path: &Path) -> Result<(), StoreError> {
        // Several workers may fetch the same file at the same time.
        let staged = files::unfinished(path, &format!(".{:?}", std::thread::current().id()));
        self.local.disk().remove(&staged).map_err(io("remove", &staged))?;
        if !self.remote.download(&file.name, &staged)? {
            return Err(damaged(&file.name, "it is missing on the remote store"));
        }
        files::check(self.local.disk(), &staged, file)?;
        files::rename(self.local.disk(), &staged, path)
    }

    /// Fetches the base of a cut and puts it in place of the one that is there.
    fn fetch_base(&self, base: &Base) -> Result<(), StoreError> {
        let copy = self.empty_copy()?;
        for file in &base.files {
            let name = file.name.strip_prefix(BASE).and_then(|name| name.trim_start_matches('/').split_once('-'));
            let (_, name) = name.ok_or_else(|| damaged(&file.name, "it is no name of a file of a base"))?;
            self.fetch_to(file, &copy.join(name))?;
        }
        self.local.base_store().install(&copy)?;
        remove_folder(&copy)
    }

    fn empty_copy(&self) -> Result<PathBuf, StoreError> {
        let copy = self.local.path(BASE_COPY);
        remove_folder(&copy)?;
        fs::create_dir_all(&copy).map_err(io("create", &copy))?;
        Ok(copy)
    }

    /// Uploads what is new in the base; the next manifest names it.
    fn upload_base(&self) -> Result<(), StoreError> {
        failpoint::pass("upload-begun");
        let copy = self.empty_copy()?;
        self.local.base_store().copy(&copy)?;
        let epoch = self.local.base()?.epoch;
        let mut base = Base { epoch, files: Vec::new() };
        for name in LocalDiskNames::of(&copy)? {
            let path = copy.join(&name);
            let facts = checksum(&path)?.facts("", epoch);
            let file = FileFacts { name: format!("{BASE}/{}-{name}", facts.xxh3), ..facts };
            // Known from now on, so that it is not removed for an orphan meanwhile.
            if self.uploaded().known.insert(file.name.clone())
                && let Err(error) = self.remote.upload(&file.name, &path)
            {
                self.uploaded().known.remove(&file.name);
                return Err(error);
            }
            base.files.push(file);
        }
        let mut uploaded = self.uploaded();
        uploaded.known = base.files.iter().map(|file| file.name.clone()).collect();
        uploaded.base = base;
        drop(uploaded);
        failpoint::pass("upload-done");
        remove_folder(&copy)
    }

    /// Names on the remote store, with their folder.
    fn remote_names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.remote.list(folder)?.into_iter().map(|name| format!("{folder}/{name}")).collect())
    }
}

impl Drop for RemoteStore {
    fn drop(&mut self) {
        if !self.is_coordinator() {
            // Copies only; whoever opens the folder next empties it.
            let _ = fs::remove_dir_all(self.local.folder());
        }
    }
}

/// An empty folder for the copies of a process that is not the coordinating one.
fn own_folder(folder: &Path, name: &str) -> Result<PathBuf, StoreError> {
    let own = folder.join(name);
    remove_folder(&own)?;
    fs::create_dir_all(&own).map_err(io("create", &own))?;
    Ok(own)
}

/// Marks a state folder as a copy of the remote store; one that is something else already is refused.
fn mark(local: &FolderStore, url: &str) -> Result<(), StoreError> {
    let refused = |found: String| {
        let wanted = format!("checkpoint.remote = \"{url}\"");
        Err(StoreError::Elsewhere { path: local.folder().into(), found, wanted })
    };
    match local.remote()? {
        Some(found) if found == url => return Ok(()),
        Some(found) => return refused(format!("is a copy of what is at \"{found}\"")),
        None if !local.manifests()?.is_empty() => return refused("holds checkpoints of its own".into()),
        None => {}
    }
    local.create_folder("")?;
    files::write_whole(local.disk(), &local.path(REMOTE), url.as_bytes())
}

/// The names in a folder of this machine.
struct LocalDiskNames;

impl LocalDiskNames {
    fn of(folder: &Path) -> Result<Vec<String>, StoreError> {
        super::disk::Disk::list(&LocalDisk, folder).map_err(io("list", folder))
    }
}

fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io("remove", folder)),
    }
}

fn checksum(path: &Path) -> Result<Checksum, StoreError> {
    let mut file = fs::File::open(path).map_err(io("open", path))?;
    let (mut checksum, mut buffer) = (Checksum::default(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer).map_err(io("read", path))? {
            0 => return Ok(checksum),
            bytes => checksum.update(&buffer[..bytes]),
        }
    }
}

impl StateStore for RemoteStore {
    fn manifests(&self) -> Result<Vec<u64>, StoreError> {
        Ok(manifest_file::numbers(&self.remote.list(MANIFESTS)?))
    }

    fn manifest(&self, number: u64) -> Result<Manifest, StoreError> {
        let name = manifest_file::name(number);
        let bytes = self.remote.read(&name)?.ok_or_else(|| damaged(&name, "it is missing"))?;
        manifest_file::decode(number, &bytes)
    }

    fn create_manifest(&self, manifest: &Manifest) -> Result<bool, StoreError> {
        failpoint::pass("manifest-begun");
        let newer = |from| Ok(self.manifests()?.last().is_some_and(|number| *number >= from));
        if newer(manifest.number)? {
            return Ok(false);
        }
        let (name, bytes) = (manifest_file::name(manifest.number), manifest_file::encode(manifest));
        // A request that was repeated after its answer was lost finds what it has written itself.
        if !self.remote.create(&name, &bytes)? && self.remote.read(&name)?.as_ref() != Some(&bytes) {
            return Ok(false);
        }
        failpoint::pass("manifest-created");
        newer(manifest.number + 1).map(|newer| !newer)
    }

    fn write_delta(&self, delta: &Delta, generation: u64) -> Result<FileFacts, StoreError> {
        let facts = self.local.write_delta(delta, generation)?;
        failpoint::pass("upload-begun");
        self.remote.upload(&facts.name, &self.local.path(&facts.name))?;
        failpoint::pass("upload-done");
        if !self.is_coordinator() {
            self.local.remove(&[], std::slice::from_ref(&facts.name))?;
        }
        Ok(facts)
    }

    fn read_delta(&self, file: &FileFacts) -> Result<Delta, StoreError> {
        self.fetch(file)?;
        self.local.read_delta(file)
    }

    fn read_rest(&self, file: &FileFacts) -> Result<Delta, StoreError> {
        self.fetch(file)?;
        self.local.read_rest(file)
    }

    fn delta_states(&self, file: &FileFacts) -> Result<Box<dyn States + '_>, StoreError> {
        self.fetch(file)?;
        self.local.delta_states(file)
    }

    fn prepare(&self, cut: Option<&Cut>) -> Result<(), StoreError> {
        if self.is_coordinator() {
            [MANIFESTS, DELTAS, BASE, CONTROL].into_iter().try_for_each(|folder| self.remote.clean(folder))?;
        }
        let Some(cut) = cut else {
            *self.uploaded() = Uploaded::default();
            return self.local.prepare(None);
        };
        let serves = self.local.base().is_ok_and(|base| base_serves(cut, base.epoch));
        if !serves && cut.base.files.is_empty() {
            self.local.base_store().clear()?;
        } else if !serves {
            tracing::info!(epoch = cut.base.epoch.0, files = cut.base.files.len(), "fetching the base");
            self.fetch_base(&cut.base)?;
        }
        let known = cut.base.files.iter().map(|file| file.name.clone()).collect();
        *self.uploaded() = Uploaded { base: cut.base.clone(), known };
        self.local.prepare(Some(cut))
    }

    fn merge(&self, deltas: &[FileFacts], epoch: Epoch) -> Result<(), StoreError> {
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch <= self.uploaded().base.epoch {
            return Ok(());
        }
        // What was merged before an upload that failed is not merged again.
        if epoch > self.local.base()?.epoch {
            deltas.iter().try_for_each(|file| self.fetch(file))?;
            self.local.merge(deltas, epoch)?;
        }
        self.upload_base()
    }

    fn base(&self) -> Result<Base, StoreError> {
        Ok(self.uploaded().base.clone())
    }

    fn base_states(&self) -> Result<Box<dyn States + '_>, StoreError> {
        self.local.base_states()
    }

    fn files(&self) -> Result<Vec<String>, StoreError> {
        let mut names: BTreeSet<String> = self.local.files()?.into_iter().collect();
        names.extend(self.remote_names(DELTAS)?);
        let bases = self.remote_names(BASE)?;
        // Looked at last: what is uploaded meanwhile is known before it is listed.
        let uploaded = self.uploaded();
        names.extend(bases.into_iter().filter(|name| !uploaded.known.contains(name)));
        Ok(names.into_iter().collect())
    }

    fn control(&self) -> Result<Vec<String>, StoreError> {
        self.remote.list(CONTROL)
    }

    fn read_control(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.remote.read(&format!("{CONTROL}/{name}"))
    }

    fn create_control(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let created = self.remote.create(&format!("{CONTROL}/{name}"), bytes)?;
        failpoint::pass("control-written");
        Ok(created || self.read_control(name)?.as_deref() == Some(bytes))
    }

    fn remove_control(&self, names: &[String]) -> Result<(), StoreError> {
        names.iter().try_for_each(|name| self.remote.remove(&format!("{CONTROL}/{name}")))
    }

    fn remove(&self, manifests: &[u64], files: &[String]) -> Result<(), StoreError> {
        for number in manifests {
            self.remote.remove(&manifest_file::name(*number))?;
        }
        for name in files {
            self.remote.remove(name)?;
        }
        let deltas: Vec<String> = files.iter().filter(|name| name.starts_with(DELTAS)).cloned().collect();
        self.local.remove(&[], &deltas)
    }
}
