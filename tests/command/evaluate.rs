//! Results of other programs: matrices, and embeddings with a head.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    sync::Arc,
};

use laps_hub::{
    checkpoint::Checkpoint,
    registry::{self, Manifest},
};
use laps_model::{
    array::Array,
    heads::Head,
    params::{ParamPath, Parameter},
    random::SplitMix64,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{
    files::{foreign_embeddings, npy, repository_file, scenes},
    server::{Reply, TestServer},
    support::{command, expect_error, finished, json, laps_zoo},
};

/// The golden matrix `a` and its recalls in both directions: R@1, R@5, R@10, median and mean rank.
fn golden_matrix() -> (Vec<f32>, [Vec<f64>; 2]) {
    let bytes = fs_err::read(repository_file("tests/golden/metrics.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f64> {
        let view = file.tensor(name).unwrap();
        match view.dtype() {
            Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
            _ => view.data().as_chunks::<4>().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect(),
        }
    };
    let matrix = floats("a.sims").iter().map(|&value| value as f32).collect();
    (matrix, [floats("a.i2t"), floats("a.t2i")])
}

fn recalls(result: &Path, direction: &str) -> Vec<f64> {
    let found = json(result);
    let recall = &found["evaluations"][0][direction];
    ["r1", "r5", "r10", "median_rank", "mean_rank"].map(|key| recall[key].as_f64().unwrap()).to_vec()
}

#[test]
fn matrix_gives_the_reference_recalls_in_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let (matrix, expected) = golden_matrix();
    let transpose: Vec<f32> = (0..200 * 40).map(|index| matrix[index % 40 * 200 + index / 40]).collect();
    let result = folder.path().join("result.json");
    let layouts = [
        ("rows.npy", npy(&matrix, [40, 200], false), false),
        ("columns.npy", npy(&transpose, [40, 200], true), false),
        ("captions.npy", npy(&transpose, [200, 40], false), true),
    ];
    for (name, bytes, is_transposed) in layouts {
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        let (path, json) = (path.to_str().unwrap(), result.to_str().unwrap());
        let mut arguments = vec!["evaluate", "--sims", path, "--json", json, "--quiet"];
        if is_transposed {
            let message = expect_error(folder.path(), &arguments);
            assert!(message.contains("found: 200 x 40, which is captions x images"), "{message}");
            arguments.push("--transposed");
        }
        let run = laps_zoo(arguments);
        assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""), "{name}");
        for (direction, expected) in ["i2t", "t2i"].into_iter().zip(&expected) {
            let found = recalls(&result, direction);
            let differs = found.iter().zip(expected).any(|(found, expected)| (found - expected).abs() > 1e-4);
            assert!(!differs, "{name} {direction}: {found:?} for {expected:?}");
        }
    }
}

#[test]
fn unusable_matrices_are_rejected_with_their_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (mut matrix, _) = golden_matrix();
    let path = folder.path().join("m.npy");
    let message = |bytes: &[u8]| {
        fs_err::write(&path, bytes).unwrap();
        expect_error(folder.path(), ["evaluate", "--sims", path.to_str().unwrap()])
    };
    let whole = npy(&matrix, [40, 200], false);
    assert!(message(&whole[..whole.len() - 4]).contains("where the header describes"));
    // 10^18 values are claimed, and none is there.
    let claimed = npy(&[], [1_000_000_000, 1_000_000_000], false);
    assert!(message(&claimed).contains("where the header describes"));
    assert!(message(b"not an array").contains("expected: a whole file of arrays"));
    assert!(message(&npy(&matrix[..7999], [7999, 1], false)).contains("7999 images"));
    matrix[3 * 200 + 7] = f32::NAN;
    let text = message(&npy(&matrix, [40, 200], false));
    assert!(text.contains("found: 1 non-finite values; the first is NaN at image 3, caption 7 (from 0)"), "{text}");
}

