//! The objective against the plain definition of the alignment.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

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
    heads::{ChanAggregation, HeadConfig, HeadSizes, Pooling},
    models::{alignment::Alignment, config::ModelConfig},
    params::{ParamPath, Parameter},
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
mod support;

/// HEADS.md: relative to the largest gradient of a tensor, plus f32 noise.
const HEAD_TOLERANCE: [f64; 2] = [1e-4, 1e-7];

/// Loss and gradients of the heads that can be trained, against those of the original implementations; in one chunk of captions
/// and in several.
#[test]
fn heads_match_the_originals() {
    let heads = [
        ("vsepp_mean", HeadConfig::Vsepp { pooling: Pooling::Mean }),
        ("vsepp_cls", HeadConfig::Vsepp { pooling: Pooling::Cls }),
        ("scan_t2i", HeadConfig::ScanT2i),
        ("scan_i2t", HeadConfig::ScanI2t),
        ("scan_all", HeadConfig::ScanAll),
        ("max_mean", HeadConfig::MaxMean),
        ("chan", HeadConfig::Chan { aggregation: ChanAggregation::Mean }),
        ("chan_lse", HeadConfig::Chan { aggregation: ChanAggregation::Lse }),
    ];
    let model = model("f30k_vit");
    for (name, head) in heads {
        for (geometry, has_class_token) in [("vit", true), ("swin", false)] {
            let file = format!("head_{name}_{geometry}.safetensors");
            let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/");
            let file = if has_class_token { format!("{shared}{file}") } else { file };
            if !support::golden(&file).exists() {
                println!("skipped: there is no `{file}`");
                continue;
            }
            let golden = support::Tensors::open(&file);
            let upload = |array: &Array| Torch::upload(array, &device()).unwrap().0.shallow_clone();
            let [images, words] = ["images", "words"].map(|name| upload(&golden.get(name)).set_requires_grad(true));
            let ids: Vec<i64> = golden.get("img_ids").values().iter().map(|&id| id as i64).collect();
            let lengths: Vec<usize> = golden.get("lengths").values().iter().map(|&length| length as usize).collect();
            let [tokens, width] = [1, 2].map(|axis| images.size()[axis] as usize);
            let sizes = HeadSizes { tokens, has_class_token, width, word_width: width };
            for memory in [1 << 30, 1] {
                let mut objective = Objective::of_head(&head, &sizes, AlignmentConfig::of(&model)).unwrap();
                objective.memory = memory;
                let rows = lengths.iter().enumerate();
                let words_of = rows.map(|(row, &length)| words.select(0, row as i64).narrow(0, 0, length as i64));
                let embeddings = BatchEmbeddings {
                    images: images.index_select(0, &Tch::from_slice(&ids).to_device(images.device())),
                    words: Tch::cat(&words_of.collect::<Vec<_>>(), 0),
                    lengths: lengths.clone(),
                    logits: None,
                    aggregation: None,
                };
                let hinge = HingeLoss { margin: 0.2, negatives: Negatives::Hardest, weight: 1.0 };
                let image_ids: Vec<u64> = ids.iter().map(|id| id.cast_unsigned()).collect();
                let value = objective.differentiate(&embeddings, &image_ids, 0..ids.len(), &hinge).unwrap();
                let expected = f64::from(golden.get("loss").values()[0]);
                assert!((value.loss - expected).abs() <= 1e-5 * expected.abs(), "{name} {geometry}: {}", value.loss);
                value.gradient.unwrap().propagate(&embeddings, 1.0).unwrap();
                for (leaf, key) in [(&images, "grad.images"), (&words, "grad.words")] {
                    let expected = upload(&golden.get(key));
                    let largest = expected.abs().max().double_value(&[]);
                    let mut gradient = leaf.grad();
                    let drift = (&gradient - expected).abs().max().double_value(&[]);
                    println!("{name} {geometry}, {key}: {drift:e} of {largest:e}");
                    assert!(
                        drift <= HEAD_TOLERANCE[0] * largest + HEAD_TOLERANCE[1],
                        "{name} {geometry}, {key}: {drift:e}"
                    );
                    let _ = gradient.zero_();
                }
            }
        }
    }
}

/// A head with parameters cannot be trained, and is named.
#[test]
fn training_of_a_head_with_parameters_is_an_error() {
    let model = model("f30k_vit");
    let head = HeadConfig::Sgr { sim_dim: 256, steps: 3 };
    let error = Objective::of_head(&head, &HeadSizes::of(&model), AlignmentConfig::of(&model)).err().unwrap();
    assert_eq!(error.to_string(), "training of the head `sgr, sim_dim 256, steps 3` is not supported");
}
