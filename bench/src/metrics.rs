//! What a running engine tells over HTTP.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use anyhow::Context;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An address of this machine that nothing listens on now.
///
/// # Errors
/// A machine without a port to spare.
pub fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a port")?;
    Ok(listener.local_addr().context("cannot find a port")?.to_string())
}

/// What an engine answers; none where it does not.
#[must_use]
pub fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A histogram: how many samples are at most so large.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    /// The one of this name in the text of `/metrics`, over all its labels.
    #[must_use]
    pub fn read(told: &str, name: &str) -> Histogram {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        let prefix = format!("{name}_bucket{{");
        for (labels, count) in told.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("} ")) {
            let bound =
                labels.split(',').find_map(|label| label.strip_prefix("le=\"")?.strip_suffix('"')?.parse().ok());
            // What follows a count is an exemplar.
            let count = count.split_whitespace().next().and_then(|count| count.parse::<u64>().ok());
            let (Some(bound), Some(count)) = (bound, count) else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        Histogram(buckets)
    }

    /// The samples that came after an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let before = |bound: f64| earlier.0.iter().find(|(known, _)| *known == bound).map_or(0, |(_, count)| *count);
        Histogram(self.0.iter().map(|(bound, count)| (*bound, count.saturating_sub(before(*bound)))).collect())
    }

    /// The least bound that a share of the samples does not exceed; none without samples, and where only infinity bounds them.
    #[must_use]
    pub fn quantile_bound(&self, share: f64) -> Option<f64> {
        let all = self.0.last()?.1;
        let wanted = (share * all as f64).ceil();
        let bound = self.0.iter().find(|(_, count)| *count as f64 >= wanted)?.0;
        (all > 0 && bound.is_finite()).then_some(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounded_by_buckets() {
        // Goal: buckets of all labels add up, an earlier look is taken off, and what is beyond the last bound has none.
        let line = |worker: u32, le: &str, count: u64| format!("x_bucket{{worker=\"{worker}\",le=\"{le}\"}} {count}\n");
        let told = |scale: u64| {
            let of =
                |worker| [("0.01", 90), ("0.1", 99), ("+Inf", 100)].map(|(le, count)| line(worker, le, count * scale));
            format!("# TYPE x histogram\n{}{}x_count 200\n", of(0).concat(), of(1).concat())
        };
        let (first, second) = (Histogram::read(&told(1), "x"), Histogram::read(&told(3), "x"));
        assert_eq!(first, Histogram(vec![(0.01, 180), (0.1, 198), (f64::INFINITY, 200)]));
        let since = second.since(&first);
        assert_eq!(
            [0.5, 0.9, 0.99, 0.999].map(|share| since.quantile_bound(share)),
            [Some(0.01), Some(0.01), Some(0.1), None]
        );
        assert_eq!(Histogram::default().quantile_bound(0.5), None);
    }
}
