//! Heads on libtorch: similarities, and training runs.
#![allow(clippy::unwrap_used, clippy::panic)] // tests

#[macro_use]
#[path = "../../model/tests/heads/cases.rs"]
mod cases;
#[path = "../../model/tests/heads/configs.rs"]
mod configs;
#[path = "../../model/tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use laps_data::scenes;
use laps_hub::{checkpoint::Checkpoint, registry};
use laps_model::{
    heads::{Ablation, D2sVseConfig, HeadConfig, Pooling},
    models,
};
use laps_torch::{
    Torch, TorchDevice,
    train::{RunFiles, train},
};
use safetensors::SafeTensors;
use support::device;

test_heads!(Torch, TorchDevice::open(device()).unwrap());

/// Sets `stop` after some steps, and keeps the mean losses of epochs.
struct StopAfter<'a> {
    stop: &'a AtomicBool,
    steps: u64,
    losses: Vec<f64>,
}

impl laps::Observer for StopAfter<'_> {
    fn step(&mut self, line: &laps::StepLine, _: &laps::Timing) {
        self.stop.store(line.step >= self.steps, Ordering::Relaxed);
    }

    fn epoch(&mut self, line: &laps::EpochLine) {
        self.losses.push(line.mean_loss);
    }
}

fn assert_head_trains_and_resumes(head: HeadConfig) {
    let folder = tempfile::tempdir().unwrap();
    let drawn = scenes::DrawnConfig { seed: 7, train: 8, dev: 4, test: 4 };
    scenes::write(folder.path(), &drawn, &scenes::DrawnSplit::ALL).unwrap();
    let mut entry = registry::find("shapes_vit").unwrap();
    entry.model.head = head;
    if !head.has_ratios() {
        (entry.model.sparse_ratio, entry.model.aggr_ratio) = (0.0, 0.0);
    }
    entry.train.epochs = 4;
    entry.train.batch_size = 8;
    entry.train.warmup_epochs = 0;
    entry.train.decay_epochs = Vec::new();
    let request = |out: &str, resume| laps::TrainRequest {
        paths: entry.data_paths(Some(folder.path())).unwrap(),
        entry: entry.clone(),
        out: folder.path().join(out),
        device: device(),
        threads: 1,
        long_captions: laps_data::LongCaptions::default(),
        resume,
        group: None,
        version: String::new(),
        start: laps::InitialWeights::default(),
    };
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter { stop: &stop, steps: u64::MAX, losses: Vec::new() };
    let whole = request("whole", laps::Resume::Never);
    train(&whole, &stop, &mut observer).unwrap();
    println!("{head}: mean losses {:?}", observer.losses);
    assert!(observer.losses.last() < observer.losses.first(), "{head}: {:?}", observer.losses);

    // In the middle of the second epoch of five steps.
    observer.steps = 7;
    train(&request("broken", laps::Resume::Never), &stop, &mut observer).unwrap_err();
    stop.store(false, Ordering::Relaxed);
    let broken = request("broken", laps::Resume::Always);
    train(&broken, &stop, &mut ()).unwrap();
    for file in [RunFiles::STATE, RunFiles::BEST, RunFiles::LAST] {
        let [found, expected] = [&broken, &whole].map(|request| fs_err::read(request.out.join(file)).unwrap());
        let [one, other] = [&found, &expected].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        for (name, tensor) in one.iter() {
            assert!(tensor.data() == other.tensor(name).unwrap().data(), "{head}: {file}, {name}");
        }
        assert!(found == expected, "{head}: {file}");
    }

    // The checkpoint has every parameter of the model, and the statistics of the batches.
    let checkpoint = Checkpoint::open(whole.out.join(RunFiles::LAST)).unwrap();
    let parameters = models::parameters(&entry.model).unwrap();
    checkpoint.check(&parameters).unwrap();
    for parameter in parameters.iter().filter(|parameter| parameter.is_running_statistic()) {
        let initial = if parameter.name.ends_with("mean") { 0.0 } else { 1.0 };
        let values = checkpoint.read(&parameter.name).unwrap();
        assert!(values.values().iter().all(|&value| value.is_finite() && value != initial), "{}", parameter.name);
    }
}

/// One test, because dropout draws from the generator of the whole process.
#[test]
fn heads_with_parameters_train_and_resume() {
    // As the program does: several threads of libtorch may split a product differently while the machine is busy.
    laps_torch::set_threads(1);
    let d2s_vse = D2sVseConfig { embed_size: 64, mlp_size: 16, prompt_tokens: 4, blocks: 1, heads: 4 };
    let heads = [
        HeadConfig::Vsepp { pooling: Pooling::Gpo },
        HeadConfig::Sgr { sim_dim: 16, steps: 2 },
        HeadConfig::D2sVse(d2s_vse),
        HeadConfig::LapsAblation { ablation: Ablation::ScanAlignment },
        HeadConfig::LapsAblation { ablation: Ablation::WithoutPatchCalibration },
    ];
    heads.into_iter().for_each(assert_head_trains_and_resumes);
}
