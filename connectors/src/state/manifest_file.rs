//! The form of a manifest: a line of JSON, and a line with its checksum.

use serde::{Deserialize, Serialize};
use whisperer_schemas::{
    Epoch,
    checkpoint::{Checksum, MANIFEST_VERSION, Manifest},
};

use super::error::{StoreError, damaged};

/// Folder of manifests, in a state folder and on a remote store.
pub(crate) const MANIFESTS: &str = "manifests";

/// The second line.
#[derive(Serialize, Deserialize)]
struct Footer {
    xxh3: String,
}

/// The name of a manifest: names sort like numbers.
pub(crate) fn name(number: u64) -> String {
    format!("{MANIFESTS}/{number:020}.json")
}

/// The numbers of the manifests among the names in their folder, ascending.
pub(crate) fn numbers(names: &[String]) -> Vec<u64> {
    let number = |name: &String| name.strip_suffix(".json")?.parse().ok();
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

pub(crate) fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(manifest).expect("a manifest has text keys only");
    bytes.push(b'\n');
    let footer = Footer { xxh3: checksum(&bytes) };
    bytes.extend(serde_json::to_vec(&footer).expect("a footer is one text"));
    bytes.push(b'\n');
    bytes
}

pub(crate) fn decode(number: u64, bytes: &[u8]) -> Result<Manifest, StoreError> {
    let damage = |detail: String| damaged(name(number), detail);
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damage("it is torn".into()))? + 1;
    let footer: Footer = serde_json::from_slice(&bytes[end..]).map_err(|error| damage(error.to_string()))?;
    if footer.xxh3 != checksum(&bytes[..end]) || !bytes.ends_with(b"}\n") {
        return Err(damage("its checksum does not fit".into()));
    }
    /// What every version has.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let versioned: Versioned = serde_json::from_slice(&bytes[..end]).map_err(|error| damage(error.to_string()))?;
    if versioned.version > MANIFEST_VERSION {
        let (found, known) = (versioned.version.into(), MANIFEST_VERSION.into());
        return Err(StoreError::Version { name: name(number), found, known });
    }
    let manifest: Manifest = serde_json::from_slice(&bytes[..end]).map_err(|error| damage(error.to_string()))?;
    if manifest.number == number { Ok(manifest) } else { Err(damage(format!("it is manifest {}", manifest.number))) }
}

fn checksum(bytes: &[u8]) -> String {
    let mut checksum = Checksum::default();
    checksum.update(bytes);
    checksum.facts("", Epoch(0)).xxh3
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use whisperer_schemas::{
        Digest,
        checkpoint::{Base, Cut, FileFacts},
    };

    use super::*;

    fn file(name: &str) -> FileFacts {
        FileFacts { name: name.into(), epoch: Epoch(9), bytes: 7, xxh3: format!("{:032x}", 5) }
    }

    fn manifest() -> Manifest {
        let cut = Cut {
            epoch: Epoch(9),
            workers: 2,
            positions: BTreeMap::from([(0, 5), (3, u64::MAX)]),
            clocks: BTreeMap::from([(0, 1_700_000_000_000_000)]),
            watermark: None,
            ended: vec![3],
            finished: true,
            ticks: BTreeMap::from([("0-1".into(), 64)]),
            base: Base { epoch: Epoch(2), files: vec![file("base/x")] },
            deltas: vec![file("deltas/x")],
            rows: Vec::new(),
            staged: BTreeMap::from([("lake".into(), vec!["{}".into()])]),
            sinks: BTreeMap::from([("topic".into(), "77".into())]),
            digests: BTreeMap::from([("decisions".into(), Digest(u128::MAX))]),
            counts: BTreeMap::from([("events".into(), 1)]),
            deliver_from: Some(-1),
            run: String::new(),
        };
        Manifest {
            version: MANIFEST_VERSION,
            number: 12,
            generation: 3,
            job: "engagement".into(),
            job_version: 4,
            fingerprint: "f".into(),
            written: 5,
            restored: None,
            cut: Some(cut),
        }
    }

    #[test]
    fn version_1_stays_readable() {
        // Goal: manifests of the first release are read. Method: a file that was written by it.
        let fixture = include_bytes!("../../tests/fixtures/v1/manifest.json");
        assert_eq!(decode(12, fixture).unwrap(), Manifest { version: 1, ..manifest() });
    }

    #[test]
    fn rows_and_watermark_are_listed() {
        // Goal: a manifest with rows that wait for their files comes back, and one with a watermark; one without speaks of neither.
        let mut manifest = manifest();
        let text = String::from_utf8_lossy(&encode(&manifest)).into_owned();
        assert!(!text.contains("\"rows\"") && !text.contains("\"watermark\""));
        manifest.cut.as_mut().unwrap().watermark = Some(1_699_999_970_000_000);
        manifest.cut.as_mut().unwrap().rows = vec![file("deltas/w"), file("deltas/x")];
        assert_eq!(decode(12, &encode(&manifest)).unwrap(), manifest);
    }

    #[test]
    fn damage_is_found() {
        // Goal: no damaged manifest passes. Method: every byte flipped, the file cut everywhere, another number.
        let bytes = encode(&manifest());
        assert_eq!(decode(12, &bytes).unwrap(), manifest());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(decode(12, &flipped).is_err(), "byte {at}: {}", String::from_utf8_lossy(&flipped));
            assert!(decode(12, &bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(matches!(decode(11, &bytes), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_later_version_is_no_damage() {
        // Goal: the user hears which release is needed. Method: version 3, with a field that is not known here.
        let later = br#"{"version":3,"whatever":[]}"#.iter().chain(b"\n").copied().collect::<Vec<u8>>();
        let footer = format!("{{\"xxh3\":\"{}\"}}\n", checksum(&later));
        let found = decode(12, &[later.as_slice(), footer.as_bytes()].concat());
        assert!(matches!(found, Err(StoreError::Version { found: 3, known: 2, .. })), "{found:?}");
    }

    #[test]
    fn names_and_numbers_fit() {
        // Goal: what is listed is what was named. Method: there and back, among names that are none.
        let names = ["00000000000000000010.json", ".00000000000000000011.json.x.new", "2.json", "x.json", "3"];
        assert_eq!(numbers(&names.map(String::from)), [2, 10]);
        assert_eq!(name(10), "manifests/00000000000000000010.json");
    }
}
