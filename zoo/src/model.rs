//! A model that is ready to be used.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, HeadEngine, SimdLevel, SimilarityEngine,
};
use laps_data::{
    LongCaptions, Tokenizer, Vocabulary,
    image::{self, Preprocessing, RgbImage},
};
use laps_hub::registry::{self, Entry};
use laps_model::{
    array::Array,
    encoder::{Device, Encoder},
    heads::{HeadConfig, HeadSizes},
    params::Parameter,
};
use laps_onnx::{package::Package, runtime::SessionOptions};
use laps_search::{
    DEFAULT_CANDIDATES, EmbeddingPipeline, Exclusions, ImageFolder, IndexDescription, IndexKind, IndexPrecision,
    IndexSummary, ModelUsed, SearchError, SearchScope, Searcher, Store, index_images,
};

use crate::{
    BackendRequest, Backends, EngineChoice, EngineUsed, Error, Result, Workload, find_vocabulary, open_checkpoint,
};

/// Images or captions that are encoded together, unless the builder says otherwise.
const BATCH_SIZE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// The model to open, and its engine. [`Model::builder`] makes one.
#[derive(Clone, Debug)]
pub struct ModelBuilder {
    entry: Option<String>,
    checkpoint: Option<PathBuf>,
    graphs: Option<PathBuf>,
    vocabulary: Option<PathBuf>,
    engine: EngineChoice,
    device: Device,
    session: Option<SessionOptions>,
    threads: usize,
    batch_size: NonZeroUsize,
    workload: Workload,
    backends: Backends,
    long_captions: LongCaptions,
    stop: Arc<AtomicBool>,
}

/// A model: encoders, tokenizer and the exact similarity engine of its head, LAPS's or another one.
///
/// ```
/// # fn main() -> laps::Result<()> {
/// let model = laps::Model::builder("shapes_vit").open()?;
/// let words = model.embed_captions(&["a red circle above a blue square"])?;
/// // A token for each word, `[CLS]` and `[SEP]`, in the joint space.
/// assert_eq!(words[0].dims()[1], model.sizes().width);
/// # Ok(())
/// # }
/// ```
pub struct Model {
    used: ModelUsed,
    engine: EngineUsed,
    notes: Vec<String>,
    similarity: HeadSimilarity,
    sizes: HeadSizes,
    preprocessing: Preprocessing,
    encoder: Box<dyn Encoder>,
    tokenizer: Tokenizer,
    max_tokens: usize,
    batch_size: NonZeroUsize,
    threads: usize,
    stop: Arc<AtomicBool>,
}

/// An image to encode.
#[derive(Clone, Debug)]
pub enum Image {
    /// An image file.
    File(PathBuf),
    /// The bytes of an image file.
    Bytes(Vec<u8>),
    /// Decoded pixels.
    Pixels(RgbImage),
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Image {
    fn from(path: &P) -> Self {
        Self::File(path.as_ref().to_owned())
    }
}

impl From<PathBuf> for Image {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<RgbImage> for Image {
    fn from(pixels: RgbImage) -> Self {
        Self::Pixels(pixels)
    }
}

/// The similarity engine of a head.
pub(crate) enum HeadSimilarity {
    /// LAPS's.
    Laps(Box<Engine>),
    /// Another one.
    Head(Box<HeadEngine>),
}

/// Components of a model, from an entry and its checkpoint or from a folder of graphs.
struct ModelComponents {
    used: ModelUsed,
    encoder: Box<dyn Encoder>,
    engine: EngineUsed,
    notes: Vec<String>,
    similarity: HeadSimilarity,
    sizes: HeadSizes,
    preprocessing: Preprocessing,
    vocabulary: Vocabulary,
    vocab_size: usize,
    max_tokens: usize,
}

impl ModelBuilder {
    fn new(entry: Option<String>) -> Self {
        Self {
            entry,
            checkpoint: None,
            graphs: None,
            vocabulary: None,
            engine: EngineChoice::Auto,
            device: Device::Auto,
            session: None,
            threads: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            batch_size: BATCH_SIZE,
            workload: Workload::Few,
            backends: Backends::default(),
            long_captions: LongCaptions::default(),
            stop: Arc::default(),
        }
    }

    /// The checkpoint, `.safetensors` or `.pth`. Default: the embedded one of the entry.
    pub fn checkpoint(mut self, path: impl Into<PathBuf>) -> Self {
        self.checkpoint = Some(path.into());
        self
    }

    /// A folder of exported graphs, which ONNX Runtime runs.
    pub fn graphs(mut self, folder: impl Into<PathBuf>) -> Self {
        self.graphs = Some(folder.into());
        self
    }

