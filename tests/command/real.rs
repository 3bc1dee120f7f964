//! Real photos and captions with a checkpoint trained by the authors' code, compared with the results of that code.
//!
//! Neither is part of the repository: the tests are skipped if `../shared/real` or the checkpoint, which CI creates with the
//! script there, is missing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    files::repository_file,
    matrix::{Direction, Matrix, figures, reported},
    support::{json, laps_zoo},
};

const DIRECTIONS: [Direction; 2] = [Direction::ImageToText, Direction::TextToImage];

/// Two correct f32 implementations differ by less, unless one selects another patch.
const SIMILARITY: f32 = 1e-4;
/// Share of pairs in which a patch may be selected differently, because it is nearly tied at the selection boundary.
const CHANGED_SIDES: f64 = 1e-3;
/// Scores closer than this may be ranked in either order.
const NEAR_TIE: f32 = 1e-5;

/// Runs these tests one at a time: each uses all CPUs for a minute.
static ALONE: Mutex<()> = Mutex::new(());

/// The reference data and the checkpoint, if available.
fn inputs() -> Option<(PathBuf, PathBuf)> {
    let found = (repository_file("../shared/real"), repository_file(".runtime/real/f30k_mini.safetensors"));
    let absent = [&found.0, &found.1].into_iter().find(|path| !path.exists());
    if let Some(path) = absent {
        println!("skipped: `{}` does not exist", path.display());
        return None;
    }
    Some(found)
}

struct Evaluated {
    matrix: Matrix,
    result: serde_json::Value,
    stdout: String,
}

fn evaluate(real: &Path, checkpoint: &Path, more: &[&str]) -> Evaluated {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let [sims, result] = ["sims", "result"].map(|name| folder.path().join(name));
    let entry = real.join("f30k_mini.yaml");
    let paths = [&entry, checkpoint, &sims, &result].map(|path: &Path| path.to_str().unwrap());
    let arguments =
        ["reproduce", paths[0], "--checkpoint", paths[1], "--sims", paths[2], "--json", paths[3], "--quiet"];
    let run = laps_zoo(arguments.iter().chain(more));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    Evaluated { matrix: Matrix::open(&sims), result: json(&result), stdout: run.stdout }
}

/// Pairs that differ by more than [`SIMILARITY`].
fn beyond(found: &Matrix, expected: &Matrix) -> Vec<(usize, usize, f32)> {
    let pairs = (0..found.images).flat_map(|image| (0..found.captions).map(move |caption| (image, caption)));
    let differences =
        pairs.map(|(image, caption)| (image, caption, (found.at(image, caption) - expected.at(image, caption)).abs()));
    differences.filter(|&(.., difference)| difference.is_nan() || difference > SIMILARITY).collect()
}

/// Values of a split in the reference table: image to text, text to image, and rSum.
fn reference_table(real: &Path, split: &str) -> ([f64; 5], [f64; 5], f64) {
    let text = fs_err::read_to_string(real.join("f30k_mini_reference.md")).unwrap();
    let row = text.lines().find(|line| line.starts_with(&format!("| {split} |"))).unwrap();
    let numbers = |cell: &str| -> Vec<f64> {
        cell.split([' ', ',']).filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
    };
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let side = |at: usize| <[f64; 5]>::try_from([numbers(cells[at]), numbers(cells[at + 1])].concat()).unwrap();
    (side(2), side(4), numbers(cells[6])[0])
}

/// Checks that ranks differ only between candidates whose scores are nearly tied; returns the number of differences.
fn check_ranks(found: &Matrix, expected: &Matrix, direction: Direction, split: &str) -> usize {
    let (ranks, reference) = (found.ranks(direction), expected.ranks(direction));
    let mut differing = 0;
    for query in (0..ranks.len()).filter(|&query| ranks[query] != reference[query]) {
        differing += 1;
        let (ours, theirs) = (found.scores(direction, query), expected.scores(direction, query));
        let (own, their) = (found.target(direction, query), expected.target(direction, query));
        let moved: Vec<usize> = (0..ours.len())
            .filter(|&candidate| (ours[candidate] > ours[own]) != (theirs[candidate] > theirs[their]))
            .collect();
        assert!(!moved.is_empty(), "{split}, {direction:?}, query {query}: {} and {}", ranks[query], reference[query]);
        for candidate in moved {
            let gap = (theirs[candidate] - theirs[their]).abs();
            println!(
                "{split}, {direction:?}, query {query}: rank {} and not {}: candidate {candidate} is {gap:e} from the answer",
                ranks[query] + 1,
                reference[query] + 1
            );
            assert!(gap <= NEAR_TIE, "{split}, {direction:?}, query {query}, candidate {candidate}: {gap:e} apart");
        }
    }
    differing
}

