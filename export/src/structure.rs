//! How large a graph is.

use laps_model::dim::Dim;

use crate::{
    file::{constants, len},
    graph::{Graph, Node},
};

/// Sizes of the file of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Operations.
    pub nodes: usize,
    /// Constants.
    pub initialisers: usize,
    /// Bytes of the file, without what it says of its entry.
    pub bytes: usize,
}

impl Structure {
    /// Of the file that [`encode`](crate::file::encode) writes.
    pub fn of(graph: &Graph) -> Self {
        Self { nodes: graph.nodes().len(), initialisers: constants(graph).len(), bytes: len(graph) }
    }
}

/// Multiply-adds of the products of matrices in a graph of the portable flavour in single precision, with `size` for each
/// symbol. What is computed element by element is not counted.
pub fn multiply_adds(graph: &Graph, size: impl Fn(&str) -> usize) -> u64 {
    let fixed = |dim: &Dim| {
        let (factor, symbol) = dim.parts();
        (factor * symbol.map_or(1, &size)) as u64
    };
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

    use super::{Structure, multiply_adds};
    use crate::{
        file::encode,
        graph::{Element, Graph, Target, Value},
        record::{Part, record},
    };

    /// `(batch, 4)` through a product, and through as many sums as there are `extra`.
    fn graph(extra: usize) -> Graph {
        let graph = Rc::new(RefCell::new(Graph::new("example", Target::default())));
        let x = Value::input(&graph, "x", Element::F32, &[Dim::symbol("batch"), 4.into()]).unwrap();
        let weight = x.constant(Array::new(&[4, 4], vec![0.5; 16]).unwrap().values(), &[4, 4]).unwrap();
        let mut y = x.matmul(&weight).unwrap();
        for number in 0..extra {
            y = y.add(&x.constant(&[number as f32 + 1.5; 4], &[4]).unwrap()).unwrap();
        }
        y.output("y").unwrap();
        graph.borrow().clone()
    }

    #[test]
    fn a_node_more_is_a_node_more() {
        let [before, after] = [0, 1].map(|extra| Structure::of(&graph(extra)));
        assert_eq!((before.nodes, before.initialisers), (1, 1));
        assert_eq!((after.nodes, after.initialisers), (2, 2));
        assert_eq!(after.bytes, encode(&graph(1), &[]).unwrap().len());
        assert!(after.bytes > before.bytes);
    }
    /// Counted by hand from the sizes of the models: projections, attention and feed-forward of each block.
    #[test]
    fn multiply_adds_are_those_of_the_formula() {
        let config = laps_hub::registry::find("shapes_vit").unwrap().model;
        let zeros = |part| {
            record(part, &config, Target::default(), |parameter| {
                Array::new(&parameter.shape, vec![0.0; parameter.elements()])
            })
            .unwrap()
        };
        let block = |length: u64, width: u64, inner: u64| {
            4 * length * width * width + 2 * length * length * width + 2 * length * width * inner
        };
        // 36 patches of 10 x 10 pixels and a class token, width 64 everywhere, so no projection.
        let image = 36 * (3 * 10 * 10) * 64 + 3 * block(37, 64, 128);
        assert_eq!(multiply_adds(&zeros(Part::Image), |_| 1), image);
        assert_eq!(multiply_adds(&zeros(Part::Image), |_| 5), 5 * image);
        let sizes = |symbol: &str| if symbol == "batch" { 3 } else { 9 };
        assert_eq!(multiply_adds(&zeros(Part::Text), sizes), 3 * 2 * block(9, 64, 128));
    }
}
