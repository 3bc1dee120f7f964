//! Leaving out what no output needs.

use std::collections::HashSet;

use crate::graph::{Graph, Id};

/// Takes out the nodes whose results nobody uses. Constants without a user are not written anyway.
pub fn prune(graph: &mut Graph) {
    let nodes = graph.take_nodes();
    let mut wanted: HashSet<Id> = graph.outputs.iter().copied().collect();
    let mut kept = Vec::with_capacity(nodes.len());
    for mut node in nodes.into_iter().rev() {
        if !node.outputs.iter().flatten().any(|id| wanted.contains(id)) {
            continue;
        }
        wanted.extend(node.inputs.iter().flatten());
        if let Some((_, more)) = node.outputs.split_first_mut() {
            more.iter_mut().filter(|id| id.is_some_and(|id| !wanted.contains(&id))).for_each(|id| *id = None);
        }
        while node.outputs.len() > 1 && node.outputs.last() == Some(&None) {
            node.outputs.pop();
        }
        kept.push(node);
    }
    kept.into_iter().rev().for_each(|node| graph.append(node));
}
