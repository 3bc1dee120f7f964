//! The nodes at fault where more is lost than may be.

use super::{Manifest, NodeDrift, Precision, Request, render::line, selection, write::reader};
use crate::{
    Result,
    record::{Part, record},
};

/// Nodes that are named for a graph.
const NAMED: usize = 5;

/// For each encoder the nodes in fewer bits that turn its output most when they alone are, a line each. In int8 they were
/// measured when the graphs of `manifest` were made; in fp16 that is done now. None for fp32, which rounds nothing.
///
/// # Errors
/// As [`export`](super::export).
pub fn at_fault(request: &Request, manifest: &Manifest) -> Result<String> {
    let mut text = String::new();
    for part in [Part::Image, Part::Text] {
        let products = match manifest.precision {
            Precision::Fp32 => Vec::new(),
            Precision::Int8 => manifest.graphs.get(part.name()).map(|graph| graph.products.clone()).unwrap_or_default(),
            Precision::Fp16 => {
                let graph = record(part, &request.entry.model, request.target, reader(request))?;
                selection::in_half(part, &graph, &request.entry.model, request.threads)?
            }
        };
        for NodeDrift { node, turn, .. } in products.iter().filter(|product| !product.left_out).take(NAMED) {
            line(&mut text, format_args!("  {part}: `{node}` alone turns the output by {turn:.1e}"));
        }
    }
    Ok(text)
}
