//! The objective against the plain definition of the alignment.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use tch::{Kind, Tensor as Tch};

use super::{
    HingeLoss, Negatives,
    objective::{BatchEmbeddings, Objective},
};
use crate::{Torch, TorchDevice};
use laps_align::similarity::{AggregationWeights, AlignmentConfig};
use laps_hub::registry;
use laps_model::{
    array::Array,
    encoder::Device,
    heads::{self, ChanAggregation, D2sVseConfig, Head, HeadConfig, HeadSizes, Pooling},
    models::{alignment::Alignment, config::ModelConfig},
    params::{Mode, ParamPath, Parameter, Regularization},
    params_init::init_parameters,
    random::SplitMix64,
    tensor::DeviceTensor,
};

/// f32 sums in another order, relative to the largest gradient of a tensor. The bound of the reference.
const TOLERANCE: f64 = 1e-5;
const PAIRS: usize = 5;

fn model(name: &str) -> ModelConfig {
    ModelConfig { embed_size: 64, ..registry::find(name).unwrap().model }
}

/// The device of the integration tests.
fn device() -> TorchDevice {
    let device = std::env::var("LAPS_ZOO_TEST_DEVICE").map_or(Device::Cpu, |device| device.parse().unwrap());
    TorchDevice::open(device).unwrap()
}

fn random(name: &str, shape: &[i64]) -> Tch {
    let mut random = SplitMix64::named(3, name);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_: i64| random.normal() as f32).collect();
    Tch::from_slice(&values).reshape(shape).to_device(device().device())
}

struct GradientCase {
    model: ModelConfig,
    alignment: Alignment<Torch>,
    parameters: HashMap<String, Array>,
    images: Tch,
    words: Tch,
    lengths: Vec<usize>,
}

impl GradientCase {
    /// Random embeddings whose logits are multiplied by `scale`.
    fn new(name: &str, scale: f32) -> Self {
        let model = model(name);
        let config = AlignmentConfig::of(&model);
        let device = device();
        let parameters = Rc::new(RefCell::new(HashMap::new()));
        let created = Rc::clone(&parameters);
        let path = ParamPath::root(Rc::new(move |parameter: Parameter| {
            let mut array = init_parameters(std::slice::from_ref(&parameter), 5)?.swap_remove(0).1;
            if parameter.name.ends_with("scale") {
                array = Array::new(&[1, 1, 1], vec![scale])?;
            }
            let tensor = Torch::upload(&array, &device);
            created.borrow_mut().insert(parameter.name, array);
            tensor
        }));
        let alignment = Alignment::new(&model, &path.sub("cross_net")).unwrap();
        let lengths = vec![3, 9, 1, 14, 6];
        let images = random("images", &[PAIRS as i64, config.tokens() as i64, 64]).set_requires_grad(true);
        let words = random("words", &[lengths.iter().sum::<usize>() as i64, 64]).set_requires_grad(true);
        let parameters = parameters.take();
        Self { model, alignment, parameters, images, words, lengths }
    }

    /// Embeddings for the libtorch implementation.
    fn for_libtorch(&self) -> BatchEmbeddings {
        let config = AlignmentConfig::of(&self.model);
        let patches = self.images.narrow(1, i64::from(config.has_class_token), config.patches as i64);
        let logits = self.alignment.logits(&Torch::new(patches)).unwrap().0.shallow_clone();
        let (images, words) = (self.images.shallow_clone(), self.words.shallow_clone());
        BatchEmbeddings { images, words, lengths: self.lengths.clone(), logits: Some(logits), aggregation: None }
    }

    /// Embeddings for the CPU engine.
    fn for_engine(&self) -> BatchEmbeddings {
        let aggregation = AggregationWeights::load(|name| Ok(self.parameters[name].clone())).unwrap();
        BatchEmbeddings { aggregation: Some(aggregation), ..self.for_libtorch() }
    }

