//! Heads: how patch and word embeddings become a similarity.
//!
//! Each head is defined once, for every tensor, as its public code computes it. `forward` takes the embeddings of all tokens
//! of an image (class token first, if there is one) and of all words of a caption (`[CLS]` and `[SEP]` included) and returns
//! the similarities `(images, captions)`. LAPS's own head is an [`Alignment`].
//!
//! | head | source | one vector an item |
//! |---|---|---|
//! | `laps`, `laps_ablation` | LAPS (CrossmodalGroup/LAPS) | no |
//! | `cosine` | CLIP (openai/CLIP) | yes |
//! | `vsepp` | VSE++ (fartashf/vsepp); GPO (woodfrog/vse_infty) | yes |
//! | `scan_t2i`, `scan_i2t`, `scan_all` | SCAN (kuanghuei/SCAN), as LAPS's code has it | no |
//! | `max_mean` | LAPS's plain alignment | no |
//! | `sgr` | SGRAF (Paranioar/SGRAF) | no |
//! | `chan` | CHAN (ppanzx/CHAN) | no |
//! | `d2s_vse` | D2S-VSE (liuyyy111/d2s-vse) | yes |

mod ablation;
mod attention;
mod chan;
mod config;
mod cosine;
mod d2s_vse;
mod deserialize;
mod gpo;
mod max_mean;
mod scan;
mod sgr;
mod vsepp;

pub use attention::WORD_TEMPERATURE;
pub use chan::LSE_TEMPERATURE;
pub use config::{Ablation, ChanAggregation, D2sVseConfig, HeadConfig, HeadSizes, Pooling};
pub use scan::TOKEN_TEMPERATURE;

use crate::{
    Error, Result,
    models::{
        alignment::{Alignment, LEAKY_SLOPE, NORM_EPS, PairSimilarity},
        config::ModelConfig,
    },
    params::{self, ParamPath, Parameter},
    tensor::{MASK_LOGIT, Tensor},
};

/// Added to a norm where the originals divide by `norm + eps`.
pub const SOFT_NORM_EPS: f64 = 1e-8;

/// A head over tensors of type `T`.
pub enum Head<T> {
    /// Patches, selected and aggregated for each caption.
    Laps(Box<Alignment<T>>),
    /// LAPS's with one part changed.
    LapsAblation(Box<ablation::AblatedAlignment<T>>),
    /// Cosine of CLIP's projected class and end tokens.
    Cosine(Box<cosine::Cosine<T>>),
    /// Cosine of pooled vectors.
    Vsepp(vsepp::Vsepp<T>),
    /// Stacked cross attention.
    Scan(scan::ScanDirection),
    /// Maxima over tokens and words, averaged.
    MaxMean,
    /// Similarity graph reasoning.
    Sgr(Box<sgr::Sgr<T>>),
    /// Hard assignment of words to tokens.
    Chan(ChanAggregation),
    /// Pooled vectors with a prompt on the text side.
    D2sVse(Box<d2s_vse::D2sVse<T>>),
}

impl<T> Head<T> {
    /// The head of a model, with parameters below `path`, which is the root of the checkpoint.
    ///
    /// # Errors
    /// A parameter that cannot be loaded.
    pub fn of(model: &ModelConfig, path: &ParamPath<T>) -> Result<Self> {
        match model.head {
            HeadConfig::Laps => Ok(Self::Laps(Box::new(Alignment::new(model, &path.sub("cross_net"))?))),
            HeadConfig::LapsAblation { ablation } => {
                let selection = PairSimilarity {
                    patches: model.image.num_patches(),
                    kept: model.kept(),
                    has_class_token: model.image.has_class_token(),
                };
                Self::ablation(ablation, selection, model.groups(), model.embed_size, path)
            }
            _ => Self::new(&model.head, &HeadSizes::of(model), path),
        }
    }

    /// An ablation of LAPS on embeddings of `width`, which aggregates the kept patches into `groups`, with parameters below
    /// `path`, which is the root of the checkpoint.
    ///
    /// # Errors
    /// A parameter that cannot be loaded.
    pub fn ablation(
        ablation: Ablation,
        selection: PairSimilarity,
        groups: usize,
        width: usize,
        path: &ParamPath<T>,
    ) -> Result<Self> {
        let head = ablation::AblatedAlignment::new(ablation, selection, groups, width, &path.sub("cross_net"))?;
        Ok(Self::LapsAblation(Box::new(head)))
    }

