//! Instruction counts of the similarity engines' kernels, which are equal in every run with one compiler: the stages of LAPS
//! at both published geometries, and the engine of every other head at a small size.
//!
//! `cargo bench -p laps-bench --bench kernels` counts with valgrind, compares with `bench/baselines/kernels.json`, and
//! exits with 1 if a count changed by more than `GateGroup::Kernels` allows. `-- --counts FILE` writes the counts for
//! `laps-zoo bench --gate --kernels FILE` and `--bless`; followed by `--slower swin/compare`, it runs that stage twice to
//! show a failing gate. Without valgrind it prints that it was skipped.

#![allow(clippy::print_stdout, reason = "a program")]

use std::{
    error::Error,
    hint::black_box,
    path::Path,
    process::{Command, ExitCode},
};

use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, HeadEngine, PreparedImages, SimdLevel,
    SimilarityEngine,
};
use laps_bench::gate::{Baselines, GateGroup, KernelCounts, MeasuredOn, judge, render};
use laps_model::{
    array::Array,
    heads::{Ablation, ChanAggregation, HeadConfig, HeadSizes, Pooling},
    params::Parameter,
    params_init::init_parameters,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const VIT: AlignmentConfig = AlignmentConfig { patches: 196, has_class_token: true, kept: 98, groups: 39, width: 512 };
const SWIN: AlignmentConfig = AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: 512 };

/// Words of each caption; the median is about 14, as in Flickr30K.
const LENGTHS: [usize; 16] = [9, 14, 12, 17, 11, 22, 14, 8, 15, 13, 31, 10, 16, 12, 19, 5];

const IMAGES: usize = 3;

/// Prefix of the names of the other heads' measures, where those of LAPS have a model.
const HEADS: &str = "heads";

/// Sizes of the other heads. An ablation of LAPS selects 40 of the 49 tokens.
const SMALL: AlignmentConfig = AlignmentConfig { width: 128, ..SWIN };

/// Images and captions of a head that compares one vector of each.
const VECTORS: usize = 256;

/// The heads besides LAPS's by the names of their stages. A head that pools is one matrix product, whatever it pools.
const OTHER_HEADS: [(&str, HeadConfig); 15] = [
    ("pooled", HeadConfig::Vsepp { pooling: Pooling::Mean }),
    ("scan_t2i", HeadConfig::ScanT2i),
    ("scan_i2t", HeadConfig::ScanI2t),
    ("scan_all", HeadConfig::ScanAll),
    ("max_mean", HeadConfig::MaxMean),
    ("chan_mean", HeadConfig::Chan { aggregation: ChanAggregation::Mean }),
    ("chan_lse", HeadConfig::Chan { aggregation: ChanAggregation::Lse }),
    ("sgr", HeadConfig::Sgr { sim_dim: 64, steps: 3 }),
    ("without_patch_selection", HeadConfig::LapsAblation { ablation: Ablation::WithoutPatchSelection }),
    ("without_language_context", HeadConfig::LapsAblation { ablation: Ablation::WithoutLanguageContext }),
    ("without_patch_calibration", HeadConfig::LapsAblation { ablation: Ablation::WithoutPatchCalibration }),
    ("without_redundant_fusion", HeadConfig::LapsAblation { ablation: Ablation::WithoutRedundantFusion }),
    ("scan_alignment", HeadConfig::LapsAblation { ablation: Ablation::ScanAlignment }),
    ("patch_to_word_only", HeadConfig::LapsAblation { ablation: Ablation::PatchToWordOnly }),
    ("word_to_patch_only", HeadConfig::LapsAblation { ablation: Ablation::WordToPatchOnly }),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["work", model, level, stage] => work(model, level, stage, 1).map(|()| true),
        ["work", model, level, stage, "twice"] => work(model, level, stage, 2).map(|()| true),
        [] => gate(),
        ["--counts", file] => write(Path::new(file), None),
        ["--counts", file, "--slower", slower] => write(Path::new(file), Some(slower)),
        _ => Err("usage: kernels [--counts FILE [--slower MODEL/STAGE]]".into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Compares with the baseline; returns true if no count changed.
fn gate() -> Result<bool> {
    let baselines = Baselines::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("baselines"))?;
    let report = judge(&counts(None)?.measures(), &baselines.read(GateGroup::Kernels)?, &MeasuredOn::here());
    print!("{}", render(std::slice::from_ref(&report)));
    Ok(!report.fails())
}

fn write(file: &Path, slower: Option<&str>) -> Result<bool> {
    let counts = counts(slower)?;
    fs_err::write(file, serde_json::to_string_pretty(&counts)? + "\n")?;
    match &counts.skipped {
        Some(reason) => println!("skipped: instruction counts of the kernels; {reason}"),
        None => println!("{} counts written to {}", counts.counts.len(), file.display()),
    }
    Ok(true)
}

/// Counts every stage of both models, and every other head, with every instruction set that valgrind supports; the stage
/// `slower` runs twice.
fn counts(slower: Option<&str>) -> Result<KernelCounts> {
    let mut all = KernelCounts::default();
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        all.skipped = Some("valgrind is not installed".to_owned());
        return Ok(all);
    }
    // Valgrind does not support AVX-512.
    for level in SimdLevel::available().into_iter().filter(|level| level.name() != "avx512") {
        let stages = ["prepare", "compare"];
        let heads = OTHER_HEADS.map(|(name, _)| name);
        for (model, stages) in [("vit", &stages[..]), ("swin", &stages[..]), (HEADS, &heads[..])] {
            for &stage in stages {
                let times = if slower == Some(&format!("{model}/{stage}")) { &["twice"][..] } else { &[] };
                let instructions = count(&[&[model, level.name(), stage], times].concat())?;
                all.counts.insert(format!("{model}/{}/{stage}", level.name()), instructions);
            }
        }
    }
    Ok(all)
}

