//! Steps on two ranks against those of one process on the same batch.

use std::{ops::Range, rc::Rc};

use laps_model::{
    array::Array,
    encoder::Device,
    heads::{Ablation, ChanAggregation, D2sVseConfig, HeadConfig, Pooling},
    models::config::{ImageConfig, ModelConfig},
    params::Regularization,
    params_init::init_parameters,
    random::SplitMix64,
};
use tch::Tensor as Tch;

use super::{
    super::{
        Negatives, distribution::require_equal_weights, gradient_buckets::GradientBuckets, tests::support,
        weights::Weight,
    },
    CaptionInputs, HingeLoss, ImageInputs, Learner, LossScale, PairBatch, StepOptions, StepOutcome, TrainPrecision,
    Weights,
};
use crate::{
    TorchDevice,
    distributed::{Collective, ranks},
};

/// How far gradients may differ.
#[derive(Clone, Copy)]
struct Bounds {
    /// Relative to the largest gradient of a tensor, and for losses and norms.
    relative: f64,
    /// For gradients that are 0, such as those of a bias before a batch norm, and consist of noise.
    absolute: f64,
    /// Steps that are compared.
    steps: u64,
}

/// f32 sums in another order, through a whole model and back: the relative bound of the golden steps.
const F32: Bounds = Bounds { relative: 1e-4, absolute: 5e-6, steps: 4 };
/// bf16 rounds to 8 bits, 0.4 %, a dozen times on the way back: each rank its rows, one process their sum. AdamW makes the sign
/// of a small gradient a step of the learning rate, so the second step begins with other weights.
const BF16: Bounds = Bounds { relative: 0.05, absolute: 2e-3, steps: 1 };
/// A batch norm keeps a tenth of the statistics of each of four batches. The mean has the bias before it, which AdamW moves by
/// the learning rate of 2e-4 in any direction, because its gradient is noise: 0.1 x 2 x 2e-4 x (1 + 2 + 3).
const MEAN_TOLERANCE: f64 = 2.4e-4;
/// A bias does not move a variance: f32 sums in another order.
const VARIANCE_TOLERANCE: f64 = 1e-5;
const PAIRS: usize = 5;
const IMAGE_SIZE: usize = 64;

/// No dropout in the encoders, and that of the head as it is defined.
const PLAIN: StepOptions = StepOptions {
    grad_clip: 2.0,
    ratio_weight: 2.0,
    weight_decay: 1e-4,
    precision: TrainPrecision::F32,
    regularization: Regularization { dropout: 0.0, drop_path: 0.0, head_dropout: None },
    threads: 1,
};

fn cpu() -> TorchDevice {
    TorchDevice::open(Device::Cpu).unwrap()
}

fn model(head: HeadConfig) -> ModelConfig {
    let mut config = support::vit_tiny();
    if let ImageConfig::Vit(vit) = &mut config.image {
        vit.image_size = IMAGE_SIZE;
    }
    if !head.has_ratios() {
        (config.sparse_ratio, config.aggr_ratio) = (0.0, 0.0);
    }
    ModelConfig { head, ..config }
}

fn learner(head: HeadConfig, options: StepOptions) -> Learner {
    let weights = Weights::new(&model(head), cpu(), |parameter| {
        Ok(init_parameters(std::slice::from_ref(parameter), 5)?.swap_remove(0).1)
    });
    Learner::new(weights.unwrap(), options).unwrap()
}

/// Random pairs, of which the first and the last have the same image.
struct Pairs {
    pixels: Array,
    captions: Vec<Vec<u32>>,
    ids: Vec<u64>,
}

impl Pairs {
    fn new(name: &str) -> Self {
        let mut random = SplitMix64::named(3, name);
        let shape = [PAIRS, 3, IMAGE_SIZE, IMAGE_SIZE];
        let mut pixels: Vec<f32> = (0..shape.iter().product()).map(|_: usize| random.normal() as f32).collect();
        let image = pixels.len() / PAIRS;
        pixels.copy_within(..image, (PAIRS - 1) * image);
        let mut caption = |length: usize| (0..length).map(|_| random.below(1024) as u32).collect();
        let captions = [5, 3, 7, 4, 6].into_iter().map(&mut caption).collect();
        Self { pixels: Array::new(&shape, pixels).unwrap(), captions, ids: vec![11, 12, 13, 14, 11] }
    }
}

