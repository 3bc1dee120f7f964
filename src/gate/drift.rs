//! How far the graphs of the embedded entries are from the model definition.

use std::rc::Rc;

use anyhow::Result;
use bench::{
    gate::{Gathered, Group, Measure},
    reproduce::open_checkpoint,
};
use export::{
    graph::{Flavour, Target},
    package::{Precision, Request, export},
};
use zoo::registry::{self, Entry};

/// Largest difference and lack of cosine of every graph that ONNX Runtime runs, in every flavour and precision.
pub(crate) fn drift(entries: &[Entry], threads: usize) -> Result<Gathered> {
    let mut measures = Vec::new();
    for entry in entries.iter().filter(|entry| registry::embedded_checkpoint(&entry.name).is_some()) {
        let (checkpoint, _) = open_checkpoint(entry, None)?;
        let checkpoint = Rc::new(checkpoint);
        for flavour in Flavour::ALL {
            for precision in Precision::ALL {
                let target = Target { flavour, ..Target::default() };
                let checkpoint = Rc::clone(&checkpoint);
                let request =
                    Request { entry: entry.clone(), checkpoint, target, precision, threads, vocabulary: None };
                let folder = tempfile::tempdir()?;
                let exported = export(&request, &folder.path().join("graphs"))?;
                if let Some(reason) = exported.unchecked {
                    return Ok(Gathered::skipped(Group::Drift, reason.replace('\n', ";")));
                }
                for (part, graph) in &exported.manifest.graphs {
                    // An output that is not a number, or of another shape, has no drift: it is infinitely far off.
                    let [largest, cosine] =
                        graph.drift.map_or([f64::MAX; 2], |drift| [drift.largest, 1.0 - drift.cosine]);
                    let name = format!("{}/{flavour}/{precision}/{part}", entry.name);
                    measures.push(Measure::new(format!("{name}/largest difference"), largest));
                    measures.push(Measure::new(format!("{name}/1 - cosine"), cosine.max(0.0)));
                }
            }
        }
    }
    Ok(Gathered::measured(Group::Drift, measures))
}
