//! Receipts: what was done about an erasure, signed, without personal data.
//!
//! A receipt is *final* when no checkpoint that can be restored holds the person, and the base has taken in what came after the erasure. Old files of
//! tables are removed with the erasure itself.
//!
//! What is signed is the compact JSON of the member `receipt`, with its members in the order of [`Receipt`]: the same bytes from the same facts.

use std::{collections::BTreeMap, fs::File, io::Read};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use whisperer_connectors::{
    StateStore,
    state::{load::read_history, resolve::parse_delta_name},
};
use whisperer_schemas::{
    Micros,
    erasure::{ERASURE_VERSION, Subject},
    time::format_micros,
};

use super::{ControlLog, REQUEST};
use crate::runtime::RunError;

/// The name of the key that receipts are signed with.
const KEY: &str = "signing-key";

/// How far an erasure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not applied yet, or something that can be restored still holds the person.
    Pending,
    /// Nothing does.
    Final,
}

/// What was done about an erasure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The version of this form.
    pub version: u32,
    /// The job.
    pub job: String,
    /// What the erasure is called.
    pub erasure: String,
    /// The person, as a keyed hash; none before the job has come across the request.
    pub subject: Option<Subject>,
    /// How far it is.
    pub status: Status,
    /// When it was asked for; none where that is forgotten.
    pub requested: Option<String>,
    /// Events up to this time are suppressed.
    pub up_to: Option<String>,
    /// When it was applied.
    pub applied: Option<String>,
    /// The last checkpoint that holds the person.
    pub checkpoint: Option<u64>,
    /// Rows that were removed, by table.
    pub rows: BTreeMap<String, u64>,
    /// Files that were written again.
    pub files: u64,
    /// What the engine cannot reach.
    pub out_of_reach: Vec<String>,
    /// When this was written.
    pub issued: String,
}

/// A receipt with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// What is signed.
    pub receipt: Receipt,
    /// The public ed25519 key, in hex.
    pub public_key: String,
    /// The signature, in hex.
    pub signature: String,
}

/// The receipts of all erasures of a job, as of now; `out_of_reach` is what the job names.
///
/// # Errors
/// What the store answers.
pub fn receipts(
    store: &dyn StateStore,
    (job, out_of_reach): (&str, &[String]),
    now: Micros,
) -> Result<Vec<Receipt>, RunError> {
    let log = ControlLog::read(store)?;
    let mut ids: Vec<&String> = log.requests.keys().chain(log.entries.keys()).collect();
    ids.sort_unstable();
    ids.dedup();
    let text = |time: Micros| format_micros(time).to_string();
    let each = ids.into_iter().map(|id| {
        let (request, entry, applied) = (log.requests.get(id), log.entries.get(id), log.applied.get(id));
        let is_final = is_final(store, &log, id)?;
        let bounded = entry.filter(|entry| entry.up_to != Micros::MIN);
        Ok(Receipt {
            version: ERASURE_VERSION,
            job: job.to_owned(),
            erasure: id.clone(),
            subject: entry.map(|entry| entry.subject),
            status: if is_final { Status::Final } else { Status::Pending },
            requested: request.map(|request| text(request.requested)),
            up_to: bounded.map(|entry| text(entry.up_to)),
            applied: applied.map(|applied| text(applied.at)),
            checkpoint: applied.map(|applied| applied.checkpoint),
            rows: applied.map(|applied| applied.rows.clone()).unwrap_or_default(),
            files: applied.map_or(0, |applied| applied.files),
            out_of_reach: out_of_reach.to_vec(),
            issued: text(now),
        })
    });
    each.collect()
}

/// Lets go of the requests of erasures that are final: nobody needs the ids any more. Gives how many there were.
///
/// # Errors
/// What the store answers.
pub fn settle(store: &dyn StateStore) -> Result<usize, RunError> {
    if !store.control()?.iter().any(|name| name.starts_with(REQUEST)) {
        return Ok(0);
    }
    let log = ControlLog::read(store)?;
    let mut settled = Vec::new();
    for id in log.requests.keys() {
        if is_final(store, &log, id)? {
            settled.push(format!("{REQUEST}{id}"));
        }
    }
    store.remove_control(&settled)?;
    Ok(settled.len())
}

