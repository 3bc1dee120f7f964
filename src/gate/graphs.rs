//! Sizes of all exportable graphs.

use anyhow::Result;
use laps_bench::gate::{Gathered, Group, Measure};
use laps_hub::registry::Entry;
use laps_model::{array::Array, models::config::ModelConfig};
use laps_onnx::{
    graph::{Flavour, Target},
    package::{self, Precision},
    record::Part,
    structure::Structure,
};

/// Nodes, initialisers and bytes of every entry's graphs, in every flavour and precision. They do not depend on the
/// weights, which are zeros here.
pub(crate) fn graphs(entries: &[Entry]) -> Result<Gathered> {
    let mut known: Vec<(ModelConfig, Vec<(String, Structure)>)> = Vec::new();
    let mut measures = Vec::new();
    for Entry { name, model, .. } in entries {
        // Entries with the same model have the same graphs.
        let place = match known.iter().position(|(config, _)| config == model) {
            Some(place) => place,
            None => {
                known.push((model.clone(), structures(model)?));
                known.len() - 1
            }
        };
        for (graph, structure) in &known[place].1 {
            let Structure { nodes, initialisers, bytes } = *structure;
            for (what, count) in [("nodes", nodes), ("initialisers", initialisers), ("bytes", bytes)] {
                measures.push(Measure::count(format!("{name}/{graph}/{what}"), count));
            }
        }
    }
    Ok(Gathered::measured(Group::Graphs, measures))
}

fn structures(model: &ModelConfig) -> Result<Vec<(String, Structure)>> {
    let mut all = Vec::new();
    for flavour in Flavour::ALL {
        let target = Target { flavour, ..Target::default() };
        for precision in Precision::ALL {
            for part in Part::ALL {
                let graph = package::graph(part, model, (target, precision), |parameter| {
                    Array::new(&parameter.shape, vec![0.0; parameter.elements()])
                })?;
                all.push((format!("{flavour}/{precision}/{part}"), Structure::of(&graph)));
            }
        }
    }
    Ok(all)
}
