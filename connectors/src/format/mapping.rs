//! `[source.map]`: how the fields of foreign records become those of an event.

/// Which member feeds each field of the event. A field without an entry comes from where the format has it: in foreign JSON and CSV
/// from the member of the same name, and only mapped properties exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    /// `event_id`
    pub event_id: Option<From>,
    /// `app_id`
    pub app_id: Option<From>,
    /// `user_id`
    pub user_id: Option<From>,
    /// `session_id`
    pub session_id: Option<From>,
    /// `event_type`
    pub event_type: Option<From>,
    /// `timestamp`
    pub timestamp: Option<From>,
    /// `properties.NAME`, by name.
    pub properties: Vec<(String, From)>,
}

/// Where a field's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// The same value for every record.
    Value(Constant),
    /// A member of the record.
    Member(Member),
}

/// A constant of a mapping.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the definitions")]
pub enum Constant {
    Bool(bool),
    Number(f64),
    Text(String),
}

/// A member of a foreign record and what is done to its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// Names from the record's root: `a.b` is `["a", "b"]`.
    pub path: Vec<String>,
    /// Values to be replaced, with what replaces them; exact, case-sensitive, on the value's text: that of a number is its shortest one.
    pub rename: Vec<(String, String)>,
    /// What a value without a match in `rename` becomes; the value itself if left out.
    pub otherwise: Option<String>,
    /// strptime letters, for times that are not RFC 3339. Without a time of day it is midnight.
    pub format: Option<String>,
    /// What a time given as a JSON number, or as a CSV cell that is a decimal numeral, counts since the Unix epoch.
    pub unit: Option<TimeUnit>,
    /// IANA zone of times without an offset; UTC if left out. Named without a `format`, it admits RFC 3339 times that lack the offset.
    pub zone: Option<String>,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the definitions")]
pub enum TimeUnit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}
