//! What every sink must do, as tests that any of them can be put through; `memory` passes first.
//!
//! Those of sinks into logs are in [`log`](mod@log). The functions panic where a sink falls short, so they are called from tests only.

pub mod log;

use whisperer_schemas::{Column, ColumnType, Epoch, PartitionId, Position, Row, TableSchema, Value, time::HOUR};

use crate::{
    error::SinkError,
    fault::{Failing, FaultyTable},
    sink::{CommitFacts, TableSink},
};

/// A sink under test and the means to look at what it did.
pub trait Harness {
    /// A writer of the table of [`sample_schema`]: that of a new run, which replaces what earlier runs committed.
    fn open(&mut self) -> Box<dyn TableSink>;

    /// The rows that readers see. It must fail on a file that is not whole.
    fn visible(&self) -> Vec<Row>;

    /// How many files there are that readers do not see, and that were staged by a run.
    fn staged_files(&self) -> usize;
}

/// Puts a sink through all tests, each with a fresh harness.
pub fn run_all(mut fresh: impl FnMut() -> Box<dyn Harness>) {
    let tests: [fn(&mut dyn Harness); 8] = [
        committed_rows_come_back,
        nothing_is_visible_before_the_commit,
        staged_rows_are_invisible,
        several_commits_add_up,
        an_empty_commit_is_no_error,
        an_abandoned_writer_leaves_only_staged_files,
        a_full_disk_shows_nothing,
        a_later_run_replaces,
    ];
    tests.into_iter().for_each(|test| test(fresh().as_mut()));
}

/// Decisions with a column of every type that a job may add.
#[must_use]
pub fn sample_schema() -> TableSchema {
    let contributions = ColumnType::List(vec![("feature", ColumnType::Text), ("contribution", ColumnType::Number)]);
    TableSchema::decisions(vec![
        Column::optional("churn_risk", ColumnType::Number, "1", "A score"),
        Column::optional("churn_risk_level", ColumnType::Text, "", "Its level"),
        Column::optional("churn_risk_contributions", contributions, "", "Why"),
        Column::required("features_capped", ColumnType::Bool, "", "Whether a set is full"),
    ])
}