    /// A head other than LAPS's and its ablations, with parameters below `path`, which is the root of the checkpoint.
    ///
    /// # Errors
    /// The heads `laps` and `laps_ablation`, whose sizes only a model has, and a parameter that cannot be loaded.
    pub fn new(config: &HeadConfig, sizes: &HeadSizes, path: &ParamPath<T>) -> Result<Self> {
        Ok(match *config {
            HeadConfig::Laps | HeadConfig::LapsAblation { .. } => {
                return Err(Error::Config {
                    key: "head".to_owned(),
                    expected: "a head that needs no ratios".to_owned(),
                    found: config.to_string(),
                    hint: None,
                });
            }
            HeadConfig::Cosine { embed_size } => Self::Cosine(Box::new(cosine::Cosine::new(embed_size, sizes, path)?)),
            HeadConfig::Vsepp { pooling } => Self::Vsepp(vsepp::Vsepp::new(pooling, sizes.has_class_token, path)?),
            HeadConfig::ScanT2i => Self::Scan(scan::ScanDirection::TextToImage),
            HeadConfig::ScanI2t => Self::Scan(scan::ScanDirection::ImageToText),
            HeadConfig::ScanAll => Self::Scan(scan::ScanDirection::Both),
            HeadConfig::MaxMean => Self::MaxMean,
            HeadConfig::Sgr { sim_dim, steps } => Self::Sgr(Box::new(sgr::Sgr::new(sizes, sim_dim, steps, path)?)),
            HeadConfig::Chan { aggregation } => Self::Chan(aggregation),
            HeadConfig::D2sVse(config) => Self::D2sVse(Box::new(d2s_vse::D2sVse::new(&config, sizes, path)?)),
        })
    }
}

/// Features that a head computes from each image or each caption alone. The items are the first axis.
pub struct ItemFeatures<T> {
    /// Tokens or words `(items, count, width)`, or vectors `(items, size)` of a head that gives each item one.
    pub features: T,
    /// One more vector an item, `(items, width)`, or logits of its patches, for a head that compares them too.
    pub pooled: Option<T>,
}

impl<T> ItemFeatures<T> {
    fn of(features: T) -> Self {
        Self { features, pooled: None }
    }

    /// All tensors of the items.
    pub fn tensors(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.features).chain(&self.pooled)
    }

    /// Applies `f` to each tensor.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<U, E>(&self, mut f: impl FnMut(&T) -> Result<U, E>) -> Result<ItemFeatures<U>, E> {
        Ok(ItemFeatures { features: f(&self.features)?, pooled: self.pooled.as_ref().map(f).transpose()? })
    }
}

impl<T: Tensor> Head<T> {
    /// Token embeddings `(images, tokens, width)`, word embeddings `(captions, words, width)` and their mask
    /// `(captions, words)`, 1 where there is a word, to similarities `(images, captions)`.
    ///
    /// # Errors
    /// Shapes that do not fit the head.
    pub fn forward(&self, tokens: &T, words: &T, mask: &T) -> Result<T> {
        self.compare(&self.image_features(tokens)?, &self.caption_features(words, mask, None)?, mask)
    }

