//! `[identity]`: which ids are one person, and what says so.

use super::{Located, Span};

/// Ids of one person where the job does not say how many, at most.
pub const COMPONENT_IDS_MAX: u32 = 16;

/// `[identity]`
#[derive(Clone, Debug, PartialEq)]
pub struct IdentitySpec {
    /// Ids of one person, at most.
    pub component_ids_max: u32,
    /// `[[identity.link]]`: events that link their user to another id.
    pub links: Vec<LinkSpec>,
    /// `[[identity.unlink]]`: events that take such a link back.
    pub unlinks: Vec<LinkSpec>,
}

/// One `[[identity.link]]` or `[[identity.unlink]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    /// The event type.
    pub event: Located<String>,
    /// The expression that gives the other id.
    pub other: Located<String>,
}

impl Default for IdentitySpec {
    fn default() -> IdentitySpec {
        IdentitySpec { component_ids_max: COMPONENT_IDS_MAX, links: Vec::new(), unlinks: Vec::new() }
    }
}

impl IdentitySpec {
    /// The same with events of a type that link their user to the id that an expression gives.
    #[must_use]
    pub fn link(mut self, event: &str, other: &str) -> IdentitySpec {
        self.links.push(LinkSpec { event: event.into(), other: other.into() });
        self
    }

    /// The same with events of a type that take such a link back.
    #[must_use]
    pub fn unlink(mut self, event: &str, other: &str) -> IdentitySpec {
        self.unlinks.push(LinkSpec { event: event.into(), other: other.into() });
        self
    }

    /// Forgets where its texts stand in files.
    pub(crate) fn strip_places(&mut self) {
        for link in self.links.iter_mut().chain(&mut self.unlinks) {
            (link.event.span, link.other.span) = (Span::default(), Span::default());
        }
    }
}
