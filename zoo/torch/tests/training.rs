//! Training steps against the reference implementation.
#![allow(dead_code, clippy::unwrap_used)] // test helpers, of which each binary uses some

mod ranks;
#[path = "../../model/tests/support/mod.rs"]
mod support;

use std::{ops::Range, path::Path, rc::Rc, sync::atomic::AtomicBool};

use laps_data::scenes;
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{self, TrainPrecision},
};
use laps_model::{array::Array, encoder::Device, models::config::ModelConfig, params::Regularization};
use laps_torch::{
    TorchDevice,
    distributed::Collective,
    train::{
        CaptionInputs, HingeLoss, ImageInputs, Learner, Negatives, PairBatch, RunFiles, StepOptions, StepOutcome,
        Weights, train,
    },
};
use support::{Tensors, device, difference, golden, swin_tiny, vit_tiny};
use tempfile::TempDir;

/// f32 sums in another order, through a whole model and back. The bound of the reference.
const TOLERANCE: f64 = 1e-4;
/// Four steps of 2e-4 or 2e-5. f32 noise changes the direction of a step if both moments are small.
const PARAMETER_TOLERANCE: f32 = 1e-5;
const PLAIN: StepOptions = StepOptions {
    grad_clip: 2.0,
    ratio_weight: 2.0,
    weight_decay: 1e-4,
    precision: TrainPrecision::F32,
    regularization: Regularization { dropout: 0.0, drop_path: 0.0, head_dropout: None },
    threads: 1,
};
/// Encodes a batch in two halves at once.
const HALVES: StepOptions = StepOptions { threads: 2, ..PLAIN };

fn learner(name: &str, config: &ModelConfig, options: StepOptions) -> Learner {
    let checkpoint = Checkpoint::open(golden(&format!("{name}_tiny.safetensors"))).unwrap();
    let device = TorchDevice::open(device()).unwrap();
    let weights = Weights::new(config, device, |parameter| Ok(checkpoint.read(&parameter.name)?)).unwrap();
    Learner::new(weights, options).unwrap()
}

/// The four steps of a golden file.
struct GoldenSteps {
    golden: Tensors,
}

/// The batch of one step.
struct GoldenStep {
    pixels: Array,
    rows: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    ids: Vec<u64>,
    hinge: HingeLoss,
}

impl GoldenSteps {
    fn open(name: &str) -> Self {
        Self { golden: Tensors::open(&format!("{name}_train.safetensors")) }
    }

    /// Some pairs of a step.
    fn rows(&self, step: usize, rows: Range<usize>) -> GoldenStep {
        let whole = self.step(step);
        GoldenStep {
            pixels: whole.pixels.rows(rows.clone()).unwrap(),
            rows: whole.rows[rows.clone()].to_vec(),
            lengths: whole.lengths[rows.clone()].to_vec(),
            ids: whole.ids[rows].to_vec(),
            hinge: whole.hinge,
        }
    }

    fn step(&self, step: usize) -> GoldenStep {
        let (images, alphas) = (self.golden.get("images"), self.golden.get("warmup_alpha"));
        let image_values = images.values().len() / 4;
        let get = |key: &str| self.golden.get(&format!("step{step}.{key}"));
        let rolled: Vec<f32> = (0..4)
            .flat_map(|j| images.values()[(j + 4 - step) % 4 * image_values..][..image_values].to_vec())
            .collect();
        let tokens = get("tokens");
        let length = tokens.dims()[1];
        let negatives = if step < 2 { Negatives::All } else { Negatives::Hardest };
        GoldenStep {
            pixels: Array::new(images.dims(), rolled).unwrap(),
            rows: tokens.values().chunks(length).map(|row| row.iter().map(|&t| t as u32).collect()).collect(),
            lengths: get("lengths").values().iter().map(|&length| length as usize).collect(),
            ids: get("img_ids").values().iter().map(|&id| id as u64).collect(),
            hinge: HingeLoss { margin: 0.2, negatives, weight: f64::from(alphas.values()[step]) },
        }
    }
}

