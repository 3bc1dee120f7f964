//! Which products are left out of 8 bits, and which are at fault.

use std::{
    collections::BTreeSet,
    io::{BufWriter, Write},
};

use laps_model::{array::Array, models::config::ModelConfig};
use serde::{Deserialize, Serialize};

use super::{Sample, calibration};
use crate::{
    Error, Result, file,
    graph::Graph,
    passes::{self, Rounding},
    record::Part,
    runtime::{Input, RuntimeError, Session, SessionOptions},
};

/// How far the output of an encoder may turn in 8 bits, see [`turn`].
const BUDGET: f64 = 3e-4;

/// A product with a constant matrix, and what computing it alone in fewer bits does to the output of its graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeDrift {
    /// Name of the node.
    pub node: String,
    /// Mean over the tokens of 1 less the cosine of the output with the exact one.
    pub turn: f64,
    /// Whether it stays in single precision.
    pub left_out: bool,
}

/// Makes the channels of operands more alike, by their sizes on inputs that are the same every time: what `graph`, an
/// encoder in single precision, computes stays the same, and loses less in 8 bits.
///
/// # Errors
/// As [`select`].
pub(super) fn smooth(part: Part, graph: &mut Graph, config: &ModelConfig, threads: usize) -> Result<()> {
    let mut channels = graph.clone();
    if passes::channels(&mut channels) {
        let session = open(part, channels, threads)?;
        let largest = run(&session, &calibration::inputs(part, config)?, None)?;
        passes::smooth(graph, largest.values())?;
    }
    Ok(())
}

/// The products of `graph`, an encoder in single precision, the most sensitive first, and which of them to leave out of 8
/// bits: as few as keep the output within the budget when all others are in 8 bits. Each is measured alone, in ONNX
/// Runtime, on inputs that are the same every time.
///
/// # Errors
/// [`RuntimeError`] where ONNX Runtime is not there, or does not run the graph.
pub(super) fn select(part: Part, graph: &Graph, config: &ModelConfig, threads: usize) -> Result<Vec<NodeDrift>> {
    let probe = Probe::open(part, graph, config, (Rounding::Int8, threads))?;
    let drifts = probe.drifts()?;
    // Leaving all out is exact.
    let (mut few, mut enough) = (0, drifts.len());
    while few < enough {
        let middle = (few + enough) / 2;
        let left_out: BTreeSet<usize> = drifts[..middle].iter().map(|(index, _)| *index).collect();
        if probe.turn(|own| !left_out.contains(&own))? <= BUDGET {
            enough = middle;
        } else {
            few = middle + 1;
        }
    }
    let ranked = drifts.into_iter().enumerate();
    Ok(ranked.map(|(rank, (_, drift))| NodeDrift { left_out: rank < enough, ..drift }).collect())
}

/// The products of `graph`, an encoder in single precision, by what half precision in each of them alone does.
///
/// # Errors
/// As [`select`].
pub(super) fn in_half(part: Part, graph: &Graph, config: &ModelConfig, threads: usize) -> Result<Vec<NodeDrift>> {
    let drifts = Probe::open(part, graph, config, (Rounding::Half, threads))?.drifts()?;
    Ok(drifts.into_iter().map(|(_, drift)| drift).collect())
}

/// A graph with switches, its inputs, and what it gives with all of them off.
struct Probe {
    session: Session,
    inputs: Vec<Sample>,
    names: Vec<String>,
    exact: Array,
}

impl Probe {
    fn open(part: Part, graph: &Graph, config: &ModelConfig, (rounding, threads): (Rounding, usize)) -> Result<Self> {
        let mut graph = graph.clone();
        let names = passes::probe(&mut graph, rounding)?;
        let session = open(part, graph, threads)?;
        let inputs = calibration::inputs(part, config)?;
        let exact = run(&session, &inputs, Some(&vec![0; names.len()]))?;
        Ok(Self { session, inputs, names, exact })
    }

    /// Every product with its number, the most sensitive first.
    fn drifts(&self) -> Result<Vec<(usize, NodeDrift)>, RuntimeError> {
        let mut drifts = Vec::with_capacity(self.names.len());
        for (index, node) in self.names.iter().enumerate() {
            let turn = self.turn(|own| own == index)?;
            drifts.push((index, NodeDrift { node: node.clone(), turn, left_out: false }));
        }
        drifts.sort_by(|(_, a), (_, b)| b.turn.total_cmp(&a.turn));
        Ok(drifts)
    }

    /// How far the output turns when those products are rounded that `chosen` names by number.
    fn turn(&self, chosen: impl Fn(usize) -> bool) -> Result<f64, RuntimeError> {
        let switches: Vec<i64> = (0..self.names.len()).map(|index| i64::from(chosen(index))).collect();
        let found = run(&self.session, &self.inputs, Some(&switches))?;
        let mask = match self.inputs.get(1) {
            Some(Sample::Whole(_, mask)) => Some(mask.as_slice()),
            _ => None,
        };
        Ok(turn(&found, &self.exact, mask))
    }
}

fn open(part: Part, mut graph: Graph, threads: usize) -> Result<Session> {
    passes::lower(&mut graph);
    let folder = tempfile::tempdir().map_err(|error| Error::io("write", std::env::temp_dir(), error))?;
    let path = folder.path().join(part.file());
    let failed = |error: std::io::Error| Error::io("write", &path, error);
    let mut writer = BufWriter::new(fs_err::File::create(&path).map_err(failed)?);
    file::write(&graph, &[], &mut writer)?;
    writer.flush().map_err(failed)?;
    drop((writer, graph));
    // Results hang on the number of threads in their last digits only; choices are made by far larger differences.
    Ok(Session::open(&path, &SessionOptions::cpu(threads))?)
}

fn run(session: &Session, inputs: &[Sample], switches: Option<&[i64]>) -> Result<Array, RuntimeError> {
    let count = [switches.map_or(0, <[i64]>::len)];
    let switches = switches.map(|switches| Input::Whole(&count, switches));
    let inputs: Vec<Input<'_>> = inputs.iter().map(Sample::input).chain(switches).collect();
    session.run(&inputs)
}

/// Mean over the tokens of 1 less the cosine of both, which is all that similarities see of them; where `mask` is 1. What
/// is not a number turns as far as anything can.
fn turn(found: &Array, exact: &Array, mask: Option<&[i64]>) -> f64 {
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

    use super::turn;

    #[test]
    fn tokens_that_count_are_turned_by_one_less_their_cosine() {
        let array = |values: [f32; 6]| Array::new(&[3, 2], values.to_vec()).unwrap();
        let exact = array([1.0, 0.0, 0.0, 2.0, 1.0, 1.0]);
        // Longer is not turned; 3-4-5 has a cosine of 0.6; the last does not count.
        let found = array([5.0, 0.0, 4.0, 3.0, f32::NAN, 0.0]);
        assert!((turn(&found, &exact, Some(&[1, 1, 0])) - 0.2).abs() < 1e-12);
        assert!((turn(&found, &exact, None) - (0.4 + 2.0) / 3.0).abs() < 1e-12);
    }
}
