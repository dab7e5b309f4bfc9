//! The members of a record that a parser wants, as a tree: found by name while the record is walked, once.
//!
//! Every member has a *slot*, numbered in preorder, so that a member and all that lies below it are a range of slots. Names are
//! found by a hash of their ends that is perfect among siblings: one multiplication gives the only candidate, and names of up to
//! 16 bytes are compared in two words. A loop over siblings would end at another place for each member, which processors guess wrong.

use std::ops::Range;

/// Stands for "no slot": a member that nobody wants.
pub(super) const UNWANTED: u16 = u16::MAX;

/// The tree; slot 0 is the record itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
struct Node {
    /// Names from the root.
    path: Vec<String>,
    children: Vec<Child>,
    /// The child whose name has a hash, as its place among the children.
    table: Vec<u8>,
    /// The hash's factor; without one the names cannot be told apart by their ends.
    factor: Option<u64>,
    /// One past the last slot below.
    end: u16,
}

#[derive(Clone, Debug)]
struct Child {
    ends: Ends,
    slot: u16,
    name: Box<[u8]>,
}

/// The length of a name, and its first and last bytes; they are the whole name where it has 16 bytes or fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    bytes: usize,
    first: u64,
    last: u64,
}

/// Slots of a table for each child, and factors that are tried before the table grows.
const TABLE_SLOTS_EACH: usize = 4;
const FACTORS_TRIED: u64 = 1000;
/// Longest table; names that need a longer one are compared one by one.
const TABLE_SLOTS_MAX: usize = 1 << 12;
/// Stands for "no child" in a table.
const NO_CHILD: u8 = u8::MAX;

impl Members {
    /// A tree of these paths and all that lead to them. An empty path is the record itself.
    pub(super) fn new(paths: &[Vec<String>]) -> Members {
        let mut sorted: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut members = Members::default();
        members.add(&[], &sorted);
        members
    }

    /// Adds the node of `path`, which all of `paths` begin with, and everything below it.
    fn add(&mut self, path: &[String], paths: &[&[String]]) -> u16 {
        let slot = self.nodes.len();
        assert!(slot < usize::from(UNWANTED), "a job reads fewer than 65,535 members");
        self.nodes.push(Node { path: path.to_vec(), children: vec![], table: vec![], factor: None, end: 0 });
        let depth = path.len();
        let longer: Vec<&[String]> = paths.iter().copied().filter(|path| path.len() > depth).collect();
        for group in longer.chunk_by(|left, right| left[depth] == right[depth]) {
            let child = self.add(&group[0][..=depth], group);
            let name: Box<[u8]> = group[0][depth].as_bytes().into();
            self.nodes[slot].children.push(Child { ends: Ends::of(&name), slot: child, name });
        }
        self.nodes[slot].hash_names();
        self.nodes[slot].end = self.nodes.len() as u16;
        slot as u16
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// The slot of a path that the tree was made of.
    pub(super) fn slot(&self, path: &[String]) -> Option<u16> {
        path.iter().try_fold(0, |slot, name| match self.child(slot, name.as_bytes()) {
            UNWANTED => None,
            child => Some(child),
        })
    }

    /// The path of a slot.
    pub(super) fn path(&self, slot: u16) -> &[String] {
        &self.nodes[usize::from(slot)].path
    }

    /// The slot of the member `name` of the object in `slot`, or [`UNWANTED`].
    #[inline]
    pub(super) fn child(&self, slot: u16, name: &[u8]) -> u16 {
        let node = &self.nodes[usize::from(slot)];
        let Some(factor) = node.factor else { return node.search(name) };
        let ends = Ends::of(name);
        let place = node.table[ends.hash(factor) & (node.table.len() - 1)];
        match node.children.get(usize::from(place)) {
            Some(child) if child.ends == ends && (name.len() <= 16 || *child.name == *name) => child.slot,
            _ => UNWANTED,
        }
    }

    /// Whether anything below the slot is wanted.
    #[inline]
    pub(super) fn has_children(&self, slot: u16) -> bool {
        !self.nodes[usize::from(slot)].children.is_empty()
    }

    /// A slot and all below it.
    pub(super) fn subtree(&self, slot: u16) -> Range<usize> {
        usize::from(slot)..usize::from(self.nodes[usize::from(slot)].end)
    }
}

impl Node {
    /// Finds a factor by which the names of all children fall into slots of their own.
    fn hash_names(&mut self) {
        let mut slots = (TABLE_SLOTS_EACH * self.children.len()).next_power_of_two();
        while slots <= TABLE_SLOTS_MAX && self.children.len() < usize::from(NO_CHILD) {
            for seed in 0..FACTORS_TRIED {
                let factor = 0x9e37_79b9_7f4a_7c15_u64.wrapping_add(seed.wrapping_mul(0xd1b5_4a32_d192_ed02)) | 1;
                if let Some(table) = self.table(slots, factor) {
                    (self.table, self.factor) = (table, Some(factor));
                    return;
                }
            }
            slots *= 2;
        }
    }

