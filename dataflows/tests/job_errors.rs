//! Golden tests of what a wrong job file is answered with: `tests/job_errors/CASE/job.toml` and the `errors.txt` it must give.
//!
//! `UPDATE_GOLDEN=1 cargo test -p whisperer-dataflows --test job_errors` writes the files anew; read the difference.

use std::{
    fs,
    path::{Path, PathBuf},
};

use whisperer_dataflows::job_file::{JobFileErrors, Overrides, load, load_with};
use whisperer_operators::job::CompiledJob;

/// Compares a case's answer with its file. Paths are shown as they were given, relative to this crate.
fn check(case: &str) {
    let errors = load(&job_of(case), &Overrides::default()).expect_err("the job is wrong");
    compare(case, &errors);
}

/// The same with what the compiler finds besides.
fn check_compiled(case: &str) {
    let errors = load_with(&job_of(case), &Overrides::default(), CompiledJob::new).expect_err("the job is wrong");
    compare(case, &errors);
}

fn job_of(case: &str) -> PathBuf {
    Path::new("tests/job_errors").join(case).join("job.toml")
}

fn compare(case: &str, errors: &JobFileErrors) {
    let folder = Path::new("tests/job_errors").join(case);
    let golden = folder.join("errors.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, errors.render()).expect("the golden file can be written");
    }
    let expected = fs::read_to_string(&golden).expect("the golden file");
    assert_eq!(errors.render(), expected, "{case}");
}

#[test]
fn mistakes_of_every_section_are_shown_at_once() {
    // Goal: one run shows the mistakes of all sections, each with file, line, column and what was probably meant.
    check("every_section");
}

#[test]
fn mistakes_in_a_model_file_point_into_it() {
    // Goal: a mistake in a model file is shown in that file, one in its name in the job file.
    check("models");
}

#[test]
fn what_is_no_toml_is_shown_at_once() {
    // Goal: several mistakes of syntax are shown together, and nothing that follows from them.
    check("syntax");
}

#[test]
fn what_a_later_version_knows_is_called_so() {
    // Goal: sections and choices of the design that this version does not have are not called unknown.
    check("later");
}

#[test]
fn mistakes_of_a_map_are_shown_at_once() {
    // Goal: the same for foreign records.
    check("map");
}

#[test]
fn mistakes_of_views_are_shown_at_once() {
    // Goal: the same for views, from keys that belong to others to names that no feature has and tables that no view has.
    check_compiled("views");
}

#[test]
fn mistakes_of_links_are_shown_at_once() {
    // Goal: the same for links between ids; and who counts persons is told that there are none where nothing is linked.
    check_compiled("identity");
    check_compiled("persons");
}

#[cfg(feature = "kafka")]
#[test]
fn mistakes_of_a_topic_are_shown_at_once() {
    // Goal: the same for the keys of Kafka, librdkafka's own properties included.
    check("kafka");
}

#[test]
fn mistakes_of_a_format_are_shown_at_once() {
    // Goal: formats that the connector cannot have, and what a registry's section can get wrong; no secret is shown twice.
    check("formats");
}

#[test]
fn mistakes_of_operations_are_shown_at_once() {
    // Goal: the same for checkpoints, state, readiness, clusters, the server, telemetry, delivery and history.
    check("operations");
}