/// Row number `number`: three dates, nulls, empty and long lists, numbers that are awkward in text.
#[must_use]
pub fn sample_row(number: u64) -> Row {
    let position = (!number.is_multiple_of(3))
        .then_some(Position { partition: PartitionId((number % 2) as u32), offset: number * 400 });
    let contributions = match number % 4 {
        0 => Value::Null,
        count => Value::List((1..count).map(contribution).collect()),
    };
    let values = vec![
        Value::text(format!("{number:032x}")),
        Value::text("engagement"),
        Value::Int(1),
        Value::text("app"),
        Value::text(format!("user \"{}\" \u{1f642}\n", number % 7)),
        Value::text("win_back"),
        Value::Time(20_000 * 24 * HOUR + number as i64 % 3 * 24 * HOUR - 1 + number as i64),
        Value::text("timer"),
        Value::Int(i64::MIN + number as i64),
        if number.is_multiple_of(2) { Value::Null } else { Value::text(r#"{"template":"x"}"#) },
        if number.is_multiple_of(5) { Value::Null } else { Value::Number(0.1 + number as f64 / 3.0e17) },
        Value::text(""),
        contributions,
        Value::Bool(number.is_multiple_of(2)),
        Value::Null,
        position.map_or(Value::Null, |position| Value::text(position.to_string())),
        Value::Int((number / 10) as i64),
        Value::Bool(number.is_multiple_of(5)),
    ];
    Row { values, epoch: Epoch(number / 10), position }
}

fn contribution(number: u64) -> Vec<Value> {
    vec![Value::text(format!("feature {number}")), if number == 2 { Value::Null } else { Value::Number(-1.5e-300) }]
}

/// Facts of a commit after `epoch`.
#[must_use]
pub fn sample_facts(epoch: u64) -> CommitFacts {
    let positions = [(PartitionId(0), epoch * 100), (PartitionId(1), 7)];
    CommitFacts { epoch: Epoch(epoch), positions: positions.into(), checkpoint: 0 }
}

fn rows(numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(sample_row).collect()
}

fn write(sink: &mut dyn TableSink, numbers: std::ops::Range<u64>) {
    sink.write(rows(numbers)).expect("a sink takes rows");
}

fn assert_visible(harness: &dyn Harness, expected: Vec<Row>, when: &str) {
    let id = |row: &Row| format!("{:?}", row.values[0]);
    let (mut seen, mut expected) = (harness.visible(), expected);
    seen.sort_by_key(id);
    expected.sort_by_key(id);
    assert_eq!(seen.len(), expected.len(), "number of rows {when}");
    for (seen, expected) in seen.iter().zip(&expected) {
        assert_eq!(seen, expected, "a row {when}");
    }
}

/// Rows come back equal, value by value.
pub fn committed_rows_come_back(harness: &mut dyn Harness) {
    let mut sink = harness.open();
    write(sink.as_mut(), 0..10);
    write(sink.as_mut(), 10..1_000);
    sink.commit(&sample_facts(3)).expect("commit");
    assert_visible(harness, rows(0..1_000), "after the commit");
}

/// Readers see nothing of rows that are only written.
pub fn nothing_is_visible_before_the_commit(harness: &mut dyn Harness) {
    let mut sink = harness.open();
    write(sink.as_mut(), 0..5_000);
    assert_visible(harness, Vec::new(), "before the commit");
    drop(sink);
    assert_visible(harness, Vec::new(), "after a writer is gone that did not commit");
}

/// Readers see nothing of what is staged, and all of it once it is published.
pub fn staged_rows_are_invisible(harness: &mut dyn Harness) {
    let mut sink = harness.open();
    write(sink.as_mut(), 0..50);
    let staged = sink.stage(&sample_facts(1)).expect("stage");
    assert_visible(harness, Vec::new(), "while staged");
    let written = sink.publish(&staged).expect("publish");
    assert_visible(harness, rows(0..50), "after publishing");
    assert_eq!(written.len(), staged.len());
    assert!(written.is_empty() || written.iter().map(|file| file.rows).sum::<u64>() == 50);
}

/// Each commit adds its rows, and only those.
pub fn several_commits_add_up(harness: &mut dyn Harness) {
    let mut sink = harness.open();
    for commit in 0..4 {
        write(sink.as_mut(), commit * 10..commit * 10 + 10);
        assert_visible(harness, rows(0..commit * 10), "before the next commit");
        sink.commit(&sample_facts(commit)).expect("commit");
        assert_visible(harness, rows(0..commit * 10 + 10), "after the next commit");
    }
}

/// A commit without rows is fine, before and after others.
pub fn an_empty_commit_is_no_error(harness: &mut dyn Harness) {
    let mut sink = harness.open();
    sink.write(Vec::new()).expect("no rows");
    sink.commit(&sample_facts(1)).expect("commit nothing");
    assert_visible(harness, Vec::new(), "after an empty commit");
    write(sink.as_mut(), 0..3);
    sink.commit(&sample_facts(2)).expect("commit");
    sink.commit(&sample_facts(3)).expect("commit nothing more");
    assert_visible(harness, rows(0..3), "after an empty commit behind another");
}

/// What a writer leaves that dies, before or after staging, no reader sees; the next opening removes it.
pub fn an_abandoned_writer_leaves_only_staged_files(harness: &mut dyn Harness) {
    for stages in [false, true] {
        let mut sink = harness.open();
        write(sink.as_mut(), 0..30);
        if stages {
            sink.stage(&sample_facts(1)).expect("stage");
        }
        drop(sink);
        assert_visible(harness, Vec::new(), "after a writer was abandoned");
        let sink = harness.open();
        assert_eq!(harness.staged_files(), 0, "files of an abandoned writer, after the next opening");
        drop(sink);
    }
}

/// A disk that fills up at any step leaves nothing visible, is reported as external, and the sink goes on failing.
pub fn a_full_disk_shows_nothing(harness: &mut dyn Harness) {
    for failing in [Failing::Write(1), Failing::Stage(0), Failing::Publish(0)] {
        let mut sink = FaultyTable::new(harness.open(), failing);
        let error = write_and_commit(&mut sink).expect_err("the disk is full");
        assert!(error.retry(), "a full disk is worth another try: {error}");
        assert!(matches!(sink.commit(&sample_facts(2)), Err(SinkError::Broken { .. })));
        drop(sink);
        assert_visible(harness, Vec::new(), "after the disk was full");
    }
}

fn write_and_commit(sink: &mut dyn TableSink) -> Result<(), SinkError> {
    sink.write(rows(0..10))?;
    sink.write(rows(10..20))?;
    sink.commit(&sample_facts(1)).map(|_| ())
}

/// A later run's first commit takes the place of the earlier output, which is whole until then.
pub fn a_later_run_replaces(harness: &mut dyn Harness) {
    let mut sink = harness.open();
    write(sink.as_mut(), 0..20);
    sink.commit(&sample_facts(1)).expect("commit");
    drop(sink);
    let mut sink = harness.open();
    write(sink.as_mut(), 15..40);
    assert_visible(harness, rows(0..20), "before the later run's commit");
    sink.commit(&sample_facts(1)).expect("commit");
    assert_visible(harness, rows(15..40), "after the later run's commit");
}
