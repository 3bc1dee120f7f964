//! Size and cost of a graph.

use laps_model::dim::Dim;

use crate::{
    file::{constants, len},
    graph::{Graph, Node},
};

/// Size of a graph and its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphSize {
    /// Number of nodes.
    pub nodes: usize,
    /// Number of constants.
    pub initialisers: usize,
    /// Size in bytes of the file without metadata.
    pub bytes: usize,
}

impl GraphSize {
    /// The size of `graph` and of the file that [`write`](crate::file::write) writes without metadata.
    pub fn of(graph: &Graph) -> Self {
        Self { nodes: graph.nodes().len(), initialisers: constants(graph).len(), bytes: len(graph) }
    }
}

/// Multiply-adds of the matrix products in a portable fp32 graph; `size` returns the size of each symbol. ElementType-wise
/// operations are not counted.
pub fn multiply_adds(graph: &Graph, size: impl Fn(&str) -> usize) -> u64 {
    let fixed = |dim: &Dim| dim.evaluate(&size) as u64;
    let product = |node: &Node| {
        let inner = node.input(0).and_then(|id| graph.fact(id).shape.last()).map_or(0, fixed);
        node.output().map_or(0, |id| graph.fact(id).shape.iter().map(fixed).product::<u64>() * inner)
    };
    graph.nodes().iter().filter(|node| node.is("MatMul")).map(product).sum()
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use laps_model::{array::Array, dim::Dim, tensor::Tensor};

    use super::{GraphSize, multiply_adds};
    use crate::{
        file::write,
        graph::{ElementType, Graph, GraphKind, GraphTensor, Target},
        record::record,
    };

    /// A graph on `(batch, 4)` with one product and `extra` additions.
    fn graph(extra: usize) -> Graph {
        let graph = Rc::new(RefCell::new(Graph::new("example", Target::default())));
        let x = GraphTensor::input(&graph, "x", ElementType::F32, &[Dim::symbol("batch"), 4.into()]).unwrap();
        let weight = x.constant(Array::new(&[4, 4], vec![0.5; 16]).unwrap().values(), &[4, 4]).unwrap();
        let mut y = x.matmul(&weight).unwrap();
        for number in 0..extra {
            y = y.add(&x.constant(&[number as f32 + 1.5; 4], &[4]).unwrap()).unwrap();
        }
        y.output("y").unwrap();
        graph.borrow().clone()
    }

    #[test]
    fn an_additional_node_is_counted() {
        let [before, after] = [0, 1].map(|extra| GraphSize::of(&graph(extra)));
        assert_eq!((before.nodes, before.initialisers), (1, 1));
        assert_eq!((after.nodes, after.initialisers), (2, 2));
        let mut file = Vec::new();
        write(&graph(1), &[], &mut file).unwrap();
        assert_eq!(after.bytes, file.len());
        assert!(after.bytes > before.bytes);
    }

    /// Counted by hand from the sizes of the models: projections, attention and feed-forward of each block.
    #[test]
    fn multiply_adds_match_the_formula() {
        let config = laps_hub::registry::find("shapes_vit").unwrap().model;
        let zeros = |kind| {
            record(kind, &config, Target::default(), |parameter| {
                Array::new(&parameter.shape, vec![0.0; parameter.elements()])
            })
            .unwrap()
        };
        let block = |length: u64, width: u64, inner: u64| {
            4 * length * width * width + 2 * length * length * width + 2 * length * width * inner
        };
        // 36 patches of 10 x 10 pixels and a class token; width 64 everywhere, so there is no projection.
        let image = 36 * (3 * 10 * 10) * 64 + 3 * block(37, 64, 128);
        assert_eq!(multiply_adds(&zeros(GraphKind::Image), |_| 1), image);
        assert_eq!(multiply_adds(&zeros(GraphKind::Image), |_| 5), 5 * image);
        let sizes = |symbol: &str| if symbol == "batch" { 3 } else { 9 };
        assert_eq!(multiply_adds(&zeros(GraphKind::Text), sizes), 3 * 2 * block(9, 64, 128));
    }
}
