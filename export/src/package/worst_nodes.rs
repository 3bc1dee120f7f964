//! The nodes that lose most accuracy in a reduced precision.

use super::{ExportRequest, NodeDrift, PackageManifest, sensitivity, write::reader};
use crate::{
    Result,
    graph::{GraphKind, GraphPrecision},
    record::record,
};

/// Number of nodes listed per graph.
const LISTED: usize = 5;

/// For each encoder the nodes that change its output most when they alone are in reduced precision, one per line. For int8
/// the export has measured them; for fp16 they are measured now. Empty for fp32, which rounds nothing.
///
/// # Errors
/// As [`export`](super::export).
pub fn worst_nodes(request: &ExportRequest, manifest: &PackageManifest) -> Result<String> {
    let mut text = String::new();
    for kind in [GraphKind::Image, GraphKind::Text] {
        let products = match manifest.precision {
            GraphPrecision::Fp32 => Vec::new(),
            GraphPrecision::Int8 => {
                manifest.graphs.get(kind.name()).map(|graph| graph.products.clone()).unwrap_or_default()
            }
            GraphPrecision::Fp16 => {
                let graph = record(kind, &request.entry.model, request.target, reader(request))?;
                sensitivity::fp16_drifts(kind, &graph, &request.entry.model, request.threads)?
            }
        };
        for NodeDrift { node, cosine_distance, .. } in products.iter().filter(|product| !product.left_out).take(LISTED)
        {
            text +=
                &format!("  {kind}: `{node}` alone changes the output by a cosine distance of {cosine_distance:.1e}\n");
        }
    }
    Ok(text)
}