    /// Recorded similarities by the plain definition.
    fn plain_similarities(&self) -> Tch {
        let longest = *self.lengths.iter().max().unwrap() as i64;
        let mut start = 0;
        let mut rows = Vec::new();
        let mut mask = Vec::new();
        for &length in &self.lengths {
            let words = self.words.narrow(0, start, length as i64);
            rows.push(words.constant_pad_nd([0, 0, 0, longest - length as i64]));
            mask.extend((0..longest).map(|word| f32::from(word < length as i64)));
            start += length as i64;
        }
        let mask = Tch::from_slice(&mask).reshape([PAIRS as i64, longest]).to_device(device().device());
        let images = Torch::new(self.images.shallow_clone());
        let found = self.alignment.forward(&images, &Torch::new(Tch::stack(&rows, 0)), &Torch::new(mask)).unwrap();
        found.0.shallow_clone()
    }

    /// Returns the gradients and resets them to 0.
    fn take_gradients(&self) -> [Tch; 2] {
        [&self.images, &self.words].map(|leaf| {
            let mut gradient = leaf.grad();
            let taken = gradient.copy();
            let _ = gradient.zero_();
            taken
        })
    }
}

fn assert_close(found: &[Tch; 2], expected: &[Tch; 2], what: &str) {
    for (name, (found, expected)) in ["images", "words"].into_iter().zip(found.iter().zip(expected)) {
        let largest = expected.abs().max().double_value(&[]);
        let drift = (found - expected).abs().max().double_value(&[]) / largest;
        println!("{what}, {name}: {drift:e} of {largest}");
        assert!(largest > 0.0 && drift <= TOLERANCE, "{what}, {name}: {drift:e} of {largest}");
    }
}

fn hinge(negatives: Negatives) -> HingeLoss {
    HingeLoss { margin: 0.2, negatives, weight: 0.7 }
}

const IDS: [u64; PAIRS] = [0, 1, 2, 1, 4];

/// Includes the gradients through the aggregation network, since the logits are recorded.
#[test]
fn gradients_match_the_plain_definition() {
    // At the last scale, exponentials underflow for some captions and not for others: the vector fallback.
    for (name, scale) in [("f30k_vit", 1.0), ("f30k_swin", 1.0), ("f30k_vit", 20.0), ("f30k_swin", 2000.0)] {
        for negatives in [Negatives::All, Negatives::Hardest] {
            let case = GradientCase::new(name, scale);
            let plain = case.plain_similarities();
            let (loss, factors) = hinge(negatives).differentiate(&plain, &IDS).unwrap();
            (&plain * factors).sum(Kind::Float).backward();
            let expected = case.take_gradients();

            let mut objective = Objective::new(AlignmentConfig::of(&case.model), case.model.sparse_ratio, 0.0);
            for (name_of_path, embeddings) in [("libtorch", case.for_libtorch()), ("engine", case.for_engine())] {
                let found = objective.differentiate(&embeddings, &IDS, 0..PAIRS, &hinge(negatives)).unwrap();
                assert!((found.loss / loss - 1.0).abs() < 1e-5, "{name_of_path}: {} and {loss}", found.loss);
                found.gradient.unwrap().propagate(&embeddings, 1.0).unwrap();
                let what = format!("{name_of_path}, {name}, scale {scale}, {negatives:?}");
                assert_close(&case.take_gradients(), &expected, &what);
            }
        }
    }
}

/// As in two processes of a distributed batch, each with its own rows.
#[test]
fn gradients_of_local_rows_sum_to_the_whole_gradient() {
    let case = GradientCase::new("f30k_vit", 1.0);
    let mut objective = Objective::new(AlignmentConfig::of(&case.model), case.model.sparse_ratio, 0.0);
    for prepare in [GradientCase::for_libtorch, GradientCase::for_engine] {
        let mut gradients = |local| {
            let embeddings = prepare(&case);
            let found = objective.differentiate(&embeddings, &IDS, local, &hinge(Negatives::All)).unwrap();
            found.gradient.unwrap().propagate(&embeddings, 1.0).unwrap();
            case.take_gradients()
        };
        let whole = gradients(0..PAIRS);
        let (first, second) = (gradients(0..2), gradients(2..PAIRS));
        assert_eq!(first[0].narrow(0, 2, 3).abs().max().double_value(&[]), 0.0);
        assert_eq!(second[1].narrow(0, 0, 12).abs().max().double_value(&[]), 0.0);
        assert_close(&[&first[0] + &second[0], &first[1] + &second[1]], &whole, "both");
    }
}

