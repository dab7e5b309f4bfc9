//! The tables that a run leaves: what readers find in the lake is what the engine made, and a run that fails leaves everything as it was.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use whisperer_connectors::{
    Chunk, EpochSize, Positions, RawRecord, Reader, Source, SourceError,
    generator::{GeneratorOptions, GeneratorSource},
    source::Size,
};
use whisperer_dataflows::{
    job_file::{self, JobFile, Overrides, SinkSettings},
    runtime::{Outputs, Run, RunError, RunReport},
};
use whisperer_operators::job::CompiledJob;
use whisperer_schemas::{Epoch, TableSchema};
use whisperer_sinks::{Existing, RunManifest, SinkError, digest_of_table, manifest, read_table};

/// The engagement job, its sinks in `folder`.
fn engagement(folder: &Path) -> (JobFile, Arc<CompiledJob>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/jobs/engagement.toml");
    let overrides = Overrides { output: Some(folder.to_owned()), ..Overrides::default() };
    let loaded = job_file::load_with(&path, &overrides, CompiledJob::new);
    let (file, job) = loaded.unwrap_or_else(|errors| panic!("{}", errors.render()));
    (file, Arc::new(job))
}

fn generator() -> Arc<dyn Source> {
    let options = GeneratorOptions {
        users: 300,
        events: 20_000,
        partitions: 3,
        malformed: 0.01,
        epoch_size: EpochSize::Records(500),
        ..GeneratorOptions::default()
    };
    Arc::new(GeneratorSource::new(options).expect("the options are valid"))
}

/// Runs the job into its lake, to the manifest.
fn run_into(folder: &Path, name: &str, source: Arc<dyn Source>, workers: usize) -> Result<RunReport, RunError> {
    run_over(Existing::Replace, folder, name, (source, workers))
}

/// The same, with a choice what becomes of earlier output.
fn run_over(
    existing: Existing,
    folder: &Path,
    name: &str,
    (source, workers): (Arc<dyn Source>, usize),
) -> Result<RunReport, RunError> {
    let (file, job) = engagement(folder);
    let outputs = Outputs::new(file.sinks.clone(), existing, String::new());
    let run = Run { name: name.to_owned(), workers, ..Run::new(job.clone(), source, file.format.clone(), outputs) };
    let (report, outputs) = run.execute()?;
    outputs.finish(&report.manifest(&job, &file.spec.fingerprint()))?;
    Ok(report)
}

fn tables(job: &CompiledJob) -> Vec<Arc<TableSchema>> {
    let fixed = [job.decisions.clone(), job.profiles.clone(), Arc::new(TableSchema::dead_letters())];
    fixed.into_iter().chain(job.views.tables().cloned()).collect()
}

/// The lake of a folder: where the job's Parquet sinks were redirected to.
fn lake_of(folder: &Path) -> PathBuf {
    let (file, _) = engagement(folder);
    let paths = file.sinks.into_iter().find_map(|sink| match sink {
        SinkSettings::Parquet { path, .. } => Some(path),
        _ => None,
    });
    paths.expect("the job writes into a lake")
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = fs::read(&path).expect("the file is there");
                found.insert(path, bytes);
            }
        }
    }
    found
}

#[test]
fn the_files_are_what_the_run_reports() {
    // Goal: the digests recomputed from the files are those of the report and of the manifest, whose counts and files hold too; and they
    // do not depend on the number of workers.
    let mut digests = Vec::new();
    for workers in [1, 2, 3] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let report = run_into(folder.path(), "one", generator(), workers).expect("the run ends");
        let (_, job) = engagement(folder.path());
        let lake = lake_of(folder.path());
        let manifest = manifest::latest(&lake, &job.name).expect("manifests can be read").expect("there is one");
        for table in tables(&job) {
            let in_files = digest_of_table(&lake, &job.name, &table).expect("the table can be read");
            assert_eq!(in_files, report.digests[table.name], "{}", table.name);
            assert_eq!(in_files.to_string(), manifest.digests[table.name], "{}", table.name);
            let rows = read_table(&lake, &job.name, &table).expect("the table can be read").len() as u64;
            let listed = manifest
                .files
                .iter()
                .filter(|file| file.table == table.name && file.path.extension().is_some_and(|e| e == "parquet"));
            assert_eq!(rows, listed.map(|file| file.rows).sum::<u64>(), "{}", table.name);
            assert!(rows > 0, "{}", table.name);
        }
        check_manifest(&manifest, &report, &lake, workers);
        digests.push(report.digests);
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
}

