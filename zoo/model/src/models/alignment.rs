//! The similarity of LAPS: patches are kept for a caption, merged into a few, and scored against its words.
//!
//! Fu et al., "Linguistic-Aware Patch Slimming Framework for Fine-grained Cross-Modal Alignment", CVPR 2024, as the
//! published implementation computes it. This is the plain definition, which the fast engine is held against.

use crate::{
    Result,
    models::config::ModelConfig,
    nn::{LayerNorm, Linear},
    params::{Init, Path},
    tensor::Tensor,
};

/// Smallest norm that a vector is divided by, as in `torch.nn.functional.normalize`.
const NORM_EPSILON: f64 = 1e-12;
const LEAKY_SLOPE: f64 = 0.1;
/// Takes a place out of a softmax: exp of this is exactly 0 in f32, and it is finite in f16.
const OUT: f64 = 30000.0;
/// Takes a place out of a maximum of cosines, which lie within 1.
const BELOW: f64 = 10.0;

/// Gives each patch a logit for each group.
struct Aggregation<T> {
    norm: LayerNorm<T>,
    hidden: Linear<T>,
    output: Linear<T>,
    scale: T,
    name: String,
}

impl<T> Aggregation<T> {
    fn new(config: &ModelConfig, path: &Path<T>) -> Result<Self> {
        let (width, hidden) = (config.embed_size, config.aggregation_width());
        let weight = path.sub("weight");
        Ok(Self {
            norm: LayerNorm::new(width, 1e-5, &weight.sub(0))?,
            hidden: Linear::with_default_init(width, hidden, &weight.sub(1))?,
            output: Linear::with_default_init(hidden, config.groups(), &weight.sub(3))?,
            scale: path.get("scale", &[1, 1, 1], Init::Ones)?,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> Aggregation<T> {
    /// `(images, patches, width)` to `(images, patches, groups)`.
    fn forward(&self, x: &T) -> Result<T> {
        x.module(&self.name, || {
            let hidden = self.hidden.forward(&self.norm.forward(x)?)?.gelu()?;
            self.output.forward(&hidden)?.mul(&self.scale)
        })
    }
}

/// The alignment of patches and words.
pub struct Alignment<T> {
    aggregation: Aggregation<T>,
    patches: usize,
    kept: usize,
    class_token: bool,
    name: String,
}

impl<T> Alignment<T> {
    /// `path` holds `aggr_net`.
    pub fn new(config: &ModelConfig, path: &Path<T>) -> Result<Self> {
        Ok(Self {
            aggregation: Aggregation::new(config, &path.sub("aggr_net"))?,
            patches: config.image.num_patches(),
            kept: config.kept(),
            class_token: config.image.has_class_token(),
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
        let [images, _, width] = tokens.sizes()?;
        let [captions, length, _] = words.sizes()?;
        let patches = tokens.narrow(1, usize::from(self.class_token), self.patches)?;
        let count = mask.sum(1)?;

        let mean = words.mul(&mask.reshape(&[captions, length, 1.into()])?)?.sum(1)?;
        let mean = mean.reshape(&[captions, width])?.div(&count)?;
        let (kept, scores) = self.select(&patches, &mean)?;

        let groups = self.groups(&patches, &kept)?;
        let fused = fuse(&patches, &kept, &scores)?.reshape(&[images, captions, 1.into(), width])?;
        let mut parts = vec![&groups, &fused];
        let class_token;
        if self.class_token {
            let first = tokens.narrow(1, 0, 1)?.reshape(&[images, 1.into(), 1.into(), width])?;
            class_token = first.expand(&[images, captions, 1.into(), width])?;
            parts.insert(0, &class_token);
        }
        let visual = T::concatenate(&parts, 2)?.normalize(NORM_EPSILON)?;

        let words = words.normalize(NORM_EPSILON)?.permute(&[0, 2, 1])?;
        let cosines = visual.matmul(&words)?.leaky_relu(LEAKY_SLOPE)?;
        let of_words = cosines.max(2)?.reshape(&[images, captions, length])?.mul(mask)?.sum(2)?;
        let of_words = of_words.reshape(&[images, captions])?.div(&count.reshape(&[captions])?)?;
        let padding = mask.affine(BELOW, -BELOW)?.reshape(&[captions, 1.into(), length])?;
        let of_tokens = cosines.add(&padding)?.max(3)?.mean(2)?.reshape(&[images, captions])?;
        of_words.add(&of_tokens)
    }

    /// Logits of each patch in each group, which do not depend on a caption: `(images, patches, width)` to
    /// `(images, patches, groups)`.
    pub fn logits(&self, patches: &T) -> Result<T> {
        self.aggregation.forward(patches)
    }

    /// `(images, patches, width)` and caption means `(captions, width)` to the mask of the kept patches and the scores,
    /// both `(images, captions, patches)`. Neither passes gradients on.
    fn select(&self, patches: &T, captions: &T) -> Result<(T, T)> {
        let (patches, captions) = (patches.detach()?, captions.detach()?);
        let across = patches.normalize(NORM_EPSILON)?.permute(&[0, 2, 1])?;
        let image = patches.mean(1)?.normalize(NORM_EPSILON)?.matmul(&across)?;
        let scores = captions.normalize(NORM_EPSILON)?.matmul(&across)?.add(&image)?;
        Ok((scores.top_mask(self.kept)?, scores))
    }

    /// `(images, patches, width)` and the mask `(images, captions, patches)` to `(images, captions, groups, width)`.
    fn groups(&self, patches: &T, kept: &T) -> Result<T> {
        let [images, captions, count] = kept.sizes()?;
        let [_, _, width] = patches.sizes()?;
        let logits = self.aggregation.forward(patches)?.permute(&[0, 2, 1])?;
        let [_, groups, _] = logits.sizes()?;
        let logits = logits.reshape(&[images, 1.into(), groups, count])?;
        let out = kept.affine(OUT, -OUT)?.reshape(&[images, captions, 1.into(), count])?;
        logits.add(&out)?.softmax()?.matmul(&patches.reshape(&[images, 1.into(), count, width])?)
    }
}

/// The patches that are not kept, as one: `(images, patches, width)` and two `(images, captions, patches)` to
/// `(images, captions, width)`. Zero where every patch is kept.
fn fuse<T: Tensor>(patches: &T, kept: &T, scores: &T) -> Result<T> {
    let dropped = kept.affine(-1.0, 1.0)?;
    let weights = scores.add(&kept.affine(-OUT, 0.0)?)?.softmax()?;
    weights.mul(&dropped)?.matmul(patches)
}
