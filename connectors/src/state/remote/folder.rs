//! A remote store in a folder: a disk that outlives the machine, or another one of it.

use std::{
    fs::{self, File},
    io::{self as std_io, ErrorKind},
    path::{Path, PathBuf},
};

use super::Remote;
use crate::state::{
    disk::{Disk, LocalDisk},
    error::{StoreError, io},
    files,
};

/// A folder as a remote store.
#[derive(Debug)]
pub struct FolderRemote {
    url: String,
    folder: PathBuf,
}

impl FolderRemote {
    /// The folder `folder`, called `url`.
    #[must_use]
    pub fn new(url: &str, folder: &Path) -> FolderRemote {
        FolderRemote { url: url.into(), folder: folder.into() }
    }

    /// The path of a file, of which the folder exists.
    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.folder.join(name);
        let folder = files::folder_of(&path);
        LocalDisk.create_folder(folder).map_err(io("create", folder))?;
        Ok(path)
    }
}

/// Tells writers apart: processes of several machines, and threads of one.
fn writer() -> String {
    format!(".{}-{:?}", std::process::id(), std::thread::current().id())
}

fn copy(from: &Path, to: &Path) -> std_io::Result<()> {
    let mut target = File::create_new(to)?;
    std_io::copy(&mut File::open(from)?, &mut target)?;
    target.sync_all()
}

impl Remote for FolderRemote {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let path = self.folder.join(folder);
        let names = LocalDisk.list(&path).map_err(io("list", &path))?;
        Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect())
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        files::write_if_absent(&LocalDisk, &self.path(name)?, bytes, &writer())
    }

    fn upload(&self, name: &str, from: &Path) -> Result<(), StoreError> {
        let path = self.path(name)?;
        let staged = files::unfinished(&path, &writer());
        LocalDisk.remove(&staged).map_err(io("remove", &staged))?;
        copy(from, &staged).map_err(io("copy to", &staged))?;
        files::rename(&LocalDisk, &staged, &path)
    }

    fn download(&self, name: &str, to: &Path) -> Result<bool, StoreError> {
        let path = self.folder.join(name);
        match copy(&path, to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound && !path.exists() => {
                fs::remove_file(to).map_err(io("remove", to)).map(|()| false)
            }
            Err(error) => Err(io("copy", &path)(error)),
        }
    }

    fn clean(&self, folder: &str) -> Result<(), StoreError> {
        files::clean(&LocalDisk, &self.folder.join(folder))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.folder.join(name);
        LocalDisk.remove(&path).map_err(io("remove", &path))?;
        match files::sync_folder(&LocalDisk, files::folder_of(&path)) {
            // There was never such a file.
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
            synced => synced,
        }
    }
}
