//! Searching: candidates by pooled vectors, and the exact similarity of those.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
};

use rayon::prelude::*;

use super::{Index, Kind, SearchError, pool};
use crate::{Error, Result};
use laps_align::similarity::{CaptionMatrix, Engine, ImageSource, Plan, Tile};
use laps_model::array::Array;

/// Candidates where nothing else is asked for.
pub const CANDIDATES: usize = 200;

/// Captions of an index that are held at one time.
const TOGETHER: usize = 4096;

/// What is compared exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The items whose pooled vectors are nearest to that of the query.
    Candidates(usize),
    /// Every item.
    All,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Place in the index.
    pub item: usize,
    /// Exact similarity of the stored embeddings with the query.
    pub similarity: f32,
    /// Cosine of the pooled vectors.
    pub pooled: f32,
}

/// An index and what searches it.
pub struct Searcher<'a> {
    /// The index.
    pub index: &'a Index,
    /// What computes the similarities.
    pub engine: &'a Engine,
    /// Set from outside to end the work within seconds.
    pub stop: &'a AtomicBool,
}

impl Searcher<'_> {
    /// The `top` best items for a query `(rows, width)`: the words of a caption for an index of images, the tokens of an
    /// image for one of captions. Best first; of equal ones, the one that comes first in the index.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`]; [`Error::Operation`] for a query of another size; [`Error::Io`].
    pub fn search(&self, query: &Array, reach: Reach, top: usize) -> Result<Vec<Hit>> {
        let pooled = self.pooled(query)?;
        let items = match reach {
            Reach::All => (0..pooled.len()).collect(),
            Reach::Candidates(count) => {
                let mut order = best_first(&pooled);
                order.truncate(count.max(top));
                order
            }
        };
        let similarities = self.exact(std::slice::from_ref(query), &items)?;
        let mut hits: Vec<Hit> = items
            .iter()
            .zip(&similarities)
            .map(|(&item, &similarity)| Hit { item, similarity, pooled: pooled[item] })
            .collect();
        hits.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.item.cmp(&b.item)));
        hits.truncate(top);
        Ok(hits)
    }

    /// Cosine of the pooled vector of a query `(rows, width)` with that of every item.
    ///
    /// # Errors
    /// [`Error::Operation`] for a query of another width; [`Error::Io`].
    pub fn pooled(&self, query: &Array) -> Result<Vec<f32>> {
        let width = self.index.description().width;
        if query.dims().last() != Some(&width) {
            return Err(laps_model::Error::Operation {
                operation: "search",
                expected: format!("a query of width {width}"),
                found: format!("shape {:?}", query.dims()),
            }
            .into());
        }
        let asked = match self.index.description().kind {
            Kind::Images => Kind::Captions,
            Kind::Captions => Kind::Images,
        };
        let query = pool(query.values(), width, self.index.description().first_row(asked));
        let mut cosines = Vec::with_capacity(self.index.items().len());
        self.index.pooled(|_, vectors| {
            let cosine = |vector: &[f32]| vector.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>();
            cosines.par_extend(vectors.par_chunks_exact(width).map(cosine));
        })?;
        Ok(cosines)
    }

    /// Exact similarities of queries with some items of the index, `(queries, items)`.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`]; [`Error::Operation`] for queries of another size; [`Error::Io`].
    pub fn exact(&self, queries: &[Array], items: &[usize]) -> Result<Vec<f32>> {
        let width = self.index.description().width;
        let mut matrix = vec![0.0; queries.len() * items.len()];
        if matrix.is_empty() {
            return Ok(matrix);
        }
        match self.index.description().kind {
            Kind::Images => {
                let captions = CaptionMatrix::from_arrays(queries, width)?;
                let source = Rows { index: self.index, items };
                self.run(&source, &captions, |image, caption, value| matrix[caption * items.len() + image] = value)?;
            }
            Kind::Captions => {
                let tokens = queries.iter().flat_map(|image| image.values()).copied().collect();
                let images = Array::new(&[queries.len(), self.index.description().tokens, width], tokens)?;
                for (number, part) in items.chunks(TOGETHER).enumerate() {
                    let first = number * TOGETHER;
                    let captions = self.captions(part)?;
                    let place = |image: usize, caption: usize| image * items.len() + first + caption;
                    self.run(&images, &captions, |image, caption, value| matrix[place(image, caption)] = value)?;
                }
            }
        }
        Ok(matrix)
    }

    fn captions(&self, items: &[usize]) -> Result<CaptionMatrix> {
        let width = self.index.description().width;
        let mut captions = CaptionMatrix::new(width);
        let mut values = Vec::new();
        for &item in items {
            let rows = self.index.rows(item).len();
            values.resize(rows * width, 0.0);
            self.index.read(item, &mut values)?;
            captions.push(&[rows, width], &values)?;
        }
        Ok(captions)
    }

    fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        mut place: impl FnMut(usize, usize, f32) + Send,
    ) -> Result<()> {
        let plan: Plan = self.engine.plan(images.len(), captions)?;
        let mut sink = |tile: &Tile, similarities: &[f32]| {
            for (image, row) in tile.images.clone().zip(similarities.chunks_exact(tile.captions.len())) {
                tile.captions.clone().zip(row).for_each(|(caption, &value)| place(image, caption, value));
            }
            let stopped = self.stop.load(Ordering::Relaxed);
            Ok(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let outcome = self.engine.run(images, captions, &plan, &mut sink)?;
        if !outcome.finished {
            return Err(SearchError::Interrupted { state: "the search was not finished".to_owned() }.into());
        }
        Ok(())
    }
}

/// Places of the largest values first; of equal ones, the first.
pub(super) fn best_first(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order
}

/// Some images of an index.
struct Rows<'a> {
    index: &'a Index,
    items: &'a [usize],
}

impl ImageSource for Rows<'_> {
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
