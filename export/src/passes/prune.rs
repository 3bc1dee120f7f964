//! Removal of unused nodes.

use std::collections::HashSet;

use crate::graph::{Graph, ValueId};

/// Removes the nodes that no output depends on, and unused optional results. Unused constants are never written.
pub fn prune(graph: &mut Graph) {
    let nodes = graph.take_nodes();
    let mut wanted: HashSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut kept = Vec::with_capacity(nodes.len());
    for mut node in nodes.into_iter().rev() {
        if !node.outputs.iter().flatten().any(|id| wanted.contains(id)) {
            continue;
        }
        wanted.extend(node.inputs.iter().flatten());
        // The second result of `TopK` is not optional.
        if !node.is("TopK")
            && let Some((_, more)) = node.outputs.split_first_mut()
        {
            more.iter_mut().filter(|id| id.is_some_and(|id| !wanted.contains(&id))).for_each(|id| *id = None);
        }
        while node.outputs.len() > 1 && node.outputs.last() == Some(&None) {
            node.outputs.pop();
        }
        kept.push(node);
    }
    kept.into_iter().rev().for_each(|node| graph.append(node));
}