#[test]
fn equal_rows_and_equal_columns_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let result = folder.path().join("result.json");
    let [images, captions] = [130, 650];
    let mut random = SplitMix64::named(7, "duplicates");
    let mut values: Vec<f32> = (0..images * captions).map(|_| random.uniform() as f32).collect();
    // Image 129 is image 2, caption 9 and 640 are caption 1, and caption 7 is caption 3.
    values.copy_within(2 * captions..3 * captions, 129 * captions);
    for row in values.chunks_exact_mut(captions) {
        (row[9], row[640], row[7]) = (row[1], row[1], row[3]);
    }
    let transpose: Vec<f32> =
        (0..images * captions).map(|index| values[index % images * captions + index / images]).collect();
    let layouts = [
        ("rows.npy", npy(&values, [images, captions], false)),
        ("columns.npy", npy(&transpose, [images, captions], true)),
    ];
    for (name, bytes) in layouts {
        let sims = folder.path().join(name);
        fs_err::write(&sims, bytes).unwrap();
        let arguments = ["evaluate", "--sims", sims.to_str().unwrap(), "--json", result.to_str().unwrap()];
        let run = laps_zoo(arguments);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{name}");
        let note = |what: &str, count: usize, first: &str| {
            format!(
                "{what} that repeat an earlier one bit for bit: {count}; the first group, counted from 0, is {first}"
            )
        };
        let notes = [note("rows (images)", 1, "2, 129"), note("columns (captions)", 3, "1, 9, 640")];
        assert_eq!(json(&result)["notes"], serde_json::json!(notes), "{name}");
        assert!(run.stdout.contains("first group, counted from 0, is 2, 129"), "{}", run.stdout);
    }
}

/// Each head from its golden embeddings and parameters, which a checkpoint without the head's sizes gives.
#[test]
fn embeddings_give_the_golden_similarities_of_every_head() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let heads = [
        ("vsepp_mean", "{ type: vsepp, pooling: mean }"),
        ("vsepp_cls", "{ type: vsepp, pooling: cls }"),
        ("vsepp_gpo", "head: { type: vsepp, pooling: gpo }"),
        ("scan_t2i", ""),
        ("scan_i2t", ""),
        ("scan_all", ""),
        ("max_mean", "head: max_mean"),
        ("sgr", "{ type: sgr, sim_dim: 256, steps: 3 }"),
        ("chan", "{ type: chan, aggregation: mean }"),
        ("chan_lse", "{ type: chan, aggregation: lse }"),
        ("d2s_vse", ""),
    ];
    // Without the parameters of the prompt it is a first-stage model.
    let first_stage = ("d2s_vse", "", "sims_pretrain");
    for (name, yaml, key) in heads.map(|(name, yaml)| (name, yaml, "sims")).into_iter().chain([first_stage]) {
        let bytes = fs_err::read(repository_file(&format!("tests/golden/head_{name}_swin.safetensors"))).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let inputs = [("images", "images"), ("words", "captions"), ("lengths", "lengths")]
            .map(|(from, to)| (to, golden.tensor(from).unwrap()));
        fs_err::write(file("inputs.safetensors"), safetensors::serialize(inputs, None).unwrap()).unwrap();
        let parameters: Vec<(String, TensorView<'_>)> = golden
            .tensors()
            .into_iter()
            .filter(|(name, _)| {
                ["sim_enc.", "img_enc.", "txt_enc.", "prompt_learner."].iter().any(|p| name.starts_with(p))
            })
            .filter(|(name, _)| key == "sims" || !name.starts_with("prompt_learner."))
            .collect();
        let [inputs, out, head, checkpoint] =
            ["inputs.safetensors", "out.safetensors", "head.yaml", "head.safetensors"]
                .map(|name| file(name).display().to_string());
        fs_err::write(&head, yaml).unwrap();
        let head = if yaml.is_empty() { name } else { &head };
        let mut arguments = vec!["evaluate", &inputs, "--head", head, "--sims", &out, "--quiet"];
        if !parameters.is_empty() {
            let message = expect_error(folder.path(), &arguments);
            assert!(message.contains("parameters of the head"), "{name}: {message}");
            fs_err::write(&checkpoint, safetensors::serialize(parameters, None).unwrap()).unwrap();
            arguments.extend(["--checkpoint", &checkpoint]);
        }
        let run = laps_zoo(&arguments);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{name}");
        let bytes = fs_err::read(&out).unwrap();
        let found = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |view: TensorView<'_>| -> Vec<f32> {
            view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        };
        let (found, expected) = (floats(found.tensor("sims").unwrap()), floats(golden.tensor(key).unwrap()));
        let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.len() == expected.len() && largest < 1e-5, "{name}, {key}: {largest:e}");
    }
    let message = expect_error(folder.path(), ["evaluate", "a.safetensors", "--head", "scan_t2"]);
    assert!(message.contains("did you mean `scan_t2i`?"), "{message}");
}

