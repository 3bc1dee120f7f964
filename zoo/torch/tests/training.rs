//! Training steps against those of the reference implementation.
#![allow(clippy::unwrap_used)] // a helper of tests is a test

#[path = "../../model/tests/support/mod.rs"]
mod support;

use std::sync::atomic::AtomicBool;

use laps_data::scenes;
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{self, Precision},
};
use laps_model::{array::Array, encoder::Device, models::config::ModelConfig, params::Regularization};
use laps_torch::{
    TorchDevice,
    train::{Captions, Files, Hinge, Images, Learner, Negatives, Pairs, StepOptions, Stepped, Weights, train},
};
use support::{Tensors, device, difference, golden, swin_tiny, vit_tiny};

/// f32 sums in another order, through a whole model and back: what the reference asks for.
const RELATIVE: f64 = 1e-4;
/// Four steps of 2e-4 or 2e-5 each, whose directions are quotients that f32 noise moves where both moments are small.
const PARAMETERS: f32 = 1e-5;
const PLAIN: StepOptions = StepOptions {
    grad_clip: 2.0,
    ratio_weight: 2.0,
    weight_decay: 1e-4,
    precision: Precision::F32,
    regularization: Regularization { dropout: 0.0, drop_path: 0.0 },
    threads: 1,
};
/// A batch in two halves at once.
const HALVES: StepOptions = StepOptions { threads: 2, ..PLAIN };

fn learner(name: &str, config: &ModelConfig, options: StepOptions) -> Learner {
    let checkpoint = Checkpoint::open(golden(&format!("{name}_tiny.safetensors"))).unwrap();
    let device = TorchDevice::open(device()).unwrap();
    let weights = Weights::new(config, device, |parameter| Ok(checkpoint.read(&parameter.name)?)).unwrap();
    Learner::new(weights, options).unwrap()
}

/// The batches of the four steps of the file.
struct Steps {
    golden: Tensors,
}

/// One of them.
struct Step {
    pixels: Array,
    rows: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    ids: Vec<u64>,
    hinge: Hinge,
}

impl Steps {
    fn open(name: &str) -> Self {
        Self { golden: Tensors::open(&format!("{name}_train.safetensors")) }
    }

    fn step(&self, step: usize) -> Step {
        let (images, alphas) = (self.golden.get("images"), self.golden.get("warmup_alpha"));
        let each = images.values().len() / 4;
        let get = |key: &str| self.golden.get(&format!("step{step}.{key}"));
        let rolled: Vec<f32> =
            (0..4).flat_map(|j| images.values()[(j + 4 - step) % 4 * each..][..each].to_vec()).collect();
        let tokens = get("tokens");
        let length = tokens.dims()[1];
        let negatives = if step < 2 { Negatives::All } else { Negatives::Hardest };
        Step {
            pixels: Array::new(images.dims(), rolled).unwrap(),
            rows: tokens.values().chunks(length).map(|row| row.iter().map(|&t| t as u32).collect()).collect(),
            lengths: get("lengths").values().iter().map(|&length| length as usize).collect(),
            ids: get("img_ids").values().iter().map(|&id| id as u64).collect(),
            hinge: Hinge { margin: 0.2, negatives, weight: f64::from(alphas.values()[step]) },
        }
    }
}

/// Does one step with several batches, all of them with the hinge of the first.
fn attempt(learner: &mut Learner, steps: &[Step]) -> Stepped {
    let captions: Vec<Vec<&[u32]>> = steps
        .iter()
        .map(|step| step.rows.iter().zip(&step.lengths).map(|(row, &length)| &row[..length]).collect())
        .collect();
    let parts = steps.iter().zip(&captions).map(|(step, captions)| Pairs {
        images: Images::Pixels(&step.pixels),
        captions: Captions::Tokens(captions),
        ids: &step.ids,
    });
    learner.step(&parts.collect::<Vec<_>>(), &steps[0].hinge, [2e-4, 2e-5], 0).unwrap()
}

