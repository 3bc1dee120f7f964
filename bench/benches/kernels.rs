//! Instruction counts of the similarity engine's kernels, which are equal in every run with one compiler.
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
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, PreparedImages, SimdLevel,
};
use laps_bench::gate::{Baselines, GateGroup, KernelCounts, MeasuredOn, judge, render};
use laps_model::array::Array;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const VIT: AlignmentConfig = AlignmentConfig { patches: 196, has_class_token: true, kept: 98, groups: 39, width: 512 };
const SWIN: AlignmentConfig = AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: 512 };

/// Words of each caption; the median is about 14, as in Flickr30K.
const LENGTHS: [usize; 16] = [9, 14, 12, 17, 11, 22, 14, 8, 15, 13, 31, 10, 16, 12, 19, 5];

const IMAGES: usize = 3;

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

/// Counts every stage of both models with every instruction set that valgrind supports; the stage `slower` runs twice.
fn counts(slower: Option<&str>) -> Result<KernelCounts> {
    let mut all = KernelCounts::default();
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        all.skipped = Some("valgrind is not installed".to_owned());
        return Ok(all);
    }
    // Valgrind does not support AVX-512.
    for level in SimdLevel::available().into_iter().filter(|level| level.name() != "avx512") {
        for model in ["vit", "swin"] {
            for stage in ["prepare", "compare"] {
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
    let config = if model == "vit" { VIT } else { SWIN };
    let level = SimdLevel::available()
        .into_iter()
        .find(|one| one.name() == level)
        .ok_or("this CPU lacks the instruction set")?;
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let engine = Engine::with_level(config, &weights(config, &mut random)?, EngineOptions::default(), level)?;
    let images = random.array(&[IMAGES, config.tokens(), config.width], 1.0)?;
    let mut captions = CaptionMatrix::new(config.width);
    for length in LENGTHS {
        let words = random.array(&[length, config.width], 1.0)?;
        captions.push(words.dims(), words.values())?;
    }
    for _ in 0..times {
        if stage == "prepare" {
            black_box(measured_prepare(&engine, &images)?);
        } else {
            black_box(measured_compare(&engine, &engine.prepare(&images, 0..IMAGES)?, &captions)?);
        }
    }
    Ok(())
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
}