/// Instructions of one stage.
fn count(stage: &[&str]) -> Result<u64> {
    let output = Command::new("valgrind")
        // Only the measured thread is counted. `sgr` prepares images by its definition, which uses rayon.
        .env("RAYON_NUM_THREADS", "1")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*kernels*measured*"])
        .arg("--callgrind-out-file=/dev/null")
        .arg(std::env::current_exe()?)
        .arg("work")
        .args(stage)
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    match line.and_then(|(_, count)| count.trim().parse().ok()) {
        Some(count) if output.status.success() && count > 0 => Ok(count),
        _ => Err(format!("`{}` cannot be counted\n{text}", stage.join("/")).into()),
    }
}

fn work(model: &str, level: &str, stage: &str, times: usize) -> Result<()> {
    let level = SimdLevel::available()
        .into_iter()
        .find(|one| one.name() == level)
        .ok_or("this CPU lacks the instruction set")?;
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    if model == HEADS {
        return head_work(stage, level, &mut random, times);
    }
    let config = if model == "vit" { VIT } else { SWIN };
    let engine = Engine::with_level(config, &weights(config, &mut random)?, EngineOptions::default(), level)?;
    let images = random.array(&[IMAGES, config.tokens(), config.width], 1.0)?;
    let captions = random.captions(&LENGTHS, config.width)?;
    for _ in 0..times {
        if stage == "prepare" {
            black_box(measured_prepare(&engine, &images)?);
        } else {
            black_box(measured_compare(&engine, &engine.prepare(&images, 0..IMAGES)?, &captions)?);
        }
    }
    Ok(())
}

/// Similarities of a head other than LAPS's, with the preparation of the images.
fn head_work(name: &str, level: SimdLevel, random: &mut Xorshift, times: usize) -> Result<()> {
    let (_, head) = OTHER_HEADS.into_iter().find(|(one, _)| *one == name).ok_or("unknown head")?;
    let read = |parameter: &Parameter| Ok(init_parameters(std::slice::from_ref(parameter), 3)?.swap_remove(0).1);
    // Other threads are not counted.
    let options = EngineOptions { threads: 1, ..EngineOptions::default() };
    let AlignmentConfig { has_class_token, width, .. } = SMALL;
    let sizes = HeadSizes { tokens: SMALL.tokens(), has_class_token, width, word_width: width }.encoded(&head);
    let engine = match head {
        HeadConfig::LapsAblation { ablation } => HeadEngine::of_ablation(ablation, SMALL, read, options, level)?,
        _ => HeadEngine::with_sizes(head, sizes, read, options, level)?,
    };
    let (images, lengths) = if head.pools() { (VECTORS, &[1; VECTORS][..]) } else { (IMAGES, &LENGTHS[..]) };
    let images = random.array(&[images, sizes.tokens, width], 1.0)?;
    let captions = random.captions(lengths, width)?;
    for _ in 0..times {
        black_box(measured_similarities(&engine, &images, &captions)?);
    }
    Ok(())
}

#[inline(never)]
fn measured_similarities(engine: &HeadEngine, images: &Array, captions: &CaptionMatrix) -> Result<Array> {
    Ok(engine.similarities(black_box(images), black_box(captions))?)
}

#[inline(never)]
fn measured_prepare(engine: &Engine, images: &Array) -> Result<PreparedImages> {
    Ok(engine.prepare(black_box(images), 0..IMAGES)?)
}

#[inline(never)]
fn measured_compare(engine: &Engine, images: &PreparedImages, captions: &CaptionMatrix) -> Result<Array> {
    Ok(engine.compare(black_box(images), black_box(captions))?)
}

fn weights(config: AlignmentConfig, random: &mut Xorshift) -> Result<AggregationWeights> {
    let [width, hidden, groups] = [config.width, config.width / 5, config.groups];
    Ok(AggregationWeights {
        norm_weight: random.array(&[width], 1.0)?,
        norm_bias: random.array(&[width], 0.1)?,
        hidden_weight: random.array(&[hidden, width], (width as f32).powf(-0.5))?,
        hidden_bias: random.array(&[hidden], 0.1)?,
        group_weight: random.array(&[groups, hidden], (hidden as f32).powf(-0.5))?,
        group_bias: random.array(&[groups], 0.1)?,
        scale: Array::new(&[1, 1, 1], vec![1.0])?,
    })
}

/// Xorshift generator. The baseline was counted with its numbers.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    /// Approximately normal values with standard deviation `spread`.
    fn array(&mut self, shape: &[usize], spread: f32) -> Result<Array> {
        let count = shape.iter().product();
        let values = (0..count).map(|_| ((0..12).map(|_| self.next()).sum::<f32>() - 6.0) * spread).collect();
        Ok(Array::new(shape, values)?)
    }

    /// Captions of the given lengths.
    fn captions(&mut self, lengths: &[usize], width: usize) -> Result<CaptionMatrix> {
        let mut captions = CaptionMatrix::new(width);
        for &length in lengths {
            let words = self.array(&[length, width], 1.0)?;
            captions.push(words.dims(), words.values())?;
        }
        Ok(captions)
    }
}
