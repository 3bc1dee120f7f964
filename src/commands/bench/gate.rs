//! `laps-zoo bench --gate` and `--bless`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use laps::Backends;
use laps_bench::{
    gate::{
        Baselines, GateGroup, GroupMeasures, GroupReport, MeasuredOn, evaluation, judge, kernels, parameters, render,
        render_blessed, result_hits,
    },
    progress::StageProgress,
};
use laps_files::Progress;
use laps_hub::registry::{self, Entry};

use crate::{
    gate::{drift, evaluations, graphs, has_graphs},
    progress,
    report::{CommandStatus, print},
};

/// Number of threads of every measurement of the gate; drift and memory depend on it.
const THREADS: usize = 2;

#[derive(Args)]
#[command(next_help_heading = "Gate")]
pub(crate) struct GateArgs {
    /// Compare deterministic measures (no timings) with the baselines, and exit with 1 if one changed
    #[arg(long, required_unless_present_any = ["bless", "entry", "evaluate"], conflicts_with_all = ["bless", "entry"])]
    gate: bool,
    /// Write the measured values as the new baselines
    #[arg(long, conflicts_with = "entry")]
    bless: bool,
    /// Comma-separated groups to measure: memory, recalls, parameters, graphs, drift, kernels, results [default: all]
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', conflicts_with = "entry")]
    only: Vec<String>,
    /// Comma-separated entries to measure [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with_all = ["bless", "entry"])]
    entries: Vec<String>,
    /// Folder of the baselines
    #[arg(long, value_name = "DIR", default_value = "bench/baselines", conflicts_with = "entry")]
    baselines: PathBuf,
    /// Instruction counts written by `cargo bench -p laps-bench --bench kernels -- --counts FILE`
    #[arg(long, value_name = "FILE", conflicts_with = "entry")]
    kernels: Option<PathBuf>,
    /// Comma-separated results of `reproduce --json` and `evaluate --json`, whose hits are compared
    #[arg(long, value_name = "FILES", value_delimiter = ',', conflicts_with = "entry")]
    results: Vec<PathBuf>,
    /// Print memory and hits of one entry as JSON; the gate runs this in a separate process
    #[arg(long, hide = true, value_name = "NAME", conflicts_with_all = ["gate", "bless", "entry"])]
    evaluate: Option<String>,
}

impl GateArgs {
    pub(crate) fn run(self, quiet: bool, backends: Backends) -> Result<CommandStatus> {
        if let Some(name) = &self.evaluate {
            backends.set_threads(THREADS)?;
            let measures = evaluation(&registry::find(name)?)?;
            print(&serde_json::to_string(&measures)?)?;
            return Ok(CommandStatus::Success);
        }
        let only = self.only.iter().map(|name| name.parse()).collect::<laps_bench::Result<Vec<GateGroup>>>()?;
        let wanted = |group| only.is_empty() || only.contains(&group);
        let entries = match self.entries.is_empty() {
            true => registry::names(),
            false => self.entries.iter().map(String::as_str).collect(),
        };
        let entries = entries.into_iter().map(registry::find).collect::<Result<Vec<Entry>, _>>()?;
        let wants_graphs = |entry: &&Entry| !self.entries.is_empty() || has_graphs(&entry.name);
        let graph_entries: Vec<Entry> = entries.iter().filter(wants_graphs).cloned().collect();
        let baselines = match self.bless {
            true => Baselines::open_or_create(&self.baselines)?,
            false => Baselines::open(&self.baselines)?,
        };
        // Read the baselines before measuring, so that a broken file fails early.
        GateGroup::ALL.into_iter().try_for_each(|group| baselines.read(group).map(drop))?;
        backends.set_threads(THREADS)?;
        let gathered = self.gather(&entries, &graph_entries, wanted, progress::choose(quiet).as_ref())?;
        let mut reports = Vec::new();
        for one in &gathered {
            let baseline = baselines.read(one.group)?.of_entries(one.group, &entries);
            reports.push(judge(one, &baseline, &MeasuredOn::here()));
            if self.bless {
                baselines.bless(one)?;
            }
        }
        print(&if self.bless { render_blessed(&reports) } else { render(&reports) })?;
        let failed = !self.bless && reports.iter().any(GroupReport::fails);
        Ok(if failed { CommandStatus::CheckFailed } else { CommandStatus::Success })
    }

    fn gather(
        &self,
        entries: &[Entry],
        graph_entries: &[Entry],
        wanted: impl Fn(GateGroup) -> bool,
        progress: &dyn Progress,
    ) -> Result<Vec<GroupMeasures>> {
        let mut gathered = Vec::new();
        if wanted(GateGroup::Memory) || wanted(GateGroup::Recalls) {
            gathered.extend(evaluations(entries, progress)?);
        }
        let stage = |group: GateGroup, measure: &dyn Fn() -> Result<GroupMeasures>| {
            let stage = StageProgress::begin(progress, group.name(), 1);
            let gathered = measure()?;
            stage.end("done");
            Ok::<_, anyhow::Error>(gathered)
        };
        if wanted(GateGroup::Parameters) {
            gathered.push(stage(GateGroup::Parameters, &|| Ok(parameters(entries)?))?);
        }
        if wanted(GateGroup::Graphs) {
            gathered.push(stage(GateGroup::Graphs, &|| graphs(graph_entries))?);
        }
        if wanted(GateGroup::Drift) {
            gathered.push(stage(GateGroup::Drift, &|| drift(entries, THREADS))?);
        }
        if wanted(GateGroup::Kernels) {
            gathered.push(kernels(self.kernels.as_deref())?);
        }
        if wanted(GateGroup::Results) {
            gathered.push(result_hits(&self.results)?);
        }
        gathered.retain(|one| wanted(one.group));
        Ok(gathered)
    }
}
