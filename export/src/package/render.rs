//! Text report of an export.

use std::path::Path;

use super::Exported;
use crate::graph::GraphKind;

/// One line per graph, and whether the graphs are within the tolerance of their precision.
pub fn render(exported: &Exported, folder: &Path, note: Option<&str>) -> String {
    let Exported { manifest, unchecked, out_of_tolerance } = exported;
    let mut text = format!("{}, graphs {}, in `{}`\n", manifest.entry, manifest.description(), folder.display());
    for kind in GraphKind::ALL {
        let Some(graph) = manifest.graphs.get(kind.name()) else { continue };
        let drift = graph.drift.map_or_else(String::new, |drift| {
            format!(
                "; differs from the model by {:.1e} at most, {:.1e} on average, cosine {:.7}",
                drift.largest, drift.mean, drift.cosine
            )
        });
        text += &format!("  {:12}{:>9.2} MB{drift}\n", graph.file.file, graph.file.bytes as f64 / 1e6);
    }
    for kind in GraphKind::ALL {
        let Some(graph) = manifest.graphs.get(kind.name()).filter(|graph| !graph.products.is_empty()) else { continue };
        let left_out: Vec<&str> =
            graph.products.iter().filter(|product| product.left_out).map(|product| product.node.as_str()).collect();
        let names = if left_out.is_empty() { String::new() } else { format!(": {}", left_out.join(", ")) };
        text += &format!("  {kind}: {} of {} products stay in fp32{names}\n", left_out.len(), graph.products.len());
    }
    if let Some(note) = note {
        text += &format!("note: {note}\n");
    }
    let tolerance = manifest.precision.tolerance();
    let largest = tolerance.largest.map_or_else(String::new, |largest| format!("differences up to {largest:.0e}, "));
    let bound = format!("{largest}a cosine of at least {}", tolerance.cosine);
    text += &match unchecked {
        Some(reason) => format!("not compared: {}\n", reason.replace('\n', ";")),
        None if out_of_tolerance.is_empty() => format!("compared in ONNX Runtime: within {bound}\n"),
        None => {
            let names: Vec<String> = out_of_tolerance.iter().map(|kind| format!("`{kind}`")).collect();
            format!("compared in ONNX Runtime: {} not within {bound}\n", names.join(", "))
        }
    };
    text
}
