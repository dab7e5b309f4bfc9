//! `whisperer check`: validates a job.

use crate::job_file::Overrides;

use super::{Failure, JobArgument, load};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    job: JobArgument,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (_, job) = load(&arguments.job.job, &Overrides::default())?;
    println!(
        "{}: job \"{}\" is valid: {} features, {} scores, {} stages, {} triggers",
        arguments.job.job.display(),
        job.name,
        job.features.len(),
        job.scores.len(),
        job.stages.len(),
        job.triggers.len(),
    );
    Ok(())
}
