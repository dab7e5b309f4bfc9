//! The checks of a record, and the reasons for which it is rejected.

use std::{borrow::Cow, fmt};

use whisperer_schemas::{
    erasure::USER_ERASED,
    event::{
        APP_ID_PREFIX, EVENT_ID_PREFIX, NATIVE_ID_CHARS, SESSION_ID_PREFIX, USER_ID_PREFIX, event_type_index,
        is_any_id, is_native_id,
    },
};

use super::{
    EventTypes, FormatOptions, Ids,
    capture::Captured,
    plan::{Feed, Found, Plan},
};

/// Why a record is rejected; tested in this order, the first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Longer than `event_bytes_max`.
    TooLarge,
    /// Not one JSON object, or not one CSV row with a cell for each column; invalid UTF-8, NaN, numbers beyond f64, lone surrogates. In
    /// other formats: not framed as the format says, or content that is not one message of its schema.
    InvalidJson,
    /// A required field is absent or null; in CSV, its cell is empty.
    MissingField,
    /// A time that cannot be read.
    BadTime,
    /// A wrong type, an empty id, an id or event type that the job does not admit; a schema that the registry does not know or that is
    /// broken.
    Schema,
    /// An event time too far ahead of its ingest time.
    Future,
}

impl Reason {
    /// All reasons, in the order in which they are tested.
    pub const ALL: [Reason; 6] =
        [Reason::TooLarge, Reason::InvalidJson, Reason::MissingField, Reason::BadTime, Reason::Schema, Reason::Future];

    /// The reason as dead letters show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::TooLarge => "too_large",
            Reason::InvalidJson => "invalid_json",
            Reason::MissingField => "missing_field",
            Reason::BadTime => "bad_time",
            Reason::Schema => "schema",
            Reason::Future => "future",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The first check that failed.
    pub reason: Reason,
    /// What exactly is wrong.
    pub detail: String,
}

impl Rejection {
    #[cold]
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Rejection {
        Rejection { reason, detail: detail.into() }
    }
}

/// A record whose slots are filled, ready to be checked.
pub(super) struct Candidate<'a> {
    pub(super) plan: &'a Plan,
    pub(super) options: &'a FormatOptions,
    pub(super) slots: &'a [Captured<'a>],
    pub(super) scratch: &'a str,
}

/// The fields that the schema check found valid.
pub(super) struct Identity<'a> {
    pub(super) event_id: Option<Cow<'a, str>>,
    pub(super) app_id: Cow<'a, str>,
    pub(super) user_id: Cow<'a, str>,
    pub(super) session_id: Option<Cow<'a, str>>,
    pub(super) event_type: &'a str,
}

impl<'a> Candidate<'a> {
    #[inline]
    pub(super) fn find(&self, feed: &'a Feed<u16>) -> Found<'a> {
        feed.find(self.slots, self.scratch)
    }

    /// `missing_field`
    pub(super) fn required(&self) -> Result<(), Rejection> {
        let plan = self.plan;
        let required = [
            (&plan.app_id, "app_id"),
            (&plan.user_id, "user_id"),
            (&plan.event_type, "event_type"),
            (&plan.timestamp, "timestamp"),
        ];
        match required.into_iter().find(|(feed, _)| self.find(feed) == Found::Missing) {
            Some((feed, field)) => Err(Rejection::new(Reason::MissingField, self.missing(feed, field))),
            None => Ok(()),
        }
    }

    #[cold]
    fn missing(&self, feed: &Feed<u16>, field: &str) -> String {
        let names: Vec<String> = feed.members().iter().map(|slot| self.plan.members.path(*slot).join(".")).collect();
        if names.is_empty() || names == [field] {
            return format!("{field} is missing");
        }
        format!("{field} is missing: no \"{}\"", names.join("\" or \""))
    }

    /// `schema`
    pub(super) fn identity(&self) -> Result<Identity<'a>, Rejection> {
        self.objects()?;
        let plan = self.plan;
        let event_id = self.optional_id(&plan.event_id, "event_id", EVENT_ID_PREFIX)?;
        let app_id = self.id(&plan.app_id, "app_id", APP_ID_PREFIX)?;
        let user_id = self.id(&plan.user_id, "user_id", USER_ID_PREFIX)?;
        let session_id = self.optional_id(&plan.session_id, "session_id", SESSION_ID_PREFIX)?;
        Ok(Identity { event_id, app_id, user_id, session_id, event_type: self.event_type()? })
    }

