//! Training steps against those of the reference implementation.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a helper of tests is a test

mod support;

use support::{Tensors, difference, golden, swin_tiny, vit_tiny};
use zoo::{
    array::Array,
    checkpoint::Checkpoint,
    encoder::Device,
    models::config::ModelConfig,
    params::Regularization,
    torch::{
        TorchDevice,
        train::{Captions, Hinge, Images, Learner, Pairs, StepOptions, Weights},
    },
    train::{Negatives, Precision},
};

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
};

fn learner(name: &str, config: &ModelConfig, options: StepOptions) -> Learner {
    let checkpoint = Checkpoint::open(golden(&format!("{name}_tiny.safetensors"))).unwrap();
    let device = TorchDevice::open(Device::Cpu).unwrap();
    let weights = Weights::new(config, device, |parameter| Ok(checkpoint.read(&parameter.name)?)).unwrap();
    Learner::new(weights, options).unwrap()
}

/// Losses and gradient norms of the four steps of the file.
fn steps(name: &str, learner: &mut Learner) -> Vec<(f64, f64)> {
    let golden = Tensors::open(&format!("{name}_train.safetensors"));
    let (images, alphas) = (golden.get("images"), golden.get("warmup_alpha"));
    let each = images.values().len() / 4;
    let mut found = Vec::new();
    for step in 0..4 {
        let get = |key: &str| golden.get(&format!("step{step}.{key}"));
        let rolled: Vec<f32> =
            (0..4).flat_map(|j| images.values()[(j + 4 - step) % 4 * each..][..each].to_vec()).collect();
        let pixels = Array::new(images.dims(), rolled).unwrap();
        let tokens = get("tokens");
        let length = tokens.dims()[1];
        let rows: Vec<Vec<u32>> =
            tokens.values().chunks(length).map(|row| row.iter().map(|&t| t as u32).collect()).collect();
        let lengths = get("lengths");
        let captions: Vec<&[u32]> =
            rows.iter().zip(lengths.values()).map(|(row, &length)| &row[..length as usize]).collect();
        let ids: Vec<u64> = get("img_ids").values().iter().map(|&id| id as u64).collect();
        let negatives = if step < 2 { Negatives::All } else { Negatives::Hardest };
        let hinge = Hinge { margin: 0.2, negatives, weight: f64::from(alphas.values()[step]) };
        let pairs = Pairs { images: Images::Pixels(&pixels), captions: Captions::Tokens(&captions), ids: &ids };
        let stepped = learner.step(&[pairs], &hinge, [2e-4, 2e-5], 0).unwrap();
        assert!(stepped.finite);
        found.push((stepped.loss, stepped.grad_norm));
    }
    found
}

fn four_steps_agree(name: &str, config: &ModelConfig) {
    let golden = Tensors::open(&format!("{name}_train.safetensors"));
    let mut learner = learner(name, config, PLAIN);
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
    four_steps_agree("vit", &vit_tiny());
}

#[test]
fn four_steps_of_swin() {
    four_steps_agree("swin", &swin_tiny());
}
