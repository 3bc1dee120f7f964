//! Differences between the graphs of the embedded entries and the model definition.

use std::rc::Rc;

use anyhow::Result;
use laps::open_checkpoint;
use laps_bench::gate::{GateGroup, GroupMeasures, Measure};
use laps_hub::registry::{self, Entry};
use laps_onnx::{
    graph::{Flavour, GraphPrecision, Target},
    package::{ExportRequest, export},
};

/// Largest difference and 1 - cosine of every graph in ONNX Runtime, in every flavour and precision.
pub(crate) fn drift(entries: &[Entry], threads: usize) -> Result<GroupMeasures> {
    let mut measures = Vec::new();
    for entry in entries.iter().filter(|entry| registry::embedded_checkpoint(&entry.name).is_some()) {
        let (checkpoint, _) = open_checkpoint(entry, None)?;
        let checkpoint = Rc::new(checkpoint);
        for flavour in Flavour::ALL {
            for precision in GraphPrecision::ALL {
                let target = Target { flavour, ..Target::default() };
                let checkpoint = Rc::clone(&checkpoint);
                let request =
                    ExportRequest { entry: entry.clone(), checkpoint, target, precision, threads, vocabulary: None };
                let folder = laps_files::TemporaryFolder::create()?;
                let exported = export(&request, &folder.path().join("graphs"))?;
                if let Some(reason) = exported.unchecked {
                    return Ok(GroupMeasures::skipped(GateGroup::Drift, reason.replace('\n', ";")));
                }
                for (part, graph) in &exported.manifest.graphs {
                    // An output with NaN or of another shape has no drift value; report the maximum.
                    let [largest, cosine] =
                        graph.drift.map_or([f64::MAX; 2], |drift| [drift.largest, 1.0 - drift.cosine]);
                    let name = format!("{}/{flavour}/{precision}/{part}", entry.name);
                    measures.push(Measure::new(format!("{name}/largest difference"), largest));
                    measures.push(Measure::new(format!("{name}/1 - cosine"), cosine.max(0.0)));
                }
            }
        }
    }
    Ok(GroupMeasures::measured(GateGroup::Drift, measures))
}