    /// The WordPiece vocabulary. Default: that of the graphs, of the entry or in the cache.
    pub fn vocabulary(mut self, path: impl Into<PathBuf>) -> Self {
        self.vocabulary = Some(path.into());
        self
    }

    /// The engine. Default: `auto`.
    pub fn engine(mut self, engine: EngineChoice) -> Self {
        self.engine = engine;
        self
    }

    /// The device. Default: `auto`.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Options of ONNX Runtime sessions, which select it.
    pub fn session(mut self, options: SessionOptions) -> Self {
        self.session = Some(options);
        self
    }

    /// Number of threads. Default: one per CPU.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Images or captions that are encoded together. Default: 16.
    pub fn batch_size(mut self, batch_size: NonZeroUsize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Amount of work, by which the engine `auto` chooses. Default: few items.
    pub fn workload(mut self, workload: Workload) -> Self {
        self.workload = workload;
        self
    }

    /// Backends besides the pure-Rust tensor and ONNX Runtime. Default: none.
    pub fn backends(mut self, backends: Backends) -> Self {
        self.backends = backends;
        self
    }

    /// Treatment of captions that are longer than the text encoder has positions. Default: they are an error.
    pub fn long_captions(mut self, long_captions: LongCaptions) -> Self {
        self.long_captions = long_captions;
        self
    }

    /// A flag that ends the work with an error once it is set. Default: one that is never set.
    pub fn stop(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// Opens the model. Invalid requests fail before anything large is read.
    ///
    /// # Errors
    /// An unknown entry, a checkpoint that does not fit it, a missing vocabulary, an engine or a device that is not there.
    pub fn open(self) -> Result<Model> {
        let ModelComponents {
            used,
            encoder,
            engine,
            notes,
            similarity,
            sizes,
            preprocessing,
            vocabulary,
            vocab_size,
            max_tokens,
        } = match &self.entry {
            Some(name) => self.entry_parts(registry::find(name)?)?,
            None => self.graph_parts()?,
        };
        let tokenizer = Tokenizer::new(&vocabulary)?.with_long_captions(self.long_captions);
        tokenizer.check_fits(vocab_size)?;
        Ok(Model {
            used,
            similarity,
            sizes,
            engine,
            notes,
            preprocessing,
            encoder,
            tokenizer,
            max_tokens,
            batch_size: self.batch_size,
            threads: self.threads,
            stop: self.stop,
        })
    }

    fn request(&self) -> BackendRequest {
        BackendRequest {
            engine: self.engine,
            device: self.device,
            threads: self.threads,
            graphs: self.graphs.clone(),
            session: self.session.clone(),
            workload: self.workload,
        }
    }

    fn engine_options(&self) -> EngineOptions {
        EngineOptions { threads: self.threads, ..EngineOptions::default() }
    }

    fn entry_parts(&self, entry: Entry) -> Result<ModelComponents> {
        let backend = self.request().select(self.backends)?.backend;
        backend.check()?;
        let missing = || Error::NoVocabulary { entry: entry.name.clone() };
        let vocabulary = find_vocabulary(&entry, self.vocabulary.as_deref(), None)?.ok_or_else(missing)?;
        let (checkpoint, _) = open_checkpoint(&entry, self.checkpoint.as_deref())?;
        let checkpoint_sha256 = checkpoint.sha256()?;
        let checkpoint = Rc::new(checkpoint);
        let options = self.engine_options();
        let similarity = if entry.model.head.is_laps() {
            let weights = AggregationWeights::load(|name| Ok(checkpoint.read(name)?))?;
            HeadSimilarity::Laps(Box::new(Engine::new(AlignmentConfig::of(&entry.model), &weights, options)?))
        } else {
            let read = |parameter: &Parameter| Ok(checkpoint.read(&parameter.name)?);
            HeadSimilarity::Head(Box::new(HeadEngine::new(&entry.model, read, options)?))
        };
        let (encoder, engine) = backend.encoder(&entry, &checkpoint, &checkpoint_sha256)?;
        Ok(ModelComponents {
            used: model_used(entry.name, entry.model.head, entry.config_sha256, checkpoint_sha256, &engine),
            encoder,
            engine,
            notes: backend.notes(),
            similarity,
            sizes: HeadSizes::of(&entry.model).encoded(&entry.model.head),
            preprocessing: Preprocessing::of(&entry.model.image),
            vocabulary,
            vocab_size: entry.model.text.vocab_size,
            max_tokens: entry.model.text.max_position_embeddings,
        })
    }

    fn graph_parts(&self) -> Result<ModelComponents> {
        let (Some(folder), Some(onnx)) = (&self.graphs, self.request().select(self.backends)?.onnx) else {
            return Err(Error::Engine {
                engine: "ort".to_owned(),
                reason: "neither an entry nor a folder of graphs is given".to_owned(),
                hint: "give one of them".to_owned(),
            });
        };
        let package = Package::open(folder)?;
        let head = package.manifest.head;
        let (similarity, sizes) = if head.is_laps() {
            let (config, weights) = package.alignment()?;
            let AlignmentConfig { has_class_token, width, .. } = config;
            let sizes = HeadSizes { tokens: config.tokens(), has_class_token, width, word_width: width };
            (HeadSimilarity::Laps(Box::new(Engine::new(config, &weights, self.engine_options())?)), sizes)
        } else {
            let (sizes, read) = package.head()?;
            let (sizes, options) = (sizes.encoded(&head), self.engine_options());
            let engine = match head {
                HeadConfig::LapsAblation { ablation } => {
                    let alignment = package.ablated_alignment()?;
                    HeadEngine::of_ablation(ablation, alignment, read, options, SimdLevel::detect())?
                }
                _ => HeadEngine::with_sizes(head, sizes, read, options, SimdLevel::detect())?,
            };
            (HeadSimilarity::Head(Box::new(engine)), sizes)
        };
        let vocabulary = match self.vocabulary.clone().or_else(|| package.vocabulary()) {
            Some(path) => Vocabulary::read(&path)?,
            None => return Err(Error::NoVocabulary { entry: folder.display().to_string() }),
        };
        let (encoder, engine) = onnx.open_package(&package)?;
        let manifest = package.manifest;
        Ok(ModelComponents {
            used: model_used(manifest.entry, head, manifest.config_sha256, manifest.checkpoint_sha256, &engine),
            encoder,
            engine,
            notes: Vec::new(),
            similarity,
            sizes,
            preprocessing: manifest.image,
            vocabulary,
            vocab_size: manifest.text.vocabulary,
            max_tokens: manifest.text.longest,
        })
    }
}

fn model_used(
    entry: String,
    head: HeadConfig,
    config_sha256: String,
    checkpoint_sha256: String,
    engine: &EngineUsed,
) -> ModelUsed {
    let engine = match &engine.graphs {
        Some(graphs) => format!("{}: {graphs}", engine.name),
        None => engine.name.to_string(),
    };
    ModelUsed { entry, head, config_sha256, checkpoint_sha256, engine }
}

impl Model {
    /// A builder for a built-in entry by name, or for the entry file at a path.
    pub fn builder(entry: impl Into<String>) -> ModelBuilder {
        ModelBuilder::new(Some(entry.into()))
    }

    /// A builder for a folder of exported graphs, which names entry, checkpoint and vocabulary itself.
    pub fn from_graphs(folder: impl Into<PathBuf>) -> ModelBuilder {
        ModelBuilder::new(None).graphs(folder)
    }

    /// Entry, checkpoint and engine: what determines the embeddings.
    pub fn used(&self) -> &ModelUsed {
        &self.used
    }

    /// The engine that computes the embeddings.
    pub fn engine(&self) -> &EngineUsed {
        &self.engine
    }

    /// Notes for the user about how the engine was opened.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The engine that computes the similarities.
    pub fn similarity(&self) -> &dyn SimilarityEngine {
        match &self.similarity {
            HeadSimilarity::Laps(engine) => engine.as_ref(),
            HeadSimilarity::Head(engine) => engine.as_ref(),
        }
    }

    /// Sizes of the embeddings of images and captions. A head that pools has one vector of each.
    pub fn sizes(&self) -> &HeadSizes {
        &self.sizes
    }

    pub(crate) fn head_similarity(&self) -> &HeadSimilarity {
        &self.similarity
    }

    /// Preprocessing of images.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Set this to end the work in progress with an error.
    pub fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// How this model encodes many images or captions in bounded memory; `progress` receives the number of encoded items.
    pub fn encoding<'a>(&'a self, progress: &'a dyn Fn(usize)) -> EmbeddingPipeline<'a> {
        EmbeddingPipeline {
            encoder: self.encoder.as_ref(),
            sizes: self.sizes,
            preprocessing: self.preprocessing,
            tokenizer: &self.tokenizer,
            max_tokens: self.max_tokens,
            batch_size: self.batch_size,
            threads: self.threads,
            stop: &self.stop,
            progress,
        }
    }

    /// Patch embeddings of images, `(images, tokens, width)`, the class token first where the model has one. A head that pools
    /// has one vector of each image, `(images, 1, width)`.
    ///
    /// # Errors
    /// An image that cannot be decoded, and an interruption by [`stop`](Self::stop).
    pub fn embed_images<I: Into<Image>>(&self, images: impl IntoIterator<Item = I>) -> Result<Array> {
        let mut values = Vec::new();
        let mut count = 0;
        let images: Vec<Image> = images.into_iter().map(Into::into).collect();
        for batch in images.chunks(self.batch_size.get()) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(SearchError::Interrupted { state: "no embeddings were returned".to_owned() }.into());
            }
            let mut pixels = vec![0.0; batch.len() * self.preprocessing.values()];
            for (image, target) in batch.iter().zip(pixels.chunks_exact_mut(self.preprocessing.values())) {
                self.preprocessing.write(&decode(image)?, target)?;
            }
            let size = self.preprocessing.size;
            let embeddings = self.encoder.encode_images(&Array::new(&[batch.len(), 3, size, size], pixels)?)?;
            values.extend_from_slice(embeddings.values());
            count += batch.len();
        }
        Ok(Array::new(&[count, self.sizes.tokens, self.sizes.width], values)?)
    }

