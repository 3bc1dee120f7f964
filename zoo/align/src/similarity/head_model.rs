//! A head with its parameters, and the images that are prepared for its engine.

use std::{collections::HashMap, ops::Range, panic::resume_unwind, rc::Rc, sync::Arc, thread};

use laps_model::{
    array::Array,
    heads::{Head, HeadConfig, HeadSizes, ItemFeatures},
    params::{ParamPath, Parameter},
};

use super::{
    CaptionMatrix, ImageSource, SimdLevel,
    captions::norm,
    engine::invalid,
    packed::PackedRows,
    sgr::{PairWeights, PreparedGraph},
};
use crate::Result;

/// Largest number of images in a group of a head that does not pool.
const MAX_GROUP: usize = 16;
/// A group has at least this many columns for each column of padding, unless that takes more than [`MAX_GROUP`] images.
const MIN_COLUMNS_PER_PADDING: usize = 32;

/// A head with its parameters.
pub(super) struct HeadModel {
    pub(super) head: HeadConfig,
    pub(super) sizes: HeadSizes,
    /// All parameters, by name.
    parameters: Arc<HashMap<String, Array>>,
    /// The parameters of `sgr` that each pair needs, packed.
    pub(super) graph: Option<PairWeights>,
    pub(super) level: SimdLevel,
}

/// Images whose tokens are multiplied with words at once, so that little of the last panel is padding.
pub(super) struct PreparedGroup {
    /// Normalised tokens of all images. For a head that pools, the vectors of all images of a tile.
    pub(super) tokens: PackedRows,
    /// One an image; empty for a head that pools.
    pub(super) images: Vec<ImageTables>,
}

/// What belongs to one image besides its tokens.
pub(super) struct ImageTables {
    /// Products of the tokens with each other, `(tokens, columns)`.
    pub(super) gram: Option<PackedRows>,
    /// Prepared by the engine of `sgr`.
    pub(super) graph: Option<PreparedGraph>,
}

impl HeadModel {
    pub(super) fn new(
        head: HeadConfig,
        sizes: HeadSizes,
        parameters: HashMap<String, Array>,
        level: SimdLevel,
    ) -> Result<Self> {
        let graph = match head {
            HeadConfig::Sgr { steps, .. } => {
                let read = |name: &str| parameters.get(name).cloned().ok_or_else(|| missing(name).into());
                Some(PairWeights::new(sizes.width, steps, level, read)?)
            }
            _ => None,
        };
        Ok(Self { head, sizes, parameters: Arc::new(parameters), graph, level })
    }