    fn objects(&self) -> Result<(), Rejection> {
        let wrong = |slot: u16| {
            let value = self.slots[usize::from(slot)];
            !matches!(value, Captured::Object | Captured::Absent | Captured::Null | Captured::Cell(_))
        };
        match self.plan.objects.iter().find(|(slot, _)| wrong(*slot)) {
            Some((_, name)) => Err(Rejection::new(Reason::Schema, format!("{name} is not an object"))),
            None => Ok(()),
        }
    }

    fn optional_id(&self, feed: &'a Feed<u16>, field: &str, prefix: &str) -> Result<Option<Cow<'a, str>>, Rejection> {
        match self.find(feed) {
            Found::Missing => Ok(None),
            _ => self.id(feed, field, prefix).map(Some),
        }
    }

    #[inline]
    fn id(&self, feed: &'a Feed<u16>, field: &str, prefix: &str) -> Result<Cow<'a, str>, Rejection> {
        match (self.options.ids, self.find(feed)) {
            (Ids::Strict, Found::Text(text) | Found::Cell(text)) if is_native_id(prefix, text) => Ok(text.into()),
            (Ids::Any, Found::Text(text) | Found::Cell(text)) if is_any_id(text) => Ok(text.into()),
            (Ids::Any, Found::Integer(text)) if is_any_id(text) => Ok(text.into()),
            (Ids::Any, Found::Unsigned(number)) => Ok(number.to_string().into()),
            (Ids::Any, Found::Signed(number)) => Ok(number.to_string().into()),
            (Ids::Any, found) => Err(wrong_any_id(field, found)),
            (Ids::Strict, found) => Err(wrong_native_id(field, found, prefix)),
        }
    }

    fn event_type(&self) -> Result<&'a str, Rejection> {
        let found = self.find(&self.plan.event_type);
        let (Found::Text(text) | Found::Cell(text)) = found else {
            return Err(Rejection::new(Reason::Schema, format!("event_type {} is not text", shown(found))));
        };
        let known = match &self.options.event_types {
            EventTypes::Contract(more) => {
                event_type_index(text).is_some() || text == USER_ERASED || more.iter().any(|known| known == text)
            }
            EventTypes::Any => true,
        };
        match known && !text.is_empty() {
            true => Ok(text),
            false => Err(Rejection::new(Reason::Schema, format!("unknown event_type {}", shown(found)))),
        }
    }
}

#[cold]
fn wrong_any_id(field: &str, found: Found<'_>) -> Rejection {
    let detail = format!("{field} {} is not text of 1 to 128 bytes or an integer", shown(found));
    Rejection::new(Reason::Schema, detail)
}

#[cold]
fn wrong_native_id(field: &str, found: Found<'_>, prefix: &str) -> Rejection {
    let shown = shown(found);
    Rejection::new(
        Reason::Schema,
        format!("{field} {shown} is not \"{prefix}\" and {NATIVE_ID_CHARS} letters or digits"),
    )
}

/// A value for a message, cut where it is long.
pub(super) fn shown(found: Found<'_>) -> String {
    const CHARS_MAX: usize = 64;
    match found {
        Found::Missing => "null".to_owned(),
        Found::Bool(truth) => truth.to_string(),
        Found::Unsigned(number) => number.to_string(),
        Found::Signed(number) => number.to_string(),
        Found::Float(number) => number.to_string(),
        Found::Integer(text) => text.chars().take(CHARS_MAX).collect(),
        Found::Nested => "(an array or object)".to_owned(),
        Found::Text(text) | Found::Cell(text) => match text.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => format!("{:?}…", &text[..end]),
            None => format!("{text:?}"),
        },
    }
}