    /// Word embeddings of captions, `(words, width)` of each, `[CLS]` and `[SEP]` included. A head that pools has one vector of
    /// each caption, `(1, width)`.
    ///
    /// # Errors
    /// A caption with more tokens than the text encoder has positions.
    pub fn embed_captions(&self, captions: &[impl AsRef<str>]) -> Result<Vec<Array>> {
        let captions: Vec<String> = captions.iter().map(|caption| caption.as_ref().trim().to_owned()).collect();
        Ok(self.encoding(&|_| ()).encode_captions(&captions)?)
    }

    /// Similarities `(images, captions)` of embeddings from [`embed_images`](Self::embed_images) and
    /// [`embed_captions`](Self::embed_captions). Those of LAPS range from -0.2 to 2.
    ///
    /// # Errors
    /// Embeddings of another model.
    pub fn similarities(&self, images: &Array, captions: &[Array]) -> Result<Array> {
        let captions = CaptionMatrix::from_arrays(captions, self.sizes.width)?;
        Ok(self.similarity().similarities(images, &captions)?)
    }

    /// Writes the index file `index` of the images in `folder`, or updates the one that is there: only new and changed
    /// images are encoded. Images and folders that cannot be read are skipped and named in the summary.
    ///
    /// # Errors
    /// A folder that cannot be read, and a file that is not an index.
    pub fn index_folder(&self, folder: impl AsRef<Path>, index: impl AsRef<Path>) -> Result<IndexSummary> {
        let encoding = self.encoding(&|_| ());
        let (kind, precision) = (IndexKind::Images, IndexPrecision::Half);
        let description =
            IndexDescription::new(kind, self.used.clone(), self.preprocessing, &encoding.sizes, precision);
        let folder = ImageFolder::list(folder.as_ref(), &Exclusions::default())?;
        Ok(index_images(&folder, index.as_ref(), description, &encoding, &|_| ())?)
    }

