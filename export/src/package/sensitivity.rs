//! Sensitivity of products to reduced precision, and the choice of those that stay in single precision.

use std::collections::BTreeSet;

use laps_model::{array::Array, models::config::ModelConfig};

use super::{NodeDrift, calibration, golden::TensorValues};
use crate::{
    Result, file,
    graph::{Graph, GraphKind},
    passes::{self, Rounding},
    runtime::{InputTensor, RuntimeError, Session, SessionOptions},
};

/// Largest [`cosine_distance`] that int8 may cause in the output of an encoder.
const MAX_COSINE_DISTANCE: f64 = 3e-4;

/// Applies SmoothQuant to `graph`, an encoder in single precision, with the channel magnitudes on the calibration inputs.
/// The graph computes the same, but loses less in 8 bits.
///
/// # Errors
/// As [`select`].
pub(super) fn smooth(kind: GraphKind, graph: &mut Graph, config: &ModelConfig, threads: usize) -> Result<()> {
    let mut channels = graph.clone();
    if passes::channels(&mut channels) {
        let session = open(kind, channels, threads)?;
        let largest = run(&session, &calibration::inputs(kind, config)?, None)?;
        passes::smooth(graph, largest.values())?;
    }
    Ok(())
}

/// The products of `graph`, an encoder in single precision, with the most sensitive first, and which of them stay in single
/// precision: the smallest number with which the output stays within [`MAX_COSINE_DISTANCE`]. Each product is measured
/// alone in ONNX Runtime on the calibration inputs.
///
/// # Errors
/// [`RuntimeError`] if ONNX Runtime is missing or cannot run the graph.
pub(super) fn select(kind: GraphKind, graph: &Graph, config: &ModelConfig, threads: usize) -> Result<Vec<NodeDrift>> {
    let probe = Probe::open(kind, graph, config, (Rounding::Int8, threads))?;
    let drifts = probe.drifts()?;
    // Binary search for the count; leaving out all products is exact.
    let (mut low, mut high) = (0, drifts.len());
    while low < high {
        let middle = (low + high) / 2;
        let left_out: BTreeSet<usize> = drifts[..middle].iter().map(|(index, _)| *index).collect();
        if probe.cosine_distance(|index| !left_out.contains(&index))? <= MAX_COSINE_DISTANCE {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let ranked = drifts.into_iter().enumerate();
    Ok(ranked.map(|(rank, (_, drift))| NodeDrift { left_out: rank < high, ..drift }).collect())
}

/// The products of `graph`, an encoder in single precision, with the effect of half precision in each of them alone.
///
/// # Errors
/// As [`select`].
pub(super) fn fp16_drifts(
    kind: GraphKind,
    graph: &Graph,
    config: &ModelConfig,
    threads: usize,
) -> Result<Vec<NodeDrift>> {
    let drifts = Probe::open(kind, graph, config, (Rounding::Half, threads))?.drifts()?;
    Ok(drifts.into_iter().map(|(_, drift)| drift).collect())
}

/// A graph with a switch per product, the calibration inputs, and the output with all switches off.
struct Probe {
    session: Session,
    inputs: Vec<TensorValues>,
    names: Vec<String>,
    exact: Array,
}

impl Probe {
    fn open(
        kind: GraphKind,
        graph: &Graph,
        config: &ModelConfig,
        (rounding, threads): (Rounding, usize),
    ) -> Result<Self> {
        let mut graph = graph.clone();
        let names = passes::probe(&mut graph, rounding)?;
        let session = open(kind, graph, threads)?;
        let inputs = calibration::inputs(kind, config)?;
        let exact = run(&session, &inputs, Some(&vec![0; names.len()]))?;
        Ok(Self { session, inputs, names, exact })
    }

    /// Every product with its index, the most sensitive first.
    fn drifts(&self) -> Result<Vec<(usize, NodeDrift)>, RuntimeError> {
        let mut drifts = Vec::with_capacity(self.names.len());
        for (index, node) in self.names.iter().enumerate() {
            let cosine_distance = self.cosine_distance(|switch| switch == index)?;
            drifts.push((index, NodeDrift { node: node.clone(), cosine_distance, left_out: false }));
        }
        drifts.sort_by(|(_, a), (_, b)| b.cosine_distance.total_cmp(&a.cosine_distance));
        Ok(drifts)
    }

    /// Cosine distance of the output when the products for which `chosen` returns true are rounded.
    fn cosine_distance(&self, chosen: impl Fn(usize) -> bool) -> Result<f64, RuntimeError> {
        let switches: Vec<i64> = (0..self.names.len()).map(|index| i64::from(chosen(index))).collect();
        let found = run(&self.session, &self.inputs, Some(&switches))?;
        let mask = match self.inputs.get(1) {
            Some(TensorValues::I64(_, mask)) => Some(mask.as_slice()),
            _ => None,
        };
        Ok(cosine_distance(&found, &self.exact, mask))
    }
}

fn open(kind: GraphKind, mut graph: Graph, threads: usize) -> Result<Session> {
    passes::lower(&mut graph);
    let mut bytes = Vec::new();
    file::write(&graph, &[], &mut bytes)?;
    drop(graph);
    // The number of threads changes only the last digits of results; the choice depends on far larger differences.
    Ok(Session::from_memory(&kind.file(), &bytes, &SessionOptions::cpu(threads))?)
}

fn run(session: &Session, inputs: &[TensorValues], switches: Option<&[i64]>) -> Result<Array, RuntimeError> {
    let count = [switches.map_or(0, <[i64]>::len)];
    let switches = switches.map(|switches| InputTensor::I64(&count, switches));
    let inputs: Vec<InputTensor<'_>> = inputs.iter().map(TensorValues::input).chain(switches).collect();
    session.run(&inputs)
}

/// Mean of `1 - cosine` over the tokens whose `mask` is 1. Similarities depend on nothing else. A token with a non-finite
/// value counts with the largest distance, 2.
fn cosine_distance(found: &Array, exact: &Array, mask: Option<&[i64]>) -> f64 {
    let width = exact.dims().last().copied().unwrap_or(1).max(1);
    let (mut sum, mut count) = (0.0, 0usize);
    let pairs = found.values().chunks_exact(width).zip(exact.values().chunks_exact(width));
    for (token, (a, b)) in pairs.enumerate() {
        if mask.is_some_and(|mask| mask.get(token) != Some(&1)) {
            continue;
        }
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        sum += if cosine.is_finite() { 1.0 - cosine } else { 2.0 };
        count += 1;
    }
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use laps_model::array::Array;

    use super::cosine_distance;

    #[test]
    fn cosine_distance_is_the_mean_over_unmasked_tokens() {
        let array = |values: [f32; 6]| Array::new(&[3, 2], values.to_vec()).unwrap();
        let exact = array([1.0, 0.0, 0.0, 2.0, 1.0, 1.0]);
        // A longer vector has a distance of 0; 3-4-5 has a cosine of 0.6; the last token is masked.
        let found = array([5.0, 0.0, 4.0, 3.0, f32::NAN, 0.0]);
        assert!((cosine_distance(&found, &exact, Some(&[1, 1, 0])) - 0.2).abs() < 1e-12);
        assert!((cosine_distance(&found, &exact, None) - (0.4 + 2.0) / 3.0).abs() < 1e-12);
    }
}
