//! `embed`: embedding files, read with independent parsers and compared with the reference tensors.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::{
    files::{repository_file, scenes},
    support::{expect_error, laps_zoo},
};

/// The entry of the tiny ViT of the reference tensors.
const TINY: &str = "name: tiny
model:
  image: { model_type: vit, image_size: 224, patch_size: 16, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64, layer_norm_eps: 1e-12 }
  text: { model_type: bert, vocab_size: 1024, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 32, max_position_embeddings: 512, type_vocab_size: 2, layer_norm_eps: 1e-12 }
  embed_size: 24
  sparse_ratio: 0.5
  aggr_ratio: 0.4
data: { captions: captions, images: images, vocab: vocab.txt, test: test, protocol: f30k }
";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Shape and values of a `.npy` file, version 1.0, as documented in `numpy/lib/format.py`.
fn numpy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs_err::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((end % 64, bytes[end - 1]), (0, b'\n'));
    let header = std::str::from_utf8(&bytes[10..end]).unwrap();
    assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': ("), "{header}");
    let shape = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let shape = shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().unwrap());
    (shape.collect(), floats(&bytes[end..]))
}

fn embed(arguments: &[&str]) -> serde_json::Value {
    let run = laps_zoo(["embed"].iter().chain(arguments).chain(&["--engine", "rust", "--quiet", "--json"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn caption_embeddings_match_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let [entry, vocabulary, captions, out] =
        ["tiny.yaml", "vocab.txt", "captions.txt", "words.safetensors"].map(|name| folder.path().join(name));
    fs_err::write(&entry, TINY).unwrap();
    // Every token is a word: `w868` has the id 868.
    let word = |token: usize| match token {
        0 => "[PAD]".to_owned(),
        100 => "[UNK]".to_owned(),
        101 => "[CLS]".to_owned(),
        102 => "[SEP]".to_owned(),
        103 => "[MASK]".to_owned(),
        _ => format!("w{token}"),
    };
    fs_err::write(&vocabulary, (0..1024).map(|token| word(token) + "\n").collect::<String>()).unwrap();
    let bytes = fs_err::read(repository_file("tests/golden/vit_forward.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let whole = |name: &str| -> Vec<usize> {
        let data = golden.tensor(name).unwrap().data().chunks_exact(8);
        data.map(|word| i64::from_le_bytes(word.try_into().unwrap()) as usize).collect()
    };
    let (lengths, tokens) = (whole("lengths"), whole("tokens"));
    let expected = floats(golden.tensor("cap_emb").unwrap().data());
    let line = |(length, row): (&usize, &[usize])| {
        row[1..length - 1].iter().map(|&token| word(token)).collect::<Vec<_>>().join(" ") + "\n"
    };
    let lines: String = lengths.iter().zip(tokens.chunks_exact(14)).map(line).collect();
    fs_err::write(&captions, lines).unwrap();
    let checkpoint = repository_file("tests/golden/vit_tiny.safetensors");
    let model = ["--entry", text(&entry), "--checkpoint", text(&checkpoint)];
    // The vocabulary is next to the entry file, where its `data` section points.
    let written = embed(&[&["--captions", text(&captions), "--out", text(&out)], &model[..]].concat());
    assert_eq!(written["shape"], serde_json::json!([6, 14, 24]));
    assert_eq!(written["lengths"], serde_json::json!(lengths));

    let bytes = fs_err::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("word_embeddings").unwrap();
    assert_eq!((view.dtype(), view.shape()), (Dtype::F32, &[6, 14, 24][..]));
    let found = floats(view.data());
    for (caption, &length) in lengths.iter().enumerate() {
        for place in 0..14 * 24 {
            let (a, b) = (found[caption * 14 * 24 + place], expected[caption * 14 * 24 + place]);
            // Two f32 blocks, values up to 3, another summation order; padding is zero.
            let wanted = if place < length * 24 { b } else { 0.0 };
            assert!((a - wanted).abs() <= 1e-4, "caption {caption}, value {place}: {a} and not {wanted}");
        }
    }

    // The same as a NumPy file.
    let npy = folder.path().join("words.npy");
    embed(&[&["--captions", text(&captions), "--out", text(&npy)], &model[..]].concat());
    assert_eq!(numpy(&npy), (vec![6, 14, 24], found));
}

#[test]
fn images_keep_the_given_order() {
    let data = scenes(3);
    let image = |index: usize| data.path().join(format!("images/test_0000{index}.png"));
    let [folder, one, other, pooled] =
        ["images", "one.npy", "other.safetensors", "pooled.npy"].map(|name| data.path().join(name));
    let entry = ["--entry", "shapes_vit"];
    // A folder gives its images sorted by name.
    embed(&[&[text(&folder), "--out", text(&one)], &entry[..]].concat());
    let (shape, values) = numpy(&one);
    assert_eq!(shape, [3, 37, 64]);
    let (last, first) = (image(2), image(0));
    let written = embed(&[&[text(&last), text(&first), "--out", text(&other)], &entry[..]].concat());
    assert_eq!(written["items"], serde_json::json!([text(&last), text(&first)]));
    let bytes = fs_err::read(&other).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let swapped = floats(file.tensor("patch_embeddings").unwrap().data());
    let size = 37 * 64;
    for (a, b) in swapped.iter().zip(values[2 * size..].iter().chain(&values[..size])) {
        // Other images are in the batch.
        assert!((a - b).abs() <= 1e-5);
    }
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let model: serde_json::Value =
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["laps_zoo.model"]).unwrap();
    assert_eq!(model["entry"], "shapes_vit");

    embed(&[&[text(&folder), "--pooled", "--out", text(&pooled)], &entry[..]].concat());
    let (shape, vectors) = numpy(&pooled);
    assert_eq!(shape, [3, 64]);
    for (vector, image) in vectors.chunks_exact(64).zip(values.chunks_exact(size)) {
        let unit = |row: &[f64]| -> Vec<f64> {
            let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
            row.iter().map(|value| value / norm).collect()
        };
        let rows: Vec<Vec<f64>> = image
            .chunks_exact(64)
            .map(|row| unit(&row.iter().map(|&value| f64::from(value)).collect::<Vec<_>>()))
            .collect();
        let patches: Vec<f64> = (0..64).map(|place| rows[1..].iter().map(|row| row[place]).sum()).collect();
        // The class token comes first.
        let sum: Vec<f64> = unit(&patches).iter().zip(&rows[0]).map(|(mean, class)| mean + class).collect();
        // f32 sums of 64 values below 1.
        assert!(vector.iter().zip(unit(&sum)).all(|(&found, wanted)| (f64::from(found) - wanted).abs() < 1e-5));
    }
}

#[test]
fn invalid_inputs_are_rejected() {
    let data = scenes(2);
    let message = |arguments: &[&str]| {
        expect_error(
            data.path(),
            [&["embed", "--entry", "shapes_vit", "--engine", "rust", "--quiet"], arguments].concat(),
        )
    };
    let out = data.path().join("out.npy");
    insta::assert_snapshot!(message(&["--caption", "a circle", "--out", "out.txt"]), @r"
    error: `output file` cannot be used
      expected: a file that ends in `.safetensors` or `.npy`
      found: `txt`
    ");
    let broken = data.path().join("images/test_00001.png");
    fs_err::write(&broken, "").unwrap();
    insta::assert_snapshot!(message(&[text(&broken), "--out", text(&out)]), @"error: `DIR/images/test_00001.png` cannot be used: the file is empty");
    // A folder's unusable files are skipped, but something has to be left.
    fs_err::write(data.path().join("images/test_00000.png"), "text").unwrap();
    insta::assert_snapshot!(message(&[text(&data.path().join("images")), "--out", text(&out)]), @r"
    error: none of the 2 images in `DIR/images` can be used
      first: `DIR/images/test_00000.png`: not a JPEG, PNG, GIF, BMP or WebP file
    ");
    assert!(
        message(&["--caption", "a circle", "--out", text(&data.path().join("none/out.npy"))])
            .starts_with("error: cannot write `DIR/none/out.npy`\n")
    );
    let left = fs_err::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains("out")), "nothing is left");
}
