//! Which known name was probably meant by an unknown one.

/// The nearest of the candidates, if any is near: at most a third of its letters differ, or only the case does, or a
/// prefix is missing (`feature` for `properties.feature`).
pub fn nearest<S: AsRef<str>>(name: &str, candidates: impl IntoIterator<Item = S>) -> Option<String> {
    let name = name.to_lowercase();
    let edits_max = (name.chars().count() / 3).max(1);
    let mut best: Option<(usize, f64, String)> = None;
    for candidate in candidates {
        let candidate = candidate.as_ref();
        let edits = edits(&name, &candidate.to_lowercase());
        if edits > edits_max {
            continue;
        }
        // Of equally near ones that which begins alike.
        let likeness = strsim::jaro_winkler(&name, candidate);
        if best.as_ref().is_none_or(|(least, most, _)| edits < *least || (edits == *least && likeness > *most)) {
            best = Some((edits, likeness, candidate.to_owned()));
        }
    }
    best.map(|(_, _, candidate)| candidate)
}

/// The nearest of the candidates as a hint, if any is near.
pub fn did_you_mean<S: AsRef<str>>(name: &str, candidates: impl IntoIterator<Item = S>) -> Option<String> {
    nearest(name, candidates).map(|near| format!("did you mean \"{near}\"?"))
}

fn edits(name: &str, candidate: &str) -> usize {
    let misses_prefix = candidate.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('.'));
    if misses_prefix { 1 } else { strsim::osa_distance(name, candidate) }
}