    /// Images and captions have the sizes of the head.
    pub(super) fn check(&self, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<()> {
        let expected = [self.sizes.tokens, self.sizes.width];
        if !images.is_empty() && images.shape() != expected {
            return Err(invalid(format!("images of shape {expected:?}"), format!("{:?}", images.shape())));
        }
        if captions.width() != self.sizes.word_width {
            return Err(invalid(format!("captions of width {}", self.sizes.word_width), captions.width().to_string()));
        }
        if self.head.pools() && captions.longest() > 1 {
            return Err(invalid("one vector a caption".to_owned(), format!("{} words", captions.longest())));
        }
        Ok(())
    }

    /// The definition, for what belongs to an image or a caption alone in `sgr`.
    fn definition(&self) -> Result<Option<Head<Array>>> {
        if self.graph.is_none() {
            return Ok(None);
        }
        let parameters = Arc::clone(&self.parameters);
        let read = move |parameter: Parameter| {
            parameters.get(&parameter.name).cloned().ok_or_else(|| missing(&parameter.name))
        };
        Ok(Some(Head::new(&self.head, &self.sizes, &ParamPath::root(Rc::new(read)))?))
    }

    /// The pooled vectors of captions for `sgr`, `(captions, width)`; empty for other heads.
    pub(super) fn pooled_captions(&self, captions: &CaptionMatrix, threads: usize) -> Result<Vec<f32>> {
        if self.graph.is_none() {
            return Ok(Vec::new());
        }
        let width = captions.width();
        let mut pooled = vec![0.0; captions.len() * width];
        let share = captions.len().div_ceil(threads).max(1);
        thread::scope(|scope| {
            let threads: Vec<_> = pooled
                .chunks_mut(share * width)
                .enumerate()
                .map(|(index, output)| scope.spawn(move || self.pool_captions(captions, index * share, output)))
                .collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            results.collect::<Result<()>>()
        })?;
        Ok(pooled)
    }

    /// Pooled vectors of the captions from `first` on, as many as fit into `output`.
    fn pool_captions(&self, captions: &CaptionMatrix, first: usize, output: &mut [f32]) -> Result<()> {
        let Some(definition) = self.definition()? else { return Ok(()) };
        let width = captions.width();
        for (caption, output) in (first..).zip(output.chunks_exact_mut(width)) {
            let words = captions.normalised(captions.span(caption..caption + 1));
            let count = words.len() / width;
            let (words, mask) =
                (Array::new(&[1, count, width], words.to_vec())?, Array::new(&[1, count], vec![1.0; count])?);
            output.copy_from_slice(pooled_vector(&definition.caption_features(&words, &mask, None)?)?);
        }
        Ok(())
    }

    /// Normalises and packs images, and computes what belongs to each of them alone.
    ///
    /// # Errors
    /// Embeddings that are not finite, and errors of `source`.
    pub(super) fn prepare(&self, source: &dyn ImageSource, images: Range<usize>) -> Result<Vec<PreparedGroup>> {
        let HeadSizes { tokens, width, .. } = self.sizes;
        let values_per_image = tokens * width;
        let mut values = vec![0.0; values_per_image];
        let definition = self.definition()?;
        let mut read = |image: usize| -> Result<Vec<f32>> {
            source.read(image, &mut values)?;
            let mut normalised = Vec::with_capacity(values.len());
            for token in values.chunks_exact(width) {
                let norm = norm(token);
                if !norm.is_finite() {
                    let found = format!("norm {norm} of a token of image {image}");
                    return Err(invalid("finite embeddings".to_owned(), found));
                }
                let factor = 1.0 / norm;
                normalised.extend(token.iter().map(|&value| (f64::from(value) * factor) as f32));
            }
            Ok(normalised)
        };
        let pack = |rows: &[f32]| PackedRows::new(rows, width, self.level);
        if self.head.pools() {
            let rows = images.map(read).collect::<Result<Vec<_>>>()?.concat();
            return Ok(vec![PreparedGroup { tokens: pack(&rows)?, images: Vec::new() }]);
        }
        let needs_gram = matches!(self.head, HeadConfig::ScanT2i | HeadConfig::ScanAll);
        let columns = self.image_columns();
        let tables = |rows: &[f32]| -> Result<ImageTables> {
            // Rows and columns behind the tokens are 0.
            let gram = needs_gram.then(|| PackedRows::new(&pack(rows)?.product(rows), columns, self.level));
            let graph = match (&self.graph, &definition) {
                (Some(weights), Some(definition)) => {
                    let array = Array::new(&[1, self.sizes.tokens, width], rows.to_vec())?;
                    let features = definition.image_features(&array)?;
                    Some(PreparedGraph::new(weights, rows, columns, pooled_vector(&features)?)?)
                }
                _ => None,
            };
            Ok(ImageTables { gram: gram.transpose()?, graph })
        };
        let images: Vec<usize> = images.collect();
        let prepare = |group: &[usize]| {
            let mut rows = Vec::with_capacity(group.len() * values_per_image);
            for &image in group {
                rows.extend(read(image)?);
            }
            let images = rows.chunks_exact(values_per_image).map(tables).collect::<Result<_>>()?;
            Ok(PreparedGroup { tokens: pack(&rows)?, images })
        };
        images.chunks(self.group_images()).map(prepare).collect()
    }

    /// Columns of the products with the tokens of one image: whole panels.
    pub(super) fn image_columns(&self) -> usize {
        self.sizes.tokens.next_multiple_of(2 * self.level.lanes())
    }

    /// Number of images in a [`PreparedGroup`] of a head that does not pool.
    pub(super) fn group_images(&self) -> usize {
        let columns = |images: usize| (images * self.sizes.tokens).next_multiple_of(2 * self.level.lanes());
        let fills = |&images: &usize| {
            let padding = columns(images) - images * self.sizes.tokens;
            MIN_COLUMNS_PER_PADDING * padding <= columns(images)
        };
        (1..MAX_GROUP).find(fills).unwrap_or(MAX_GROUP)
    }
}

pub(super) fn missing(name: &str) -> laps_model::Error {
    laps_model::Error::Parameter {
        name: name.to_owned(),
        expected: "a parameter of the head".to_owned(),
        found: "none".to_owned(),
    }
}

/// The pooled vector of one item.
fn pooled_vector(features: &ItemFeatures<Array>) -> Result<&[f32]> {
    let pooled = features.pooled.as_ref().map(Array::values);
    pooled.ok_or_else(|| invalid("a pooled vector".to_owned(), "none".to_owned()))
}
