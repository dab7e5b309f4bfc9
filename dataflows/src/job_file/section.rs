//! Typed reading of a TOML tree: a [`Section`] is a table read against its [`Shape`], a [`Value`] one of its members.
//!
//! Every getter that meets a mistake records it with its place and answers none; the caller goes on with a default.

use std::ops::{Range, RangeInclusive};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use whisperer_operators::{
    expression::did_you_mean,
    spec::{Located, Span},
};
use whisperer_schemas::Micros;

use super::{
    problems::{Place, Problems},
    quantity,
    shape::Shape,
};

/// A table of a job's file; one that is absent reads as empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'t> {
    place: Place<'t>,
    shape: &'static Shape,
    table: Option<&'t DeTable<'t>>,
    /// Its header, for what is missing in it.
    header: (usize, usize),
}

/// A value of a job's file, with the key that it stands under.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'t> {
    place: Place<'t>,
    key: &'t str,
    key_span: (usize, usize),
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Section<'t> {
    /// The whole file.
    pub(super) fn root(place: Place<'t>, table: &'t DeTable<'t>, shape: &'static Shape) -> Section<'t> {
        let section = Section { place, shape, table: Some(table), header: (0, 0) };
        section.reject_unknown_keys(&[]);
        section
    }

    /// The member `key`, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Value<'t>> {
        debug_assert!(self.shape.keys.contains(&key), "\"{key}\" is missing in the shape of {}", self.shape.title);
        let (key, value) = self.table?.get_key_value(key)?;
        Some(Value::new(self.place, key, value))
    }

    /// The member `key`; that it is missing is a mistake.
    pub(super) fn require(&self, key: &str) -> Option<Value<'t>> {
        let value = self.get(key);
        if value.is_none() {
            self.problem(format!("{} needs \"{key}\"", self.shape.title), None);
        }
        value
    }

    /// The table `key`.
    pub(super) fn section(&self, key: &str, shape: &'static Shape) -> Section<'t> {
        let absent = Section { place: self.place, shape, table: None, header: (0, 0) };
        self.get(key).and_then(|value| value.section(shape)).unwrap_or(absent)
    }

    /// The tables of the array of tables `key`.
    pub(super) fn sections(&self, key: &str, shape: &'static Shape) -> Vec<Section<'t>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(array) = value.value.get_ref().as_array() else {
            let form = format!("\"{key}\" is written as {}, once for each", shape.title);
            value.problem_at_key(form, Some(&format!("write \"{}\"", shape.title)));
            return Vec::new();
        };
        array.iter().filter_map(|item| Value { value: item, ..value }.section(shape)).collect()
    }

    /// All members in the order in which they are written.
    pub(super) fn entries(&self) -> Vec<Value<'t>> {
        let mut entries: Vec<_> =
            self.table.into_iter().flat_map(DeTable::iter).map(|(k, v)| Value::new(self.place, k, v)).collect();
        entries.sort_by_key(|entry| entry.key_span);
        entries
    }

    /// Where its header stands, or the inline table.
    pub(super) fn span(&self) -> Span {
        self.place.span(self.header.0..self.header.1)
    }

    pub(super) fn place(&self) -> Place<'t> {
        self.place
    }

    /// A mistake of the section as a whole.
    pub(super) fn problem(&self, message: String, hint: Option<&str>) {
        self.place.problem(self.header.0..self.header.1, message, hint.map(str::to_owned));
    }

    /// Every key that neither the shape nor `also` names is a mistake; one of a later version says so.
    fn reject_unknown_keys(&self, also: &[&str]) {
        for entry in self.entries() {
            let key = entry.key;
            if self.shape.keys.contains(&key) || also.contains(&key) {
                continue;
            }
            if self.shape.later.contains(&key) {
                let what = if self.header == (0, 0) { format!("[{key}]") } else { format!("\"{key}\"") };
                entry.problem_at_key(format!("{what} is not supported in this version"), None);
            } else {
                let hint = did_you_mean(key, self.shape.keys.iter().copied());
                entry.problem_at_key(format!("unknown key \"{key}\" in {}", self.shape.title), hint.as_deref());
            }
        }
    }
}

impl<'t> Value<'t> {
    fn new(place: Place<'t>, key: &'t Spanned<toml::de::DeString<'t>>, value: &'t Spanned<DeValue<'t>>) -> Value<'t> {
        Value { place, key: key.get_ref(), key_span: (key.span().start, key.span().end), value }
    }

    /// The key it stands under.
    pub(super) fn key(&self) -> &'t str {
        self.key
    }

