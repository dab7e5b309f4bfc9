//! Disks that fail, for tests of what stands above a disk.

mod broken;
mod power;

pub use self::{
    broken::{BrokenDisk, Failure},
    power::PowerDisk,
};
