//! A state store in a folder of this machine, shared by the processes that run on it.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use whisperer_schemas::{
    Epoch,
    checkpoint::{Base, Cut, Delta, FileFacts, Manifest},
};

use super::{
    CONTROL, Role, StateStore, States,
    base::{self, BaseKind, BaseStore, Merging},
    disk::{Disk, LocalDisk},
    error::{StoreError, damaged, io},
    failpoint,
    files::{self, DeltaFile},
    manifest_file::{self, MANIFESTS},
    resolve::{BASE, DELTAS, base_serves, delta_name},
};

/// The file that says that a folder is the cache of a remote store, and of which.
pub(crate) const REMOTE: &str = "remote";

/// A state store in a folder.
#[derive(Debug)]
pub struct FolderStore {
    folder: PathBuf,
    role: Role,
    disk: Arc<dyn Disk>,
    base: Box<dyn BaseStore>,
    /// Tells this process from others that create the same manifest at the same time.
    writer: String,
    /// One merge at a time.
    merging: Mutex<()>,
}

impl FolderStore {
    /// Opens a state folder, which may not be there yet.
    ///
    /// # Errors
    /// A base of another build, or a folder that is the cache of a remote store.
    pub fn open(folder: &Path, role: Role) -> Result<FolderStore, StoreError> {
        let store = FolderStore::over(folder, role, Arc::new(LocalDisk), BaseKind::best())?;
        match store.remote()? {
            None => Ok(store),
            Some(url) => Err(StoreError::Elsewhere {
                path: folder.into(),
                found: format!("is a copy of what is at \"{url}\""),
                wanted: "no checkpoint.remote".into(),
            }),
        }
    }