/// A step on some rows of each batch, with dropout and hinge of step `number`.
fn step(learner: &mut Learner, batches: &[Pairs], rows: &Range<usize>, number: u64) -> StepOutcome {
    let captions: Vec<Vec<&[u32]>> =
        batches.iter().map(|pairs| pairs.captions[rows.clone()].iter().map(Vec::as_slice).collect()).collect();
    let pixels: Vec<Array> = batches.iter().map(|pairs| pairs.pixels.rows(rows.clone()).unwrap()).collect();
    let batches = batches.iter().zip(&captions).zip(&pixels).map(|((pairs, captions), pixels)| PairBatch {
        images: ImageInputs::Pixels(pixels),
        captions: CaptionInputs::Tokens(captions),
        image_ids: &pairs.ids[rows.clone()],
    });
    let negatives = if number < 2 { Negatives::All } else { Negatives::Hardest };
    let hinge = HingeLoss { margin: 0.2, negatives, weight: 1.0 };
    learner.step(&batches.collect::<Vec<_>>(), &hinge, [2e-4, 2e-5], number).unwrap()
}

/// One process of the group.
struct Rank {
    group: Rc<Collective>,
    /// Its rows of a batch.
    rows: Range<usize>,
}

impl Rank {
    fn learner(&self, head: HeadConfig, options: StepOptions) -> Learner {
        let mut learner = learner(head, options);
        learner.join(Rc::clone(&self.group));
        learner
    }

    /// Four steps of the group and of this process alone, which have to agree within `bounds`. The weights have the same bits on
    /// all ranks.
    fn assert_four_steps_agree(&self, head: HeadConfig, options: StepOptions, batches: usize, bounds: Bounds) {
        let (mut alone, mut shared) = (learner(head, options), self.learner(head, options));
        for number in 0..4 {
            let pairs: Vec<Pairs> = (0..batches).map(|batch| Pairs::new(&format!("{number} {batch}"))).collect();
            let found = step(&mut shared, &pairs, &self.rows, number);
            require_equal_weights(&self.group, &shared.weights).unwrap();
            if number >= bounds.steps {
                assert!(found.finite);
                continue;
            }
            let expected = step(&mut alone, &pairs, &(0..PAIRS), number);
            println!("{head}, {options:?}: {found:?} and {expected:?}");
            assert!(found.finite && expected.finite && expected.pairs > 0 && found.pairs == expected.pairs);
            for (found, expected) in [(found.loss, expected.loss), (found.grad_norm, expected.grad_norm)] {
                assert!(
                    (found / expected - 1.0).abs() <= bounds.relative,
                    "{head}, step {number}: {found}, {expected}"
                );
            }
            for (found, expected) in shared.weights.list.iter().zip(&alone.weights.list) {
                assert_weight_agrees(found, expected, bounds, &format!("{head}, step {number}"));
            }
        }
    }
}

/// Compares gradients, or running statistics. AdamW makes the noise of a gradient that is 0 a step of the learning rate, so the
/// weights are not compared.
fn assert_weight_agrees(found: &Weight, expected: &Weight, bounds: Bounds, context: &str) {
    let difference = |found: &Tch, expected: &Tch| (found - expected).abs().max().double_value(&[]);
    if found.is_running_statistic {
        let drift = difference(&found.tensor, &expected.tensor);
        let bound = if found.name.ends_with("running_mean") { MEAN_TOLERANCE } else { VARIANCE_TOLERANCE };
        return assert!(drift <= bound, "{context}, {}: {drift:e}", found.name);
    }
    match (found.gradient().unwrap(), expected.gradient().unwrap()) {
        (Some(gradient), Some(expected)) => {
            let (drift, largest) = (difference(&gradient, &expected), expected.abs().max().double_value(&[]));
            let bound = bounds.relative * largest + bounds.absolute;
            assert!(drift <= bound, "{context}, {}: {drift:e} of {largest:e}", found.name);
        }
        (gradient, expected) => assert!(gradient.is_none() && expected.is_none(), "{context}, {}", found.name),
    }
}