/// A head without parameters gives the similarities of its type, and an ablation those of its definition, which are not those
/// of LAPS.
#[test]
fn embeddings_and_an_entry_give_the_similarities_of_its_own_head() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let [inputs, sims, scan, ablation] =
        ["inputs.safetensors", "sims.safetensors", "scan.yaml", "ablation.yaml"].map(file);
    let checkpoint = repository_file("checkpoints/shapes_swin.safetensors").display().to_string();
    let mut random = SplitMix64::named(7, "entries");
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
    // No caption of one word: its attention to a token is the sign of their cosine, which the rounding of a cosine near 0 decides.
    let (images, words, lengths) = (values(4 * 36 * 64), values(20 * 5 * 64), [5, 2, 3, 4, 2].repeat(4));
    foreign_embeddings(inputs.as_ref(), (&[4, 36, 64], &images), (&[20, 5, 64], &words), &lengths);
    let text = fs_err::read_to_string(repository_file("configs/shapes_swin.yaml")).unwrap();
    let ratios = "  sparse_ratio: 0.8\n  aggr_ratio: 0.6\n";
    assert!(text.contains(ratios));
    fs_err::write(&scan, text.replace(ratios, "  head: scan_t2i\n")).unwrap();
    let head = "  head: { type: laps_ablation, ablation: scan_alignment }\n";
    fs_err::write(&ablation, text.replace(ratios, &format!("{ratios}{head}"))).unwrap();

    let compare = |arguments: &[&str]| -> (Vec<f32>, String) {
        evaluations(folder.path(), &[&[inputs.as_str(), "--sims", &sims], arguments].concat());
        let head = json(&folder.path().join("evaluated.json"))["provenance"]["foreign"]["head"]["name"].clone();
        (written_matrix(sims.as_ref()), head.as_str().unwrap().to_owned())
    };
    let largest = |found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let (of_entry, name) = compare(&["--head", &scan]);
    let (of_type, _) = compare(&["--head", "scan_t2i"]);
    assert_eq!((of_entry, name.as_str()), (of_type, "scan_t2i, entry shapes_swin"));

    let (found, name) = compare(&["--head", &ablation, "--checkpoint", &checkpoint]);
    assert_eq!(name, "laps_ablation, ablation scan_alignment, entry shapes_swin");
    let (of_laps, name) = compare(&["--head", "shapes_swin", "--checkpoint", &checkpoint]);
    assert_eq!(name, "laps, entry shapes_swin");
    assert!(largest(&found, &of_laps) > 0.01);
    let parameters = Checkpoint::open(&checkpoint).unwrap();
    let read = move |parameter: Parameter| -> laps_model::Result<Array> { Ok(parameters.read(&parameter.name)?) };
    let model = registry::find(&ablation).unwrap().model;
    let definition = Head::<Array>::of(&model, &ParamPath::root(Rc::new(read))).unwrap();
    let mask = lengths.iter().flat_map(|&length| (0..5).map(move |word| f32::from(u8::from(word < length)))).collect();
    let [images, words, mask] = [(&[4, 36, 64][..], images), (&[20, 5, 64], words), (&[20, 5], mask)]
        .map(|(shape, values)| Array::new(shape, values).unwrap());
    let expected = definition.forward(&images, &words, &mask).unwrap();
    // The engine takes the words without padding: sums in f32 in another order.
    let difference = largest(&found, expected.values());
    assert!(difference < 1e-5, "{difference:e}");

    let message = |head: &str| expect_error(folder.path(), ["evaluate", &inputs, "--head", head]);
    let without_sizes = message("{ type: laps_ablation, ablation: scan_alignment }");
    assert!(without_sizes.contains("an entry for the head `laps_ablation`, whose sizes it has"), "{without_sizes}");
    let without_class_token = message("cosine");
    assert!(without_class_token.contains("36 tokens an image, none of them a class token"), "{without_class_token}");
    let of_other_sizes = message("f30k_swin_scan");
    assert!(of_other_sizes.contains("expected: images of 49 tokens and width 512"), "{of_other_sizes}");
}

