//! CLIP encoders with a byte-pair vocabulary, from a checkpoint to search.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
};

use laps_hub::registry;
use laps_model::{
    array::Array,
    models,
    params::{Init, Parameter},
    params_init::init_parameters,
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json as value;
use tempfile::TempDir;
use zip::CompressionMethod;

use crate::{
    NATIVE_ENGINE,
    files::{authors_checkpoint, scenes},
    graphs::runtime,
    heads::{ok, ok_json},
    matrix::{Direction, Matrix, figures, reported},
    search::{agrees, image_number},
    support::json,
    writer::{PickleWriter, torch_zip_named},
};

const DIRECTIONS: [Direction; 2] = [Direction::ImageToText, Direction::TextToImage];

/// Between two engines, which sum in different orders; similarities of LAPS go up to 2.
const TOLERANCE: f32 = 1e-4;

/// CLIP's own head, and LAPS on CLIP.
const HEADS: [(&str, &str); 2] =
    [("cosine", "head: { type: cosine, embed_size: 20 }"), ("laps", "sparse_ratio: 0.5\n  aggr_ratio: 0.4")];

/// Writes a byte-pair encoding of the drawn captions: `vocab.json` with `merges.txt`, and the same as `tokenizer.json`.
/// Returns the number of tokens.
fn write_vocabulary(folder: &Path) -> usize {
    let captions = fs_err::read_to_string(folder.join("captions/test_caps.txt")).unwrap().to_lowercase();
    let words: BTreeSet<&str> = captions.split_whitespace().collect();
    // Each merge adds a letter to the beginning of a word.
    let mut merges: Vec<String> = Vec::new();
    for word in words {
        for end in 1..word.len() {
            let suffix = if end + 1 == word.len() { "</w>" } else { "" };
            let merge = format!("{} {}{suffix}", &word[..end], &word[end..=end]);
            if !merges.contains(&merge) {
                merges.push(merge);
            }
        }
    }
    let bytes = || (b'!'..=b'~').map(|byte| char::from(byte).to_string());
    let tokens = bytes()
        .chain(bytes().map(|byte| byte + "</w>"))
        .chain(merges.iter().map(|merge| merge.replace(' ', "")))
        .chain(["<|startoftext|>", "<|endoftext|>"].map(str::to_owned));
    let vocabulary: BTreeMap<String, usize> = tokens.zip(0..).collect();
    assert_eq!(vocabulary.len(), 2 * 94 + merges.len() + 2);
    let write = |name: &str, text: String| fs_err::write(folder.join(name), text).unwrap();
    write("vocab.json", value!(vocabulary).to_string());
    write("merges.txt", format!("#version: 0.2\n{}\n", merges.join("\n")));
    let model = value!({
        "type": "BPE", "unk_token": "<|endoftext|>", "end_of_word_suffix": "</w>", "vocab": vocabulary, "merges": merges,
    });
    write("tokenizer.json", value!({ "version": "1.0", "added_tokens": [], "model": model }).to_string());
    vocabulary.len()
}

/// Writes an entry with tiny encoders of CLIP to `NAME.yaml`.
fn entry(folder: &TempDir, name: &str, head: &str, vocabulary: &str, tokens: usize) -> String {
    let text = format!(
        "name: clip_tiny
model:
  image:
    model_type: clip_vision_model
    image_size: 48
    patch_size: 8
    hidden_size: 32
    num_hidden_layers: 2
    num_attention_heads: 4
    intermediate_size: 64
  text:
    model_type: clip_text_model
    vocab_size: {tokens}
    hidden_size: 24
    num_hidden_layers: 2
    num_attention_heads: 3
    intermediate_size: 48
  embed_size: 20
  {head}
data: {{ captions: captions, images: images, vocab: {vocabulary}, test: test, protocol: f30k }}
"
    );
    let path = folder.path().join(format!("{name}.yaml"));
    fs_err::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Random weights of the model of an entry, larger than initial ones, so that similarities differ.
fn weights(entry: &str) -> Vec<(Parameter, Vec<f32>)> {
    let parameters = models::parameters(&registry::find(entry).unwrap().model).unwrap();
    let initial = init_parameters(&parameters, 7).unwrap();
    let scaled = |(parameter, (_, array)): (Parameter, (String, Array))| {
        let factor: f32 = if parameter.init == Init::Normal { 10.0 } else { 1.0 };
        let values: Vec<f32> = array.values().iter().map(|value| factor * value).collect();
        (parameter, values)
    };
    parameters.into_iter().zip(initial).map(scaled).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Evaluates with the arguments `more`; the matrix has the recalls that are reported.
fn evaluate(folder: &TempDir, entry: &str, more: &[&str]) -> Matrix {
    let [sims, result] = ["sims", "result.json"].map(|name| folder.path().join(name));
    let paths = [folder.path(), &sims, &result].map(|path| path.to_str().unwrap());
    let options = ["--quiet", "--data", paths[0], "--sims", paths[1], "--json", paths[2]];
    ok(&[&["reproduce", entry][..], &options, more].concat());
    let matrix = Matrix::open(&sims);
    let result = json(&result);
    for direction in DIRECTIONS {
        let found = reported(&result["evaluations"][0], direction);
        let expected = figures(&matrix.ranks(direction));
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?} and {expected:?}");
    }
    fs_err::remove_file(&sims).unwrap();
    matrix
}

/// Similarities agree, and so do the ranks of queries whose correct answer is not as close as that to another one.
fn assert_agree(one: &Matrix, other: &Matrix) {
    assert_eq!((one.images, one.captions), (other.images, other.captions));
    let differences = one.values.iter().zip(&other.values).map(|(a, b)| (a - b).abs());
    let largest = differences.fold(0.0, f32::max);
    assert!(largest <= TOLERANCE, "{largest:e}");
    for direction in DIRECTIONS {
        let ranks = [one, other].map(|matrix| matrix.ranks(direction));
        for query in 0..one.queries(direction) {
            let scores = one.scores(direction, query);
            let target = scores[one.target(direction, query)];
            let close = scores.iter().filter(|score| (*score - target).abs() <= 2.0 * TOLERANCE).count();
            assert!(ranks[0][query].abs_diff(ranks[1][query]) < close, "{direction:?} {query}");
        }
    }
}

/// A checkpoint in the authors' container is converted, evaluated on two engines, exported and searched.
#[test]
fn clip_from_checkpoint_to_search() {
    let folder = scenes(6);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tokens = write_vocabulary(folder.path());
    let [data, images, image] = ["", "images", "images/test_00003.png"].map(path);
    let texts = fs_err::read_to_string(path("captions/test_caps.txt")).unwrap();
    let caption = texts.lines().nth(8).unwrap();
    for (name, head) in HEADS {
        let entry: &str = &entry(&folder, name, head, "vocab.json", tokens);
        let weights = weights(entry);
        let (original, converted) = (path(&format!("{name}.pth")), path(&format!("{name}.safetensors")));
        let (graphs, index) = (path(&format!("{name}.graphs")), path(&format!("{name}.index")));
        let parameters: Vec<Parameter> = weights.iter().map(|(parameter, _)| parameter.clone()).collect();
        authors_checkpoint(
            original.as_ref(),
            &parameters,
            &[("embed_size", 20.0)],
            |parameter, file: &mut dyn Write| {
                let (_, values) = weights.iter().find(|(own, _)| own.name == parameter.name).unwrap();
                file.write_all(&bytes(values)).unwrap();
            },
        );
        ok(&["convert", &original, &converted, "--entry", entry]);

        let run = |more: &[&str]| evaluate(&folder, entry, &[&["--checkpoint", &converted][..], more].concat());
        let matrix = run(&NATIVE_ENGINE);
        assert_eq!((matrix.images, matrix.captions), (6, 30), "{name}");
        for caption in 0..matrix.captions {
            let scores = matrix.scores(Direction::TextToImage, caption);
            let range = scores.iter().fold([f32::MAX, f32::MIN], |[low, high], &x| [low.min(x), high.max(x)]);
            assert!(range[1] - range[0] > 100.0 * TOLERANCE, "{name} {caption}: {range:?}");
        }

        ok(&["export", entry, "--onnx", "--checkpoint", &converted, "--out", &graphs, "--data", &data, "--quiet"]);
        let manifest = json(format!("{graphs}/manifest.json").as_ref());
        assert_eq!(manifest["vocabulary"]["file"], "tokenizer.json");
        if runtime() {
            assert_agree(&matrix, &run(&["--engine", "ort"]));
            assert_agree(&matrix, &run(&["--graphs", &graphs]));
            let scores = ok_json(&["score", &image, "--caption", caption, "--graphs", &graphs]);
            let similarity = scores["similarities"][0][0].as_f64().unwrap() as f32;
            assert!((similarity - matrix.at(3, 8)).abs() <= TOLERANCE, "{name}: {similarity} and {}", matrix.at(3, 8));
        }

        let model = ["--entry", entry, "--checkpoint", &converted, "--engine", "rust"];
        ok_json(&[&["index", &images, "--out", &index, "--precision", "fp32"], &model[..]].concat());
        let found = ok_json(&[&["search", &index, caption, "--top", "6", "--exact"], &model[..]].concat());
        agrees(&found["results"], image_number, &matrix.scores(Direction::TextToImage, 8), TOLERANCE);
    }
}

/// The file of a whole `CLIPModel`, with the positions that older releases of transformers stored, as `model.safetensors` and
/// as `pytorch_model.bin`. Its vocabulary is a `tokenizer.json`.
#[test]
fn clip_model_of_transformers_is_a_cosine_model() {
    let folder = scenes(4);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tokens = write_vocabulary(folder.path());
    let (_, head) = HEADS[0];
    let entry_json: &str = &entry(&folder, "json", head, "tokenizer.json", tokens);
    let entry_pair: &str = &entry(&folder, "pair", head, "vocab.json", tokens);

    let weights = weights(entry_json);
    let name = |name: &str| {
        let prefixes = ["img_enc.visual_encoder.", "txt_enc.clip."];
        prefixes.iter().find_map(|prefix| name.strip_prefix(*prefix)).unwrap_or(name).to_owned()
    };
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = weights
        .iter()
        .map(|(parameter, values)| (name(&parameter.name), Dtype::F32, parameter.shape.clone(), bytes(values)))
        .collect();
    for (side, positions) in [("vision_model", 37), ("text_model", 77)] {
        let bytes: Vec<u8> = (0..positions as i64).flat_map(i64::to_le_bytes).collect();
        tensors.push((format!("{side}.embeddings.position_ids"), Dtype::I64, vec![1, positions], bytes));
    }
    let has = |name: &str| tensors.iter().any(|(own, ..)| own == name);
    assert!(has("vision_model.pre_layrnorm.weight") && has("text_projection.weight") && has("logit_scale"));

    let [model, bin, converted, converted_bin] =
        ["model.safetensors", "pytorch_model.bin", "a.safetensors", "b.safetensors"].map(path);
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs_err::write(&model, safetensors::serialize(views, None).unwrap()).unwrap();
    let keys: Vec<String> = (0..tensors.len()).map(|key| key.to_string()).collect();
    let mut pickle = PickleWriter::default().op(b"\x80\x02}(");
    for ((name, dtype, shape, _), key) in tensors.iter().zip(&keys) {
        let class = if *dtype == Dtype::I64 { "LongStorage" } else { "FloatStorage" };
        pickle = pickle.text(name).whole(class, key, shape);
    }
    let storages: Vec<(&str, Vec<u8>)> =
        keys.iter().zip(&tensors).map(|(key, (.., bytes))| (key.as_str(), bytes.clone())).collect();
    let archive = torch_zip_named("pytorch_model", CompressionMethod::Stored, &pickle.op(b"u.").0, &storages);
    fs_err::write(&bin, archive).unwrap();

    let run = |entry: &str, checkpoint: &str| {
        evaluate(&folder, entry, &[&["--checkpoint", checkpoint], &NATIVE_ENGINE[..]].concat()).values
    };
    let expected = run(entry_json, &model);
    assert!(expected.iter().all(|cosine| (-1.0001..=1.0001).contains(cosine)), "{expected:?}");
    assert_eq!(run(entry_json, &bin), expected);
    // The same tokens in two files.
    assert_eq!(run(entry_pair, &model), expected);
    for (original, converted) in [(&model, &converted), (&bin, &converted_bin)] {
        ok(&["convert", original, converted, "--entry", entry_json]);
        assert_eq!(run(entry_json, converted), expected);
    }
}
