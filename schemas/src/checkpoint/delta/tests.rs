//! Round trips, fixtures and damage of delta files.

use std::collections::BTreeMap;

use ::bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// States, sorted as a delta wants them.
fn sorted(states: BTreeMap<u128, Option<Vec<u8>>>) -> Vec<(KeyHash, Option<Bytes>)> {
    let mut states: Vec<_> = states.into_iter().map(|(key, state)| (KeyHash(key), state.map(Bytes::from))).collect();
    states.sort_by_key(|(key, _)| (key.group(), *key));
    states
}

fn encode(delta: &Delta, generation: u64) -> Vec<u8> {
    let mut file = Vec::new();
    let flush = &mut |out: &mut Vec<u8>| -> Result<(), SchemaError> {
        file.append(out);
        Ok(())
    };
    delta.encode(generation, flush).unwrap();
    file
}

/// One of everything, small.
fn small() -> Delta {
    let key = |number: u64| u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let states = (0..7).map(|number| (key(number), (number != 3).then(|| vec![number as u8; number as usize * 40])));
    Delta {
        epoch: Epoch(2_000),
        worker: 3,
        layout: b"layout 7".to_vec(),
        full: true,
        states: sorted(states.collect()),
        parts: BTreeMap::from([("timers".into(), vec![1, 2, 3]), ("nothing".into(), vec![])]),
        outbox: BTreeMap::from([("decisions".into(), b"row".to_vec())]),
    }
}

#[test]
fn version_1_stays_readable() {
    // Goal: what the first release wrote is read, and written the same. Method: a file that was written by it.
    let fixture = include_bytes!("../../../tests/fixtures/v1/checkpoint.delta");
    assert_eq!(Delta::decode(fixture).unwrap(), (small(), 5));
    assert_eq!(encode(&small(), 5), fixture);
}

#[test]
fn every_flipped_byte_and_every_cut_is_found() {
    // Goal: damage never passes for data. Method: each bit of each byte flipped, the file cut at each length, and lengthened.
    let file = encode(&small(), 5);
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert!(Delta::decode(&damaged).is_err(), "bit {bit} of byte {at}");
        }
        assert!(Delta::decode(&file[..at]).is_err(), "cut at {at}");
    }
    assert!(Delta::decode(&[file.as_slice(), &[0]].concat()).is_err());
    assert!(Delta::decode(&file).is_ok());
}

#[test]
fn a_later_version_is_told_from_damage() {
    // Goal: the user hears that a newer release is needed. Method: the version is raised.
    let mut file = encode(&small(), 5);
    file[MAGIC.len()] = 2;
    assert!(matches!(Delta::decode(&file), Err(SchemaError::DeltaVersion { found: 2, known: 1 })));
}

#[test]
fn states_come_in_order_and_before_the_rest() {
    // Goal: a reader may rely on the order. Method: keys that fall back, repeat, or come after a part are refused.
    let mut out = Vec::new();
    let mut encoder = DeltaEncoder::new(DeltaHead::default(), &mut out);
    let key = |group: u64, low: u128| KeyHash(u128::from(group) << 64 | low);
    encoder.state(key(4, 9), Some(b"a"), &mut out).unwrap();
    encoder.state(key(5, 1), None, &mut out).unwrap();
    for wrong in [key(4, 9), key(5, 1), key(5, 0), key(0, 77)] {
        assert!(encoder.state(wrong, None, &mut out).is_err(), "{wrong:?}");
    }
    encoder.part("part", b"", &mut out);
    assert!(encoder.state(key(6, 0), None, &mut out).is_err());
}

#[test]
fn a_block_holds_one_group_and_not_much() {
    // Goal: a reader of one group reads little. Method: 3 groups of 2 MiB each make 2 to 3 blocks per group, found by group.
    let states = (0..3_u128).flat_map(|group| (0..2_048).map(move |low| ((group << 64) | low, Some(vec![7; 1_024]))));
    let delta = Delta { states: sorted(states.collect()), ..Delta::default() };
    let file = encode(&delta, 1);
    let (header, trailer) = (&file[..HEADER_BYTES], &file[file.len() - TRAILER_BYTES..]);
    let range = find_index(file.len() as u64, header, trailer).unwrap();
    let index = DeltaIndex::decode(header, &file[range.start as usize..range.end as usize], trailer).unwrap();
    assert_eq!(index.states(), 3 * 2_048);
    for group in 0..3 {
        let blocks = index.group(group);
        assert!((2..=3).contains(&blocks.len()), "{}", blocks.len());
        assert!(blocks.iter().all(|block| block.group == group && block.range.end - block.range.start < 1_100_000));
    }
    assert!(index.group(3).is_empty());
}

fn states() -> impl Strategy<Value = Vec<(KeyHash, Option<Bytes>)>> {
    let state = prop::option::of(prop::collection::vec(any::<u8>(), 0..300));
    // Few groups and low keys besides any: neighbours and full groups.
    let key = prop_oneof![any::<u128>(), (0..3_u128, 0..9_u128).prop_map(|(group, low)| (group << 64) | low)];
    prop::collection::btree_map(key, state, 0..80).prop_map(sorted)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        states in states(),
        (epoch, worker, generation, full) in any::<(u64, u32, u64, bool)>(),
        layout in prop::collection::vec(any::<u8>(), 0..40),
        parts in prop::collection::btree_map(".{0,12}", prop::collection::vec(any::<u8>(), 0..200), 0..4),
        outbox in prop::collection::btree_map(".{0,12}", prop::collection::vec(any::<u8>(), 0..200), 0..4),
    ) {
        // Goal: decode is the inverse of encode, whatever is in a delta.
        let delta = Delta { epoch: Epoch(epoch), worker, layout, full, states, parts, outbox };
        prop_assert_eq!(Delta::decode(&encode(&delta, generation)).unwrap(), (delta, generation));
    }

    #[test]
    fn noise_is_never_a_delta(noise in prop::collection::vec(any::<u8>(), 0..400), keep in 0..2_usize) {
        // Goal: no panic and no data from noise, with or without the right magic around it.
        let mut file = noise;
        if keep == 1 && file.len() >= HEADER_BYTES + TRAILER_BYTES {
            file[..HEADER_BYTES].copy_from_slice(&header());
            let end = file.len() - END.len();
            file[end..].copy_from_slice(END);
        }
        prop_assert!(Delta::decode(&file).is_err());
    }
}