/// The matrix that `--sims` wrote.
fn written_matrix(path: &Path) -> Vec<f32> {
    let bytes = fs_err::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("sims").unwrap();
    view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// The evaluations of `evaluate` with these arguments.
fn evaluations(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let result = folder.join("evaluated.json");
    let more = ["--json", result.to_str().unwrap(), "--quiet"];
    let run = laps_zoo(["evaluate"].iter().chain(arguments).chain(&more));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{arguments:?}");
    json(&result)["evaluations"].clone()
}

#[test]
fn transposed_npz_has_the_numbers_of_its_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let (matrix, _) = golden_matrix();
    let transpose: Vec<f32> = (0..200 * 40).map(|index| matrix[index % 40 * 200 + index / 40]).collect();
    let [rows, archive] = ["rows.npy", "captions.npz"].map(|name| folder.path().join(name).display().to_string());
    fs_err::write(&rows, npy(&matrix, [40, 200], false)).unwrap();
    let mut writer = zip::ZipWriter::new(fs_err::File::create(&archive).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for (name, bytes) in [("other.npy", npy(&[1.0], [1, 1], false)), ("sims.npy", npy(&transpose, [200, 40], false))] {
        writer.start_file(name, options).unwrap();
        writer.write_all(&bytes).unwrap();
    }
    writer.finish().unwrap();
    let expected = evaluations(folder.path(), &["--sims", &rows]);
    assert_eq!(evaluations(folder.path(), &["--sims", &archive, "--transposed"]), expected);
}

/// Pooled embeddings as two `.npy` files and as one safetensors file, and the matrix that they give.
#[test]
fn pairs_of_npy_files_have_the_numbers_of_their_cosines() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix64::named(7, "pairs");
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
    let (image_values, caption_values) = (values(12 * 32), values(60 * 32));
    let [images, captions, together, sims] = ["images.npy", "captions.npy", "both.safetensors", "sims.safetensors"]
        .map(|name| folder.path().join(name).display().to_string());
    fs_err::write(&images, npy(&image_values, [12, 32], false)).unwrap();
    fs_err::write(&captions, npy(&caption_values, [60, 32], false)).unwrap();
    let lengths = [1; 60];
    foreign_embeddings(together.as_ref(), (&[12, 32], &image_values), (&[60, 32], &caption_values), &lengths);
    let expected = evaluations(folder.path(), &[&images, &captions, "--sims", &sims]);
    assert_eq!(evaluations(folder.path(), &[&together]), expected);
    assert_eq!(evaluations(folder.path(), &["--sims", &sims]), expected);
    let dot = |one: &[f32], other: &[f32]| -> f64 {
        one.iter().zip(other).map(|(&one, &other)| f64::from(one) * f64::from(other)).sum()
    };
    let cosine = |one: &[f32], other: &[f32]| dot(one, other) / (dot(one, one) * dot(other, other)).sqrt();
    let pairs = image_values
        .chunks_exact(32)
        .flat_map(|image| caption_values.chunks_exact(32).map(move |caption| (image, caption)));
    let found = written_matrix(sims.as_ref());
    assert_eq!(found.len(), 12 * 60);
    for ((image, caption), found) in pairs.zip(found) {
        // Sums of 32 products in single precision.
        assert!((f64::from(found) - cosine(image, caption)).abs() < 1e-6);
    }
}