    /// Where mistakes go.
    pub(super) fn problems(&self) -> &'t Problems {
        self.place.problems
    }

    /// Where the key stands.
    pub(super) fn key_span(&self) -> Span {
        self.place.span(self.key_span.0..self.key_span.1)
    }

    /// Where the value stands: of a string its content, without the quotes.
    pub(super) fn span(&self) -> Span {
        self.place.span(self.bytes())
    }

    /// The value as TOML has it.
    pub(super) fn raw(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    /// A mistake in the value.
    pub(super) fn problem(&self, message: String, hint: Option<&str>) {
        self.place.problem(self.bytes(), message, hint.map(str::to_owned));
    }

    /// A mistake in the key.
    pub(super) fn problem_at_key(&self, message: String, hint: Option<&str>) {
        self.place.problem(self.key_span.0..self.key_span.1, message, hint.map(str::to_owned));
    }

    /// The value as a table of the given shape.
    pub(super) fn section(&self, shape: &'static Shape) -> Option<Section<'t>> {
        let Some(table) = self.raw().as_table() else { return self.mismatch("a table", None) };
        let span = self.value.span();
        let section = Section { place: self.place, shape, table: Some(table), header: (span.start, span.end) };
        if !shape.is_open() {
            section.reject_unknown_keys(&[]);
        }
        Some(section)
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Option<Located<String>> {
        let text = self.text_or_empty()?;
        if text.value.is_empty() {
            self.problem(format!("\"{}\" is empty", self.key), None);
            return None;
        }
        Some(text)
    }

    /// Any text.
    pub(super) fn text_or_empty(&self) -> Option<Located<String>> {
        match self.raw().as_str() {
            Some(text) => Some(Located { value: text.to_owned(), span: self.span() }),
            None => self.mismatch("a text", None),
        }
    }

    /// A finite number.
    pub(super) fn number(&self) -> Option<f64> {
        match as_number(self.raw()) {
            Some(number) => Some(number),
            None => self.mismatch("a number", None),
        }
    }

    /// A number inside `range`.
    pub(super) fn number_within(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let number = self.number()?;
        if range.contains(&number) {
            return Some(number);
        }
        let (start, end) = (range.start(), range.end());
        self.problem(format!("\"{}\" is a number from {start} to {end}, not {number}", self.key), None);
        None
    }

    /// A whole number that may be negative.
    pub(super) fn integer(&self) -> Option<i64> {
        match self.raw() {
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => Some(number),
                Err(_) => self.mismatch("a whole number of 64 bits", None),
            },
            _ => self.mismatch("a whole number", None),
        }
    }

    /// A whole number inside `range`.
    pub(super) fn whole(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.integer()?;
        let inside = u64::try_from(number).ok().filter(|number| range.contains(number));
        if inside.is_none() {
            let (start, end) = (range.start(), range.end());
            self.problem(format!("\"{}\" is a whole number from {start} to {end}, not {number}", self.key), None);
        }
        inside
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.raw().as_bool() {
            Some(flag) => Some(flag),
            None => self.mismatch("true or false", None),
        }
    }

    /// A span of time above zero, such as `"30s"`.
    pub(super) fn duration(&self) -> Option<Located<Micros>> {
        let duration = self.duration_or_zero()?;
        if duration.value == 0 {
            self.problem(format!("\"{}\" must be longer than nothing", self.key), None);
            return None;
        }
        Some(duration)
    }

    /// A span of time, `"0s"` too.
    pub(super) fn duration_or_zero(&self) -> Option<Located<Micros>> {
        let Some(text) = self.raw().as_str() else {
            return self.mismatch("a duration in quotes", Some("such as \"30s\", \"24h\" or \"7d\""));
        };
        match quantity::duration(text) {
            Ok(value) => Some(Located { value, span: self.span() }),
            Err(mistake) => {
                self.problem(mistake.message, mistake.hint.as_deref());
                None
            }
        }
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let all = names().collect::<Vec<_>>().join(", ");
        let Some(text) = self.raw().as_str() else { return self.mismatch("a text", Some(&format!("one of {all}"))) };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let hint = did_you_mean(text, names()).unwrap_or_else(|| format!("one of {all}"));
        self.problem(format!("unknown {} \"{text}\"", self.key), Some(&hint));
        None
    }

    /// An array of texts, none of them empty.
    pub(super) fn texts(&self) -> Option<Vec<Located<String>>> {
        match self.raw().as_array() {
            Some(array) => array.iter().map(|item| Value { value: item, ..*self }.text()).collect(),
            None => self.mismatch("an array of texts", None),
        }
    }

    /// The members of an array.
    pub(super) fn items(&self) -> Option<Vec<Value<'t>>> {
        match self.value.get_ref().as_array() {
            Some(array) => Some(array.iter().map(|item| Value { value: item, ..*self }).collect()),
            None => self.mismatch("an array", None),
        }
    }

    fn bytes(&self) -> Range<usize> {
        let span = self.value.span();
        if self.raw().is_str() { content(self.place.text, span) } else { span }
    }

    fn mismatch<T>(&self, wanted: &str, hint: Option<&str>) -> Option<T> {
        let found = match self.raw() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.problem(format!("\"{}\" must be {wanted}, not {found}", self.key), hint);
        None
    }
}

/// An integer or float as a finite number.
pub(super) fn as_number(value: &DeValue<'_>) -> Option<f64> {
    let number = match value {
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok()? as f64,
        DeValue::Float(digits) => digits.as_str().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// The range of a string's content: without its quotes, and without the line end that follows three opening ones.
fn content(text: &str, span: Range<usize>) -> Range<usize> {
    let written = &text[span.clone()];
    let quotes = if written.starts_with("\"\"\"") || written.starts_with("'''") { 3 } else { 1 };
    if written.len() < 2 * quotes {
        return span;
    }
    let inner = &written[quotes..written.len() - quotes];
    let line_end = match quotes {
        3 if inner.starts_with("\r\n") => 2,
        3 if inner.starts_with('\n') => 1,
        _ => 0,
    };
    span.start + quotes + line_end..span.end - quotes
}