#[test]
fn gradients_do_not_depend_on_the_chunk_memory() {
    let case = GradientCase::new("f30k_vit", 1.0);
    let mut objective = Objective::new(AlignmentConfig::of(&case.model), case.model.sparse_ratio, 0.0);
    let mut gradients = |memory| {
        objective.memory = memory;
        let embeddings = case.for_libtorch();
        let found = objective.differentiate(&embeddings, &IDS, 0..PAIRS, &hinge(Negatives::All)).unwrap();
        found.gradient.unwrap().propagate(&embeddings, 1.0).unwrap();
        case.take_gradients()
    };
    // A pair takes about 0.4 MB: all pairs in one chunk, several a chunk, and one a chunk.
    let whole = gradients(1 << 30);
    for memory in [3 << 20, 1] {
        assert_close(&gradients(memory), &whole, &format!("{memory} bytes"));
    }
}

#[test]
fn non_finite_loss_has_no_gradient() {
    let case = GradientCase::new("f30k_swin", 1.0);
    let mut objective = Objective::new(AlignmentConfig::of(&case.model), case.model.sparse_ratio, 0.0);
    for embeddings in [case.for_libtorch(), case.for_engine()] {
        let broken = BatchEmbeddings { words: embeddings.words.shallow_clone() * f64::NAN, ..embeddings };
        let found = objective.differentiate(&broken, &IDS, 0..PAIRS, &hinge(Negatives::All)).unwrap();
        assert!(!found.loss.is_finite() && found.gradient.is_none() && found.pairs == 0);
    }
}

#[test]
fn mismatched_sizes_are_rejected() {
    let case = GradientCase::new("f30k_swin", 1.0);
    let mut objective = Objective::new(AlignmentConfig::of(&case.model), case.model.sparse_ratio, 0.0);
    let found = objective.differentiate(&case.for_libtorch(), &IDS[1..], 0..PAIRS, &hinge(Negatives::All));
    assert!(found.err().unwrap().to_string().contains("4 image ids"));
}

#[path = "../../../model/tests/support/mod.rs"]
pub(super) mod support;

/// Relative to the largest gradient of a tensor: f32 sums in another order, 1e-6 as measured.
const HEAD_TOLERANCE: f64 = 1e-4;
/// Absolute: noise of the f32 originals in gradients that are 0 or almost 0. Two steps of attention amplify it in `sgr`.
const HEAD_NOISE: f64 = 1e-7;
const SGR_NOISE: f64 = 5e-6;

const SGR: HeadConfig = HeadConfig::Sgr { sim_dim: 40, steps: 3 };
const D2S_VSE: HeadConfig =
    HeadConfig::D2sVse(D2sVseConfig { embed_size: 48, mlp_size: 24, prompt_tokens: 5, blocks: 2, heads: 4 });
const WITHOUT_DROPOUT: Mode = Mode::Training(Regularization { dropout: 0.0, drop_path: 0.0, head_dropout: Some(0.0) });

/// A golden head: its inputs as leaf tensors, and its weights.
struct GoldenHead {
    name: String,
    golden: support::Tensors,
    config: HeadConfig,
    sizes: HeadSizes,
    images: Tch,
    words: Tch,
    ids: Vec<i64>,
    lengths: Vec<usize>,
    weights: BTreeMap<String, Torch>,
}

impl GoldenHead {
    /// The golden tensors at both geometries. Those at ViT's are large, so only the reference data holds them.
    fn both(name: &str, config: HeadConfig) -> Vec<Self> {
        let open = |(geometry, has_class_token): (&str, bool)| {
            let file = format!("head_{name}_{geometry}.safetensors");
            let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/");
            let file = if has_class_token { format!("{shared}{file}") } else { file };
            if !support::golden(&file).exists() {
                println!("skipped: there is no `{file}`");
                return None;
            }
            let golden = support::Tensors::open(&file);
            let upload = |name: &str| Torch::upload(&golden.get(name), &device()).unwrap().0.shallow_clone();
            let [images, words] = ["images", "words"].map(|name| upload(name).set_requires_grad(true));
            let [tokens, width] = [1, 2].map(|axis| images.size()[axis] as usize);
            let sizes = HeadSizes { tokens, has_class_token, width, word_width: width };
            let parameters = heads::parameters(&config, &sizes).unwrap();
            let weight = |parameter: &Parameter| {
                let weight = upload(&parameter.name).set_requires_grad(!parameter.is_running_statistic());
                (parameter.name.clone(), Torch::new(weight))
            };
            let ids = golden.get("img_ids").values().iter().map(|&id| id as i64).collect();
            let lengths = golden.get("lengths").values().iter().map(|&length| length as usize).collect();
            let weights = parameters.iter().map(weight).collect();
            let name = format!("{name} {geometry}");
            Some(Self { name, golden, config, sizes, images, words, ids, lengths, weights })
        };
        [("vit", true), ("swin", false)].into_iter().filter_map(open).collect()
    }

