//! The plan of a parser: which member of a record feeds which field of the event, compiled from the intake and the mapping.

use whisperer_operators::intake::{Field, Group};

use super::{
    Format,
    capture::Captured,
    cloudevents,
    mapping::{Constant, From, Mapping, Member},
    members::Members,
    segment,
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
    /// The first of these members that is there.
    First(Vec<P>),
    /// What a format computed after the walk, in a slot behind those of the members, counted from the last one.
    Derived(usize),
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
    /// The plan of a format. `app_id` is that of events which have none, but for the native format.
    pub(super) fn new(format: &Format, fields: &[Field], app_id: &str) -> Plan {
        let draft = match format {
            Format::Native => Draft::own_names(),
            Format::Foreign(_) => Draft { objects: objects(&["context", "metadata"]), ..Draft::own_names() },
            Format::Segment(mapping) => segment::draft(mapping),
            Format::CloudEvents(_) => cloudevents::draft(),
            // With a mapping a message is foreign, without one it has the members of the native format.
            Format::Framed { mapping: Some(_), .. } => {
                Draft { objects: objects(&["context", "metadata"]), ..Draft::own_names() }
            }
            Format::Framed { mapping: None, .. } => Draft::own_names(),
        };
        let draft = if *format == Format::Native { draft } else { draft.with_app_id(app_id) };
        let own = |field: &Field| match format {
            Format::Native | Format::Framed { mapping: None, .. } => Feed::Member(same_path(field)),
            Format::Foreign(_) | Format::Framed { .. } if field.group == Group::Properties => Feed::Nothing,
            Format::Foreign(_) | Format::Framed { .. } => Feed::Member(same_path(field)),
            Format::Segment(_) => segment::field(field),
            Format::CloudEvents(_) => cloudevents::field(field),
        };
        match format.mapping() {
            Some(mapping) => {
                let mapped = |field| mapped_field(mapping, field).unwrap_or_else(|| own(field));
                draft.overridden(mapping, format).compile(fields.iter().map(mapped).collect())
            }
            None => draft.compile(fields.iter().map(own).collect()),
        }
    }
}