    /// The features of images alone, from token embeddings `(images, tokens, width)`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn image_features(&self, tokens: &T) -> Result<ItemFeatures<T>> {
        match self {
            Self::LapsAblation(head) => head.image_features(tokens),
            Self::Sgr(head) => head.image_features(tokens),
            _ => Ok(ItemFeatures::of(self.image_vectors(tokens).unwrap_or(Ok(tokens.clone()))?)),
        }
    }

    /// The features of captions alone, from word embeddings `(captions, words, width)` and their mask. `visible`
    /// `(captions, words)` is 0 at positions that affect nothing. With None all positions affect `d2s_vse`, as in the released
    /// code, and only words affect the other heads.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn caption_features(&self, words: &T, mask: &T, visible: Option<&T>) -> Result<ItemFeatures<T>> {
        match self {
            Self::Sgr(head) => head.caption_features(words, mask),
            Self::D2sVse(head) => Ok(ItemFeatures::of(head.pool_words(words, mask, visible)?)),
            _ => Ok(ItemFeatures::of(self.caption_vectors(words, mask).unwrap_or(Ok(words.clone()))?)),
        }
    }

    /// Similarities `(images, captions)` of the results of [`image_features`](Self::image_features) and
    /// [`caption_features`](Self::caption_features).
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn compare(&self, images: &ItemFeatures<T>, captions: &ItemFeatures<T>, mask: &T) -> Result<T> {
        let (tokens, words) = (&images.features, &captions.features);
        match self {
            Self::Laps(alignment) => alignment.forward(tokens, words, mask),
            Self::LapsAblation(head) => head.compare(images, words, mask),
            Self::Cosine(_) | Self::Vsepp(_) | Self::D2sVse(_) => inner_products(tokens, words),
            Self::Scan(head) => head.forward(tokens, words, mask),
            Self::MaxMean => max_mean::forward(tokens, words, mask),
            Self::Sgr(head) => head.compare(images, captions, mask),
            Self::Chan(aggregation) => chan::forward(*aggregation, tokens, words, mask),
        }
    }

    /// Whether the head gives each image and each caption one vector.
    pub fn pools(&self) -> bool {
        matches!(self, Self::Cosine(_) | Self::Vsepp(_) | Self::D2sVse(_))
    }

    /// The vectors `(images, size)` of a head that gives each image one; None for a head that compares tokens.
    ///
    /// Similarities are the inner products of these vectors with those of
    /// [`caption_vectors`](Self::caption_vectors), so each item is pooled only once.
    pub fn image_vectors(&self, tokens: &T) -> Option<Result<T>> {
        match self {
            Self::Cosine(head) => Some(head.pool_tokens(tokens)),
            Self::Vsepp(head) => Some(head.pool_tokens(tokens)),
            Self::D2sVse(head) => Some(head.pool_tokens(tokens)),
            _ => None,
        }
    }

    /// The vectors `(captions, size)` of a head that gives each caption one; None for a head that compares words.
    pub fn caption_vectors(&self, words: &T, mask: &T) -> Option<Result<T>> {
        match self {
            Self::Cosine(head) => Some(head.pool_words(words, mask)),
            Self::Vsepp(head) => Some(head.pool_words(words, mask)),
            Self::D2sVse(head) => Some(head.pool_words(words, mask, None)),
            _ => None,
        }
    }
}

/// Name and shape of every parameter of a head other than LAPS's.
///
/// # Errors
/// Sizes that the head cannot have.
pub fn parameters(config: &HeadConfig, sizes: &HeadSizes) -> Result<Vec<Parameter>> {
    params::list(|path| Head::new(config, sizes, path))
}

/// `x / (|x| + eps)` over the last axis.
fn soft_normalize<T: Tensor>(x: &T) -> Result<T> {
    let last = x.shape().len().saturating_sub(1);
    let norm = x.mul(x)?.sum(last)?.sqrt()?;
    x.div(&norm.affine(1.0, SOFT_NORM_EPS)?)
}

/// Cosines `(images, captions, words, tokens)` of `(images, tokens, width)` and `(captions, words, width)`, which are
/// normalised.
fn cosines<T: Tensor>(tokens: &T, words: &T) -> Result<T> {
    words.matmul_each(&tokens.permute(&[0, 2, 1])?)
}

/// Mean of `(images, captions, words, 1)` over the words of each caption, `(images, captions)`.
fn mean_over_words<T: Tensor>(values: &T, mask: &T) -> Result<T> {
    let [images, captions, length, _] = values.sizes()?;
    let sums = values.reshape(&[images, captions, length])?.mul(mask)?.sum(2)?.reshape(&[images, captions])?;
    sums.div(&mask.sum(1)?.reshape(&[captions])?)
}

/// Mean word `(captions, width)` of `(captions, words, width)` over the true lengths.
fn mean_word<T: Tensor>(words: &T, mask: &T) -> Result<T> {
    let [captions, length, width] = words.sizes()?;
    let sums = words.mul(&mask.reshape(&[captions, length, 1.into()])?)?.sum(1)?.reshape(&[captions, width])?;
    sums.div(&mask.sum(1)?)
}

/// Inner products `(images, captions)` of `(images, size)` and `(captions, size)`.
///
/// # Errors
/// Vectors of different sizes.
pub fn inner_products<T: Tensor>(images: &T, captions: &T) -> Result<T> {
    images.matmul(&captions.permute(&[1, 0])?)
}
