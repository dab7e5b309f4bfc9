//! The members of a record that a parser wants, as a tree: found by name while the record is walked, once.
//!
//! Every member has a *slot*, numbered in preorder, so that a member and all that lies below it are a range of slots. Looking
//! a name up compares one word per sibling (length, first, middle and last byte) before it compares names: most members of an event
//! are wanted by nobody, and most of those differ in that word.

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
    signatures: Vec<u32>,
    children: Vec<(String, u16)>,
    /// One past the last slot below.
    end: u16,
}

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
        self.nodes.push(Node { path: path.to_vec(), signatures: vec![], children: vec![], end: 0 });
        let depth = path.len();
        let longer: Vec<&[String]> = paths.iter().copied().filter(|path| path.len() > depth).collect();
        for group in longer.chunk_by(|left, right| left[depth] == right[depth]) {
            let child = self.add(&group[0][..=depth], group);
            let name = group[0][depth].clone();
            self.nodes[slot].signatures.push(signature(name.as_bytes()));
            self.nodes[slot].children.push((name, child));
        }
        self.nodes[slot].end = self.nodes.len() as u16;
        slot as u16
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// The slot of a path that the tree was made of.
    pub(super) fn slot(&self, path: &[String]) -> Option<u16> {
        path.iter().try_fold(0, |slot, name| match self.child(slot, name) {
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
    pub(super) fn child(&self, slot: u16, name: &str) -> u16 {
        let node = &self.nodes[usize::from(slot)];
        let wanted = signature(name.as_bytes());
        for (index, signature) in node.signatures.iter().enumerate() {
            if *signature == wanted && node.children[index].0 == name {
                return node.children[index].1;
            }
        }
        UNWANTED
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

/// Length, first, middle and last byte in one word; equal names have equal signatures.
#[inline]
fn signature(name: &[u8]) -> u32 {
    let [first, .., last] = name else {
        return name.first().map_or(0, |only| u32::from_le_bytes([1, *only, *only, *only]));
    };
    u32::from_le_bytes([name.len() as u8, *first, name[name.len() / 2], *last])
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
    fn names_with_equal_signatures_are_told_apart() {
        // Goal: the signature only speeds the look-up up; names of equal length and ends still differ.
        let members = Members::new(&[path("axcxe"), path("ayc_e"), path("")]);
        assert_ne!(members.child(0, "axcxe"), members.child(0, "ayc_e"));
        assert_eq!(members.child(0, "azcze"), UNWANTED);
        assert_ne!(members.child(0, ""), UNWANTED);
    }
}