    /// The head as the definition computes it.
    fn definition(&self, mode: Mode) -> Head<Torch> {
        let weights = self.weights.clone();
        let path = ParamPath::root(Rc::new(move |parameter: Parameter| Ok(weights[&parameter.name].clone())));
        Head::new(&self.config, &self.sizes, &path.with_mode(mode)).unwrap()
    }

    fn objective(&self, mode: Mode) -> Objective {
        let config = AlignmentConfig::of(&model("f30k_vit"));
        let parameters = heads::parameters(&self.config, &self.sizes).unwrap();
        let build = |path: &ParamPath<Torch>| Head::new(&self.config, &self.sizes, path);
        let weight = |parameter: &Parameter| Ok(self.weights[&parameter.name].clone());
        Objective::of_head(config, mode, &self.config, parameters, weight, build).unwrap()
    }

    /// The image of each caption.
    fn images_of_captions(&self) -> Tch {
        self.images.index_select(0, &Tch::from_slice(&self.ids).to_device(self.images.device()))
    }

    fn embeddings(&self) -> BatchEmbeddings {
        let rows = self.lengths.iter().enumerate();
        let words = rows.map(|(row, &length)| self.words.select(0, row as i64).narrow(0, 0, length as i64));
        BatchEmbeddings {
            images: self.images_of_captions(),
            words: Tch::cat(&words.collect::<Vec<_>>(), 0),
            lengths: self.lengths.clone(),
            logits: None,
            aggregation: None,
        }
    }

    /// 1 for each word, `(captions, length)`.
    fn mask(&self) -> Tch {
        let positions = Tch::arange(self.words.size()[1], (Kind::Float, self.words.device()));
        let lengths: Vec<f32> = self.lengths.iter().map(|&length| length as f32).collect();
        let lengths = Tch::from_slice(&lengths).to_device(self.words.device());
        positions.unsqueeze(0).less_tensor(&lengths.unsqueeze(1)).to_kind(Kind::Float)
    }

    fn hinge() -> HingeLoss {
        HingeLoss { margin: 0.2, negatives: Negatives::Hardest, weight: 1.0 }
    }

    fn image_ids(&self) -> Vec<u64> {
        self.ids.iter().map(|id| id.cast_unsigned()).collect()
    }

    fn value(&self, key: &str) -> f64 {
        f64::from(self.golden.get(key).values()[0])
    }

    fn assert_loss(&self, found: f64, key: &str) {
        let expected = self.value(key);
        assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{}: {found} and {expected}", self.name);
    }

    /// Compares the gradients of inputs and weights with those of the file below `prefix`, and clears them.
    fn assert_gradients(&self, prefix: &str) {
        let noise = if self.config == SGR { SGR_NOISE } else { HEAD_NOISE };
        let weights = self.weights.iter().map(|(name, weight)| (name.as_str(), &*weight.0));
        let inputs = [("images", &self.images), ("words", &self.words)].into_iter();
        for (name, leaf) in inputs.chain(weights).filter(|(_, leaf)| leaf.requires_grad()) {
            let key = format!("{prefix}grad.{name}");
            let mut gradient = leaf.grad();
            // Of a batch in training mode the file has those of the weights alone.
            if prefix.is_empty() || self.weights.contains_key(name) {
                let expected = Torch::upload(&self.golden.get(&key), &device()).unwrap();
                let largest = expected.0.abs().max().double_value(&[]);
                let drift = (&gradient - &*expected.0).abs().max().double_value(&[]);
                println!("{}, {key}: {drift:e} of {largest:e}", self.name);
                assert!(drift <= HEAD_TOLERANCE * largest + noise, "{}, {key}: {drift:e} of {largest:e}", self.name);
            }
            let _ = gradient.zero_();
        }
    }

