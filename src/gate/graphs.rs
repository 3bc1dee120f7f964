//! Sizes of all exportable graphs.

use anyhow::Result;
use laps_bench::gate::{GateGroup, GroupMeasures, Measure};
use laps_hub::registry::{self, Entry, embedded_checkpoint};
use laps_model::{
    array::Array,
    heads::{Ablation, ChanAggregation, D2sVseConfig, HeadConfig, Pooling},
    models::config::ModelConfig,
};
use laps_onnx::{
    graph::{Flavour, GraphKind, GraphPrecision, Target},
    package,
    size::GraphSize,
};

/// Rows of `configs/rows.yaml` with encoders that no entry with a file of its own has: CLIP with its own projections and as
/// LAPS uses it, and the two encoders of D2S-VSE, which read more pixels and have no projections of their own.
const ROWS: [&str; 4] = ["clip_vit_b32", "f30k_clip_b16", "f30k_vit_384_d2s", "f30k_swin_384_d2s"];

/// Whether the graphs of an entry are measured by default. Those of all rows would take hours.
pub(crate) fn has_graphs(name: &str) -> bool {
    registry::names_of_files().contains(&name) || ROWS.contains(&name)
}

/// Sizes of the graphs of a model, by name.
struct ModelGraphs<'a> {
    model: &'a ModelConfig,
    precisions: &'a [GraphPrecision],
    sizes: Vec<(String, GraphSize)>,
}

/// Nodes, initialisers and bytes of every entry's graphs, in every flavour, and of the graph `score` of every other head on
/// the encoders of the embedded entries. Entries with a file of their own are measured in every precision, rows in fp32. The
/// sizes do not depend on the weights, which are zeros here.
pub(crate) fn graphs(entries: &[Entry]) -> Result<GroupMeasures> {
    let mut known: Vec<ModelGraphs<'_>> = Vec::new();
    let mut measures = Vec::new();
    for Entry { name, model, .. } in entries {
        let precisions = match registry::names_of_files().contains(&name.as_str()) {
            true => &GraphPrecision::ALL[..],
            false => &[GraphPrecision::Fp32],
        };
        // Entries with the same model have the same graphs.
        let index = match known.iter().position(|graphs| graphs.model == model && graphs.precisions == precisions) {
            Some(index) => index,
            None => {
                known.push(ModelGraphs { model, precisions, sizes: structures(model, precisions)? });
                known.len() - 1
            }
        };
        let of_heads = match embedded_checkpoint(name) {
            Some(_) => head_structures(model)?,
            None => Vec::new(),
        };
        for (graph, structure) in known[index].sizes.iter().chain(&of_heads) {
            let GraphSize { nodes, initialisers, bytes } = *structure;
            for (what, count) in [("nodes", nodes), ("initialisers", initialisers), ("bytes", bytes)] {
                measures.push(Measure::count(format!("{name}/{graph}/{what}"), count));
            }
        }
    }
    Ok(GroupMeasures::measured(GateGroup::Graphs, measures))
}

fn structures(model: &ModelConfig, precisions: &[GraphPrecision]) -> Result<Vec<(String, GraphSize)>> {
    let mut all = Vec::new();
    for flavour in Flavour::ALL {
        let target = Target { flavour, ..Target::default() };
        for &precision in precisions {
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

fn head_structures(model: &ModelConfig) -> Result<Vec<(String, GraphSize)>> {
    let embed_size = model.embed_size;
    let vsepp = |pooling| HeadConfig::Vsepp { pooling };
    let ablation = |ablation| HeadConfig::LapsAblation { ablation };
    let heads = [
        ("cosine", HeadConfig::Cosine { embed_size }),
        ("vsepp_mean", vsepp(Pooling::Mean)),
        ("vsepp_cls", vsepp(Pooling::Cls)),
        ("vsepp_gpo", vsepp(Pooling::Gpo)),
        ("scan_t2i", HeadConfig::ScanT2i),
        ("scan_i2t", HeadConfig::ScanI2t),
        ("scan_all", HeadConfig::ScanAll),
        ("max_mean", HeadConfig::MaxMean),
        ("sgr", HeadConfig::Sgr { sim_dim: 256, steps: 3 }),
        ("chan_mean", HeadConfig::Chan { aggregation: ChanAggregation::Mean }),
        ("chan_lse", HeadConfig::Chan { aggregation: ChanAggregation::Lse }),
        ("d2s_vse", HeadConfig::D2sVse(D2sVseConfig { embed_size, ..D2sVseConfig::default() })),
        ("without_patch_selection", ablation(Ablation::WithoutPatchSelection)),
        ("without_language_context", ablation(Ablation::WithoutLanguageContext)),
        ("without_patch_calibration", ablation(Ablation::WithoutPatchCalibration)),
        ("without_redundant_fusion", ablation(Ablation::WithoutRedundantFusion)),
        ("scan_alignment", ablation(Ablation::ScanAlignment)),
        ("patch_to_word_only", ablation(Ablation::PatchToWordOnly)),
        ("word_to_patch_only", ablation(Ablation::WordToPatchOnly)),
    ];
    // `cosine` needs a class token.
    let fits = |head: &HeadConfig| !matches!(head, HeadConfig::Cosine { .. }) || model.image.has_class_token();
    let mut all = Vec::new();
    for (name, head) in heads.into_iter().filter(|(_, head)| fits(head)) {
        let mut model = ModelConfig { head, ..model.clone() };
        if !head.has_ratios() {
            (model.sparse_ratio, model.aggr_ratio) = (0.0, 0.0);
        }
        for flavour in Flavour::ALL {
            let target = Target { flavour, ..Target::default() };
            let graph = package::build_graph(GraphKind::Score, &model, target, GraphPrecision::Fp32, |parameter| {
                Array::new(&parameter.shape, vec![0.0; parameter.elements()])
            })?;
            all.push((format!("head_{name}/{flavour}/fp32/score"), GraphSize::of(&graph)));
        }
    }
    Ok(all)
}
