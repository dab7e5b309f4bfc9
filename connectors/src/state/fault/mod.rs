//! Disks and remote stores that fail, for tests of what stands above them.

mod broken;
mod power;
mod remote;

pub use self::{
    broken::{BrokenDisk, Failure},
    power::PowerDisk,
    remote::{BrokenRemote, RemoteFailure},
};
