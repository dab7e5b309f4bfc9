//! `whisperer erase`: asks a job to forget a user, tells how far it is, and checks receipts.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use whisperer_connectors::state::StateStore;
use whisperer_operators::spec::Entity;
use whisperer_schemas::{Micros, time::parse_rfc3339};

use super::{Exit, Failure, load, state::open_state, wall_clock};
use crate::{
    job_file::{JobFile, Overrides, SinkSettings, SourceSettings},
    runtime::erasures::{self, Receipt, Signed, Status},
};

/// Arguments of `erase`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The job file.
    #[arg(required_unless_present = "verify")]
    job: Option<PathBuf>,
    /// The user's id.
    #[arg(required_unless_present_any = ["verify", "status"])]
    user: Option<String>,
    /// The application; without it the user is erased in all.
    #[arg(long)]
    app: Option<String>,
    /// Event time up to which events are suppressed that the job has not read yet; now for a live source, else the end of what was read.
    #[arg(long, value_name = "TIME")]
    up_to: Option<String>,
    /// The state folder, if not the job's own.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// A file with the key to sign with, as 64 hexadecimal digits, if not that of the state folder.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// List the receipts of all erasures, one JSON object a line; forgets the ids of those that are final.
    #[arg(long, conflicts_with = "user")]
    status: bool,
    /// Check the signature of a receipt; needs neither job nor state folder.
    #[arg(long, value_name = "RECEIPT", conflicts_with_all = ["job", "status"])]
    verify: Option<PathBuf>,
    /// A file with the public key that must have signed, as 64 hexadecimal digits.
    #[arg(long, value_name = "FILE", requires = "verify")]
    public_key: Option<PathBuf>,
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::Other(Exit::Failed, error)
}

fn invalid(error: anyhow::Error) -> Failure {
    Failure::Other(Exit::Invalid, error)
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(receipt) = &arguments.verify {
        return verify(receipt, arguments.public_key.as_deref());
    }
    let Some(job) = &arguments.job else { return Err(invalid(anyhow!("a job is missing"))) };
    let (file, _) = load(job, &Overrides { state: arguments.state.clone(), ..Overrides::default() })?;
    let store = open_state(&file.operations.checkpoint)?;
    let key = match &arguments.key {
        Some(path) => erasures::key_from_hex(&read(path)?)
            .ok_or_else(|| invalid(anyhow!("\"{}\" holds no key of 64 hexadecimal digits", path.display())))?,
        None => erasures::signing_key(&*store)?,
    };
    let asked = arguments.user.as_deref().map(|user| ask(arguments, user, (&file, &*store))).transpose()?;
    let receipts = erasures::receipts(&*store, (&file.spec.name, &out_of_reach(&file)), wall_clock())?;
    for receipt in receipts.into_iter().filter(|receipt| asked.as_ref().is_none_or(|id| *id == receipt.erasure)) {
        let line = serde_json::to_string(&Signed::new(receipt, &key)).map_err(|error| failed(error.into()))?;
        println!("{line}");
    }
    erasures::settle(&*store)?;
    Ok(())
}

/// Asks for the erasure of a user; gives what it is called.
fn ask(arguments: &Arguments, user: &str, (file, store): (&JobFile, &dyn StateStore)) -> Result<String, Failure> {
    if arguments.app.is_some() && file.spec.entity == Entity::User {
        let error = anyhow!("the job keeps a user over all applications (entity = [\"user_id\"]): leave --app out");
        return Err(invalid(error));
    }
    let up_to = arguments.up_to.as_deref().map(time_of).transpose()?;
    let request = erasures::ask(store, (arguments.app.as_deref(), user), (up_to, wall_clock()))?;
    eprintln!("erasure {} is asked for: a running job applies it soon, another at its next start", request.id);
    Ok(request.id)
}

fn time_of(text: &str) -> Result<Micros, Failure> {
    let wrong = || invalid(anyhow!("--up-to \"{text}\" is no time such as 2026-01-31T00:00:00Z"));
    parse_rfc3339(text.as_bytes()).ok_or_else(wrong)
}

fn out_of_reach(file: &JobFile) -> Vec<String> {
    let source = match &file.source {
        SourceSettings::Kafka(kafka) => {
            format!("the topic {}, which the job reads, keeps its own retention", kafka.topic)
        }
        SourceSettings::File(files) => format!("the files {}, which the job reads", files.path),
        SourceSettings::Generator(_) => "the generated input".to_owned(),
    };
    let sent = |sink: &SinkSettings| match sink {
        SinkSettings::Kafka(kafka) => Some(format!("what was sent to the topic {}, tombstones aside", kafka.topic)),
        SinkSettings::Stdout => Some("what was printed".to_owned()),
        SinkSettings::Parquet { .. } | SinkSettings::File { .. } => None,
    };
    std::iter::once(source).chain(file.sinks.iter().filter_map(sent)).collect()
}

fn verify(path: &Path, public_key: Option<&Path>) -> Result<(), Failure> {
    let text = read(path)?;
    let signed: Signed = serde_json::from_str(&text)
        .with_context(|| format!("\"{}\" holds no receipt", path.display()))
        .map_err(invalid)?;
    let key = public_key.map(read).transpose()?;
    if !signed.is_valid(key.as_deref().map(str::trim)) {
        return Err(failed(anyhow!("the signature of \"{}\" is not valid", path.display())));
    }
    let Receipt { erasure, status, .. } = &signed.receipt;
    let status = if *status == Status::Final { "final" } else { "pending" };
    println!("valid: erasure {erasure} is {status}, signed by {}", signed.public_key);
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read \"{}\"", path.display()));
    text.map_err(invalid)
}