/// The same, which has to be finite.
fn make(learner: &mut Learner, steps: &[Step]) -> Stepped {
    let stepped = attempt(learner, steps);
    assert!(stepped.finite);
    stepped
}

/// Losses and gradient norms of the four steps of the file.
fn steps(name: &str, learner: &mut Learner) -> Vec<(f64, f64)> {
    let steps = Steps::open(name);
    let each = (0..4).map(|step| make(learner, &[steps.step(step)]));
    each.map(|stepped| (stepped.loss, stepped.grad_norm)).collect()
}

fn four_steps_agree(name: &str, config: &ModelConfig, options: StepOptions) {
    let golden = Tensors::open(&format!("{name}_train.safetensors"));
    let mut learner = learner(name, config, options);
    let found = steps(name, &mut learner);
    let (losses, norms) = (golden.get("losses"), golden.get("grad_norms"));
    for (step, &(loss, norm)) in found.iter().enumerate() {
        let (expected, expected_norm) = (f64::from(losses.values()[step]), f64::from(norms.values()[step]));
        println!("{name}, step {step}: loss {loss} and {expected}, norm {norm} and {expected_norm}");
        // The warm-up begins at 0, and with it the gradient of the first step.
        assert!((loss - expected).abs() <= RELATIVE * expected, "loss of step {step}: {loss} and not {expected}");
        assert!(
            (norm - expected_norm).abs() <= RELATIVE * expected_norm,
            "norm of step {step}: {norm} and not {expected_norm}"
        );
    }
    let mut largest = 0f32;
    for weight in learner.weights.arrays() {
        let (weight, array) = weight.unwrap();
        let drift = difference(&array, &golden.get(&format!("after.{weight}")));
        // The bias of a group's logits moves all patches of a softmax over patches, so that its gradient is 0 but for
        // rounding: AdamW turns that into steps of the learning rate in any direction, of which three have a gradient.
        let bound = if weight == "cross_net.aggr_net.weight.3.bias" { 2.0 * 3.0 * 2e-4 } else { PARAMETERS };
        assert!(drift <= bound, "`{weight}` differs by {drift:e}");
        largest = largest.max(drift);
    }
    println!("{name}: parameters differ by {largest:e} at most");
}

#[test]
fn four_steps_of_vit() {
    four_steps_agree("vit", &vit_tiny(), PLAIN);
}

#[test]
fn four_steps_of_swin() {
    four_steps_agree("swin", &swin_tiny(), PLAIN);
}