/// What `embed` writes and the head of the entry give the matrix of `reproduce`.
#[test]
fn head_of_an_entry_has_the_numbers_of_reproduce() {
    let data = scenes(6);
    let file = |name: &str| data.path().join(name).display().to_string();
    let [folder, texts, images, words, together, expected, sims] = [
        "images",
        "captions/test_caps.txt",
        "images.safetensors",
        "words.safetensors",
        "both.safetensors",
        "expected.safetensors",
        "sims.safetensors",
    ]
    .map(file);
    let entry = ["shapes_vit", "--engine", "rust", "--device", "cpu", "--quiet"];
    let succeed = |arguments: &[&str]| {
        let run = laps_zoo(arguments.iter().chain(&entry[1..]));
        assert_eq!(run.status, 0, "{}", run.stderr);
    };
    succeed(&["reproduce", entry[0], "--data", data.path().to_str().unwrap(), "--sims", &expected]);
    succeed(&["embed", &folder, "--entry", entry[0], "--out", &images]);
    succeed(&["embed", "--captions", &texts, "--entry", entry[0], "--out", &words]);
    let [image_bytes, word_bytes] = [&images, &words].map(|path| fs_err::read(path).unwrap());
    let [image_file, word_file] = [&image_bytes, &word_bytes].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let tensors = [
        ("images", image_file.tensor("patch_embeddings").unwrap()),
        ("captions", word_file.tensor("word_embeddings").unwrap()),
        ("lengths", word_file.tensor("lengths").unwrap()),
    ];
    fs_err::write(&together, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let checkpoint = repository_file("checkpoints/shapes_vit.safetensors");
    let parameters = checkpoint.to_str().unwrap();
    let arguments = [together.as_str(), "--head", entry[0], "--checkpoint", parameters, "--sims", &sims];
    let found = evaluations(data.path(), &arguments);
    let result = json(&data.path().join("evaluated.json"));
    let sha256 = laps_files::sha256_hex(&fs_err::read(&checkpoint).unwrap());
    assert_eq!(result["provenance"]["foreign"]["head"]["checkpoint"]["sha256"], sha256);
    assert_eq!(evaluations(data.path(), &["--sims", &sims]), found);
    let [found, expected] = [&sims, &expected].map(|path| written_matrix(path.as_ref()));
    assert_eq!((found.len(), expected.len()), (6 * 30, 6 * 30));
    let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // The encoders ran in other batches.
    assert!(largest < 1e-5, "{largest:e}");
}

/// Writes the golden matrix as `sims.npy` and evaluates it with more options; returns the path of the result.
fn golden_result(folder: &Path, more: &[&str]) -> PathBuf {
    let (sims, result) = (folder.join("sims.npy"), folder.join("result.json"));
    fs_err::write(&sims, npy(&golden_matrix().0, [40, 200], false)).unwrap();
    let arguments = ["evaluate", "--sims", sims.to_str().unwrap(), "--json", result.to_str().unwrap()];
    let run = laps_zoo(arguments.iter().chain(more));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.contains("foreign model, not run by laps-zoo; sims.npy (sha256 "), "{}", run.stdout);
    result
}