    /// Opens a state folder on a disk, with a base of a kind.
    ///
    /// # Errors
    /// A base of another kind.
    pub fn over(folder: &Path, role: Role, disk: Arc<dyn Disk>, kind: BaseKind) -> Result<FolderStore, StoreError> {
        let base = base::open(&folder.join(BASE), kind, role, &disk)?;
        // The hasher's keys are random; nothing but the name of an unfinished file depends on it.
        let writer = format!(".{:016x}", RandomState::new().build_hasher().finish());
        Ok(FolderStore { folder: folder.into(), role, disk, base, writer, merging: Mutex::new(()) })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    pub(crate) fn base_store(&self) -> &dyn BaseStore {
        self.base.as_ref()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The remote store that the folder is a cache of.
    pub(crate) fn remote(&self) -> Result<Option<String>, StoreError> {
        let path = self.path(REMOTE);
        match self.disk.read(&path) {
            Ok(url) => Ok(Some(String::from_utf8_lossy(&url).trim().into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    pub(crate) fn names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path(folder);
        self.disk.list(&path).map_err(io("list", &path))
    }

    pub(crate) fn create_folder(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        self.disk.create_folder(&path).map_err(io("create", &path))
    }

    fn delta_file(&self, file: &FileFacts) -> Result<DeltaFile, StoreError> {
        DeltaFile::of(self.disk.clone(), self.path(&file.name), file)
    }

    /// Removes what processes have left unfinished that are dead or fenced by now.
    fn clean(&self) -> Result<(), StoreError> {
        let folders = [MANIFESTS, DELTAS, BASE, CONTROL];
        folders.into_iter().try_for_each(|folder| files::clean(self.disk.as_ref(), &self.path(folder)))
    }

    fn remove_files(&self, folder: &str, names: &[String]) -> Result<(), StoreError> {
        for name in names {
            let path = self.path(name);
            self.disk.remove(&path).map_err(io("remove", &path))?;
        }
        // What is to go next may be what these have named: they must not come back.
        if names.is_empty() { Ok(()) } else { files::sync_folder(self.disk.as_ref(), &self.path(folder)) }
    }
}

impl StateStore for FolderStore {
    fn manifests(&self) -> Result<Vec<u64>, StoreError> {
        Ok(manifest_file::numbers(&self.names(MANIFESTS)?))
    }

    fn manifest(&self, number: u64) -> Result<Manifest, StoreError> {
        let path = self.path(&manifest_file::name(number));
        match self.disk.read(&path) {
            Ok(bytes) => manifest_file::decode(number, &bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(damaged(manifest_file::name(number), "it is missing"))
            }
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    fn create_manifest(&self, manifest: &Manifest) -> Result<bool, StoreError> {
        failpoint::pass("manifest-begun");
        let newer = |numbers: Vec<u64>, from| numbers.last().is_some_and(|number| *number >= from);
        if newer(self.manifests()?, manifest.number) {
            return Ok(false);
        }
        self.create_folder(MANIFESTS)?;
        let path = self.path(&manifest_file::name(manifest.number));
        if !files::write_if_absent(self.disk.as_ref(), &path, &manifest_file::encode(manifest), &self.writer)? {
            return Ok(false);
        }
        failpoint::pass("manifest-created");
        // The number may have been free because it was removed: then there is a larger one by now.
        Ok(!newer(self.manifests()?, manifest.number + 1))
    }

    fn write_delta(&self, delta: &Delta, generation: u64) -> Result<FileFacts, StoreError> {
        failpoint::pass("delta-begun");
        self.create_folder(DELTAS)?;
        let name = delta_name(delta.epoch, generation, delta.worker);
        let path = self.path(&name);
        let staged = files::unfinished(&path, "");
        let facts = files::write_delta(self.disk.as_ref(), &staged, &name, delta, generation)?;
        files::rename(self.disk.as_ref(), &staged, &path)?;
        failpoint::pass("delta-written");
        Ok(facts)
    }

    fn read_delta(&self, file: &FileFacts) -> Result<Delta, StoreError> {
        files::check(self.disk.as_ref(), &self.path(&file.name), file)?;
        self.delta_file(file)?.whole()
    }

    fn read_rest(&self, file: &FileFacts) -> Result<Delta, StoreError> {
        self.delta_file(file)?.rest()
    }

    fn delta_states(&self, file: &FileFacts) -> Result<Box<dyn States + '_>, StoreError> {
        Ok(Box::new(self.delta_file(file)?))
    }

    fn prepare(&self, cut: Option<&Cut>) -> Result<(), StoreError> {
        if self.role == Role::Coordinator {
            self.clean()?;
        }
        let Some(cut) = cut else {
            return if self.role == Role::Coordinator { self.base.clear() } else { Ok(()) };
        };
        let found = self.base.head()?.epoch;
        if base_serves(cut, found) {
            return Ok(());
        }
        let wanted = format!("from {} to {}", cut.base.epoch.0, cut.epoch.0);
        Err(damaged(
            self.path(BASE).to_string_lossy(),
            format!("it holds epoch {}, the checkpoint needs one {wanted}", found.0),
        ))
    }

    fn merge(&self, deltas: &[FileFacts], epoch: Epoch) -> Result<(), StoreError> {
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let head = self.base.head()?;
        if epoch <= head.epoch {
            return Ok(());
        }
        failpoint::pass("merge-begun");
        for file in deltas {
            files::check(self.disk.as_ref(), &self.path(&file.name), file)?;
        }
        self.base.merge(Merging::plan(&head, deltas, epoch, &|file| self.delta_file(file))?)?;
        failpoint::pass("merge-done");
        Ok(())
    }

    fn base(&self) -> Result<Base, StoreError> {
        Ok(Base { epoch: self.base.head()?.epoch, files: Vec::new() })
    }

    fn base_states(&self) -> Result<Box<dyn States + '_>, StoreError> {
        self.base.states().map(|states| states as Box<dyn States + '_>)
    }

    fn files(&self) -> Result<Vec<String>, StoreError> {
        let names = self.names(DELTAS)?.into_iter().filter(|name| !name.starts_with('.'));
        Ok(names.map(|name| format!("{DELTAS}/{name}")).collect())
    }

    fn control(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.names(CONTROL)?.into_iter().filter(|name| !name.starts_with('.')).collect())
    }

    fn read_control(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(CONTROL).join(name);
        match self.disk.read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    fn create_control(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        self.create_folder(CONTROL)?;
        let created = files::write_if_absent(self.disk.as_ref(), &self.path(CONTROL).join(name), bytes, &self.writer)?;
        failpoint::pass("control-written");
        Ok(created || self.read_control(name)?.as_deref() == Some(bytes))
    }

    fn remove_control(&self, names: &[String]) -> Result<(), StoreError> {
        let names: Vec<String> = names.iter().map(|name| format!("{CONTROL}/{name}")).collect();
        self.remove_files(CONTROL, &names)
    }

    fn remove(&self, manifests: &[u64], files: &[String]) -> Result<(), StoreError> {
        let manifests: Vec<String> = manifests.iter().map(|number| manifest_file::name(*number)).collect();
        self.remove_files(MANIFESTS, &manifests)?;
        self.remove_files(DELTAS, files)
    }
}
