//! `laps-zoo suite`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::Result;
use clap::Args;
use laps::{Backend, BackendRequest, Backends, Workload};
use laps_bench::{
    files::write_atomic,
    foreign::{ForeignRequest, evaluate},
    machine::processors,
    report::{Explainer, Thumbnails, page},
    reproduce::{ReproduceRequest, Reproduction, reproduce},
    results,
    suite::{ShardSpec, Suite, SuiteRun, committed, differences},
    tables::{RecallTables, TableFormat},
};
use laps_data::LongCaptions;
use laps_files::FileLock;
use laps_model::encoder::Device;
use laps_onnx::graph::GraphPrecision;

use crate::{
    fetching, interrupt, progress,
    report::{CommandStatus, print},
};

/// Run a list of evaluations, keep their results, and write one table and one report
#[derive(Args)]
pub(crate) struct SuiteArgs {
    /// Suite file: a list `runs` of entries, and of similarities or embeddings of other programs
    #[arg(value_name = "SUITE")]
    suite: PathBuf,
    /// Folder of the results, the table and the report; rerun the command to resume
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Run only every N-th evaluation from number I, for job arrays; the last one writes table and report
    #[arg(long, value_name = "I/N", default_value_t = ShardSpec::ALL)]
    shard: ShardSpec,
    /// Compare with the results in DIR, and fail if a recall differs
    #[arg(long, value_name = "DIR")]
    gate: Option<PathBuf>,
    /// Largest accepted difference of a recall with --gate, in points
    #[arg(long, value_name = "POINTS", default_value = "0", requires = "gate")]
    gate_tolerance: f64,
    /// Device: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Number of threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    access: fetching::NetworkArgs,
    /// Hide progress output
    #[arg(long, short)]
    quiet: bool,
}

/// The state of a run.
struct SuiteRunResult {
    name: String,
    result: Option<Reproduction>,
}

