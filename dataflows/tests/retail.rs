//! The retail job over a year of a real shop's order lines, held against plain SQL in DuckDB, customer by customer.
//!
//! The data is no part of the repository: `WHISPERER_DATA` names the folder or the file, else it is looked for where
//! config/jobs/retail.toml looks. Where it is missing the test says so and passes.

mod outside;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

const DATA: &str = "online_retail.jsonl.zst";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

fn data() -> Option<PathBuf> {
    let named = env::var_os("WHISPERER_DATA").map(PathBuf::from).unwrap_or_else(|| root().join("../shared/data"));
    let file = if named.is_dir() { named.join(DATA) } else { named };
    file.is_file().then_some(file)
}

/// Runs the job with its output in `lake`; gives the run's summary.
fn run(data: &Path, lake: &Path) -> Value {
    let mut run = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    run.arg("run").arg(root().join("config/jobs/retail.toml")).arg("--json").arg("--input").arg(data);
    let output = run
        .arg("--output")
        .arg(lake)
        .env("WHISPERER_LOG", "error")
        .stderr(Stdio::inherit())
        .output()
        .expect("the binary runs");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("the summary is JSON")
}

fn assert_rows_add_up(summary: &Value) {
    let count = |name: &str| summary["counts"][name].as_u64().unwrap_or_default();
    assert_eq!(count("read"), 541_909);
    assert_eq!((count("dead"), count("dead.missing_field")), (135_080, 135_080));
    assert_eq!((count("late"), count("duplicate")), (0, 0));
    assert_eq!(count("accepted"), 541_909 - 135_080);
    assert_eq!(count("users"), 4_372);
}

#[test]
fn the_retail_job_agrees_with_sql() {
    // Goal: all rows are accounted for; every feature, score and churned stage of every customer, at the end and as of a day, is
    // what SQL makes of the same lines; and the churn score foretells 90 days of silence better than any single feature.
    const TEST: &str = "the_retail_job_agrees_with_sql";
    let Some(data) = data() else { return outside::skipped(TEST, "no retail data: say where by WHISPERER_DATA") };
    let lake = tempfile::tempdir().expect("a temporary folder");
    let summary = run(&data, lake.path());
    assert_rows_add_up(&summary);

    let Some(python) = outside::python(TEST) else { return };
    let asked = json!({
        "data": data,
        "lake": lake.path(),
        "sql": fs::read_to_string(root().join("dataflows/tests/retail/expected.sql")).expect("the SQL"),
        "model": root().join("config/jobs/models/retail_churn.toml"),
    });
    let answer = outside::run(&python, lake.path(), "retail/check.py", &asked.to_string());
    let found: Value = serde_json::from_str(&answer).expect("the answer is JSON");
    let count = |name: &str| found[name].as_u64().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!((count("records"), count("without_customer"), count("customers")), (541_909, 135_080, 4_372));
    assert_eq!(count("final_rows"), 4_372);
    assert!(count("boundary_rows") > 3_000);
    assert_eq!(count("differing"), 0, "{:#}", found["differences"]);

    let auc = |name: &str| found[name].as_f64().unwrap_or_else(|| panic!("no {name}"));
    let (people, churned) = (count("people"), count("churned"));
    outside::say(&format!(
        "retail, as of 2011-09-09 (its end), {people} customers, {:.1} % churned: AUC of churn_risk {:.3}, of recency {:.3}, of \
         active days {:.3}",
        100.0 * churned as f64 / people as f64,
        auc("auc"),
        auc("auc_recency"),
        auc("auc_active_days"),
    ));
    assert_eq!((people, (1000.0 * churned as f64 / people as f64).round()), (1_907, 310.0));
    assert_eq!([auc("auc_recency"), auc("auc_active_days")].map(|auc| (auc * 1000.0).round()), [599.0, 656.0]);
    assert!(auc("auc") > 0.74, "{}", auc("auc"));
}

#[test]
fn the_retail_views_agree_with_sql() {
    // Goal: monthly cohort retention, the way from an order to a repeat and to a return, and revenue by country are, cell by cell, what SQL
    // makes of the same lines.
    const TEST: &str = "the_retail_views_agree_with_sql";
    let Some(data) = data() else { return outside::skipped(TEST, "no retail data: say where by WHISPERER_DATA") };
    let lake = tempfile::tempdir().expect("a temporary folder");
    run(&data, lake.path());
    let Some(python) = outside::python(TEST) else { return };
    let asked = json!({ "data": data, "lake": lake.path() });
    let answer = outside::run(&python, lake.path(), "retail/views.py", &asked.to_string());
    let found: Value = serde_json::from_str(&answer).expect("the answer is JSON");
    // Thirteen months: the triangle of months and the months since has 13 * 14 / 2 cells, one of which is empty at most.
    let cells = |name: &str| found[name]["cells"].as_u64().unwrap_or_else(|| panic!("no {name}"));
    assert!(cells("retention") >= 90, "{found:#}");
    assert_eq!((cells("repeat_and_return"), cells("revenue_by_country")), (3, 37));
    for view in ["retention", "repeat_and_return", "revenue_by_country"] {
        assert_eq!(found[view]["differences"], json!([]), "{view}");
    }
}
