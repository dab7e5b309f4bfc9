//! The plan of a parser: which member of a record feeds which field of the event, compiled from the intake and the mapping.

use whisperer_operators::intake::{Field, Group};

use super::{
    capture::Captured,
    mapping::{Constant, From, Mapping, Member},
    members::Members,
};

/// Where the fields of an event come from.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) members: Members,
    pub(super) event_id: Feed<u16>,
    pub(super) app_id: Feed<u16>,
    pub(super) user_id: Feed<u16>,
    pub(super) session_id: Feed<u16>,
    pub(super) event_type: Feed<u16>,
    pub(super) timestamp: Feed<u16>,
    /// `metadata.received_at`
    pub(super) received_at: Feed<u16>,
    /// Members that must be objects or null, with their names.
    pub(super) objects: Vec<(u16, &'static str)>,
    /// In the order of the intake's fields.
    pub(super) fields: Vec<Feed<u16>>,
}

/// What feeds one field; `P` is a path, then a slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Feed<P> {
    /// Nothing does: the field is always missing.
    Nothing,
    /// A member as it is.
    Member(P),
    /// The same value for every record.
    Constant(Constant),
    /// A member whose values are replaced.
    Renamed { member: P, rename: Vec<(String, String)>, otherwise: Option<String> },
    /// A member, or this text where there is none.
    Default { member: P, text: String },
}