/// Each half adds to the same gradients when it is ready: the order must leave no trace.
#[test]
fn four_steps_in_halves_are_the_same_and_always_the_same_bits() {
    if device() != Device::Cpu {
        return println!("not run: halves are for the processor");
    }
    for (name, config) in [("vit", vit_tiny()), ("swin", swin_tiny())] {
        four_steps_agree(name, &config, HALVES);
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

/// Gradients of several batches add up, and the loss is their mean.
#[test]
fn batches_of_one_step_add_up() {
    let steps = Steps::open("vit");
    // A fresh learner for each, so that all start from the same weights.
    let step = |batches: &[usize]| {
        let batches: Vec<Step> = batches.iter().map(|&batch| steps.step(batch)).collect();
        make(&mut learner("vit", &vit_tiny(), PLAIN), &batches)
    };
    let (two, three) = (step(&[2]), step(&[3]));
    let twice = step(&[2, 2]);
    // The same sums twice: only the addition itself rounds.
    assert!((twice.grad_norm / two.grad_norm - 2.0).abs() < 1e-6, "{} and {}", twice.grad_norm, two.grad_norm);
    assert_eq!((twice.loss, twice.pairs), (two.loss, 2 * two.pairs));
    let both = step(&[2, 3]);
    assert_eq!(both.pairs, two.pairs + three.pairs);
    assert!((both.loss - (two.loss + three.loss) / 2.0).abs() < 1e-6, "{} {} {}", both.loss, two.loss, three.loss);
    let sum = two.grad_norm + three.grad_norm;
    assert!(both.grad_norm < sum && both.grad_norm > (two.grad_norm - three.grad_norm).abs(), "{}", both.grad_norm);
}

/// bf16 rounds to 8 bits, 0.4 %: through two layers and a normalisation a cosine is off by about as much, and a similarity
/// is the mean of many. The hinge of a negative is the margin of 0.2 and a difference of two of them.
const BF16: f64 = 0.05;

/// What the device trains in besides f32.
fn halves() -> Vec<Precision> {
    // A processor refuses fp16, whose 11 bits lose less.
    if device() == Device::Cpu { vec![Precision::Bf16] } else { vec![Precision::Bf16, Precision::Fp16] }
}

/// One step in a precision. The factor of the loss begins where the gradient of fp16 may be infinite, and is halved then.
fn step_in(name: &str, config: &ModelConfig, options: StepOptions) -> Stepped {
    let step = Steps::open(name).step(2);
    let mut learner = learner(name, config, options);
    let mut attempts = (0..16).map(|_| attempt(&mut learner, std::slice::from_ref(&step)));
    attempts.find(|stepped| stepped.finite).unwrap()
}

#[test]
fn a_step_in_half_precision_has_about_the_same_loss() {
    for (name, config) in [("vit", vit_tiny()), ("swin", swin_tiny())] {
        let single = step_in(name, &config, PLAIN);
        for precision in halves() {
            let half = step_in(name, &config, StepOptions { precision, ..PLAIN });
            println!(
                "{name}: loss {} and in {precision:?} {}, norm {} and {}",
                single.loss, half.loss, single.grad_norm, half.grad_norm
            );
            assert!(single.loss != half.loss, "{name}: nothing was rounded");
            assert!((half.loss / single.loss - 1.0).abs() < BF16, "{name}: {} and {}", single.loss, half.loss);
            assert!((half.grad_norm / single.grad_norm - 1.0).abs() < 2.0 * BF16, "{name}: {}", half.grad_norm);
        }
    }
}

/// With dropout the weights of the attention are computed apart from it.
#[test]
fn half_precision_takes_what_is_left_out_at_random() {
    let regularization = Regularization { dropout: 0.1, drop_path: 0.1 };
    for (name, config) in [("vit", vit_tiny()), ("swin", swin_tiny())] {
        for precision in halves() {
            let left_out = step_in(name, &config, StepOptions { precision, regularization, ..PLAIN });
            let whole = step_in(name, &config, StepOptions { precision, ..PLAIN });
            assert!(left_out.loss != whole.loss && left_out.grad_norm > 0.0, "{name}: {}", left_out.loss);
        }
    }
}

/// Features of frozen backbones take long, and there is no step yet that could be saved.
#[test]
fn a_run_that_is_told_to_stop_before_its_first_step_leaves_nothing_half_done() {
    let folder = tempfile::tempdir().unwrap();
    let drawn = scenes::DrawnConfig { seed: 7, train: 8, dev: 4, test: 4 };
    scenes::write(folder.path(), &drawn, &scenes::Split::ALL).unwrap();
    let mut entry = registry::find("shapes_vit").unwrap();
    entry.train.freeze_backbones = true;
    entry.train.batch_size = 8;
    let request = laps::TrainRequest {
        paths: entry.data_paths(Some(folder.path())).unwrap(),
        entry,
        out: folder.path().join("run"),
        device: device(),
        threads: 1,
        resume: false,
        start: laps::InitialWeights::default(),
    };
    let message = || train(&request, &AtomicBool::new(true), &mut ()).unwrap_err().to_string();
    let first = message();
    assert!(first.starts_with("training was interrupted before its first step"), "{first}");
    assert!(!request.out.join(Files::STATE).exists());
    assert_eq!(message(), first, "the folder takes the same run again");
}
