//! `index`, `search` and `score`: images and texts without a data set.

use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    files::{repository_file, scenes},
    graphs::{export_to, runtime},
    interruption::RunningCommand,
    matrix::{Direction, Matrix},
    support::{expect_error, laps_zoo},
};

/// Tolerance for images encoded in another batch, whose embeddings differ in the last bits; similarities go up to 2.
const ROUNDING: f32 = 1e-5;

/// Tolerance for embeddings in fp16, which has an 11-bit significand.
const HALF: f32 = 5e-3;

const MODEL: [&str; 5] = ["--entry", "shapes_vit", "--engine", "rust", "--quiet"];

/// The JSON output of a run.
fn json(arguments: &[&str]) -> Value {
    let run = laps_zoo(arguments.iter().chain(&["--json"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Creates an index of the images of `data`.
fn index(data: &TempDir, name: &str, more: &[&str]) -> (PathBuf, Value) {
    let [images, out] = ["images", name].map(|name| data.path().join(name));
    let made = json(&[&["index", text(&images), "--out", text(&out)], &MODEL[..], more].concat());
    (out, made)
}

fn captions(data: &TempDir) -> Vec<String> {
    let text = fs_err::read_to_string(data.path().join("captions/test_caps.txt")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The number of an image in a drawn set: 7 for `test_00007.png`.
pub(crate) fn image_number(name: &Value) -> usize {
    let name = name.as_str().unwrap();
    name.strip_prefix("test_").and_then(|name| name.strip_suffix(".png")).unwrap().parse().unwrap()
}

fn similarity(result: &Value) -> f32 {
    result["similarity"].as_f64().unwrap() as f32
}

/// The matrix that `reproduce` writes for the same images and captions.
fn reproduced(data: &TempDir) -> Matrix {
    let sims = data.path().join("sims");
    let arguments = ["reproduce", "shapes_vit", "--quiet", "--engine", "rust", "--data", text(data.path())];
    let run = laps_zoo(arguments.iter().chain(&["--sims", text(&sims)]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    Matrix::open(&sims)
}

/// Checks that results match `expected` within `tolerance`, and its order where differences are larger than that.
pub(crate) fn agrees(results: &Value, places: impl Fn(&Value) -> usize, expected: &[f32], tolerance: f32) {
    let results = results.as_array().unwrap();
    assert_eq!(results.len(), expected.len());
    let mut seen = vec![false; expected.len()];
    let mut before = f32::INFINITY;
    for (rank, result) in results.iter().enumerate() {
        let place = places(&result["name"]);
        assert!(!std::mem::replace(&mut seen[place], true), "{place} twice");
        assert_eq!(result["rank"], rank + 1);
        let (found, wanted) = (similarity(result), expected[place]);
        assert!((found - wanted).abs() <= tolerance, "{place}: {found} and not {wanted}");
        assert!(wanted <= before + 2.0 * tolerance, "rank {rank}: {wanted} after {before}");
        before = wanted;
    }
}

#[test]
fn search_and_score_rank_like_reproduce() {
    let data = scenes(12);
    let matrix = reproduced(&data);
    let texts = captions(&data);
    let (exact, made) = index(&data, "exact.index", &["--precision", "fp32"]);
    assert_eq!((&made["items"], &made["encoded"], &made["kept"]), (&12.into(), &12.into(), &0.into()));
    let (half, _) = index(&data, "half.index", &[]);
    let search = |index: &Path, query: &str, more: &[&str]| {
        json(&[&["search", text(index), query, "--top", "12"], &MODEL[2..], more].concat())
    };
    for caption in [0, 17, 59] {
        let expected = matrix.scores(Direction::TextToImage, caption);
        // The index records its entry.
        for (index, tolerance) in [(&exact, ROUNDING), (&half, HALF)] {
            let found = search(index, &texts[caption], &["--exact"]);
            assert_eq!(
                (&found["compared"], &found["items"], &found["kind"]),
                (&12.into(), &12.into(), &"images".into())
            );
            agrees(&found["results"], image_number, &expected, tolerance);
            // With as many candidates as images, the search is exact.
            assert_eq!(search(index, &texts[caption], &["--candidates", "12"])["results"], found["results"]);
        }
    }

    // The other direction: search captions by image.
    let file = data.path().join("captions/test_caps.txt");
    let out = data.path().join("captions.index");
    let made = [&["index", "--captions", text(&file), "--out", text(&out), "--precision", "fp32"], &MODEL[..]].concat();
    assert_eq!(json(&made)["items"], 60);
    let image = data.path().join("images/test_00003.png");
    let found =
        json(&[&["search", text(&out), "--image", text(&image), "--top", "60", "--exact"], &MODEL[..]].concat());
    let expected = matrix.scores(Direction::ImageToText, 3);
    // Equal captions have the same similarity, so one index stands for all of them.
    let results = found["results"].as_array().unwrap();
    assert_eq!(results.len(), 60);
    for (caption, wanted) in texts.iter().zip(&expected) {
        let result = results.iter().find(|result| result["name"] == caption.as_str()).unwrap();
        assert!((similarity(result) - wanted).abs() <= ROUNDING, "{caption}");
    }
    assert!(results.windows(2).all(|pair| similarity(&pair[0]) >= similarity(&pair[1])));

    let paths: Vec<String> =
        (0..3).map(|index| data.path().join(format!("images/test_0000{index}.png")).display().to_string()).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let asked = ["--caption", &texts[4], "--caption", &texts[9]];
    let scores = json(&[&["score"], &paths[..], &asked, &MODEL].concat());
    for image in 0..3 {
        for (column, caption) in [4, 9].into_iter().enumerate() {
            let found = scores["similarities"][image][column].as_f64().unwrap() as f32;
            assert!((found - matrix.at(image, caption)).abs() <= ROUNDING, "{image}, {caption}");
        }
    }
}

/// Masks numbers in tables and the engine line, which depend on the machine.
fn masked(stdout: &str) -> String {
    let mask = |letter: char| if letter.is_ascii_digit() { '0' } else { letter };
    let line = |line: &str| match line.starts_with('│') {
        true => line.chars().map(mask).collect::<String>() + "\n",
        false => format!("{line}\n"),
    };
    stdout.lines().skip(1).map(line).collect()
}

#[test]
fn text_output() {
    let data = scenes(2);
    let (path, _) = index(&data, "photos.index", &[]);
    let run = laps_zoo(["search", text(&path), "a large red circle", "--engine", "rust"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].starts_with("shapes_vit, engine rust "), "{}", lines[0]);
    assert_eq!((lines[1], lines[2]), ("2 of 2 images compared exactly", ""));
    let names =
        ["test_00000.png", "test_00001.png"].map(|name| lines.iter().filter(|line| line.contains(name)).count());
    assert_eq!(names, [1, 1], "{}", run.stdout);

    let image = data.path().join("images/test_00000.png");
    let arguments = ["score", text(&image), "--caption", "a red circle"];
    let run = laps_zoo(arguments.iter().chain(&MODEL));
    assert_snapshot!(masked(&run.stdout).replace(text(data.path()), "DIR"), @r"

    DIR/images/test_00000.png
    ┌───────────────────────────────┐
    │     similarity   caption      │
    ╞═══════════════════════════════╡
    │ 0       0.0000   a red circle │
    └───────────────────────────────┘
    ");
}

#[test]
fn undecodable_image_is_skipped_and_counted() {
    let data = scenes(5);
    let images = data.path().join("images");
    fs_err::write(images.join("test_00001.png"), "<html>not found</html>").unwrap();
    let whole = fs_err::read(images.join("test_00003.png")).unwrap();
    fs_err::write(images.join("test_00003.png"), &whole[..40]).unwrap();
    let out = data.path().join("photos.index");
    let arguments = ["index", text(&images), "--out", text(&out)];
    let run = laps_zoo(arguments.iter().chain(&MODEL));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().skip(1).collect();
    assert_snapshot!(lines.join("\n").replace(text(data.path()), "DIR"), @r"
    3 images in `DIR/photos.index`: 3 encoded, 0 unchanged, 2 skipped
      skipped `test_00001.png`: not a JPEG, PNG, GIF, BMP or WebP file
      skipped `test_00003.png`: not decodable as PNG: the file ends before its image data
    ");
    // The next run looks only at the skipped image again.
    let (_, made) = index(&data, "photos.index", &[]);
    assert_eq!((&made["encoded"], &made["kept"]), (&0.into(), &3.into()));
    assert_eq!(made["skipped"][1]["name"], "test_00003.png");
    fs_err::write(images.join("test_00003.png"), whole).unwrap();
    let (_, made) = index(&data, "photos.index", &[]);
    assert_eq!((&made["encoded"], &made["kept"], &made["items"]), (&1.into(), &3.into(), &4.into()));
}

#[test]
fn evaluate_compares_candidates_with_exact_search() {
    let data = scenes(24);
    let queries = data.path().join("captions/test_caps.txt");
    let (path, made) = index(&data, "photos.index", &["--evaluate", "--queries", text(&queries)]);
    let rows = made["evaluation"]["short_cuts"].as_array().unwrap();
    let counts: Vec<u64> = rows.iter().map(|row| row["candidates"].as_u64().unwrap()).collect();
    assert_eq!((counts, &made["evaluation"]["queries"]), (vec![10, 20, 24], &120.into()));
    assert!(["r1", "r5", "r10"].iter().all(|name| rows[2][name] == 100.0), "{rows:?}");

    // With captions from text files next to the images, as a table.
    let images = data.path().join("images");
    fs_err::write(images.join("test_00000.txt"), "a red circle\n\na blue square\n").unwrap();
    let arguments = ["index", text(&images), "--out", text(&path), "--evaluate"];
    let run = laps_zoo(arguments.iter().chain(&MODEL));
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains(": 0 encoded, 24 unchanged\n"), "{}", run.stdout);
    assert!(run.stdout.contains(" by exact similarity that are among the candidates, 2 queries\n"));
    let last = run.stdout.lines().rev().nth(1).unwrap();
    assert_eq!(
        last.split_whitespace().collect::<Vec<_>>(),
        ["│", "24", "100.0", "100.0", "100.0", "│"],
        "{}",
        run.stdout
    );
}

#[test]
fn bad_input_of_index_and_search_is_rejected() {
    let data = scenes(2);
    let message = |arguments: &[&str]| expect_error(data.path(), arguments);
    let [empty, foreign, none] = ["empty", "foreign.index", "none.index"].map(|name| data.path().join(name));
    fs_err::create_dir(&empty).unwrap();
    let of = |arguments: &[&str]| message(&[arguments, &MODEL[..]].concat());
    assert_snapshot!(of(&["index", text(&empty), "--out", text(&none)]), @r"
    error: `DIR/empty` holds nothing to index
      expected: files that end in `.apng`, `.bmp`, `.dib`, `.gif`, `.jfif`, `.jpe`, `.jpeg`, `.jpg`, `.pjpeg`, `.png`, `.webp`
      found: 0 other files
    ");
    assert!(!none.exists());
    assert_snapshot!(message(&["index", text(&empty), "--out", text(&none), "--precision", "int8"]), @r"
    error: `precision` cannot be used
      expected: `fp16` or `fp32`
      found: `int8`
    ");
    let images = data.path().join("images");
    assert_snapshot!(message(&["index", text(&images), "--out", text(&none)]), @r"
    error: `--entry` cannot be used
      expected: the name of an entry, the path of an entry file, or a folder given as --graphs
      found: neither
    ");
    let (path, _) = index(&data, "photos.index", &[]);
    let whole = fs_err::read(&path).unwrap();
    fs_err::write(&path, &whole[..whole.len() - 1000]).unwrap();
    let text_of = message(&["search", text(&path), "a circle"]);
    assert!(text_of.starts_with("error: the index `DIR/photos.index` is damaged: "), "{text_of}");
    assert!(text_of.ends_with("\nhint: remove this index and create it again with `laps-zoo index`\n"), "{text_of}");
    fs_err::write(&path, &whole).unwrap();
    fs_err::write(&foreign, "photos").unwrap();
    assert_snapshot!(message(&["search", text(&foreign), "a circle"]), @r"
    error: `DIR/foreign.index` is not a laps-zoo index
      expected: a file written by `laps-zoo index`
      found: a file of another kind
    hint: name an index that `laps-zoo index` wrote, or a file that does not exist for a new one
    ");
    assert!(
        of(&["index", text(&images), "--out", text(&foreign)])
            .starts_with("error: `DIR/foreign.index` is not a laps-zoo index\n")
    );
    assert_eq!(fs_err::read(&foreign).unwrap(), b"photos");
    assert!(message(&["search", text(&none), "a circle"]).starts_with("error: cannot read `DIR/none.index`\n"));
    let image = images.join("test_00000.png");
    assert_snapshot!(message(&["search", text(&path), "--image", text(&image), "--exact"]), @r"
    error: `--exact` cannot be used
      expected: a query text, because two images are compared by their pooled vectors alone
      found: a query image for an index of images
    ");
    let other = message(&["search", text(&path), "a circle", "--entry", "shapes_swin", "--engine", "rust"]);
    assert!(other.starts_with(
        "error: the index `DIR/photos.index` was written by another configuration\n  expected: `shapes_swin`, configuration with sha256 "
    ));
    assert!(
        other.ends_with("\nhint: use the entry, checkpoint or graphs that wrote it, or create another index\n"),
        "{other}"
    );
    // An existing index of another model is not replaced.
    let swin = ["index", text(&images), "--out", text(&path), "--entry", "shapes_swin", "--engine", "rust", "--quiet"];
    assert!(message(&swin).starts_with("error: the index `DIR/photos.index` was written by another configuration\n"));
    assert!(fs_err::read(&path).unwrap() == whole);
    fs_err::write(&image, "no picture").unwrap();
    assert_snapshot!(of(&["score", text(&image), "--caption", "a circle"]), @"error: `DIR/images/test_00000.png` cannot be used: not a JPEG, PNG, GIF, BMP or WebP file");
    let long = "circle ".repeat(80);
    assert_snapshot!(message(&["search", text(&path), &long, "--engine", "rust"]), @r"
    error: 1 of 1 captions cannot be used
      caption 1: too long: 82 tokens, where 64 are allowed
    hint: shorten or remove captions that are too long, or have them truncated and counted
    ");
}

#[test]
fn interrupted_index_keeps_the_previous_file() {
    let data = scenes(200);
    let out = data.path().join("photos.index");
    let arguments: Vec<String> = ["index", text(&data.path().join("images")), "--out", text(&out), "--threads", "1"]
        .iter()
        .chain(&["--entry", "shapes_vit", "--engine", "rust"])
        .map(|&argument| argument.to_owned())
        .collect();
    let files = || {
        let mut names: Vec<_> =
            fs_err::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    // 200 images are left, and a signal takes less time.
    let (status, output) = RunningCommand::command_until("encode images: 200 to do", &arguments).interrupt();
    assert_eq!(status, Some(2), "{output}");
    assert_eq!(output, "error: interrupted: nothing was written\n");
    assert_eq!(files(), before);
}

#[test]
fn graphs_without_entry_are_enough() {
    if !runtime() {
        return;
    }
    let data = scenes(4);
    let graphs = data.path().join("graphs");
    assert_eq!(export_to(&graphs, &[]).0, 0);
    let texts = captions(&data);
    let [images, out] = ["images", "photos.index"].map(|name| data.path().join(name));
    let of_graphs = ["--graphs", text(&graphs), "--quiet"];
    let made = json(&[&["index", text(&images), "--out", text(&out), "--precision", "fp32"], &of_graphs[..]].concat());
    assert_eq!((&made["items"], &made["engine"]["name"]), (&4.into(), &"ort".into()));
    assert_eq!(made["model"]["engine"], "ort: portable, fp32, opset 18");
    let search = |more: &[&str]| json(&[&["search", text(&out), &texts[6], "--exact"], more].concat());
    let (found, expected) = (search(&of_graphs), search(&MODEL));
    let names = |found: &Value| -> Vec<Value> {
        found["results"].as_array().unwrap().iter().map(|result| result["name"].clone()).collect()
    };
    assert_eq!(names(&found), names(&expected));
    for (a, b) in found["results"].as_array().unwrap().iter().zip(expected["results"].as_array().unwrap()) {
        // Another engine and summation order.
        assert!((similarity(a) - similarity(b)).abs() <= 1e-4);
    }

    let message_of = |arguments: &[&str]| expect_error(data.path(), arguments);
    assert_snapshot!(message_of(&["search", text(&out), "a circle", "--graphs", text(&graphs), "--engine", "rust"]), @r"
    error: `--graphs` cannot be used
      expected: the engine `ort` or `auto`
      found: the engine `rust`
    ");
    for name in ["text.onnx", "alignment.safetensors", "vocab.txt"] {
        let path = graphs.join(name);
        let whole = fs_err::read(&path).unwrap();
        let mut changed = whole.clone();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        fs_err::write(&path, changed).unwrap();
        let message = message_of(&["search", text(&out), "a circle", "--graphs", text(&graphs)]);
        let expected = format!("error: `DIR/graphs/{name}` cannot be used as a folder of graphs\n  expected: sha256 ");
        assert!(message.starts_with(&expected), "{message}");
        fs_err::write(&path, whole).unwrap();
    }
}

#[test]
fn real_photos_match_the_similarities_of_the_authors_code() {
    let real = repository_file("../shared/real");
    let checkpoint = repository_file(".runtime/real/f30k_mini.safetensors");
    if let Some(path) = [&real, &checkpoint].into_iter().find(|path| !path.exists()) {
        return println!("skipped: `{}` does not exist", path.display());
    }
    const IMAGES: usize = 6;
    let reference = Matrix::open(&real.join("f30k_mini_test_sims.safetensors"));
    let split = laps_data::Split::open(&real.join("f30k_mini/captions"), "test").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [photos, out] = ["photos", "photos.index"].map(|name| folder.path().join(name));
    fs_err::create_dir(&photos).unwrap();
    for (place, image) in split.images()[..IMAGES].iter().enumerate() {
        let from = real.join("f30k_mini/images").join(&image.name);
        fs_err::copy(from, photos.join(format!("{place}.jpg"))).unwrap();
    }
    let entry = real.join("f30k_mini.yaml");
    let model = ["--entry", text(&entry), "--checkpoint", text(&checkpoint), "--quiet"];
    let made = json(&[&["index", text(&photos), "--out", text(&out), "--precision", "fp32"], &model[..]].concat());
    assert_eq!(made["items"], IMAGES);
    let place = |name: &Value| name.as_str().unwrap().strip_suffix(".jpg").unwrap().parse().unwrap();
    for caption in [0, 29] {
        let found = json(&[&["search", text(&out), &split.captions()[caption], "--exact"], &model[..]].concat());
        let expected = &reference.scores(Direction::TextToImage, caption)[..IMAGES];
        // Two correct f32 implementations differ by less if they select the same patches, as here.
        agrees(&found["results"], place, expected, 1e-4);
    }
}