/// A field's value, found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Found<'a> {
    /// Absent or null.
    Missing,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    /// The text of an integer that does not fit into 64 bits.
    Integer(&'a str),
    Float(f64),
    Text(&'a str),
    Cell(&'a str),
    /// An array or an object.
    Nested,
}

impl Plan {
    /// Every field comes from the member of the same name.
    pub(super) fn native(fields: &[Field]) -> Plan {
        let own = |name: &str| Feed::Member(vec![name.to_owned()]);
        let draft = Draft {
            event_id: own("event_id"),
            app_id: own("app_id"),
            user_id: own("user_id"),
            session_id: own("session_id"),
            event_type: own("event_type"),
            timestamp: own("timestamp"),
            fields: fields.iter().map(|field| Feed::Member(same_path(field))).collect(),
        };
        draft.compile(&["properties", "context", "metadata"])
    }

    /// Fields come from where `mapping` says, else from the member of the same name; the `app_id` else is `app_id`.
    ///
    /// The record's own `properties` are no part of the event, so they may be anything.
    pub(super) fn mapped(mapping: &Mapping, fields: &[Field], app_id: &str) -> Plan {
        let feed = |from: &Option<From>, name: &str| match from {
            Some(from) => from_mapping(from),
            None => Feed::Member(vec![name.to_owned()]),
        };
        let app_id = match &mapping.app_id {
            Some(from) => from_mapping(from),
            None => Feed::Default { member: vec!["app_id".to_owned()], text: app_id.to_owned() },
        };
        let draft = Draft {
            event_id: feed(&mapping.event_id, "event_id"),
            app_id,
            user_id: feed(&mapping.user_id, "user_id"),
            session_id: feed(&mapping.session_id, "session_id"),
            event_type: feed(&mapping.event_type, "event_type"),
            timestamp: feed(&mapping.timestamp, "timestamp"),
            fields: fields.iter().map(|field| mapped_field(mapping, field)).collect(),
        };
        draft.compile(&["context", "metadata"])
    }
}

fn same_path(field: &Field) -> Vec<String> {
    let mut path = vec![field.group.name().to_owned()];
    path.extend_from_slice(&field.path);
    path
}

fn from_mapping(from: &From) -> Feed<Vec<String>> {
    match from {
        From::Value(constant) => Feed::Constant(constant.clone()),
        From::Member(Member { path, rename, otherwise, .. }) if rename.is_empty() && otherwise.is_none() => {
            Feed::Member(path.clone())
        }
        From::Member(Member { path, rename, otherwise, .. }) => {
            Feed::Renamed { member: path.clone(), rename: rename.clone(), otherwise: otherwise.clone() }
        }
    }
}

/// Only mapped properties exist: `properties.NAME`, and what lies below the member that `NAME` is mapped to.
fn mapped_field(mapping: &Mapping, field: &Field) -> Feed<Vec<String>> {
    if field.group != Group::Properties {
        return Feed::Member(same_path(field));
    }
    let mapped = |name: &str| mapping.properties.iter().rev().find(|(property, _)| property == name);
    if let Some((_, from)) = mapped(&field.path.join(".")) {
        return from_mapping(from);
    }
    let above = field.path.split_first().and_then(|(first, below)| mapped(first).map(|(_, from)| (from, below)));
    match above.map(|(from, below)| (from_mapping(from), below)) {
        Some((Feed::Member(mut path), below)) => {
            path.extend_from_slice(below);
            Feed::Member(path)
        }
        _ => Feed::Nothing,
    }
}

/// A plan that names paths; slots are known once all paths are.
struct Draft {
    event_id: Feed<Vec<String>>,
    app_id: Feed<Vec<String>>,
    user_id: Feed<Vec<String>>,
    session_id: Feed<Vec<String>>,
    event_type: Feed<Vec<String>>,
    timestamp: Feed<Vec<String>>,
    fields: Vec<Feed<Vec<String>>>,
}

impl Draft {
    fn compile(self, objects: &[&'static str]) -> Plan {
        let received_at = Feed::Member(vec!["metadata".to_owned(), "received_at".to_owned()]);
        let contract =
            [&self.event_id, &self.app_id, &self.user_id, &self.session_id, &self.event_type, &self.timestamp];
        let feeds = contract.into_iter().chain(&self.fields).chain([&received_at]);
        let mut paths: Vec<Vec<String>> = feeds.filter_map(Feed::member).cloned().collect();
        paths.extend(objects.iter().map(|name| vec![(*name).to_owned()]));
        let members = Members::new(&paths);
        let slot = |path: &Vec<String>| members.slot(path).expect("the tree was made of all paths");
        Plan {
            event_id: self.event_id.at(slot),
            app_id: self.app_id.at(slot),
            user_id: self.user_id.at(slot),
            session_id: self.session_id.at(slot),
            event_type: self.event_type.at(slot),
            timestamp: self.timestamp.at(slot),
            received_at: received_at.at(slot),
            objects: objects.iter().map(|name| (slot(&vec![(*name).to_owned()]), *name)).collect(),
            fields: self.fields.into_iter().map(|feed| feed.at(slot)).collect(),
            members,
        }
    }
}

impl<P> Feed<P> {
    /// The member that feeds it, if one does.
    pub(super) fn member(&self) -> Option<&P> {
        match self {
            Feed::Nothing | Feed::Constant(_) => None,
            Feed::Member(member) | Feed::Renamed { member, .. } | Feed::Default { member, .. } => Some(member),
        }
    }

    fn at<Q>(self, slot: impl Fn(&P) -> Q) -> Feed<Q> {
        match self {
            Feed::Nothing => Feed::Nothing,
            Feed::Constant(constant) => Feed::Constant(constant),
            Feed::Member(member) => Feed::Member(slot(&member)),
            Feed::Renamed { member, rename, otherwise } => Feed::Renamed { member: slot(&member), rename, otherwise },
            Feed::Default { member, text } => Feed::Default { member: slot(&member), text },
        }
    }
}

impl Feed<u16> {
    /// The field's value in a record. Texts with escapes live in `scratch`.
    #[inline]
    pub(super) fn find<'a>(&'a self, slots: &[Captured<'a>], scratch: &'a str) -> Found<'a> {
        match self {
            Feed::Member(slot) => found(slots[usize::from(*slot)], scratch),
            Feed::Nothing => Found::Missing,
            Feed::Constant(constant) => found_constant(constant),
            Feed::Renamed { member, rename, otherwise } => {
                renamed(found(slots[usize::from(*member)], scratch), rename, otherwise.as_deref())
            }
            Feed::Default { member, text } => match found(slots[usize::from(*member)], scratch) {
                Found::Missing => Found::Text(text),
                found => found,
            },
        }
    }
}

#[inline]
fn found<'a>(captured: Captured<'a>, scratch: &'a str) -> Found<'a> {
    match captured {
        Captured::Absent | Captured::Null => Found::Missing,
        Captured::Bool(truth) => Found::Bool(truth),
        Captured::Unsigned(number) => Found::Unsigned(number),
        Captured::Signed(number) => Found::Signed(number),
        Captured::Integer(text) => Found::Integer(text),
        Captured::Float(number) => Found::Float(number),
        Captured::Text(text) => Found::Text(text),
        Captured::Escaped(start, end) => Found::Text(&scratch[start..end]),
        Captured::Cell(text) => Found::Cell(text),
        Captured::Array | Captured::Object => Found::Nested,
    }
}

/// A whole number in a job file is an integer like one in a record.
fn found_constant(constant: &Constant) -> Found<'_> {
    match constant {
        Constant::Bool(truth) => Found::Bool(*truth),
        Constant::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => Found::Signed(*number as i64),
        Constant::Number(number) => Found::Float(*number),
        Constant::Text(text) => Found::Text(text),
    }
}

/// Replaces a value by its text. Arrays and objects have none, so only `otherwise` can replace them.
fn renamed<'a>(found: Found<'a>, rename: &'a [(String, String)], otherwise: Option<&'a str>) -> Found<'a> {
    let to = |text: &str| rename.iter().find(|(from, _)| from == text).map(|(_, to)| to.as_str());
    let replaced = match found {
        Found::Missing => return Found::Missing,
        Found::Text(text) | Found::Cell(text) | Found::Integer(text) => to(text),
        Found::Bool(truth) => to(if truth { "true" } else { "false" }),
        Found::Unsigned(number) => to(&number.to_string()),
        Found::Signed(number) => to(&number.to_string()),
        Found::Float(number) => to(&number.to_string()),
        Found::Nested => None,
    };
    replaced.or(otherwise).map_or(found, Found::Text)
}