    /// Compares similarities with the tensor `key`.
    fn assert_similarities(&self, found: &Torch, key: &str) {
        let expected = Torch::upload(&self.golden.get(key), &device()).unwrap();
        let drift = (&*found.0 - &*expected.0).abs().max().double_value(&[]);
        // The figure of the reference is 6e-7.
        assert!(drift < 1e-5, "{}, {key}: {drift:e}", self.name);
    }

    fn assert_statistics(&self, weights: &BTreeMap<String, Torch>) {
        for (name, weight) in weights.iter().filter(|(name, _)| name.contains(".running_")) {
            let expected = Torch::upload(&self.golden.get(&format!("train.after.{name}")), &device()).unwrap();
            let drift = (&*weight.0 - &*expected.0).abs().max().double_value(&[]);
            // The figure of the reference is 2e-7.
            assert!(drift < 1e-5, "{}, {name}: {drift:e}", self.name);
        }
    }
}

/// Loss and gradients of the heads in evaluation mode, against those of the original implementations; in one chunk of captions and
/// in several.
#[test]
fn heads_match_the_originals() {
    let heads = [
        ("vsepp_mean", HeadConfig::Vsepp { pooling: Pooling::Mean }),
        ("vsepp_cls", HeadConfig::Vsepp { pooling: Pooling::Cls }),
        ("vsepp_gpo", HeadConfig::Vsepp { pooling: Pooling::Gpo }),
        ("scan_t2i", HeadConfig::ScanT2i),
        ("scan_i2t", HeadConfig::ScanI2t),
        ("scan_all", HeadConfig::ScanAll),
        ("max_mean", HeadConfig::MaxMean),
        ("sgr", SGR),
        ("chan", HeadConfig::Chan { aggregation: ChanAggregation::Mean }),
        ("chan_lse", HeadConfig::Chan { aggregation: ChanAggregation::Lse }),
    ];
    for (name, config) in heads {
        for head in GoldenHead::both(name, config) {
            for memory in [1 << 30, 1] {
                let mut objective = head.objective(Mode::Evaluation);
                objective.memory = memory;
                let (embeddings, count) = (head.embeddings(), head.ids.len());
                let value = objective.differentiate(&embeddings, &head.image_ids(), 0..count, &GoldenHead::hinge());
                let value = value.unwrap();
                head.assert_loss(value.loss, "loss");
                value.gradient.unwrap().propagate(&embeddings, 1.0).unwrap();
                head.assert_gradients("");
            }
        }
    }
}

/// Batch statistics over the samples, without dropout: an image with two captions counts twice.
#[test]
fn sgr_in_training_matches_the_original() {
    for head in GoldenHead::both("sgr", SGR) {
        let embeddings = head.embeddings();
        let mut objective = head.objective(WITHOUT_DROPOUT);
        objective.memory = 1;
        let value = objective.differentiate(&embeddings, &head.image_ids(), 0..head.ids.len(), &GoldenHead::hinge());
        let value = value.unwrap();
        head.assert_loss(value.loss, "train.loss");
        head.assert_statistics(&head.weights);
        value.gradient.unwrap().propagate(&embeddings, 1.0).unwrap();
        head.assert_gradients("train.");

        // Training does not read the running statistics, which have moved.
        let definition = head.definition(WITHOUT_DROPOUT);
        let [images, words, mask] =
            [head.images_of_captions(), head.words.shallow_clone(), head.mask()].map(Torch::new);
        let similarities = tch::no_grad(|| definition.forward(&images, &words, &mask)).unwrap();
        head.assert_similarities(&similarities, "train.sims");
    }
}