pub(super) fn same_path(field: &Field) -> Vec<String> {
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

/// A mapped property, and what lies below the member that a property is mapped to; none for what the mapping does not name.
fn mapped_field(mapping: &Mapping, field: &Field) -> Option<Feed<Vec<String>>> {
    if field.group != Group::Properties {
        return None;
    }
    let mapped = |name: &str| mapping.properties.iter().rev().find(|(property, _)| property == name);
    if let Some((_, from)) = mapped(&field.path.join(".")) {
        return Some(from_mapping(from));
    }
    let (first, below) = field.path.split_first()?;
    let (_, from) = mapped(first)?;
    Some(match from_mapping(from) {
        Feed::Member(mut path) => {
            path.extend_from_slice(below);
            Feed::Member(path)
        }
        _ => Feed::Nothing,
    })
}

/// A plan that names paths; slots are known once all paths are.
pub(super) struct Draft {
    pub(super) event_id: Feed<Vec<String>>,
    pub(super) app_id: Feed<Vec<String>>,
    pub(super) user_id: Feed<Vec<String>>,
    pub(super) session_id: Feed<Vec<String>>,
    pub(super) event_type: Feed<Vec<String>>,
    pub(super) timestamp: Feed<Vec<String>>,
    pub(super) received_at: Feed<Vec<String>>,
    /// Members that must be objects or null, with their names.
    pub(super) objects: Vec<(Vec<String>, &'static str)>,
    /// Members that the format itself looks at.
    pub(super) more: Vec<Vec<String>>,
}

/// A path written with dots.
pub(super) fn path(dotted: &str) -> Vec<String> {
    dotted.split('.').map(str::to_owned).collect()
}

/// Members at these paths, which must be objects or null.
pub(super) fn objects(dotted: &[&'static str]) -> Vec<(Vec<String>, &'static str)> {
    dotted.iter().map(|name| (path(name), *name)).collect()
}

impl Draft {
    /// Every field comes from the member of the same name.
    fn own_names() -> Draft {
        let own = |name: &str| Feed::Member(path(name));
        Draft {
            event_id: own("event_id"),
            app_id: own("app_id"),
            user_id: own("user_id"),
            session_id: own("session_id"),
            event_type: own("event_type"),
            timestamp: own("timestamp"),
            received_at: own("metadata.received_at"),
            objects: objects(&["properties", "context", "metadata"]),
            more: vec![],
        }
    }

    /// Where there is no `app_id`, it is this one.
    fn with_app_id(mut self, app_id: &str) -> Draft {
        if let Feed::Member(member) = self.app_id {
            self.app_id = Feed::Default { member, text: app_id.to_owned() };
        }
        self
    }

    /// What the mapping names comes from where it says.
    fn overridden(mut self, mapping: &Mapping, format: &Format) -> Draft {
        let own_type = self.event_type.clone();
        for (feed, from) in [
            (&mut self.event_id, &mapping.event_id),
            (&mut self.app_id, &mapping.app_id),
            (&mut self.user_id, &mapping.user_id),
            (&mut self.session_id, &mapping.session_id),
            (&mut self.event_type, &mapping.event_type),
            (&mut self.timestamp, &mapping.timestamp),
        ] {
            if let Some(from) = from {
                *feed = from_mapping(from);
            }
        }
        if matches!(format, Format::Segment(_)) && segment::renames(mapping).is_some() {
            self.event_type = own_type;
        }
        self
    }

    fn compile(self, fields: Vec<Feed<Vec<String>>>) -> Plan {
        let contract = [
            &self.event_id,
            &self.app_id,
            &self.user_id,
            &self.session_id,
            &self.event_type,
            &self.timestamp,
            &self.received_at,
        ];
        let feeds = contract.into_iter().chain(&fields);
        let mut paths: Vec<Vec<String>> = feeds.flat_map(Feed::members).cloned().collect();
        paths.extend(self.objects.iter().map(|(path, _)| path.clone()));
        paths.extend(self.more);
        let members = Members::new(&paths);
        let slot = |path: &Vec<String>| members.slot(path).expect("the tree was made of all paths");
        Plan {
            event_id: self.event_id.at(slot),
            app_id: self.app_id.at(slot),
            user_id: self.user_id.at(slot),
            session_id: self.session_id.at(slot),
            event_type: self.event_type.at(slot),
            timestamp: self.timestamp.at(slot),
            received_at: self.received_at.at(slot),
            objects: self.objects.iter().map(|(path, name)| (slot(path), *name)).collect(),
            fields: fields.into_iter().map(|feed| feed.at(slot)).collect(),
            members,
        }
    }
}

impl<P> Feed<P> {
    /// The members that feed it, if any do.
    pub(super) fn members(&self) -> &[P] {
        match self {
            Feed::Nothing | Feed::Constant(_) | Feed::Derived(_) => &[],
            Feed::Member(member) | Feed::Renamed { member, .. } | Feed::Default { member, .. } => {
                std::slice::from_ref(member)
            }
            Feed::First(members) => members,
        }
    }

    fn at<Q>(self, slot: impl Fn(&P) -> Q) -> Feed<Q> {
        match self {
            Feed::Nothing => Feed::Nothing,
            Feed::Constant(constant) => Feed::Constant(constant),
            Feed::Member(member) => Feed::Member(slot(&member)),
            Feed::Renamed { member, rename, otherwise } => Feed::Renamed { member: slot(&member), rename, otherwise },
            Feed::Default { member, text } => Feed::Default { member: slot(&member), text },
            Feed::First(members) => Feed::First(members.iter().map(slot).collect()),
            Feed::Derived(place) => Feed::Derived(place),
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
            Feed::First(members) => {
                let mut all = members.iter().map(|slot| found(slots[usize::from(*slot)], scratch));
                all.find(|found| *found != Found::Missing).unwrap_or(Found::Missing)
            }
            Feed::Derived(place) => found(slots[slots.len() - 1 - place], scratch),
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