/// Runs a scenario as one rank; passes at once when it is run as a test.
#[test]
fn worker() {
    let Some((scenario, environment)) = ranks::scenario() else { return };
    crate::set_threads(1);
    let group = Rc::new(Collective::open(&environment, cpu()).unwrap());
    let rank = Rank { rows: laps::share(PAIRS, group.rank(), group.world_size()), group };
    match scenario.as_str() {
        "heads" => heads(&rank),
        "bf16" => {
            let bf16 = StepOptions { precision: TrainPrecision::Bf16, ..PLAIN };
            rank.assert_four_steps_agree(HeadConfig::Laps, bf16, 1, BF16);
        }
        "accumulation" => rank.assert_four_steps_agree(HeadConfig::Laps, PLAIN, 2, F32),
        "non-finite" => non_finite(&rank),
        "overlap" => overlap(&rank),
        other => panic!("{other}"),
    }
}

fn heads(rank: &Rank) {
    let d2s_vse = D2sVseConfig { embed_size: 24, mlp_size: 16, prompt_tokens: 4, blocks: 1, heads: 4 };
    let heads = [
        HeadConfig::Laps,
        HeadConfig::ScanT2i,
        HeadConfig::ScanI2t,
        HeadConfig::ScanAll,
        HeadConfig::MaxMean,
        HeadConfig::Vsepp { pooling: Pooling::Mean },
        HeadConfig::Vsepp { pooling: Pooling::Gpo },
        HeadConfig::Sgr { sim_dim: 16, steps: 2 },
        HeadConfig::Chan { aggregation: ChanAggregation::Lse },
        HeadConfig::D2sVse(d2s_vse),
        HeadConfig::LapsAblation { ablation: Ablation::ScanAlignment },
    ];
    heads.into_iter().for_each(|head| rank.assert_four_steps_agree(head, PLAIN, 1, F32));
}

/// A loss scale that fp16 and the gradients of fp16 do not have room for, and that f32 has.
const OVERFLOW: f64 = 1e38;

/// The gradient of rank 1 alone overflows.
fn non_finite(rank: &Rank) {
    // libtorch has the operations of a tiny model in fp16 for a CPU too.
    let mut learner = rank.learner(HeadConfig::Laps, PLAIN);
    (learner.options.precision, learner.model) = (TrainPrecision::Fp16, None);
    let whole = LossScale { factor: 1024.0, steps: 7 };
    let pairs = [Pairs::new("fp16")];
    let bits = |learner: &Learner| -> Vec<Array> { learner.weights.arrays().map(|weight| weight.unwrap().1).collect() };
    let before = bits(&learner);
    let is_broken = rank.group.rank() == 1;
    learner.scale = if is_broken { LossScale { factor: OVERFLOW, ..whole } } else { whole };
    let skipped = step(&mut learner, &pairs, &rank.rows, 0);
    assert!(!skipped.finite && skipped.loss.is_finite(), "{skipped:?}");
    assert!(bits(&learner) == before);
    // Both halve their scale and begin to count.
    let expected = if is_broken { OVERFLOW / 2.0 } else { 512.0 };
    assert_eq!(learner.scale, LossScale { factor: expected, steps: 0 });

    learner.scale = LossScale { factor: 512.0, steps: 0 };
    for number in 0..4 {
        let outcome = step(&mut learner, &pairs, &rank.rows, number);
        assert!(outcome.finite && outcome.grad_norm > 0.0, "{outcome:?}");
        require_equal_weights(&rank.group, &learner.weights).unwrap();
    }
    assert!(bits(&learner) != before);
    assert_eq!(learner.scale, LossScale { factor: 512.0, steps: 4 });
}

/// Bytes of a bucket, so that the tiny model has several, and so that its heads alone have several.
const SMALL_BUCKET: usize = 32 << 10;
const TINY_BUCKET: usize = 4 << 10;