#[test]
fn table_report_card_and_gate_say_that_the_model_is_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let result = golden_result(folder.path(), &["--name", "theirs", "--bootstrap", "200", "--seed", "3"]);
    let sims = fs_err::read(folder.path().join("sims.npy")).unwrap();
    let sha256 = laps_files::sha256_hex(&sims);
    let value = json(&result);
    let file = &value["provenance"]["foreign"]["files"][0];
    assert_eq!((file["file"].as_str(), file["sha256"].as_str()), (Some("sims.npy"), Some(sha256.as_str())));
    let [low, high] = [0, 1].map(|end| value["intervals"][0]["recalls"][0][end].as_f64().unwrap());
    let recall = value["evaluations"][0]["i2t"]["r1"].as_f64().unwrap();
    assert!(low < recall && recall < high, "{low} {recall} {high}");
    let result = result.to_str().unwrap();
    let printed = |arguments: &[&str]| {
        let run = laps_zoo(arguments);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{arguments:?}");
        run.stdout
    };

    let says = format!("foreign model, not run by laps-zoo; sims.npy (sha256 {})", &sha256[..12]);
    for format in ["terminal", "markdown", "csv", "latex"] {
        let text = printed(&["table", result, "--format", format]).replace('\\', "");
        assert!(text.contains("theirs, foreign model") && text.contains(&says), "{text}");
    }
    let page = folder.path().join("page.html");
    printed(&["report", result, "--out", page.to_str().unwrap()]);
    let html = fs_err::read_to_string(page).unwrap();
    assert!(html.contains("theirs, foreign model") && html.contains("laps-zoo did not run it"), "{html}");
    assert!(html.contains(&sha256), "{html}");
    let card = printed(&["card", "shapes_vit", result]);
    let [index, body] = [card.split("---").nth(1).unwrap(), card.split("## Recalls").nth(1).unwrap()];
    assert!(!index.contains("measured by laps-zoo") && body.contains("theirs, foreign model"), "{card}");
    assert!(body.contains(&says), "{card}");

    let gate = |action: &str, file: &str| {
        let baselines = folder.path().to_str().unwrap();
        laps_zoo(["bench", action, "--quiet", "--only", "results", "--baselines", baselines, "--results", file])
    };
    assert_eq!(gate("--bless", result).status, 0);
    let same = gate("--gate", result);
    assert_eq!((same.status, same.stdout.as_str()), (0, "results     6 values, none changed\n"));
    let mut values = golden_matrix().0;
    values[..200].fill(0.0);
    let other = folder.path().join("theirs.npy");
    fs_err::write(&other, npy(&values, [40, 200], false)).unwrap();
    printed(&["evaluate", "--sims", other.to_str().unwrap(), "--json", result, "--quiet"]);
    let changed = gate("--gate", result);
    assert_eq!(changed.status, 1, "{}", changed.stdout);
    assert!(changed.stdout.contains("theirs, foreign model/unknown/f30k/"), "{}", changed.stdout);
}

#[test]
fn two_results_are_compared_query_by_query() {
    let folder = tempfile::tempdir().unwrap();
    let first = golden_result(folder.path(), &["--name", "first"]);
    let mut values = golden_matrix().0;
    // Every image finds its captions in the second matrix.
    (0..200).for_each(|caption| values[caption / 5 * 200 + caption] = 10.0);
    let (sims, second) = (folder.path().join("second.npy"), folder.path().join("second.json"));
    fs_err::write(&sims, npy(&values, [40, 200], false)).unwrap();
    let [sims, first, second] = [&sims, &first, &second].map(|path| path.to_str().unwrap());
    assert_eq!(laps_zoo(["evaluate", "--sims", sims, "--json", second, "--quiet"]).status, 0);
    let run = laps_zoo(["table", "--compare", first, second, "--format", "json"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let found: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(found["first"], "first, foreign model");
    let test = &found["comparisons"][0]["recalls"][0];
    // Images whose first answer is wrong are right in the second matrix, and none the other way around.
    let wrong = 40.0 - 0.4 * test["first"].as_f64().unwrap();
    assert_eq!(test["second"], 100.0);
    let expected = f64::min(1.0, 2.0 * 0.5_f64.powf(wrong));
    assert!((test["p"].as_f64().unwrap() - expected).abs() < 1e-12 * expected, "{test}, {wrong} wrong");
    let run = laps_zoo(["table", "--compare", first, second]);
    assert!(run.stdout.contains("exact McNemar test"), "{}", run.stdout);
}

/// A Python with NumPy and `eccv-caption`, which `.ci/run eccv_caption` installs.
fn python() -> Option<PathBuf> {
    let python = repository_file(".runtime/eccv_caption/bin/python");
    if !python.is_file() {
        println!("skipped: there is no `{}`; `.ci/run eccv_caption` installs it", python.display());
        return None;
    }
    Some(python)
}

/// Compares recalls, ranks, rSum and every rule for ties of the matrices at `paths` with sorting them with NumPy.
fn assert_equals_numpy(python: &Path, paths: &[PathBuf]) {
    let script = repository_file("tests/numpy_metrics.py");
    let output = Command::new(python).arg(script).args(paths).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), paths.len());
    for (path, line) in paths.iter().zip(text.lines()) {
        let result = path.with_extension("json");
        let arguments = ["evaluate", "--sims", path.to_str().unwrap(), "--json", result.to_str().unwrap(), "--quiet"];
        assert_eq!(laps_zoo(arguments).status, 0);
        let evaluation = json(&result)["evaluations"][0].clone();
        let expected: serde_json::Value = serde_json::from_str(line).unwrap();
        for (rule, found) in [
            ("later_first", &evaluation),
            ("optimistic", &evaluation["optimistic"]),
            ("pessimistic", &evaluation["pessimistic"]),
        ] {
            let equal = |found: &serde_json::Value, expected: &serde_json::Value, what: &str| {
                let [found, expected] = [found, expected].map(|value| value.as_f64().unwrap());
                // Sums and quotients of whole numbers in another order.
                assert!((found - expected).abs() < 1e-9, "{} {rule} {what}: {found} {expected}", path.display());
            };
            for side in ["i2t", "t2i"] {
                for key in ["r1", "r5", "r10", "median_rank", "mean_rank"] {
                    equal(&found[side][key], &expected[rule][side][key], key);
                }
            }
            equal(&found["rsum"], &expected[rule]["rsum"], "rsum");
        }
    }
}

