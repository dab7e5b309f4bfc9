//! Parquet as input: the same events as lines and as columns give the same results.

#[path = "running/columns.rs"]
mod columns;

use std::{fs, path::Path, sync::Arc};

use whisperer_connectors::{
    EpochSize,
    file::{FileOptions, FileSource},
    generator::{GeneratorOptions, write_ndjson},
};
use whisperer_dataflows::{
    job_file::{self, Overrides},
    runtime::{Outputs, Run, RunReport},
};
use whisperer_operators::job::CompiledJob;

/// Partitions of the log.
const PARTITIONS: u32 = 3;

#[test]
fn events_in_columns_are_the_same_events() {
    // Goal: decisions, profiles and counts do not depend on whether events come as lines or as columns, from one log or from several, on how
    // many workers, in epochs of which size. Method: the engagement job over generated events, late ones and duplicates among them.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (lines, rows) = (folder.path().join("lines"), folder.path().join("rows"));
    [&lines, &rows].into_iter().for_each(|folder| fs::create_dir(folder).expect("a folder"));
    for partition in 0..PARTITIONS {
        let options = GeneratorOptions {
            events: 60_000,
            users: 2_000,
            partitions: PARTITIONS,
            malformed: 0.0,
            ..GeneratorOptions::default()
        };
        let mut text = Vec::new();
        write_ndjson(&options, partition, &mut text, &mut |_| {}).expect("written");
        columns::write(&rows.join(format!("{partition}.parquet")), &text);
        fs::write(lines.join(format!("{partition}.ndjson")), text).expect("written");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/jobs/engagement.toml");
    let loaded = job_file::load_with(&path, &Overrides::default(), CompiledJob::new);
    let (file, job) = loaded.unwrap_or_else(|errors| panic!("{}", errors.render()));
    let job = Arc::new(job);
    let run = |folder: &Path, epoch_size, workers| {
        let (path, root) = (".".into(), folder.to_owned());
        let options = FileOptions { path, root, partitioned: true, epoch_size, event_bytes_max: 1 << 20 };
        let source = Arc::new(FileSource::new(options).expect("the files are there"));
        let run = Run { workers, ..Run::new(job.clone(), source, file.format.clone(), Outputs::default()) };
        run.execute().unwrap_or_else(|error| panic!("the run failed: {error}")).0
    };
    let facts = |report: &RunReport| {
        let counts = (report.counts.decisions.clone(), report.counts.late, report.counts.duplicates, report.watermark);
        (report.digests.clone(), report.read, counts, report.dead_total())
    };
    let expected = run(&lines, EpochSize::Bytes(1 << 20), 2);
    assert_eq!((expected.read, expected.dead_total()), (60_000, 0));
    assert!(expected.counts.duplicates > 100 && expected.counts.late > 10, "{:?}", expected.counts);
    for (epoch_size, workers) in
        [(EpochSize::Bytes(1 << 20), 1), (EpochSize::Bytes(50_000), 2), (EpochSize::Records(700), 3)]
    {
        assert_eq!(facts(&run(&rows, epoch_size, workers)), facts(&expected), "{epoch_size:?}, {workers} workers");
    }
}
