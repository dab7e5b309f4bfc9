//! How the content of a record fills the slots, by format.

use super::{
    Format, FormatOptions, Reason, Rejection,
    capture::{Captured, Scratch, capture},
    cloudevents::CloudEvents,
    plan::Plan,
    registry::RegistryError,
    segment::Segment,
};
use crate::source::{RawRecord, SourceError};

#[cfg(feature = "registry")]
use super::registry::Framed;
#[cfg(feature = "registry")]
use crate::source::Payload;

/// Why a record gives no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is no valid event: a dead letter.
    #[error("{0:?}")]
    Rejected(Rejection),
    /// It could not be judged, for no fault of its own: the run has to end.
    #[error(transparent)]
    Failed(Box<RegistryError>),
}

impl From<Rejection> for ReadError {
    fn from(rejection: Rejection) -> ReadError {
        ReadError::Rejected(rejection)
    }
}

/// Why the slots of a record cannot be filled, or not be trusted.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not written as the format says.
    Invalid(String),
    /// The envelope lacks what tells how to read the rest.
    Missing(String),
    /// Its schema is unknown or broken, so that nothing of it can be read.
    #[cfg(feature = "registry")]
    NoSchema(String),
    /// The slots are filled, but the record breaks its schema; what is missing or no time counts before that.
    BreaksSchema(String),
    /// The registry does not answer.
    #[cfg(feature = "registry")]
    Failed(RegistryError),
}

impl From<String> for Unread {
    fn from(detail: String) -> Unread {
        Unread::Invalid(detail)
    }
}

impl From<Unread> for ReadError {
    #[cold]
    fn from(unread: Unread) -> ReadError {
        match unread {
            Unread::Invalid(detail) => Rejection::new(Reason::InvalidJson, detail).into(),
            Unread::Missing(detail) => Rejection::new(Reason::MissingField, detail).into(),
            Unread::BreaksSchema(detail) => Rejection::new(Reason::Schema, detail).into(),
            #[cfg(feature = "registry")]
            Unread::NoSchema(detail) => Rejection::new(Reason::Schema, detail).into(),
            #[cfg(feature = "registry")]
            Unread::Failed(error) => ReadError::Failed(Box::new(error)),
        }
    }
}

/// Fills the slots of records of one format.
#[derive(Debug)]
pub(super) enum Decoder {
    /// One JSON object, whose members are in the plan.
    Json,
    Segment(Box<Segment>),
    CloudEvents(CloudEvents),
    #[cfg(feature = "registry")]
    Framed(Box<Framed>),
}

impl Decoder {
    /// The decoder of a format. One that needs a schema registry asks whether it is there.
    ///
    /// # Errors
    /// Where the registry does not answer, its settings are wrong, or this build has no client for it.
    pub(super) fn new(options: &FormatOptions, plan: &Plan) -> Result<Decoder, SourceError> {
        Ok(match &options.format {
            Format::Native | Format::Foreign(_) => Decoder::Json,
            Format::Segment(mapping) => Decoder::Segment(Box::new(Segment::new(mapping, plan))),
            Format::CloudEvents(_) => Decoder::CloudEvents(CloudEvents::new(plan)),
            #[cfg(feature = "registry")]
            Format::Framed { encoding, registry, .. } => Decoder::Framed(Box::new(Framed::new(*encoding, registry)?)),
            #[cfg(not(feature = "registry"))]
            Format::Framed { encoding, .. } => {
                let detail = format!("the format \"{encoding}\" needs a build with the feature \"registry\"");
                return Err(SourceError::Settings(detail));
            }
        })
    }

    /// Whether a record of white space is no record at all. In formats that are no text, only one without any content is.
    pub(super) fn is_blank(&self, raw: &RawRecord<'_>) -> bool {
        match self {
            Decoder::Json | Decoder::Segment(_) => true,
            Decoder::CloudEvents(_) => !CloudEvents::is_binary(raw.headers),
            #[cfg(feature = "registry")]
            Decoder::Framed(_) => matches!(raw.payload, Payload::Json([])),
        }
    }

    /// Fills the slots from a record's content.
    #[inline]
    pub(super) fn fill<'a>(
        &mut self,
        raw: &RawRecord<'a>,
        bytes: &'a [u8],
        plan: &Plan,
        slots: &mut Vec<Captured<'a>>,
        scratch: &mut Scratch,
    ) -> Result<(), Unread> {
        match self {
            Decoder::Json => Ok(capture(bytes, &plan.members, slots, scratch)?),
            Decoder::Segment(segment) => {
                capture(bytes, &plan.members, slots, scratch)?;
                segment.derive(slots, &mut scratch.texts)
            }
            Decoder::CloudEvents(events) => events.fill(raw.headers, bytes, &plan.members, slots, &mut scratch.texts),
            #[cfg(feature = "registry")]
            Decoder::Framed(framed) => framed.fill(bytes, &plan.members, slots, &mut scratch.texts),
        }
    }

    /// Adds what a format derives to the slots of a CSV row.
    pub(super) fn complete(&self, slots: &mut Vec<Captured<'_>>, scratch: &mut String) -> Result<(), Unread> {
        scratch.clear();
        match self {
            Decoder::Segment(segment) => segment.derive(slots, scratch),
            _ => Ok(()),
        }
    }
}
