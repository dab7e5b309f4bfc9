//! The processes of a cluster, as `--process I --hosts FILE` name them.

use std::{collections::BTreeMap, fs, path::Path};

use super::OperationsError;
use crate::job_file::is_address;

/// This process's place in a cluster. Process 0 coordinates checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// This process, from 0.
    pub process: usize,
    /// `HOST:PORT` of every process, this one's included.
    pub addresses: Vec<String>,
}

impl Cluster {
    /// Reads a file with the address of one process on each line; empty lines and what follows a `#` are left out.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is no address, an address that comes twice, a process without a line.
    pub fn read(process: usize, hosts: &Path) -> Result<Cluster, OperationsError> {
        let explain = |detail: String| OperationsError::Hosts { path: hosts.to_owned(), detail };
        let text = fs::read_to_string(hosts).map_err(|error| explain(error.to_string()))?;
        let addresses = parse(&text).map_err(explain)?;
        if process >= addresses.len() {
            let count = addresses.len();
            let detail = format!(
                "--process {process} needs {} lines, processes being counted from 0; it has {count}",
                process + 1
            );
            return Err(explain(detail));
        }
        Ok(Cluster { process, addresses })
    }
}

fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    let mut addresses = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let address = line.split('#').next().unwrap_or_default().trim();
        if address.is_empty() {
            continue;
        }
        if !is_address(address) {
            return Err(format!("line {}: \"{address}\" is not an address such as \"10.0.0.1:2101\"", at + 1));
        }
        if let Some(other) = lines.insert(address, at + 1) {
            return Err(format!("line {}: \"{address}\" is on line {other} already", at + 1));
        }
        addresses.push(address.to_owned());
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_line_by_line() {
        // Goal: comments and empty lines are left out, the order of lines is the order of processes.
        let text = "# two machines\n\none.example:2101  # coordinator\n[::1]:2102\n";
        assert_eq!(parse(text), Ok(vec!["one.example:2101".to_owned(), "[::1]:2102".to_owned()]));
    }

    #[test]
    fn wrong_hosts_are_named_with_their_line() {
        // Goal: a wrong address, one that comes twice and a process without a line are told before any process waits for another.
        assert!(parse("a:1\nb\n").is_err_and(|told| told.starts_with("line 2: \"b\"")));
        assert!(parse("a:1\na:1\n").is_err_and(|told| told.contains("on line 1 already")));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hosts = folder.path().join("hosts");
        let missing = Cluster::read(0, &hosts).expect_err("no file").to_string();
        assert!(missing.contains("hosts"), "{missing}");
        fs::write(&hosts, "a:1\nb:2\n").expect("written");
        assert!(Cluster::read(1, &hosts).is_ok());
        let beyond = Cluster::read(2, &hosts).expect_err("two lines").to_string();
        assert!(beyond.contains("needs 3 lines"), "{beyond}");
    }
}