impl SuiteArgs {
    /// Whether a run can only be done with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        // An invalid suite is reported when it runs.
        let Ok(suite) = Suite::read(&self.suite) else { return false };
        let engine = |run: &SuiteRun| run.engine.clone().unwrap_or_else(|| "auto".to_owned());
        suite
            .runs
            .iter()
            .any(|run| run.entry.is_some() && crate::graphs::needs_libtorch(&engine(run), &self.device, false))
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let suite = Suite::read(&self.suite)?;
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let folder = self.out.join("results");
        fs_err::create_dir_all(&folder)?;
        backends.set_threads(threads)?;
        let mut finished = Vec::new();
        for (number, run) in suite.runs.iter().enumerate() {
            let run = self.downloaded(run)?;
            let key = run.key(threads)?;
            let path = folder.join(run.file_name(&key));
            let name = run.name.clone().unwrap_or_default();
            if !path.is_file() {
                match with_key(&folder, &key)? {
                    Some(other) => write_atomic(&path, &fs_err::read(other)?)?,
                    None if self.shard.has(number) => self.compute(&run, &key, &path, backends)?,
                    None => {}
                }
            }
            let result = path.is_file().then(|| results::read(&path)).transpose()?;
            finished.push(SuiteRunResult { name, result });
        }
        self.summarize(finished)
    }

    /// The run with the checkpoint that was downloaded for it, if it needs one.
    fn downloaded(&self, run: &SuiteRun) -> Result<SuiteRun> {
        let mut run = run.clone();
        if run.entry.is_some() {
            let entry = run.entry()?;
            let split = run.split.clone().unwrap_or_else(|| entry.data.test.clone());
            fetching::texts(&entry, run.data.as_deref(), &[&split], self.access, self.quiet)?;
            if run.checkpoint.is_none() {
                run.checkpoint = fetching::checkpoint(&entry, self.access, self.quiet)?;
            }
            fetching::images(&entry, run.data.as_deref(), &[&split], self.access, self.quiet)?;
        }
        Ok(run)
    }

    /// Computes a result and writes it to `path`. Another process that computes the same one is waited for.
    fn compute(&self, run: &SuiteRun, key: &str, path: &Path, backends: Backends) -> Result<()> {
        let partial = self.out.join("partial");
        fs_err::create_dir_all(&partial)?;
        let _lock = FileLock::acquire(&partial.join(format!("{key}.lock")), || {})?;
        if path.is_file() {
            return Ok(());
        }
        let sims = partial.join(format!("{key}.safetensors"));
        let result = match (&run.result, run.foreign_input()?) {
            (Some(result), _) => results::read(result)?,
            (None, Some(input)) => evaluate(&ForeignRequest {
                name: run.name.clone(),
                input,
                split: run.split()?,
                protocols: run.protocol.clone(),
                judgements: None,
                sims: None,
                run: None,
                mteb: None,
            })?,
            (None, None) => self.reproduce(run, &sims, backends)?,
        };
        write_atomic(path, format!("{}\n", serde_json::to_string_pretty(&result)?).as_bytes())?;
        match fs_err::remove_file(&sims) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Evaluates an entry. The similarity matrix is written to `sims` as it is computed, from which a later run resumes.
    fn reproduce(&self, run: &SuiteRun, sims: &Path, backends: Backends) -> Result<Reproduction> {
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let selected = BackendRequest {
            engine: run.engine.as_deref().unwrap_or("auto").parse()?,
            device: self.device.parse::<Device>()?,
            threads,
            graphs: None,
            session: None,
            workload: Workload::Many,
        };
        let selected = selected.select(backends)?;
        let backend: Rc<dyn Backend> = match (run.precision()?, selected.onnx) {
            (GraphPrecision::Fp32, _) => selected.backend,
            (precision, Some(graphs)) => Rc::new(graphs.in_precision(precision)),
            (precision, None) => {
                return Err(laps_bench::Error::Argument {
                    argument: "precision",
                    expected: "`fp32`, or the engine `ort`".to_owned(),
                    found: format!("`{precision}`"),
                }
                .into());
            }
        };
        let request = ReproduceRequest {
            checkpoint: run.checkpoint.clone(),
            data: run.data.clone(),
            split: run.split.clone(),
            limit: run.limit,
            long_captions: if run.truncate { LongCaptions::Truncate } else { LongCaptions::Refuse },
            backend,
            backends,
            threads,
            sims: Some(sims.to_owned()),
            ..ReproduceRequest::new(run.entry()?)
        };
        let stop = interrupt::flag(interrupt::Deadline::Seconds);
        Ok(reproduce(&request, &stop, progress::choose(self.quiet).as_ref())?)
    }

    /// Writes table and report if every result is there, and compares with the committed ones.
    fn summarize(&self, finished: Vec<SuiteRunResult>) -> Result<CommandStatus> {
        let missing: Vec<&str> =
            finished.iter().filter(|run| run.result.is_none()).map(|run| run.name.as_str()).collect();
        if !missing.is_empty() {
            print(&format!(
                "{} of {} runs are finished; these belong to other shards than {}: {}\n",
                finished.len() - missing.len(),
                finished.len(),
                self.shard,
                missing.join(", ")
            ))?;
            return Ok(CommandStatus::Success);
        }
        let mut changes = Vec::new();
        if let Some(folder) = &self.gate {
            for SuiteRunResult { name, result } in &finished {
                let Some(result) = result else { continue };
                changes.extend(differences(name, result, &committed(folder, name)?, self.gate_tolerance));
            }
        }
        let results: Vec<Reproduction> = finished.into_iter().filter_map(|run| run.result).collect();
        let tables = RecallTables::new(results.clone())?;
        write_atomic(&self.out.join("table.md"), tables.render(TableFormat::Markdown)?.as_bytes())?;
        write_atomic(
            &self.out.join("report.html"),
            page(results, &Thumbnails::new(Vec::new()), &Explainer::default())?.as_bytes(),
        )?;
        print(&tables.render(TableFormat::Terminal)?)?;
        print(&format!("wrote `table.md` and `report.html` to `{}`\n", self.out.display()))?;
        for change in &changes {
            print(&format!("{change}\n"))?;
        }
        Ok(if changes.is_empty() { CommandStatus::Success } else { CommandStatus::CheckFailed })
    }
}

/// The result of another run with the same hash.
fn with_key(folder: &Path, key: &str) -> Result<Option<PathBuf>> {
    let ending = format!(".{}.json", &key[..16]);
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(&ending)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