/// The original's loss adds the distance of the captions from a teacher's, and all positions affect its captions. The objective has
/// neither, so it is compared with the definition, whose gradients are compared with the original's.
#[test]
fn d2s_vse_in_training_matches_the_original() {
    for head in GoldenHead::both("d2s_vse", D2S_VSE) {
        let definition = head.definition(WITHOUT_DROPOUT);
        let features = |visible: Option<&Torch>| {
            let mask = Torch::new(head.mask());
            let words = Torch::new(head.words.shallow_clone());
            let captions = definition.caption_features(&words, &mask, visible).unwrap();
            let images = definition.image_features(&Torch::new(head.images_of_captions())).unwrap();
            (definition.compare(&images, &captions, &mask).unwrap(), captions.features)
        };
        let before: BTreeMap<_, _> =
            head.weights.iter().map(|(name, weight)| (name.clone(), weight.0.copy())).collect();
        let (similarities, captions) = features(None);
        head.assert_similarities(&similarities, "train.sims");
        head.assert_statistics(&head.weights);
        let hinge = GoldenHead::hinge().loss(&similarities.0, &head.image_ids()).unwrap();
        head.assert_loss(hinge.double_value(&[]), "train.hinge");
        let teacher = Torch::upload(&head.golden.get("teacher"), &device()).unwrap();
        let distill: Tch = 1.0 - Tch::cosine_similarity(&captions.0, &teacher.0, 1, 1e-8).mean(Kind::Float);
        head.assert_loss(distill.double_value(&[]), "train.distill");
        (hinge + distill).backward();
        head.assert_gradients("");

        // The objective masks padding.
        let restore = || {
            let _guard = tch::no_grad_guard();
            head.weights.iter().for_each(|(name, weight)| weight.0.shallow_clone().copy_(&before[name]));
        };
        restore();
        let (similarities, _) = features(Some(&Torch::new(head.mask())));
        let hinge = GoldenHead::hinge().loss(&similarities.0, &head.image_ids()).unwrap();
        hinge.backward();
        let leaves: Vec<&Tch> = head.weights.values().map(|weight| &*weight.0).filter(|w| w.requires_grad()).collect();
        let mut leaves: Vec<Tch> = leaves.into_iter().map(Tch::shallow_clone).collect();
        leaves.extend([head.images.shallow_clone(), head.words.shallow_clone()]);
        let take = || -> Vec<Tch> {
            leaves
                .iter()
                .map(|leaf| {
                    let taken = leaf.grad().copy();
                    let _ = leaf.grad().zero_();
                    taken
                })
                .collect()
        };
        let expected = take();
        restore();
        let embeddings = head.embeddings();
        let mut objective = head.objective(WITHOUT_DROPOUT);
        let value = objective.differentiate(&embeddings, &head.image_ids(), 0..head.ids.len(), &GoldenHead::hinge());
        let value = value.unwrap();
        assert!((value.loss / hinge.double_value(&[]) - 1.0).abs() < 1e-5);
        value.gradient.unwrap().propagate(&embeddings, 1.0).unwrap();
        for (found, expected) in take().iter().zip(&expected) {
            let largest = expected.abs().max().double_value(&[]);
            let drift = (found - expected).abs().max().double_value(&[]);
            assert!(drift <= HEAD_TOLERANCE * largest + HEAD_NOISE, "{}: {drift:e} of {largest:e}", head.name);
        }
    }
}

/// Each rank computes them for the whole batch, and the ranks' gradients are summed.
#[test]
fn gradients_of_weights_are_added_by_the_first_rank_alone() {
    for head in GoldenHead::both("sgr", SGR) {
        let mut objective = head.objective(Mode::Evaluation);
        for local in [0..3, 3..8] {
            let embeddings = head.embeddings();
            let value = objective.differentiate(&embeddings, &head.image_ids(), local, &GoldenHead::hinge()).unwrap();
            value.gradient.unwrap().propagate(&embeddings, 1.0).unwrap();
        }
        head.assert_gradients("");
    }
}

/// A batch that overflows must not reach the running statistics.
#[test]
fn non_finite_batch_leaves_running_statistics_unchanged() {
    for head in GoldenHead::both("sgr", SGR) {
        let embeddings = head.embeddings();
        let broken = BatchEmbeddings { images: embeddings.images.shallow_clone() * f64::NAN, ..embeddings };
        let mut objective = head.objective(WITHOUT_DROPOUT);
        let found = objective.differentiate(&broken, &head.image_ids(), 0..8, &GoldenHead::hinge()).unwrap();
        assert!(!found.loss.is_finite() && found.gradient.is_none());
        for (name, weight) in head.weights.iter().filter(|(name, _)| name.contains(".running_")) {
            let before = Torch::upload(&head.golden.get(name), &device()).unwrap();
            assert!(weight.0.equal(&before.0), "{name}");
        }
    }
}
