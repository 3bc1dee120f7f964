//! Search: candidates by pooled vectors, then their exact similarities.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

use rayon::prelude::*;

use super::{Index, IndexKind, SearchError, pool::pool};
use crate::Result;
use laps_align::similarity::{CaptionMatrix, ImageSource, Plan, SimilarityEngine, Tile};
use laps_model::array::Array;

/// Default number of candidates.
pub const DEFAULT_CANDIDATES: usize = 200;

/// Captions of an index that are in memory at once.
const CAPTION_CHUNK: usize = 4096;

/// The items whose exact similarity is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchScope {
    /// This many items whose pooled vectors are nearest to that of the query.
    Candidates(usize),
    /// All items.
    All,
}

/// One result of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Number of the item in the index.
    pub item: usize,
    /// Exact similarity of the stored embeddings with the query.
    pub similarity: f32,
    /// Cosine of the pooled vectors.
    pub pooled: f32,
}

/// One result of a search by pooled vectors alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Number of the item in the index.
    pub item: usize,
    /// Cosine of the pooled vectors.
    pub pooled: f32,
}

/// Searches an index.
pub struct Searcher<'a> {
    /// The index.
    pub index: &'a Index,
    /// Engine that computes the exact similarities. In an index of pooled vectors their cosines are the similarities.
    pub engine: &'a dyn SimilarityEngine,
    /// Set by the caller to stop the search within seconds.
    pub stop: &'a AtomicBool,
}

