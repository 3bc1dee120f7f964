//! Similarity graph reasoning (Diao et al., AAAI 2021).

use super::{HeadSizes, ItemFeatures, MASK_LOGIT, attention, cosines, mean_word, soft_normalize};
use crate::{
    Error, Result,
    dim::Dim,
    nn::{BatchNorm, Dropout, Linear},
    params::ParamPath,
    tensor::Tensor,
};

/// Probability of dropout after each tanh of the pooling.
const DROPOUT: f64 = 0.4;

/// Attention that pools tokens or words to one vector: their own values against their mean.
struct GlobalPool<T> {
    local: Linear<T>,
    local_norm: Option<BatchNorm<T>>,
    global: Linear<T>,
    global_norm: Option<BatchNorm<T>>,
    common: Linear<T>,
    dropout: Dropout,
}

impl<T> GlobalPool<T> {
    /// `positions`: the number of tokens, for which the image side has a batch norm a position; None for the text side.
    fn new(width: usize, positions: Option<usize>, path: &ParamPath<T>) -> Result<Self> {
        let [local, global] = ["embedding_local", "embedding_global"].map(|name| path.sub(name));
        Ok(Self {
            local: Linear::with_xavier_init(width, width, &local.sub(0))?,
            local_norm: positions.map(|positions| BatchNorm::new(positions, &local.sub(1))).transpose()?,
            global: Linear::with_xavier_init(width, width, &global.sub(0))?,
            global_norm: positions.map(|_| BatchNorm::new(width, &global.sub(1))).transpose()?,
            common: Linear::with_xavier_init(width, 1, &path.sub("embedding_common.0"))?,
            dropout: Dropout::of_head(DROPOUT, path),
        })
    }
}

impl<T: Tensor> GlobalPool<T> {
    /// `(items, count, width)` and their mean `(items, width)` to `(items, width)`; `mask` `(items, count)` says which
    /// count.
    fn forward(&self, values: &T, mean: &T, mask: Option<&T>) -> Result<T> {
        let [items, count, width] = values.sizes()?;
        let mut local = self.local.forward(values)?;
        if let Some(norm) = &self.local_norm {
            local = norm.forward(&local, &[1.into(), count, 1.into()], None)?;
        }
        let mut global = self.global.forward(mean)?;
        if let Some(norm) = &self.global_norm {
            global = norm.forward(&global, &[1.into(), width], None)?;
        }
        let [local, global] = [local, global].map(|values| self.dropout.forward(&values.tanh()?));
        let global = global?.reshape(&[items, 1.into(), width])?;
        let mut scores = self.common.forward(&local?.mul(&global)?)?.reshape(&[items, count])?;
        if let Some(mask) = mask {
            scores = scores.add(&mask.affine(MASK_LOGIT, -MASK_LOGIT)?)?;
        }
        let weights = scores.softmax()?.reshape(&[items, 1.into(), count])?;
        soft_normalize(&weights.matmul(values)?.reshape(&[items, width])?)
    }
}

/// One reasoning step over the nodes.
struct ReasoningStep<T> {
    query: Linear<T>,
    key: Linear<T>,
    graph: Linear<T>,
}

/// The head.
pub struct Sgr<T> {
    image_pool: GlobalPool<T>,
    text_pool: GlobalPool<T>,
    local: Linear<T>,
    global: Linear<T>,
    steps: Vec<ReasoningStep<T>>,
    output: Linear<T>,
    sim_dim: usize,
}

