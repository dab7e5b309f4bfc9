//! Decisions of job J as a file holds them: what the engine and the baseline have to agree on.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::Context;
use serde::Deserialize;

/// A decision, with all that made it.
#[derive(Clone, Debug, PartialEq, PartialOrd, Deserialize)]
pub struct Decision {
    /// Whom it is about.
    pub user_id: String,
    /// When it was made, in event time.
    pub event_time: String,
    /// The score.
    pub risk: f64,
    /// Events so far.
    pub events_total: f64,
    /// Sum of durations so far.
    pub duration_total: f64,
    /// Errors in the last 24 hours.
    pub errors_24h: f64,
    /// Log-ins.
    pub logins_24h: f64,
    /// Uses of features.
    pub features_24h: f64,
    /// Support tickets.
    pub tickets_24h: f64,
    /// Failed payments.
    pub payment_failures_24h: f64,
}

/// The decisions of an NDJSON file, by user and time.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn read(path: &Path) -> anyhow::Result<Vec<Decision>> {
    let cannot = || format!("cannot read the decisions in \"{}\"", path.display());
    let mut decisions: Vec<Decision> = Vec::new();
    for line in BufReader::new(File::open(path).with_context(cannot)?).lines() {
        decisions.push(serde_json::from_str(&line.with_context(cannot)?).with_context(cannot)?);
    }
    decisions.sort_by(|one, other| (&one.user_id, &one.event_time).cmp(&(&other.user_id, &other.event_time)));
    Ok(decisions)
}

/// Says where two lists part, if they do.
#[must_use]
pub fn difference(one: &[Decision], other: &[Decision]) -> Option<String> {
    if one == other {
        return None;
    }
    let parts = one.iter().zip(other).position(|(one, other)| one != other).unwrap_or(one.len().min(other.len()));
    Some(format!(
        "{} decisions against {}; the first that differ: {:?} against {:?}",
        one.len(),
        other.len(),
        one.get(parts),
        other.get(parts)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown() {
        // Goal: lists of different length or content are told apart, and the first difference is named.
        let at = |time: &str| Decision {
            user_id: "usr".to_owned(),
            event_time: time.to_owned(),
            risk: 0.8,
            events_total: 1.0,
            duration_total: 0.0,
            errors_24h: 0.0,
            logins_24h: 0.0,
            features_24h: 0.0,
            tickets_24h: 0.0,
            payment_failures_24h: 0.0,
        };
        assert_eq!(difference(&[at("1")], &[at("1")]), None);
        let differs = difference(&[at("1"), at("2")], &[at("1")]).expect("they differ");
        assert!(differs.starts_with("2 decisions against 1;"), "{differs}");
        assert!(difference(&[at("1")], &[at("2")]).is_some());
    }
}