impl Searcher<'_> {
    /// The `top` best items for a query `(rows, dim)`: the words of a caption for an index of images, the tokens of an
    /// image for an index of captions. Sorted by similarity, descending; ties by position in the index.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`]; [`laps_model::Error::Operation`] for a query of another size;
    /// [`Error::Io`](crate::Error::Io).
    pub fn search(&self, query: &Array, scope: SearchScope, top: usize) -> Result<Vec<Hit>> {
        let pooled = self.pooled(query)?;
        let is_pooled = self.index.description().is_pooled();
        let items = match scope {
            SearchScope::All => (0..pooled.len()).collect(),
            SearchScope::Candidates(count) => {
                let mut order = descending_order(&pooled);
                order.truncate(count.max(top));
                order
            }
        };
        let similarities = match is_pooled {
            true => items.iter().map(|&item| pooled[item]).collect(),
            false => self.exact(std::slice::from_ref(query), &items)?,
        };
        let mut hits: Vec<Hit> = items
            .iter()
            .zip(&similarities)
            .map(|(&item, &similarity)| Hit { item, similarity, pooled: pooled[item] })
            .collect();
        hits.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.item.cmp(&b.item)));
        hits.truncate(top);
        Ok(hits)
    }

    /// Number of items whose exact similarity [`search`](Self::search) computes.
    pub fn compared(&self, scope: SearchScope, top: usize) -> usize {
        let items = self.index.items().len();
        match scope {
            SearchScope::Candidates(count) if !self.index.description().is_pooled() => count.max(top).min(items),
            _ => items,
        }
    }

    /// The `top` items nearest to a query `(rows, dim)` of the same kind: the images most like an image. No head has a
    /// similarity of two images, so they are compared by their pooled vectors alone. Sorted by cosine, descending; ties by
    /// position in the index.
    ///
    /// # Errors
    /// [`laps_model::Error::Operation`] for a query of another dim; [`Error::Io`](crate::Error::Io).
    pub fn neighbors(&self, query: &Array, top: usize) -> Result<Vec<Neighbor>> {
        let pooled = self.cosines(query, self.index.description().kind)?;
        let order = descending_order(&pooled).into_iter().take(top);
        Ok(order.map(|item| Neighbor { item, pooled: pooled[item] }).collect())
    }

    /// Cosine of the pooled vector of a query `(rows, dim)` with that of every item.
    ///
    /// # Errors
    /// [`laps_model::Error::Operation`] for a query of another dim; [`Error::Io`](crate::Error::Io).
    pub(crate) fn pooled(&self, query: &Array) -> Result<Vec<f32>> {
        let query_kind = match self.index.description().kind {
            IndexKind::Images => IndexKind::Captions,
            IndexKind::Captions => IndexKind::Images,
        };
        self.cosines(query, query_kind)
    }

    fn cosines(&self, query: &Array, query_kind: IndexKind) -> Result<Vec<f32>> {
        let width = self.index.description().width;
        if query.dims().last() != Some(&width) {
            return Err(laps_model::Error::Operation {
                operation: "search",
                expected: format!("a query of width {width}"),
                found: format!("shape {:?}", query.dims()),
            }
            .into());
        }
        let query = pool(query.values(), width, self.index.description().pooling(query_kind));
        let mut cosines = Vec::with_capacity(self.index.items().len());
        self.index.for_each_pooled(|vectors| {
            let cosine = |vector: &[f32]| vector.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>();
            cosines.par_extend(vectors.par_chunks_exact(width).map(cosine));
        })?;
        Ok(cosines)
    }

    /// Exact similarities `(queries, items)` of queries with some items of the index.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`]; [`laps_model::Error::Operation`] for queries of another size;
    /// [`Error::Io`](crate::Error::Io).
    pub(crate) fn exact(&self, queries: &[Array], items: &[usize]) -> Result<Vec<f32>> {
        let width = self.index.description().width;
        let mut matrix = vec![0.0; queries.len() * items.len()];
        if matrix.is_empty() {
            return Ok(matrix);
        }
        if self.index.description().is_pooled() {
            for (query, row) in queries.iter().zip(matrix.chunks_exact_mut(items.len())) {
                let pooled = self.pooled(query)?;
                row.iter_mut().zip(items).for_each(|(value, &item)| *value = pooled[item]);
            }
            return Ok(matrix);
        }
        match self.index.description().kind {
            IndexKind::Images => {
                let captions = CaptionMatrix::from_arrays(queries, width)?;
                let source = IndexedImages { index: self.index, items };
                self.run(&source, &captions, |image, caption, value| matrix[caption * items.len() + image] = value)?;
            }
            IndexKind::Captions => {
                let tokens = queries.iter().flat_map(|image| image.values()).copied().collect();
                let images = Array::new(&[queries.len(), self.index.description().tokens, width], tokens)?;
                for (number, chunk) in items.chunks(CAPTION_CHUNK).enumerate() {
                    let first = number * CAPTION_CHUNK;
                    let captions = self.captions(chunk)?;
                    let position = |image: usize, caption: usize| image * items.len() + first + caption;
                    self.run(&images, &captions, |image, caption, value| matrix[position(image, caption)] = value)?;
                }
            }
        }
        Ok(matrix)
    }

    fn captions(&self, items: &[usize]) -> Result<CaptionMatrix> {
        let mut captions = CaptionMatrix::new(self.index.description().width);
        for &item in items {
            let words = self.index.embeddings(item)?;
            captions.push(words.dims(), words.values())?;
        }
        Ok(captions)
    }

    fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        mut store: impl FnMut(usize, usize, f32) + Send,
    ) -> Result<()> {
        let plan: Plan = self.engine.plan(images.len(), captions)?;
        let mut sink = |tile: &Tile, similarities: &[f32]| {
            for (image, row) in tile.images.clone().zip(similarities.chunks_exact(tile.captions.len())) {
                tile.captions.clone().zip(row).for_each(|(caption, &value)| store(image, caption, value));
            }
            let stopped = self.stop.load(Ordering::Relaxed);
            Ok(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let outcome = self.engine.run(images, captions, &plan, &mut sink)?;
        if !outcome.finished {
            return Err(SearchError::Interrupted { state: "the search did not finish".to_owned() }.into());
        }
        Ok(())
    }
}

/// Indices that sort `values` in descending order; ties keep their order.
pub(super) fn descending_order(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order
}

/// Some images of an index, read from the file as the engine needs them.
struct IndexedImages<'a> {
    index: &'a Index,
    items: &'a [usize],
}

impl ImageSource for IndexedImages<'_> {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn shape(&self) -> [usize; 2] {
        [self.index.description().tokens, self.index.description().width]
    }

    fn read(&self, image: usize, tokens: &mut [f32]) -> laps_align::Result<()> {
        self.index.read(self.items[image], tokens).map_err(laps_align::Error::caller)
    }
}
