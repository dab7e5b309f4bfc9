//! What flows from the sources to the keyed operator: small typed records, no JSON, ids hashed once.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use whisperer_schemas::time::Micros;

/// A set of lanes: bit `i` says that the record touches lane `i` of the job's [`crate::intake::Intake`].
pub type LaneMask = u128;

/// Lanes in a job: one for each different pair of `where` and `of`.
pub const LANES_MAX: usize = 128;

/// An accepted event, reduced to what the job's state needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Hash of the key's ids.
    pub key: u128,
    /// Hash of the event id.
    pub event_hash: u64,
    /// Event time, clamped where the event's clock ran ahead.
    pub time: Micros,
    /// Largest event time of the records before this one in its chunk; `Micros::MIN` where there is none.
    pub chunk_time_max: Micros,
    /// Offset in the partition.
    pub offset: u64,
    /// The partition.
    pub partition: u32,
    /// The chunk of the partition's part of this epoch; chunks are consecutive and count from 0.
    pub chunk: u32,
    /// Operations in the job's `where` and `of` that gave no value, such as a division by zero.
    pub nulls: u32,
    /// Whether the event erases its user up to its time.
    pub erases: bool,
    /// The lanes that the event touches.
    pub lanes: LaneMask,
    /// Values of the job's `of` expressions, by value slot: bits of an `f64` (NaN is null), or a text's hash.
    pub values: SmallVec<[u64; 4]>,
    /// Texts of the `of` expressions whose text itself is kept (`last`, `first`), by text slot.
    pub texts: SmallVec<[Option<CompactString>; 1]>,
    /// The event's id, for the cause of decisions.
    pub event_id: CompactString,
    /// The application.
    pub app_id: CompactString,
    /// The user.
    pub user_id: CompactString,
}