/// Makes one step with several batches and the hinge of the first one.
fn try_step(learner: &mut Learner, steps: &[GoldenStep]) -> StepOutcome {
    let captions: Vec<Vec<&[u32]>> = steps
        .iter()
        .map(|step| step.rows.iter().zip(&step.lengths).map(|(row, &length)| &row[..length]).collect())
        .collect();
    let batches = steps.iter().zip(&captions).map(|(step, captions)| PairBatch {
        images: ImageInputs::Pixels(&step.pixels),
        captions: CaptionInputs::Tokens(captions),
        image_ids: &step.ids,
    });
    learner.step(&batches.collect::<Vec<_>>(), &steps[0].hinge, [2e-4, 2e-5], 0).unwrap()
}

/// Makes one step, which must be finite.
fn finite_step(learner: &mut Learner, steps: &[GoldenStep]) -> StepOutcome {
    let outcome = try_step(learner, steps);
    assert!(outcome.finite);
    outcome
}

/// Losses and gradient norms of the four steps.
fn steps(name: &str, learner: &mut Learner) -> Vec<(f64, f64)> {
    let steps = GoldenSteps::open(name);
    let outcomes = (0..4).map(|step| finite_step(learner, &[steps.step(step)]));
    outcomes.map(|outcome| (outcome.loss, outcome.grad_norm)).collect()
}

fn assert_four_steps_agree(name: &str, config: &ModelConfig, options: StepOptions) {
    let mut learner = learner(name, config, options);
    let found = steps(name, &mut learner);
    assert_golden(name, &learner, &found);
}

/// Losses, norms and weights after four steps.
fn assert_golden(name: &str, learner: &Learner, found: &[(f64, f64)]) {
    let golden = Tensors::open(&format!("{name}_train.safetensors"));
    let (losses, norms) = (golden.get("losses"), golden.get("grad_norms"));
    for (step, &(loss, norm)) in found.iter().enumerate() {
        let (expected, expected_norm) = (f64::from(losses.values()[step]), f64::from(norms.values()[step]));
        println!("{name}, step {step}: loss {loss} and {expected}, norm {norm} and {expected_norm}");
        // The warm-up starts at 0, and so does the gradient of the first step.
        assert!((loss - expected).abs() <= TOLERANCE * expected, "loss of step {step}: {loss} and not {expected}");
        assert!(
            (norm - expected_norm).abs() <= TOLERANCE * expected_norm,
            "norm of step {step}: {norm} and not {expected_norm}"
        );
    }
    let mut largest = 0f32;
    for weight in learner.weights.arrays() {
        let (weight, array) = weight.unwrap();
        let drift = difference(&array, &golden.get(&format!("after.{weight}")));
        // The bias of the group logits shifts all inputs of a softmax over patches, so its gradient is rounding noise.
        // AdamW turns that into steps of the learning rate in any direction; three of the steps have a gradient.
        let bound = if weight == "cross_net.aggr_net.weight.3.bias" { 2.0 * 3.0 * 2e-4 } else { PARAMETER_TOLERANCE };
        assert!(drift <= bound, "`{weight}` differs by {drift:e}");
        largest = largest.max(drift);
    }
    println!("{name}: parameters differ by {largest:e} at most");
}

#[test]
fn four_vit_steps_match_the_reference() {
    assert_four_steps_agree("vit", &vit_tiny(), PLAIN);
}

#[test]
fn four_swin_steps_match_the_reference() {
    assert_four_steps_agree("swin", &swin_tiny(), PLAIN);
}

/// Each half adds to the same gradients when it is ready. The order must not change the result.
#[test]
fn steps_in_halves_match_the_reference_and_are_deterministic() {
    if device() != Device::Cpu {
        return println!("skipped: only the CPU encodes in halves");
    }
    for (name, config) in [("vit", vit_tiny()), ("swin", swin_tiny())] {
        assert_four_steps_agree(name, &config, HALVES);
        let bits = || {
            let mut learner = learner(name, &config, HALVES);
            let found = steps(name, &mut learner);
            let weights: Vec<Array> = learner.weights.arrays().map(|weight| weight.unwrap().1).collect();
            let bits = weights.iter().flat_map(Array::values).map(|value| value.to_bits());
            (found, bits.collect::<Vec<u32>>())
        };
        let first = bits();
        for _ in 0..5 {
            assert!(bits() == first, "{name}");
        }
    }
}

