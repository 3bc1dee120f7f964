//! Sizes of all exportable graphs.

use anyhow::Result;
use laps_bench::gate::{GateGroup, GroupMeasures, Measure};
use laps_hub::registry::Entry;
use laps_model::{array::Array, models::config::ModelConfig};
use laps_onnx::{
    graph::{Flavour, GraphKind, GraphPrecision, Target},
    package,
    size::GraphSize,
};

/// Nodes, initialisers and bytes of every entry's graphs, in every flavour and precision. They do not depend on the
/// weights, which are zeros here.
pub(crate) fn graphs(entries: &[Entry]) -> Result<GroupMeasures> {
    let mut known: Vec<(ModelConfig, Vec<(String, GraphSize)>)> = Vec::new();
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
            let GraphSize { nodes, initialisers, bytes } = *structure;
            for (what, count) in [("nodes", nodes), ("initialisers", initialisers), ("bytes", bytes)] {
                measures.push(Measure::count(format!("{name}/{graph}/{what}"), count));
            }
        }
    }
    Ok(GroupMeasures::measured(GateGroup::Graphs, measures))
}

fn structures(model: &ModelConfig) -> Result<Vec<(String, GraphSize)>> {
    let mut all = Vec::new();
    for flavour in Flavour::ALL {
        let target = Target { flavour, ..Target::default() };
        for precision in GraphPrecision::ALL {
            for kind in GraphKind::ALL {
                let graph = package::build_graph(kind, model, target, precision, |parameter| {
                    Array::new(&parameter.shape, vec![0.0; parameter.elements()])
                })?;
                all.push((format!("{flavour}/{precision}/{kind}"), GraphSize::of(&graph)));
            }
        }
    }
    Ok(all)
}