/// How the gradients of a step arise.
struct OverlapCase {
    name: &'static str,
    head: HeadConfig,
    options: StepOptions,
    batches: usize,
    /// Whether the backbones are frozen in the first two steps.
    frozen: bool,
}

impl OverlapCase {
    /// Bits of weights and gradients after each of four steps.
    fn bits(&self, rank: &Rank, overlap: bool) -> Vec<u32> {
        let mut learner = rank.learner(self.head, self.options);
        let max_bytes = if self.frozen { TINY_BUCKET } else { SMALL_BUCKET };
        learner.buckets = GradientBuckets::with_max_bytes(overlap, max_bytes);
        let mut bits = Vec::new();
        for number in 0..4 {
            learner.freeze_backbones(self.frozen && number < 2).unwrap();
            let pairs: Vec<Pairs> = (0..self.batches).map(|batch| Pairs::new(&format!("{number} {batch}"))).collect();
            let outcome = step(&mut learner, &pairs, &rank.rows, number);
            assert!(outcome.finite && outcome.grad_norm > 0.0, "{}: {outcome:?}", self.name);
            // The first step finds out which weights have a gradient.
            let creates_buckets = number == 0 || (self.frozen && number == 2);
            let (count, early) = (learner.buckets.count(), learner.buckets.started_early());
            let expected = if overlap && !creates_buckets { count } else { 0 };
            assert_eq!(early, expected, "{}, step {number}, {count} buckets", self.name);
            assert!(count > 1, "{}: {count} buckets", self.name);
            for weight in &learner.weights.list {
                let tensors = [Some(weight.tensor.detach()), weight.gradient().unwrap()];
                for tensor in tensors.into_iter().flatten() {
                    let values = Vec::<f32>::try_from(tensor.reshape([-1])).unwrap();
                    bits.extend(values.into_iter().map(f32::to_bits));
                }
            }
        }
        bits
    }
}

/// The sums of the gradients have the same bits whether they start during the backward pass or after it.
fn overlap(rank: &Rank) {
    let sgr = HeadConfig::Sgr { sim_dim: 16, steps: 2 };
    let plain = OverlapCase { name: "plain", head: HeadConfig::Laps, options: PLAIN, batches: 1, frozen: false };
    let halves = StepOptions { threads: 2, ..PLAIN };
    let dropout = Regularization { dropout: 0.1, drop_path: 0.1, head_dropout: None };
    let cases = [
        OverlapCase { name: "halves", options: halves, ..plain },
        OverlapCase { name: "head", head: sgr, ..plain },
        OverlapCase { name: "head in halves", head: sgr, options: halves, ..plain },
        OverlapCase { name: "accumulated", batches: 3, ..plain },
        OverlapCase { name: "frozen", frozen: true, ..plain },
        OverlapCase { name: "bf16", options: StepOptions { precision: TrainPrecision::Bf16, ..PLAIN }, ..plain },
        OverlapCase { name: "dropout", options: StepOptions { regularization: dropout, ..PLAIN }, ..plain },
        plain,
    ];
    for case in cases {
        assert!(case.bits(rank, true) == case.bits(rank, false), "{}", case.name);
    }
}

fn run(scenario: &str) {
    ranks::run("train::learner::tests::worker", scenario, 2);
}

/// Also those with batch statistics and dropout: each rank computes the head for the whole batch.
#[test]
fn four_steps_of_every_head_on_two_ranks_are_those_of_one() {
    run("heads");
}

#[test]
fn bf16_step_on_two_ranks_is_that_of_one() {
    run("bf16");
}

#[test]
fn accumulated_gradients_on_two_ranks_are_those_of_one() {
    run("accumulation");
}

#[test]
fn non_finite_gradient_of_one_rank_is_skipped_by_all() {
    run("non-finite");
}

#[test]
fn sums_during_the_backward_pass_are_bit_identical_to_sums_after_it() {
    for world_size in [2, 3] {
        ranks::run("train::learner::tests::worker", "overlap", world_size);
    }
}
