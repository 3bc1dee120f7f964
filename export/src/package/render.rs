//! What was exported, for people.

use std::{fmt::Write, path::Path};

use super::Exported;
use crate::record::Part;

/// One line for each graph, and whether it is as near to the model definition as its precision asks for.
pub fn render(exported: &Exported, folder: &Path, note: Option<&str>) -> String {
    let Exported { manifest, unchecked, outside } = exported;
    let mut text = format!("{}, graphs {}, in `{}`\n", manifest.entry, manifest.description(), folder.display());
    for part in Part::ALL {
        let Some(graph) = manifest.graphs.get(part.name()) else { continue };
        let drift = graph.drift.map_or_else(String::new, |drift| {
            format!(
                "; differs from the model by {:.1e} at most, {:.1e} in the mean, cosine {:.7}",
                drift.largest, drift.mean, drift.cosine
            )
        });
        line(&mut text, format_args!("  {:12}{:>9.2} MB{drift}", graph.file.file, graph.file.bytes as f64 / 1e6));
    }
    for part in Part::ALL {
        let Some(graph) = manifest.graphs.get(part.name()).filter(|graph| !graph.products.is_empty()) else { continue };
        let left_out: Vec<&str> =
            graph.products.iter().filter(|product| product.left_out).map(|product| product.node.as_str()).collect();
        let (count, all) = (left_out.len(), graph.products.len());
        line(&mut text, format_args!("  {part}: {count} of {all} products stay in fp32{}", list(&left_out)));
    }
    if let Some(note) = note {
        line(&mut text, format_args!("note: {note}"));
    }
    let tolerance = manifest.precision.tolerance();
    let largest = tolerance.largest.map_or_else(String::new, |largest| format!("differences up to {largest:.0e}, "));
    let bound = format!("{largest}a cosine of at least {}", tolerance.cosine);
    match unchecked {
        Some(reason) => line(&mut text, format_args!("not compared: {}", reason.replace('\n', ";"))),
        None if outside.is_empty() => line(&mut text, format_args!("compared in ONNX Runtime: within {bound}")),
        None => {
            let names: Vec<String> = outside.iter().map(|part| format!("`{part}`")).collect();
            line(&mut text, format_args!("compared in ONNX Runtime: {} not within {bound}", names.join(", ")));
        }
    }
    text
}

/// `: a, b`, or nothing for none.
fn list(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
}

pub(super) fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string can not fail.
    let _ = writeln!(text, "{content}");
}