/// 20 matrices, most of them with many equal scores.
#[test]
fn random_matrices_equal_numpy() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix64::named(7, "numpy");
    let mut paths = Vec::new();
    for number in 0..20 {
        let images = 1 + random.below(40);
        let levels = [4, 30, 1 << 20][number % 3];
        let value = |_| random.below(levels) as f32 / levels as f32 - 0.5;
        let values: Vec<f32> = (0..images * images * 5).map(value).collect();
        let path = folder.path().join(format!("{number}.npy"));
        fs_err::write(&path, npy(&values, [images, 5 * images], false)).unwrap();
        paths.push(path);
    }
    assert_equals_numpy(&python, &paths);
}

/// The matrices that the authors' code gives for `f30k_mini`.
#[test]
fn real_matrices_equal_numpy() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (split, images) in [("test", 243), ("dev", 242)] {
        let reference = repository_file("../shared/real").join(format!("f30k_mini_{split}_sims.safetensors"));
        let Ok(bytes) = fs_err::read(&reference) else {
            println!("skipped: there is no `{}`", reference.display());
            return;
        };
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let sims = file.tensor("sims").unwrap();
        assert_eq!((sims.dtype(), sims.shape()), (Dtype::F32, &[images, 5 * images][..]));
        let values: Vec<f32> = sims.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let path = folder.path().join(format!("{split}.npy"));
        fs_err::write(&path, npy(&values, [images, 5 * images], false)).unwrap();
        paths.push(path);
    }
    assert_equals_numpy(&python, &paths);
}