    fn table(&self, slots: usize, factor: u64) -> Option<Vec<u8>> {
        let mut table = vec![NO_CHILD; slots];
        for (place, child) in self.children.iter().enumerate() {
            let slot = &mut table[child.ends.hash(factor) & (slots - 1)];
            if *slot != NO_CHILD {
                return None;
            }
            *slot = place as u8;
        }
        Some(table)
    }

    #[cold]
    fn search(&self, name: &[u8]) -> u16 {
        self.children.iter().find(|child| *child.name == *name).map_or(UNWANTED, |child| child.slot)
    }
}

impl Ends {
    #[inline]
    fn of(name: &[u8]) -> Ends {
        let bytes = name.len();
        if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
            return Ends { bytes, first: u64::from_le_bytes(*first), last: u64::from_le_bytes(*last) };
        }
        if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
            let [first, last] = [first, last].map(|four| u64::from(u32::from_le_bytes(*four)));
            return Ends { bytes, first, last };
        }
        let first = name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Ends { bytes, first, last: 0 }
    }

    #[inline]
    fn hash(self, factor: u64) -> usize {
        let mixed = self.first ^ self.last.rotate_left(29) ^ self.bytes as u64;
        (mixed.wrapping_mul(factor) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(dotted: &str) -> Vec<String> {
        dotted.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn subtrees_are_ranges_of_slots() {
        // Goal: slots below a member are consecutive, so that a repeated object can be forgotten as a whole.
        let members = Members::new(&[path("b.x"), path("a"), path("b.y.z"), path("b.y"), path("c")]);
        let slot = |dotted| members.slot(&path(dotted)).expect("the path is in the tree");
        assert_eq!(members.slots(), 7);
        assert_eq!(members.subtree(slot("b")), usize::from(slot("b"))..usize::from(slot("c")));
        assert_eq!(members.subtree(slot("b.y")).len(), 2);
        assert_eq!(members.path(slot("b.y.z")), path("b.y.z"));
        assert_eq!(members.slot(&path("b.q")), None);
    }

    #[test]
    fn names_are_told_apart_at_every_length() {
        // Goal: names of 0 to 40 bytes that differ in one byte, at any place, are found where they are wanted and nowhere else. From
        // 17 bytes on the ends do not tell the middle.
        for length in 0..=40 {
            let name = "n".repeat(length);
            let other = |at: usize| format!("{}m{}", &name[..at], &name[at + 1..]);
            let wanted: Vec<Vec<String>> =
                [name.clone()].into_iter().chain((1..length).step_by(2).map(other)).map(|n| vec![n]).collect();
            let members = Members::new(&wanted);
            for path in &wanted {
                let slot = members.slot(path).expect("the path is in the tree");
                assert_eq!(members.path(slot), path);
            }
            for at in (0..length).step_by(2) {
                assert_eq!(members.child(0, other(at).as_bytes()), UNWANTED, "{}", other(at));
            }
            assert_eq!(members.child(0, "n".repeat(length + 1).as_bytes()), UNWANTED);
        }
    }

    #[test]
    fn an_object_without_wanted_members_has_none() {
        // Goal: the table of a node without children is never asked wrongly.
        let members = Members::new(&[path("a")]);
        let leaf = members.slot(&path("a")).expect("the path is in the tree");
        assert!(!members.has_children(leaf));
        assert_eq!(members.child(leaf, b"a"), UNWANTED);
    }
}