/// One process of a group, which makes the four steps on its rows of the batches; does nothing as a test.
#[test]
fn golden_worker() {
    let Some((name, environment)) = ranks::scenario() else { return };
    let config = if name == "vit" { vit_tiny() } else { swin_tiny() };
    let mut learner = learner(&name, &config, PLAIN);
    let group = Rc::new(Collective::open(&environment, TorchDevice::open(device()).unwrap()).unwrap());
    learner.join(Rc::clone(&group));
    let golden = GoldenSteps::open(&name);
    let rows = |rank: usize| rank * 4 / group.world_size();
    let own = rows(group.rank())..rows(group.rank() + 1);
    let found: Vec<(f64, f64)> = (0..4)
        .map(|step| finite_step(&mut learner, &[golden.rows(step, own.clone())]))
        .map(|outcome| (outcome.loss, outcome.grad_norm))
        .collect();
    assert_golden(&name, &learner, &found);
    let bits = learner
        .weights
        .arrays()
        .flat_map(|weight| weight.unwrap().1.values().iter().map(|value| value.to_bits()).collect::<Vec<u32>>());
    println!(
        "bits of the weights: {:?}",
        bits.fold(0_u64, |hash, bits| hash.wrapping_mul(31).wrapping_add(bits.into()))
    );
}

/// The bounds are those of a single process. The weights have the same bits on all ranks and in a second run.
#[test]
fn four_steps_on_two_and_three_ranks_match_the_reference() {
    if device() != Device::Cpu {
        return println!("skipped: one GPU has one rank");
    }
    for name in ["vit", "swin"] {
        for world_size in [2, 3] {
            let bits = || -> Vec<String> {
                let texts = ranks::run("golden_worker", name, world_size);
                let line =
                    |text: &String| text.lines().find(|line| line.contains("bits of the weights")).unwrap().to_owned();
                texts.iter().map(line).collect()
            };
            let first = bits();
            assert!(first.iter().all(|line| *line == first[0]), "{name}, {world_size} ranks: {first:?}");
            assert_eq!(bits(), first, "{name}, {world_size} ranks");
        }
    }
}

/// Gradients of several batches are summed, and the loss is the mean.
#[test]
fn gradients_of_accumulated_batches_are_summed() {
    let steps = GoldenSteps::open("vit");
    // A new learner for each step, so that all start from the same weights.
    let step = |batches: &[usize]| {
        let batches: Vec<GoldenStep> = batches.iter().map(|&batch| steps.step(batch)).collect();
        finite_step(&mut learner("vit", &vit_tiny(), PLAIN), &batches)
    };
    let (two, three) = (step(&[2]), step(&[3]));
    let twice = step(&[2, 2]);
    // The same gradient twice: only the addition rounds.
    assert!((twice.grad_norm / two.grad_norm - 2.0).abs() < 1e-6, "{} and {}", twice.grad_norm, two.grad_norm);
    assert_eq!((twice.loss, twice.pairs), (two.loss, 2 * two.pairs));
    let both = step(&[2, 3]);
    assert_eq!(both.pairs, two.pairs + three.pairs);
    assert!((both.loss - (two.loss + three.loss) / 2.0).abs() < 1e-6, "{} {} {}", both.loss, two.loss, three.loss);
    let sum = two.grad_norm + three.grad_norm;
    assert!(both.grad_norm < sum && both.grad_norm > (two.grad_norm - three.grad_norm).abs(), "{}", both.grad_norm);
}

/// bf16 rounds to 8 bits, 0.4 %. After two layers and a normalisation a cosine has about that error, and a similarity is the
/// mean of many cosines. The hinge of a negative is the margin of 0.2 plus the difference of two similarities.
const BF16_TOLERANCE: f64 = 0.05;

/// Half precisions that the device supports.
fn half_precisions() -> Vec<TrainPrecision> {
    // The CPU does not support fp16, whose 11 bits lose less.
    if device() == Device::Cpu { vec![TrainPrecision::Bf16] } else { vec![TrainPrecision::Bf16, TrainPrecision::Fp16] }
}

