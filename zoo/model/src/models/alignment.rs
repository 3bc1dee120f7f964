//! The similarity of LAPS: for each caption, select patches, aggregate them into groups, and score them against the words.
//!
//! Fu et al., "Linguistic-Aware Patch Slimming Framework for Fine-grained Cross-Modal Alignment", CVPR 2024, as
//! computed by the published implementation. This is the generic definition; the fast engine is tested against it.

use crate::{
    Result,
    models::config::ModelConfig,
    nn::{LayerNorm, Linear},
    params::{Init, ParamPath},
    tensor::{MASK_LOGIT, Tensor},
};

/// Minimum norm of a vector, as in `torch.nn.functional.normalize`.
pub const NORM_EPS: f64 = 1e-12;
/// Epsilon of the layer normalisation of the aggregation network.
pub const AGGREGATION_NORM_EPS: f64 = 1e-5;
/// Slope of the leaky ReLU for negative cosines.
pub const LEAKY_SLOPE: f64 = 0.1;
/// Subtracted from a cosine to mask it out of a maximum. Cosines are at most 1.
const MASK_COSINE: f64 = 10.0;

/// Width of the hidden layer of the aggregation network of embeddings of `width`: `trunc(width * 0.2)`.
pub(crate) fn hidden_width(width: usize) -> usize {
    (width as f64 * 0.2) as usize
}

/// The aggregation network: a logit of each patch for each group.
pub struct Aggregation<T> {
    norm: LayerNorm<T>,
    hidden: Linear<T>,
    output: Linear<T>,
    scale: T,
    name: String,
}