fn check_manifest(manifest: &RunManifest, report: &RunReport, lake: &Path, workers: usize) {
    let count = |name: &str| manifest.counts[name];
    assert_eq!(count("read"), 20_000);
    assert_eq!(count("accepted") + count("duplicate") + count("dead"), count("read"));
    assert_eq!(count("on_time") + count("late"), count("accepted"));
    let sum = |prefix: &str| -> u64 {
        manifest.counts.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
    };
    assert_eq!(sum("dead."), count("dead"));
    assert_eq!(sum("stage."), count("users"));
    assert_eq!(sum("decisions."), report.counts.decisions.iter().sum::<u64>());
    assert_eq!(manifest.workers as usize, workers);
    assert_eq!(manifest.positions.len(), 3);
    assert_eq!(manifest.positions.values().sum::<u64>(), 20_000);
    assert_eq!(manifest.watermark, report.watermark);
    for file in &manifest.files {
        let bytes = fs::metadata(lake.join(&file.path)).expect("a listed file is there").len();
        assert_eq!(bytes, file.bytes, "{}", file.path.display());
    }
}

#[test]
fn a_new_run_takes_the_place_of_the_old_one() {
    // Goal: no row is there twice after a second run, and none of the first one's files; the same job refuses to write where it may not.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = run_into(folder.path(), "one", generator(), 2).expect("the run ends");
    let second = run_into(folder.path(), "two", generator(), 1).expect("the run ends");
    assert_eq!(first.digests, second.digests);
    let (_, job) = engagement(folder.path());
    let lake = lake_of(folder.path());
    for table in tables(&job) {
        assert_eq!(digest_of_table(&lake, &job.name, &table).expect("readable"), second.digests[table.name]);
    }
    assert!(files(&lake).keys().all(|path| !path.to_string_lossy().contains("part-one-")));
    let refused = run_over(Existing::Refuse, folder.path(), "three", (generator(), 1));
    assert!(matches!(refused, Err(RunError::Sink(SinkError::Occupied { .. }))));
}

/// A source that breaks after some epochs, on one worker or on all.
struct Breaking {
    inner: Arc<dyn Source>,
    after: u64,
    worker: Option<usize>,
    at_opening: bool,
}

struct BreakingReader(Box<dyn Reader>, u64);

fn broken() -> SourceError {
    SourceError::Settings("the disk is gone".into())
}

impl Source for Breaking {
    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    fn size(&self) -> Option<Size> {
        self.inner.size()
    }

    fn open(&self, worker: usize, workers: usize, positions: &Positions) -> Result<Box<dyn Reader>, SourceError> {
        let breaks = self.worker.is_none_or(|own| own == worker);
        if breaks && self.at_opening {
            return Err(broken());
        }
        let reader = self.inner.open(worker, workers, positions)?;
        Ok(Box::new(BreakingReader(reader, if breaks { self.after } else { u64::MAX })))
    }
}

impl Reader for BreakingReader {
    fn read(
        &mut self,
        epoch: Epoch,
        each: &mut dyn FnMut(RawRecord<'_>),
        chunks: &mut Vec<Chunk>,
    ) -> Result<bool, SourceError> {
        if epoch.0 >= self.1 { Err(broken()) } else { self.0.read(epoch, each, chunks) }
    }
}

#[test]
fn a_run_that_fails_leaves_the_earlier_output() {
    // Goal: whichever worker fails and whenever, the error is told, what readers see is byte for byte what the last whole run left, and
    // the next run is not disturbed.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = run_into(folder.path(), "whole", generator(), 2).expect("the run ends");
    let before = visible(folder.path());
    let failures = [
        (1, 0, None, true),
        (2, 0, Some(1), true),
        (1, 0, None, false),
        (1, 5, None, false),
        (2, 5, Some(0), false),
        (3, 3, Some(2), false),
    ];
    for (number, (workers, after, worker, at_opening)) in failures.into_iter().enumerate() {
        let source = Arc::new(Breaking { inner: generator(), after, worker, at_opening });
        let failed = run_into(folder.path(), &format!("broken-{number}"), source, workers);
        assert!(matches!(failed, Err(RunError::Source(_))), "{number}: {failed:?}");
        assert_eq!(visible(folder.path()).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{number}");
        assert!(visible(folder.path()) == before, "{number}: some file has changed");
    }
    let again = run_into(folder.path(), "again", generator(), 1).expect("the run ends");
    assert_eq!(again.digests, first.digests);
}

/// What readers see: all files but those in folders and under names that they pass over.
fn visible(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files(folder);
    let hidden = |path: &Path| {
        let names: Vec<_> =
            path.strip_prefix(folder).expect("it is below").iter().map(|name| name.to_string_lossy()).collect();
        names.iter().any(|name| name.starts_with('.') || *name == "_staging")
    };
    files.retain(|path, _| !hidden(path));
    files
}