/// One finite step. In fp16 the initial loss scale may overflow; it is halved until the gradient is finite.
fn first_finite_step(name: &str, config: &ModelConfig, options: StepOptions) -> StepOutcome {
    let step = GoldenSteps::open(name).step(2);
    let mut learner = learner(name, config, options);
    let mut attempts = (0..16).map(|_| try_step(&mut learner, std::slice::from_ref(&step)));
    attempts.find(|outcome| outcome.finite).unwrap()
}

#[test]
fn half_precision_step_has_a_similar_loss() {
    for (name, config) in [("vit", vit_tiny()), ("swin", swin_tiny())] {
        let single = first_finite_step(name, &config, PLAIN);
        for precision in half_precisions() {
            let half = first_finite_step(name, &config, StepOptions { precision, ..PLAIN });
            println!(
                "{name}: loss {} and in {precision:?} {}, norm {} and {}",
                single.loss, half.loss, single.grad_norm, half.grad_norm
            );
            assert!(single.loss != half.loss, "{name}: the encoders do not use {precision:?}");
            assert!(
                (half.loss / single.loss - 1.0).abs() < BF16_TOLERANCE,
                "{name}: {} and {}",
                single.loss,
                half.loss
            );
            assert!(
                (half.grad_norm / single.grad_norm - 1.0).abs() < 2.0 * BF16_TOLERANCE,
                "{name}: {}",
                half.grad_norm
            );
        }
    }
}

/// With dropout the attention weights are computed separately.
#[test]
fn half_precision_supports_dropout() {
    let regularization = Regularization { dropout: 0.1, drop_path: 0.1, head_dropout: None };
    for (name, config) in [("vit", vit_tiny()), ("swin", swin_tiny())] {
        for precision in half_precisions() {
            let dropout = first_finite_step(name, &config, StepOptions { precision, regularization, ..PLAIN });
            let plain = first_finite_step(name, &config, StepOptions { precision, ..PLAIN });
            assert!(dropout.loss != plain.loss && dropout.grad_norm > 0.0, "{name}: {}", dropout.loss);
        }
    }
}

fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let drawn = scenes::DrawnConfig { seed: 7, train: 8, dev: 4, test: 4 };
    scenes::write(folder.path(), &drawn, &scenes::DrawnSplit::ALL).unwrap();
    folder
}

/// A run on the scenes in `folder`, which is written there.
fn request(folder: &Path) -> laps::TrainRequest {
    let mut entry = registry::find("shapes_vit").unwrap();
    entry.train.batch_size = 8;
    laps::TrainRequest {
        paths: entry.data_paths(Some(folder)).unwrap(),
        entry,
        out: folder.join("run"),
        device: device(),
        threads: 1,
        long_captions: laps_data::LongCaptions::default(),
        resume: laps::Resume::Never,
        group: None,
        version: String::new(),
        start: laps::InitialWeights::default(),
    }
}

/// One rank of a run, with a program of a commit of its own; does nothing as a test.
#[test]
fn version_worker() {
    let Some((folder, group)) = ranks::scenario() else { return };
    let version = format!("0.2.0 (commit {})", group.rank);
    let own = request(Path::new(&folder));
    let request = laps::TrainRequest { version, group: Some(group), device: Device::Cpu, ..own };
    println!("failed: {}", train(&request, &AtomicBool::new(false), &mut ()).unwrap_err());
}

#[test]
fn ranks_of_another_commit_are_refused() {
    let folder = data();
    for text in ranks::run("version_worker", folder.path().to_str().unwrap(), 2) {
        let expected =
            "rank 1 has another version of the program\n  expected: 0.2.0 (commit 0)\n  found: 0.2.0 (commit 1)";
        assert!(text.contains(expected), "{text}");
    }
    assert!(!folder.path().join("run").exists());
}

/// Computing the features of frozen backbones takes long, and there is no state to save yet.
#[test]
fn run_stopped_before_its_first_step_can_be_started_again() {
    let folder = data();
    let mut request = request(folder.path());
    request.entry.train.freeze_backbones = true;
    let message = || train(&request, &AtomicBool::new(true), &mut ()).unwrap_err().to_string();
    let first = message();
    assert!(first.starts_with("training was interrupted before its first step"), "{first}");
    assert!(!request.out.join(RunFiles::STATE).exists());
    assert_eq!(message(), first, "the folder accepts the same run again");
}
