//! What the flags of one run change in a job.

use std::path::{Path, PathBuf};

use whisperer_connectors::file::FileOptions;

use super::{JobFile, SinkSettings, SourceSettings, operations::is_address, problems::Problems, whole_file};

/// The flags of `whisperer run` that change what the job file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--events N`: how many events the generator writes.
    pub events: Option<u64>,
    /// `--users N`: how many users the generator has.
    pub users: Option<u64>,
    /// `--input PATH`: files to read, in place of the job's source; relative to the working directory.
    pub input: Option<String>,
    /// `--output DIR`: the lake of every Parquet sink, and the folder of every NDJSON file.
    pub output: Option<PathBuf>,
    /// `--state DIR`: the state folder, in place of `[checkpoint] dir`.
    pub state: Option<PathBuf>,
    /// `--listen ADDR`: where the HTTP server listens, in place of `[server] listen`.
    pub listen: Option<String>,
}

impl Overrides {
    /// Lays the flags over the job.
    pub(super) fn apply(&self, job: &mut JobFile, problems: &Problems) {
        if let Some(input) = &self.input {
            replace_input(job, input);
        }
        self.apply_to_generator(job, problems);
        if let Some(output) = &self.output {
            job.sinks.iter_mut().for_each(|sink| redirect(sink, output));
        }
        if let Some(state) = &self.state {
            job.operations.checkpoint.dir = Some(state.clone());
        }
        if let Some(listen) = &self.listen {
            if !is_address(listen) {
                let hint = Some("a host and a port, such as 127.0.0.1:9184".to_owned());
                problems.add(whole_file(0), format!("\"--listen\": \"{listen}\" is not an address"), hint);
            }
            job.operations.server.listen = Some(listen.clone());
        }
    }

    fn apply_to_generator(&self, job: &mut JobFile, problems: &Problems) {
        if let SourceSettings::Generator(options) = &mut job.source {
            options.events = self.events.unwrap_or(options.events);
            options.users = self.users.unwrap_or(options.users);
            return;
        }
        if !problems.is_empty() {
            // The source may be a generator whose name is misspelt.
            return;
        }
        for (flag, value) in [("--events", self.events), ("--users", self.users)] {
            if value.is_some() {
                let hint = Some("the input decides how much there is".to_owned());
                problems.add(whole_file(0), format!("\"{flag}\" is for a job whose source is the generator"), hint);
            }
        }
    }
}

/// The place of a generator or a topic is taken by files in its format.
fn replace_input(job: &mut JobFile, input: &str) {
    let (path, root) = (input.to_owned(), PathBuf::new());
    match &mut job.source {
        SourceSettings::File(options) => (options.path, options.root) = (path, root),
        SourceSettings::Generator(_) | SourceSettings::Kafka(_) => {
            job.source = SourceSettings::File(FileOptions {
                path,
                root,
                partitioned: false,
                epoch_size: job.epoch.size,
                event_bytes_max: job.format.event_bytes_max,
            });
        }
    }
}

fn redirect(sink: &mut SinkSettings, output: &Path) {
    match sink {
        SinkSettings::Parquet { path, .. } => *path = output.to_owned(),
        SinkSettings::File { path } => {
            if let Some(name) = path.file_name() {
                *path = output.join(name);
            }
        }
        SinkSettings::Stdout | SinkSettings::Kafka(_) => {}
    }
}