/// Random matrices of COCO's size, with judgements from a local server and plausible matches from a folder in place of Drive.
/// `LAPS_ZOO_TEST_MATRICES=20` is their number, 1 by default, because each has 500 MB.
///
/// The package knows images and captions by their ids in COCO, so that it cannot judge the matrices of `f30k_mini`, which
/// `real_matrices_equal_numpy` compares.
#[test]
fn judgements_equal_the_package_eccv_caption() {
    const FIRST_SEED: u64 = 7;
    let Some(python) = python() else { return };
    let matrices: u64 = std::env::var("LAPS_ZOO_TEST_MATRICES").map_or(1, |text| text.parse().expect("a number"));
    let wheel = repository_file(".runtime/eccv_caption/eccv_caption-0.1.0-py3-none-any.whl");
    let wheel = Arc::new(fs_err::read(wheel).unwrap());
    let server = TestServer::start(move |request| Reply::file(request, &wheel, "\"abc\""));
    let gdrive_folder = Manifest::embedded().unwrap().plausible_matches["eccv_caption"].gdrive_folder.clone();
    for seed in FIRST_SEED..FIRST_SEED + matrices {
        let folder = tempfile::tempdir().unwrap();
        let [sims, result, drive] =
            ["sims.npy", "result.json", "drive"].map(|name| folder.path().join(name).display().to_string());
        let output = Command::new(&python)
            .arg(repository_file("tests/eccv_reference.py"))
            .args([&sims, &format!("{drive}/{gdrive_folder}"), &seed.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let expected: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

        let mut evaluate = command();
        evaluate.env("LAPS_ZOO_CACHE", folder.path().join("cache")).env("LAPS_ZOO_PYPI_URL", server.url());
        evaluate.env("LAPS_ZOO_GDRIVE_URL", format!("file://{drive}")).env_remove("LAPS_ZOO_MIRRORS");
        evaluate.args(["evaluate", "--sims", &sims, "--judgements", "eccv,cxc,pmrp", "--json", &result, "--quiet"]);
        let run = finished(evaluate.output().unwrap());
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        let found = json(Path::new(&result));
        let judged = |set: usize, side: &str, key: &str| found["judged"][set][side][key].as_f64().unwrap();
        let recall = |protocol: &str, side: &str, key: &str| {
            let evaluations = found["evaluations"].as_array().unwrap();
            let evaluation = evaluations.iter().find(|found| found["protocol"] == protocol).unwrap();
            evaluation[side][key].as_f64().unwrap()
        };
        let mut compared = 0;
        for side in ["i2t", "t2i"] {
            let names = [
                ("coco_5k_r1", recall("coco_5k", side, "r1")),
                ("coco_5k_r5", recall("coco_5k", side, "r5")),
                ("coco_5k_r10", recall("coco_5k", side, "r10")),
                ("coco_1k_r1", recall("coco_1k", side, "r1")),
                ("coco_1k_r5", recall("coco_1k", side, "r5")),
                ("coco_1k_r10", recall("coco_1k", side, "r10")),
                ("eccv_map_at_r", judged(0, side, "map_at_r")),
                ("eccv_rprecision", judged(0, side, "r_precision")),
                ("eccv_r1", judged(0, side, "r1")),
                ("cxc_r1", judged(1, side, "r1")),
                ("cxc_r5", judged(1, side, "r5")),
                ("cxc_r10", judged(1, side, "r10")),
                ("pmrp", judged(2, side, "r_precision")),
            ];
            for (name, value) in names {
                let expected = expected[name][side].as_f64().unwrap();
                // Means of the same numbers in another order.
                assert!((value - expected).abs() < 1e-9, "seed {seed}, {name} {side}: {value} {expected}");
                // R@1 of ECCV Caption is 100 on some matrices.
                let tells = value > 0.0 && value < 100.0;
                assert!(tells || seed > FIRST_SEED, "{name} {side}: {value} does not tell much");
                compared += 1;
            }
        }
        assert_eq!(compared, 26);
        let matches = ["pm_image_to_caption.json", "pm_caption_to_image.json"]
            .map(|name| fs_err::read(folder.path().join("drive").join(&gdrive_folder).join(name)).unwrap());
        for ((side, all), lists) in [("i2t", 5000), ("t2i", 25_000)].into_iter().zip(&matches) {
            // The script leaves at least three images without a match.
            let lists: BTreeMap<String, Vec<u64>> = serde_json::from_slice(lists).unwrap();
            let queries = lists.values().filter(|right| !right.is_empty()).count();
            assert!(lists.len() == all && queries < all, "{queries} of {}", lists.len());
            assert_eq!(found["judged"][2][side]["queries"], queries);
        }
        assert_eq!(found["judged"][2]["sha256"], laps_files::sha256_hex(&matches.concat()));
    }
}