fn split_agrees(split: &str, more: &[&str]) -> Option<(Evaluated, PathBuf, PathBuf)> {
    let (real, checkpoint) = inputs()?;
    let found = evaluate(&real, &checkpoint, &[&["--split", split], more].concat());
    let expected = Matrix::open(&real.join(format!("f30k_mini_{split}_sims.safetensors")));
    assert_eq!((found.matrix.images, found.matrix.captions), (expected.images, expected.captions));

    let pairs = expected.values.len();
    let beyond = beyond(&found.matrix, &expected);
    let largest = beyond.iter().map(|&(.., difference)| difference).fold(0.0, f32::max);
    println!("{split}: {} of {pairs} pairs differ by more than {SIMILARITY:e}, {largest:e} at most", beyond.len());
    assert!(beyond.len() as f64 <= CHANGED_SIDES * pairs as f64, "{beyond:?}");

    let table = reference_table(&real, split);
    let mut differing = BTreeMap::new();
    for (direction, row) in DIRECTIONS.into_iter().zip([table.0, table.1]) {
        // The printed table belongs to the printed matrix, which has three decimals.
        let from_matrix = figures(&expected.ranks(direction));
        assert!(near(from_matrix, row), "{split}, {direction:?}: {from_matrix:?}, {row:?}");
        differing.insert(format!("{direction:?}"), check_ranks(&found.matrix, &expected, direction, split));
        let ours = reported(&found.result["evaluations"][0], direction);
        assert!(near(ours, figures(&found.matrix.ranks(direction))), "{split}, {direction:?}: {ours:?}");
        if differing[&format!("{direction:?}")] == 0 {
            assert!(near(ours, row), "{split}, {direction:?}: {ours:?}, {row:?}");
        }
    }
    println!("{split}: queries of another rank: {differing:?}");
    if differing.values().all(|&count| count == 0) {
        let rsum = found.result["evaluations"][0]["rsum"].as_f64().unwrap();
        assert!((rsum - table.2).abs() <= 0.005 + 1e-9, "{rsum}, {}", table.2);
    }
    Some((found, real, checkpoint))
}

/// Equal to three decimals, as printed.
fn near(found: [f64; 5], expected: [f64; 5]) -> bool {
    found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 0.0005 + 1e-9)
}

#[test]
fn test_split_matches_the_reference_on_both_engines() {
    let Some((found, real, checkpoint)) = split_agrees("test", &crate::NATIVE_ENGINE) else { return };
    assert!(found.stdout.starts_with("f30k_mini, split test: 243 images, 1215 captions\n"), "{}", found.stdout);
    assert!(found.stdout.ends_with("verdict: not compared, the entry has no published recalls\n"), "{}", found.stdout);

    let rust = evaluate(&real, &checkpoint, &["--engine", "rust", "--limit", "12"]).matrix;
    assert_eq!((rust.images, rust.captions), (12, 60));
    let beyond = beyond(&rust, &found.matrix);
    println!("engine rust: {} of 720 pairs differ by more than {SIMILARITY:e}", beyond.len());
    assert!(beyond.is_empty(), "{beyond:?}");
}

#[test]
fn dev_split_matches_the_reference() {
    let Some((found, ..)) = split_agrees("dev", &crate::NATIVE_ENGINE) else { return };
    assert!(found.stdout.starts_with("f30k_mini, split dev: 242 images, 1210 captions\n"), "{}", found.stdout);
}

/// The same table and matrix with graphs exported for the run; fp16 and int8 stay within their tolerance, which the exit
/// code reports.
#[test]
fn test_split_matches_the_reference_in_onnx_runtime() {
    if let Err(error) = laps_onnx::runtime::library::find() {
        return println!("skipped: {error}");
    }
    let Some((found, ..)) = split_agrees("test", &["--engine", "ort", "--precisions", "fp16,int8"]) else { return };
    let engine = &found.result["provenance"]["engine"];
    assert_eq!((engine["name"].as_str(), engine["device"].as_str()), (Some("ort"), Some("cpu")));
    assert_eq!(engine["graphs"], "portable, fp32, opset 18");
    assert!(found.stdout.contains("; graphs portable, fp32, opset 18; similarities "), "{}", found.stdout);
    let beside = found.result["beside"].as_array().unwrap();
    let graphs: Vec<_> = beside.iter().map(|one| one["engine"]["graphs"].as_str().unwrap()).collect();
    println!("lost: {:?}", beside.iter().map(|one| &one["rsum_lost"]).collect::<Vec<_>>());
    assert_eq!(graphs, ["portable, fp16, opset 18", "portable, int8, opset 18"]);
}