    /// The `top` images of an index that match a caption best, exactly re-ranked; name and similarity of each.
    ///
    /// # Errors
    /// An index of another model or of captions, and a caption that is too long.
    pub fn search(&self, index: &dyn Store, caption: &str, top: usize) -> Result<Vec<(String, f32)>> {
        index.description().check_kind(index.location(), IndexKind::Images)?;
        index.description().check_model(index.location(), &self.used)?;
        let words = self.embed_captions(&[caption])?;
        let searcher = Searcher { index, filter: None, engine: self.similarity(), stop: &self.stop };
        let hits = searcher.search(&words[0], SearchScope::Candidates(DEFAULT_CANDIDATES), top)?;
        let items: Vec<usize> = hits.iter().map(|hit| hit.item).collect();
        Ok(index.names(&items)?.into_iter().zip(hits).map(|(name, hit)| (name, hit.similarity)).collect())
    }

    /// Similarities of one image with captions, in their order.
    ///
    /// # Errors
    /// An image that cannot be decoded, and a caption that is too long.
    pub fn score(&self, image: impl Into<Image>, captions: &[impl AsRef<str>]) -> Result<Vec<f32>> {
        let images = self.embed_images([image.into()])?;
        Ok(self.similarities(&images, &self.embed_captions(captions)?)?.values().to_vec())
    }
}

fn decode(image: &Image) -> Result<RgbImage> {
    let of_memory = |source| Error::Image { path: "(in memory)".into(), source };
    Ok(match image {
        Image::File(path) => image::read(path).map_err(|source| Error::Image { path: path.clone(), source })?.image,
        Image::Bytes(bytes) => image::decode(bytes).map_err(of_memory)?.image,
        Image::Pixels(pixels) => pixels.clone(),
    })
}