fn is_final(store: &dyn StateStore, log: &ControlLog, id: &str) -> Result<bool, RunError> {
    let (Some(entry), Some(applied)) = (log.entries.get(id), log.applied.get(id)) else { return Ok(false) };
    let history = read_history(store)?;
    let mut restorable = history.standings().into_iter().map(|(number, _)| number);
    let held = restorable.any(|number| {
        let cut = history.manifest(number).map(|manifest| manifest.cut.is_some());
        // One that cannot be read may hold anything.
        number <= applied.checkpoint && cut.unwrap_or(true)
    });
    let before = |name: &String| parse_delta_name(name).is_some_and(|(epoch, _, _)| epoch < entry.before);
    let base = store.base()?.epoch;
    Ok(!held && !store.files()?.iter().any(before) && (base.0 == 0 || base >= entry.before))
}

/// The key that receipts are signed with; made where there is none yet.
///
/// # Errors
/// What the store answers.
pub fn signing_key(store: &dyn StateStore) -> Result<SigningKey, RunError> {
    if let Some(bytes) = store.read_control(KEY)? {
        let bytes: Result<[u8; 32], _> = bytes.try_into();
        let key = bytes.map(|bytes| SigningKey::from_bytes(&bytes));
        return key.map_err(|_| RunError::Control(format!("\"{KEY}\" does not have 32 bytes")));
    }
    let mut bytes = [0; 32];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    random.map_err(|error| RunError::Control(format!("no key can be made: {error}")))?;
    store.create_control(KEY, &bytes)?;
    signing_key(store)
}

impl Signed {
    /// Signs a receipt.
    #[must_use]
    pub fn new(receipt: Receipt, key: &SigningKey) -> Signed {
        let signature = key.sign(&bytes_of(&receipt));
        Signed { receipt, public_key: hex(key.verifying_key().as_bytes()), signature: hex(&signature.to_bytes()) }
    }

    /// Whether the signature is that of `key`, in hex, or of the key that the receipt names.
    #[must_use]
    pub fn is_valid(&self, key: Option<&str>) -> bool {
        let key = key.unwrap_or(&self.public_key);
        let key = from_hex::<32>(key).and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        let signature = from_hex::<64>(&self.signature).map(|bytes| Signature::from_bytes(&bytes));
        let verify = |(key, signature): (VerifyingKey, Signature)| {
            key.verify_strict(&bytes_of(&self.receipt), &signature).is_ok()
        };
        key.zip(signature).is_some_and(verify)
    }
}

/// A key as somebody keeps it: 64 hexadecimal digits.
#[must_use]
pub fn key_from_hex(text: &str) -> Option<SigningKey> {
    from_hex::<32>(text.trim()).map(|bytes| SigningKey::from_bytes(&bytes))
}

fn bytes_of(receipt: &Receipt) -> Vec<u8> {
    serde_json::to_vec(receipt).expect("plain data with text keys")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.is_ascii() && text.len() == 2 * N;
    let byte = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..N).map(|at| byte(at).filter(|_| digits)).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            version: 1,
            job: "engagement".into(),
            erasure: "e".into(),
            subject: Some(Subject(7)),
            status: Status::Pending,
            requested: None,
            up_to: Some("2026-01-01T00:00:00Z".into()),
            applied: None,
            checkpoint: Some(3),
            rows: BTreeMap::from([("decisions".into(), 2), ("profiles".into(), 5)]),
            files: 1,
            out_of_reach: vec!["the source".into()],
            issued: "2026-01-02T00:00:00Z".into(),
        }
    }

    #[test]
    fn a_receipt_is_valid_as_it_was_signed() {
        // Goal: it survives being written and read, and any change, another key or a torn signature is found.
        let key = key_from_hex(&"07".repeat(32)).expect("a key");
        let signed = Signed::new(receipt(), &key);
        let text = serde_json::to_string_pretty(&signed).expect("JSON");
        let read: Signed = serde_json::from_str(&text).expect("a receipt");
        assert!(read.is_valid(None) && read.is_valid(Some(&signed.public_key)));
        assert_eq!(Signed::new(receipt(), &key), signed, "the same facts give the same signature");
        let mut changed = read.clone();
        changed.receipt.files = 2;
        assert!(!changed.is_valid(None));
        let other = Signed::new(receipt(), &key_from_hex(&"08".repeat(32)).expect("a key"));
        assert!(!signed.is_valid(Some(&other.public_key)) && !signed.is_valid(Some("07")));
        changed = read;
        changed.signature.pop();
        assert!(!changed.is_valid(None));
        assert!(key_from_hex("zz").is_none() && key_from_hex(&"é".repeat(32)).is_none());
    }
}