impl<T> Aggregation<T> {
    /// A network for embeddings of `width` with `hidden` hidden units. `path` has `weight.0`, `weight.1`, `weight.3` and `scale`.
    pub fn new(width: usize, hidden: usize, groups: usize, path: &ParamPath<T>) -> Result<Self> {
        let weight = path.sub("weight");
        Ok(Self {
            norm: LayerNorm::new(width, AGGREGATION_NORM_EPS, &weight.sub(0))?,
            hidden: Linear::with_default_init(width, hidden, &weight.sub(1))?,
            output: Linear::with_default_init(hidden, groups, &weight.sub(3))?,
            scale: path.get("scale", &[1, 1, 1], Init::Ones)?,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> Aggregation<T> {
    /// `(images, patches, width)` to `(images, patches, groups)`.
    pub fn forward(&self, x: &T) -> Result<T> {
        x.module(&self.name, || {
            let hidden = self.hidden.forward(&self.norm.forward(x)?)?.gelu()?;
            self.output.forward(&hidden)?.mul(&self.scale)
        })
    }
}

/// The similarity of patches and words.
pub struct Alignment<T> {
    aggregation: Aggregation<T>,
    similarity: PairSimilarity,
    name: String,
}

impl<T> Alignment<T> {
    /// `path` has `aggr_net`.
    pub fn new(config: &ModelConfig, path: &ParamPath<T>) -> Result<Self> {
        let (hidden, groups) = (hidden_width(config.embed_size), config.groups());
        Ok(Self {
            aggregation: Aggregation::new(config.embed_size, hidden, groups, &path.sub("aggr_net"))?,
            similarity: PairSimilarity {
                patches: config.image.num_patches(),
                kept: config.kept(),
                has_class_token: config.image.has_class_token(),
            },
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> Alignment<T> {
    /// Patch embeddings `(images, tokens, width)`, word embeddings `(captions, words, width)` and their mask
    /// `(captions, words)` to `(images, captions)`.
    pub fn forward(&self, tokens: &T, words: &T, mask: &T) -> Result<T> {
        tokens.module(&self.name, || self.align(tokens, words, mask))
    }

    fn align(&self, tokens: &T, words: &T, mask: &T) -> Result<T> {
        let [_, _, width] = tokens.sizes()?;
        let [captions, _, _] = words.sizes()?;
        let patches = self.similarity.patches(tokens)?;
        let count = mask.sum(1)?;
        let mean = sum_words(words, mask)?.reshape(&[captions, width])?.div(&count)?;
        let (kept, scores) = self.similarity.select(&patches, &mean)?;
        let logits = self.aggregation.forward(&patches)?;
        let visual = self.similarity.merge(tokens, &patches, &logits, &kept, &scores)?;
        compare(&visual, words, mask, &count)
    }

    /// Logits of each patch for each group, independent of the caption: `(images, patches, width)` to
    /// `(images, patches, groups)`.
    pub fn logits(&self, patches: &T) -> Result<T> {
        self.aggregation.forward(patches)
    }
}

/// The part of the alignment after the aggregation network; it has no weights.
#[derive(Clone, Copy, Debug)]
pub struct PairSimilarity {
    /// Number of patches of an image, without the class token.
    pub patches: usize,
    /// Number of patches that are kept for a caption.
    pub kept: usize,
    /// Whether the first token of an image is a class token.
    pub has_class_token: bool,
}

impl PairSimilarity {
    /// Similarities `(pairs)` of image `i` and caption `i`, from patch embeddings `(pairs, tokens, width)`, logits of the
    /// aggregation network `(pairs, patches, groups)`, word embeddings `(pairs, words, width)` and their mask
    /// `(pairs, words)`. Some of many images and captions can be compared in this way, for example those with a gradient.
    pub fn pairs<T: Tensor>(&self, tokens: &T, logits: &T, words: &T, mask: &T) -> Result<T> {
        let [pairs, _, width] = tokens.sizes()?;
        let patches = self.patches(tokens)?;
        let count = mask.sum(1)?;
        let mean = sum_words(words, mask)?.div(&count.reshape(&[pairs, 1.into(), 1.into()])?)?;
        let (kept, scores) = self.select(&patches, &mean)?;
        // One caption for each image; then one image with all captions.
        let visual = self.merge(tokens, &patches, logits, &kept, &scores)?;
        let [_, _, merged, _] = visual.sizes()?;
        let visual = visual.reshape(&[1.into(), pairs, merged, width])?;
        compare(&visual, words, mask, &count)?.reshape(&[pairs])
    }

    /// `(images, tokens, width)` to `(images, patches, width)`.
    pub(crate) fn patches<T: Tensor>(&self, tokens: &T) -> Result<T> {
        tokens.narrow(1, usize::from(self.has_class_token), self.patches)
    }

    /// `(images, patches, width)` and caption means `(captions, width)` or `(images, captions, width)` to the mask of the kept
    /// patches and their scores, both `(images, captions, patches)`. Gradients do not flow through either.
    pub(crate) fn select<T: Tensor>(&self, patches: &T, captions: &T) -> Result<(T, T)> {
        let (patches, captions) = (patches.detach()?, captions.detach()?);
        let across = patches.normalize(NORM_EPS)?.permute(&[0, 2, 1])?;
        let image = patches.mean(1)?.normalize(NORM_EPS)?.matmul(&across)?;
        let scores = captions.normalize(NORM_EPS)?.matmul(&across)?.add(&image)?;
        Ok((scores.top_k_mask(self.kept)?, scores))
    }

    /// Tokens `(images, tokens, width)`, their patches, logits `(images, patches, groups)`, and mask and scores
    /// `(images, captions, patches)`, to the normalised merged tokens `(images, captions, merged, width)`: the class token if
    /// there is one, the groups, and the fused patch.
    fn merge<T: Tensor>(&self, tokens: &T, patches: &T, logits: &T, kept: &T, scores: &T) -> Result<T> {
        let [images, captions, _] = kept.sizes()?;
        let [_, _, width] = patches.sizes()?;
        let groups = groups(patches, logits, kept)?;
        let fused = fuse(patches, kept, scores)?.reshape(&[images, captions, 1.into(), width])?;
        let mut parts = vec![&groups, &fused];
        let class_token;
        if self.has_class_token {
            let first = tokens.narrow(1, 0, 1)?.reshape(&[images, 1.into(), 1.into(), width])?;
            class_token = first.expand(&[images, captions, 1.into(), width])?;
            parts.insert(0, &class_token);
        }
        T::concat(&parts, 2)?.normalize(NORM_EPS)
    }
}

/// `(captions, words, width)` and their mask `(captions, words)` to the sum of the words, `(captions, 1, width)`.
fn sum_words<T: Tensor>(words: &T, mask: &T) -> Result<T> {
    let [captions, length, _] = words.sizes()?;
    words.mul(&mask.reshape(&[captions, length, 1.into()])?)?.sum(1)
}

/// Normalised merged tokens `(images, captions, merged, width)`, word embeddings `(captions, words, width)`, their mask
/// `(captions, words)` and the number of words of each caption, to `(images, captions)`.
fn compare<T: Tensor>(visual: &T, words: &T, mask: &T, count: &T) -> Result<T> {
    let [images, captions, _, _] = visual.sizes()?;
    let [_, length, _] = words.sizes()?;
    let words = words.normalize(NORM_EPS)?.permute(&[0, 2, 1])?;
    let cosines = visual.matmul(&words)?.leaky_relu(LEAKY_SLOPE)?;
    let of_words = cosines.max(2)?.reshape(&[images, captions, length])?.mul(mask)?.sum(2)?;
    let of_words = of_words.reshape(&[images, captions])?.div(&count.reshape(&[captions])?)?;
    let padding = mask.affine(MASK_COSINE, -MASK_COSINE)?.reshape(&[captions, 1.into(), length])?;
    let of_tokens = cosines.add(&padding)?.max(3)?.mean(2)?.reshape(&[images, captions])?;
    of_words.add(&of_tokens)
}

/// `(images, patches, width)`, their logits `(images, patches, groups)` and the mask `(images, captions, patches)` to
/// `(images, captions, groups, width)`.
pub(crate) fn groups<T: Tensor>(patches: &T, logits: &T, kept: &T) -> Result<T> {
    let [images, captions, count] = kept.sizes()?;
    let [_, _, width] = patches.sizes()?;
    let logits = logits.permute(&[0, 2, 1])?;
    let [_, groups, _] = logits.sizes()?;
    let logits = logits.reshape(&[images, 1.into(), groups, count])?;
    let bias = kept.affine(MASK_LOGIT, -MASK_LOGIT)?.reshape(&[images, captions, 1.into(), count])?;
    logits.add(&bias)?.softmax()?.matmul(&patches.reshape(&[images, 1.into(), count, width])?)
}

/// Fuses the patches that are not kept into one: `(images, patches, width)`, and mask and scores
/// `(images, captions, patches)`, to `(images, captions, width)`. The result is 0 if every patch is kept.
pub(crate) fn fuse<T: Tensor>(patches: &T, kept: &T, scores: &T) -> Result<T> {
    let dropped = kept.affine(-1.0, 1.0)?;
    let weights = scores.add(&kept.affine(-MASK_LOGIT, 0.0)?)?.softmax()?;
    weights.mul(&dropped)?.matmul(patches)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{Aggregation, PairSimilarity, compare, sum_words};
    use crate::{
        array::Array,
        params::{ParamPath, Parameter},
        params_init::init_parameters,
        random::SplitMix64,
        tensor::Tensor,
    };

    fn normal(name: &str, shape: &[usize]) -> Array {
        let mut random = SplitMix64::named(5, name);
        Array::new(shape, (0..shape.iter().product()).map(|_| random.normal() as f32).collect()).unwrap()
    }

    /// Pair `i` is image `i` with caption `i`, so the pairs are the diagonal of all similarities.
    #[test]
    fn pairs_are_the_diagonal_of_all_similarities() {
        let path = ParamPath::root(Rc::new(|parameter: Parameter| {
            Ok(init_parameters(std::slice::from_ref(&parameter), 3)?.swap_remove(0).1)
        }));
        let aggregation: Aggregation<Array> = Aggregation::new(8, 3, 2, &path).unwrap();
        let tokens = normal("tokens", &[3, 7, 8]);
        let words = normal("words", &[3, 4, 8]);
        let mask = Array::new(&[3, 4], vec![1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]).unwrap();
        for has_class_token in [true, false] {
            let similarity = PairSimilarity { patches: 7 - usize::from(has_class_token), kept: 3, has_class_token };
            let patches = similarity.patches(&tokens).unwrap();
            let logits = aggregation.forward(&patches).unwrap();
            let count = mask.sum(1).unwrap();
            let mean = sum_words(&words, &mask).unwrap().reshape(&[3.into(), 8.into()]).unwrap().div(&count).unwrap();
            let (kept, scores) = similarity.select(&patches, &mean).unwrap();
            let visual = similarity.merge(&tokens, &patches, &logits, &kept, &scores).unwrap();
            let all = compare(&visual, &words, &mask, &count).unwrap();
            let pairs = similarity.pairs(&tokens, &logits, &words, &mask).unwrap();
            assert_eq!((all.dims(), pairs.dims()), (&[3, 3][..], &[3][..]));
            for (pair, found) in pairs.values().iter().enumerate() {
                // The products have other shapes, so their sums may have another order.
                assert!((found - all.values()[pair * 4]).abs() < 1e-6, "{pair}: {found}");
            }
            assert!((all.values()[1] - all.values()[0]).abs() > 1e-3, "the similarities differ");
        }
    }
}