impl<T> Sgr<T> {
    pub(super) fn new(sizes: &HeadSizes, sim_dim: usize, steps: usize, path: &ParamPath<T>) -> Result<Self> {
        let path = path.sub("sim_enc");
        let width = sizes.width;
        let linear = |name: &str, input, output| Linear::with_xavier_init(input, output, &path.sub(name));
        let step = |index: usize| {
            let path = path.sub("SGR_module").sub(index);
            let linear = |name: &str| Linear::with_xavier_init(sim_dim, sim_dim, &path.sub(name));
            Ok(ReasoningStep {
                query: linear("graph_query_w")?,
                key: linear("graph_key_w")?,
                graph: linear("sim_graph_w")?,
            })
        };
        Ok(Self {
            image_pool: GlobalPool::new(width, Some(sizes.tokens), &path.sub("v_global_w"))?,
            text_pool: GlobalPool::new(width, None, &path.sub("t_global_w"))?,
            local: linear("sim_tranloc_w", width, sim_dim)?,
            global: linear("sim_tranglo_w", width, sim_dim)?,
            steps: (0..steps).map(step).collect::<Result<_>>()?,
            output: linear("sim_eval_w", sim_dim, 1)?,
            sim_dim,
        })
    }
}

impl<T: Tensor> Sgr<T> {
    /// Normalised tokens and the pooled vector of each image.
    pub(super) fn image_features(&self, tokens: &T) -> Result<ItemFeatures<T>> {
        let tokens = soft_normalize(tokens)?;
        let [images, _, width] = tokens.sizes()?;
        let pooled = self.image_pool.forward(&tokens, &tokens.mean(1)?.reshape(&[images, width])?, None)?;
        Ok(ItemFeatures { features: tokens, pooled: Some(pooled) })
    }

    /// Normalised words and the pooled vector of each caption.
    pub(super) fn caption_features(&self, words: &T, mask: &T) -> Result<ItemFeatures<T>> {
        let words = soft_normalize(words)?;
        let pooled = self.text_pool.forward(&words, &mean_word(&words, mask)?, Some(mask))?;
        Ok(ItemFeatures { features: words, pooled: Some(pooled) })
    }

    /// Similarities `(images, captions)`.
    pub(super) fn compare(&self, images: &ItemFeatures<T>, captions: &ItemFeatures<T>, mask: &T) -> Result<T> {
        let (Some(image), Some(caption)) = (&images.pooled, &captions.pooled) else {
            let (expected, found) = ("a pooled vector of each item".to_owned(), "none".to_owned());
            return Err(Error::Operation { operation: "sgr", expected, found });
        };
        let (tokens, words) = (&images.features, &captions.features);
        let [images, _, width] = tokens.sizes()?;
        let [captions, ..] = words.sizes::<3>()?;
        let one: Dim = 1.into();
        let global = difference(&image.reshape(&[images, one, width])?, &caption.reshape(&[one, captions, width])?)?;
        let global = soft_normalize(&self.global.forward(&global)?)?;
        let weights = attention::words_to_tokens(&cosines(tokens, words)?, mask)?;
        let context = soft_normalize(&attention::attend(&weights, tokens)?)?;
        let local = difference(&context, words)?;
        let local = soft_normalize(&self.local.forward(&local)?)?;

        // The global node is the first.
        let size: Dim = self.sim_dim.into();
        let mut nodes = T::concat(&[&global.reshape(&[images, captions, one, size])?, &local], 2)?;
        let first = mask.narrow(1, 0, 1)?.affine(0.0, 1.0)?;
        let present = T::concat(&[&first, mask], 1)?;
        let [_, count] = present.sizes()?;
        let absent = present.affine(MASK_LOGIT, -MASK_LOGIT)?.reshape(&[captions, one, count])?;
        for step in &self.steps {
            let keys = step.key.forward(&nodes)?.permute(&[0, 1, 3, 2])?;
            let edges = step.query.forward(&nodes)?.matmul(&keys)?.add(&absent)?.softmax()?;
            nodes = step.graph.forward(&edges.matmul(&nodes)?)?.leaky_relu(0.0)?;
        }
        let first = nodes.narrow(2, 0, 1)?.reshape(&[images, captions, size])?;
        self.output.forward(&first)?.sigmoid()?.reshape(&[images, captions])
    }
}

/// Squared differences in each dimension.
fn difference<T: Tensor>(a: &T, b: &T) -> Result<T> {
    let difference = a.sub(b)?;
    difference.mul(&difference)
}
