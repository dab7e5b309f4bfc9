//! A disk that fails at a chosen step, and that may then lose what was not synced.
//!
//! It is the disk of one thread: every function of [`crate::durable`] asks it before it does anything, and tells it what it did.
//!
//! ```text
//! create, write ─▶ content is lost until the file is synced; the name, until its folder is
//! rename, link, remove ─▶ undone, unless the folder of the name was synced since
//! ```

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind},
    marker::PhantomData,
    path::{Path, PathBuf},
};

use crate::durable::folder_of;

thread_local! {
    static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
}

/// A change of the disk that a power cut may undo.
#[derive(Debug)]
pub(crate) enum Change {
    /// A file was made, still empty.
    Created(PathBuf),
    /// A file's content was synced.
    Synced(PathBuf),
    /// A folder's names were synced.
    FolderSynced(PathBuf),
    /// A file goes by another name; what that name stood for before is kept aside.
    Renamed {
        /// The name before.
        from: PathBuf,
        /// The name now.
        to: PathBuf,
        /// Where the file is kept that had the name before.
        aside: Option<PathBuf>,
    },
    /// A name was given to a file that has another.
    Linked(PathBuf),
    /// A name is gone; its file is kept aside.
    Removed {
        /// The name.
        path: PathBuf,
        /// Where the file is kept.
        aside: PathBuf,
    },
}

#[derive(Debug)]
struct Disk {
    left: u64,
    passed: u64,
    broke: Option<&'static str>,
    changes: Vec<Change>,
    /// Where removed files are kept until the test ends.
    aside: PathBuf,
    kept: u64,
}

/// The faulty disk of this thread, while it lives.
#[derive(Debug)]
pub struct FaultyDisk {
    /// It belongs to the thread that made it.
    _thread: PhantomData<*const ()>,
}

impl FaultyDisk {
    /// From now on this thread's disk is full after `steps` steps. `aside` is a folder, on the same file system, where it keeps what is
    /// removed, since a power cut may bring that back.
    #[must_use]
    pub fn after(steps: u64, aside: &Path) -> FaultyDisk {
        let disk = Disk { left: steps, passed: 0, broke: None, changes: Vec::new(), aside: aside.into(), kept: 0 };
        DISK.set(Some(disk));
        FaultyDisk { _thread: PhantomData }
    }

    /// How many steps were passed.
    #[must_use]
    pub fn steps(&self) -> u64 {
        DISK.with_borrow(|disk| disk.as_ref().map_or(0, |disk| disk.passed))
    }

    /// At which point it broke; none if it did not.
    #[must_use]
    pub fn broke(&self) -> Option<&'static str> {
        DISK.with_borrow(|disk| disk.as_ref().and_then(|disk| disk.broke))
    }

    /// Takes the power away: changes that were not synced are undone where `undoes` says so, which is asked once for each, the latest
    /// first. The disk works again after it.
    ///
    /// # Panics
    /// Where the file system refuses.
    pub fn cut_power(self, mut undoes: impl FnMut() -> bool) {
        let disk = DISK.take().expect("it is there while its guard lives");
        let mut undone = Undone::default();
        disk.changes.into_iter().rev().for_each(|change| undone.look_at(change, &mut undoes));
    }
}

/// What is known of the later changes while earlier ones are looked at.
#[derive(Default)]
struct Undone {
    content_synced: Vec<PathBuf>,
    names_synced: Vec<PathBuf>,
    /// What files are called now, by what they were called.
    renamed: BTreeMap<PathBuf, PathBuf>,
}

impl Undone {
    fn look_at(&mut self, change: Change, undoes: &mut dyn FnMut() -> bool) {
        match change {
            Change::FolderSynced(folder) => self.names_synced.push(folder),
            Change::Synced(path) => self.content_synced.push(self.name_now(&path)),
            Change::Created(path) | Change::Linked(path) if self.loses_name(&path, undoes) => {
                drop(fs::remove_file(&path));
            }
            Change::Created(path) => {
                let path = self.name_now(&path);
                if !self.content_synced.contains(&path) && path.exists() && undoes() {
                    drop(File::create(path));
                }
            }
            Change::Renamed { from, to, aside } => self.look_at_rename(from, &to, aside, undoes),
            Change::Removed { path, aside } if self.loses_name(&path, undoes) => {
                fs::create_dir_all(folder_of(&path)).expect("a folder for what comes back");
                fs::rename(aside, &path).expect("it was kept");
            }
            Change::Linked(_) | Change::Removed { .. } => {}
        }
    }

    fn look_at_rename(&mut self, from: PathBuf, to: &Path, aside: Option<PathBuf>, undoes: &mut dyn FnMut() -> bool) {
        if !self.loses_name(to, undoes) {
            let now = self.name_now(to);
            self.renamed.insert(from, now);
            return;
        }
        fs::create_dir_all(folder_of(&from)).expect("a folder for what comes back");
        fs::rename(to, &from).expect("the file was renamed before");
        aside.into_iter().for_each(|aside| fs::rename(aside, to).expect("it was kept"));
        if self.content_synced.iter().any(|path| path == to) {
            self.content_synced.push(from);
        }
    }

    fn loses_name(&self, path: &Path, undoes: &mut dyn FnMut() -> bool) -> bool {
        !self.names_synced.iter().any(|folder| folder == folder_of(path)) && undoes()
    }

    fn name_now(&self, path: &Path) -> PathBuf {
        self.renamed.get(path).cloned().unwrap_or_else(|| path.to_owned())
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        DISK.set(None);
    }
}

/// Takes a step on this thread's disk.
pub(crate) fn step(name: &'static str) -> io::Result<()> {
    DISK.with_borrow_mut(|disk| {
        let Some(disk) = disk else { return Ok(()) };
        if disk.left == 0 {
            disk.broke.get_or_insert(name);
            return Err(ErrorKind::StorageFull.into());
        }
        disk.left -= 1;
        disk.passed += 1;
        Ok(())
    })
}

/// Tells this thread's disk what was done.
pub(crate) fn note(change: impl FnOnce() -> Change) {
    DISK.with_borrow_mut(|disk| {
        if let Some(disk) = disk {
            disk.changes.push(change());
        }
    });
}

/// A name under which a file that is about to lose its own is to be kept, if this thread's disk wants that.
pub(crate) fn aside() -> Option<PathBuf> {
    DISK.with_borrow_mut(|disk| {
        let disk = disk.as_mut()?;
        disk.kept += 1;
        Some(disk.aside.join(disk.kept.to_string()))
    })
}
