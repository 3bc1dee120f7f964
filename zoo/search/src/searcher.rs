//! Search: candidates by pooled vectors, then their exact similarities.

use std::{
    cmp::Ordering,
    ops::ControlFlow,
    sync::atomic::{self, AtomicBool},
};

use super::{Filter, IndexKind, SearchError, Store, pool::pool};
use crate::Result;
use laps_align::similarity::{CaptionMatrix, ImageSource, Plan, SimilarityEngine, Tile};
use laps_model::array::Array;

/// Default number of candidates.
pub const DEFAULT_CANDIDATES: usize = 200;

/// Partial sums of a dot product.
pub(super) const LANES: usize = 32;

/// Captions of an index that are in memory at once.
const CAPTION_CHUNK: usize = 4096;

/// Size of the images of an index that are in memory at once, in values.
const IMAGE_CHUNK: usize = 1 << 25;

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
    pub index: &'a dyn Store,
    /// Conditions on the items; None searches all.
    pub filter: Option<&'a Filter>,
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
        let is_pooled = self.index.description().is_pooled();
        let count = match scope {
            SearchScope::Candidates(count) if !is_pooled => count.max(top),
            // Without re-ranking, a candidate that a store has missed would be missing in the result.
            SearchScope::Candidates(_) if self.index.nearest_is_exact() => top,
            _ => usize::MAX,
        };
        let mut candidates = self.candidates(query, count)?;
        // In the order of the store, which reads them faster.
        candidates.sort_by_key(|candidate| candidate.item);
        let similarities = match is_pooled {
            true => candidates.iter().map(|candidate| candidate.pooled).collect(),
            false => {
                let items: Vec<usize> = candidates.iter().map(|candidate| candidate.item).collect();
                self.exact(std::slice::from_ref(query), &items)?
            }
        };
        let mut hits: Vec<Hit> = candidates
            .iter()
            .zip(&similarities)
            .map(|(&Neighbor { item, pooled }, &similarity)| Hit { item, similarity, pooled })
            .collect();
        hits.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.item.cmp(&b.item)));
        hits.truncate(top);
        Ok(hits)
    }

    /// Number of items whose exact similarity [`search`](Self::search) computes.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn compared(&self, scope: SearchScope, top: usize) -> Result<usize> {
        let items = self.index.item_count(self.filter)?;
        Ok(match scope {
            SearchScope::Candidates(count) if !self.index.description().is_pooled() => count.max(top).min(items),
            _ => items,
        })
    }

    /// The `top` items nearest to a query `(rows, dim)` of the same kind: the images most like an image. No head has a
    /// similarity of two images, so they are compared by their pooled vectors alone. Sorted by cosine, descending; ties by
    /// position in the index.
    ///
    /// # Errors
    /// [`laps_model::Error::Operation`] for a query of another dim; [`Error::Io`](crate::Error::Io).
    pub fn neighbors(&self, query: &Array, top: usize) -> Result<Vec<Neighbor>> {
        self.nearest(query, self.index.description().kind, top)
    }

    /// The `count` items that the pooled vector of a query `(rows, dim)` selects for the comparison of their exact
    /// similarities.
    ///
    /// # Errors
    /// [`laps_model::Error::Operation`] for a query of another dim; [`Error::Io`](crate::Error::Io).
    pub(crate) fn candidates(&self, query: &Array, count: usize) -> Result<Vec<Neighbor>> {
        let query_kind = match self.index.description().kind {
            IndexKind::Images => IndexKind::Captions,
            IndexKind::Captions => IndexKind::Images,
        };
        self.nearest(query, query_kind, count)
    }

    fn nearest(&self, query: &Array, query_kind: IndexKind, count: usize) -> Result<Vec<Neighbor>> {
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
        self.index.nearest(&query, count, self.filter)
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
                let mut found = self.candidates(query, usize::MAX)?;
                found.sort_unstable_by_key(|neighbor| neighbor.item);
                for (value, item) in row.iter_mut().zip(items) {
                    let position = found.binary_search_by_key(item, |neighbor| neighbor.item);
                    *value = position
                        .map(|position| found[position].pooled)
                        .map_err(|_| SearchError::NoItem { item: *item })?;
                }
            }
            return Ok(matrix);
        }
        match self.index.description().kind {
            IndexKind::Images => {
                let captions = CaptionMatrix::from_arrays(queries, width)?;
                let shape = [self.index.description().tokens, width];
                let chunk_size = (IMAGE_CHUNK / (shape[0] * shape[1]).max(1)).max(1);
                for (number, chunk) in items.chunks(chunk_size).enumerate() {
                    let first = number * chunk_size;
                    let images = StoredImages { images: &self.index.embeddings(chunk)?, shape };
                    let position = |image: usize, caption: usize| caption * items.len() + first + image;
                    self.run(&images, &captions, |image, caption, value| matrix[position(image, caption)] = value)?;
                }
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
        for words in self.index.embeddings(items)? {
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
            let stopped = self.stop.load(atomic::Ordering::Relaxed);
            Ok(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let outcome = self.engine.run(images, captions, &plan, &mut sink)?;
        if !outcome.finished {
            return Err(SearchError::Interrupted { state: "the search did not finish".to_owned() }.into());
        }
        Ok(())
    }
}

/// The nearest items of a scan, in memory for a small multiple of their number.
pub(super) struct Nearest {
    count: usize,
    found: Vec<Neighbor>,
    /// The lowest value among the nearest so far, once there are enough.
    lowest: Option<f32>,
}

impl Nearest {
    /// Room for the `count` nearest items.
    pub(super) fn new(count: usize) -> Self {
        Self { count, found: Vec::new(), lowest: None }
    }

    /// Whether an item with this value can be among the nearest.
    pub(super) fn admits(&self, pooled: f32) -> bool {
        self.lowest.is_none_or(|lowest| pooled.total_cmp(&lowest).is_ge())
    }

    pub(super) fn push(&mut self, neighbor: Neighbor) {
        /// Few enough to sort at once, many enough to sort rarely.
        const SLACK: usize = 256;
        self.found.push(neighbor);
        if self.found.len() >= self.count.saturating_mul(2).saturating_add(SLACK) {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.count < self.found.len() {
            self.found.select_nth_unstable_by(self.count, nearer);
            self.found.truncate(self.count);
            self.lowest = self.found.iter().map(|near| near.pooled).min_by(f32::total_cmp);
        }
    }

    /// The nearest of both.
    pub(super) fn merged(mut self, other: Self) -> Self {
        self.found.extend(other.found);
        self.shrink();
        self
    }

    /// In descending order; ties by number.
    pub(super) fn finish(mut self) -> Vec<Neighbor> {
        self.shrink();
        self.found.sort_unstable_by(nearer);
        self.found
    }
}

fn nearer(a: &Neighbor, b: &Neighbor) -> Ordering {
    b.pooled.total_cmp(&a.pooled).then(a.item.cmp(&b.item))
}

/// Indices of the `count` largest values in descending order; ties keep their order.
pub(super) fn largest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let compare = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    if count < order.len() {
        order.select_nth_unstable_by(count, compare);
        order.truncate(count);
    }
    order.sort_unstable_by(compare);
    order
}

/// The dot product of two vectors of the same dim.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Sums that do not depend on each other, for vector instructions.
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.0.iter().zip(b.0) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + a.1.iter().zip(b.1).map(|(a, b)| a * b).sum::<f32>()
}

/// Some images of an index, in memory.
struct StoredImages<'a> {
    images: &'a [Array],
    shape: [usize; 2],
}

impl ImageSource for StoredImages<'_> {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn read(&self, image: usize, tokens: &mut [f32]) -> laps_align::Result<()> {
        tokens.copy_from_slice(self.images[image].values());
        Ok(())
    }
}
