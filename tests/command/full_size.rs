//! Models of the published sizes on the CPU, with random weights in the authors' checkpoint layout.

use std::{
    io::Write,
    path::Path,
    sync::{Mutex, PoisonError},
};

use laps_hub::registry;
use laps_model::{
    models,
    params::{Init, Parameter},
    params_init,
};
use tempfile::TempDir;

use crate::{
    files::{authors_checkpoint, scenes, with_poolers},
    matrix::Matrix,
    support::{ProgramOutput, json, laps_zoo},
};

const IMAGES: usize = 5;

/// Memory limit in bytes: 786 MB of weights, the largest tensor (94 MB) three times while it is read and copied to
/// libtorch, and the rest for libtorch and the activations of a batch. On x86-64 with two threads the ViT took 1064 MB and
/// the Swin 1143 MB; a second copy of the weights would not fit.
const MOST_MEMORY: u64 = 1_400_000_000;

/// Runs these tests one at a time: each takes more than 1 GB of memory and 0.8 GB of disk.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

/// A checkpoint of 197 million numbers: normally distributed with the standard deviation of freshly initialised encoders,
/// drawn once and repeated.
pub(crate) fn write_checkpoint(path: &Path, parameters: &[Parameter], options: &[(&str, f64)]) {
    let normal = Parameter { name: "normal".to_owned(), shape: vec![1 << 18], init: Init::Normal };
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let normal = bytes(params_init::init_parameters(&[normal], 0).unwrap()[0].1.values());
    let [zeros, ones] = [0.0, 1.0].map(|value| bytes(&[value; 1 << 12]));
    authors_checkpoint(path, parameters, options, |parameter, file: &mut dyn Write| {
        let block = match parameter.init {
            Init::Zeros => &zeros,
            Init::Ones => &ones,
            Init::Normal | Init::Uniform { .. } | Init::Xavier { .. } => &normal,
        };
        let mut left = 4 * parameter.elements();
        while left > 0 {
            let part = left.min(block.len());
            file.write_all(&block[..part]).unwrap();
            left -= part;
        }
    });
}

/// Drawn scenes in the layout of a data set, with a vocabulary as large as that of bert-base-uncased.
pub(crate) fn write_data(data: &registry::DataConfig) -> TempDir {
    let folder = scenes(IMAGES);
    let root = folder.path();
    for (from, to) in [("captions", &data.captions), ("images", &data.images), ("vocab.txt", &data.vocab)] {
        fs_err::create_dir_all(root.join(to).parent().unwrap()).unwrap();
        fs_err::rename(root.join(from), root.join(to)).unwrap();
    }
    let vocab = root.join(&data.vocab);
    let text = fs_err::read_to_string(&vocab).unwrap();
    let more: String = (text.lines().count()..30_522).map(|row| format!("[unused{row}]\n")).collect();
    fs_err::write(vocab, text + &more).unwrap();
    if data.test != "test" {
        for end in ["ids.txt", "caps.txt"] {
            let captions = root.join(&data.captions);
            fs_err::rename(captions.join(format!("test_{end}")), captions.join(format!("{}_{end}", data.test)))
                .unwrap();
        }
    }
    folder
}

/// Evaluates the built-in entry `name`; returns the output and the JSON result.
fn evaluate(name: &str, image_width: usize, more: &[&str]) -> (ProgramOutput, serde_json::Value) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = registry::find(name).unwrap();
    let folder = write_data(&entry.data);
    let [checkpoint, sims, result] = ["model_best.pth", "sims", "result"].map(|name| folder.path().join(name));
    let parameters = with_poolers(models::parameters(&entry.model).unwrap(), image_width, entry.model.text.hidden_size);
    let (embed_size, sparse_ratio) = (entry.model.embed_size as f64, entry.model.sparse_ratio);
    let options = [("embed_size", embed_size), ("sparse_ratio", sparse_ratio), ("aggr_ratio", entry.model.aggr_ratio)];
    write_checkpoint(&checkpoint, &parameters, &options);
    assert!(fs_err::metadata(&checkpoint).unwrap().len() > 780_000_000);

    let [data, checkpoint, sims_path, result] =
        [folder.path(), &checkpoint, &sims, &result].map(|path| path.to_str().unwrap().to_owned());
    let arguments = ["reproduce", name, "--checkpoint", &checkpoint, "--data", &data, "--device", "cpu", "--quiet"];
    let outputs = ["--sims", &sims_path, "--json", &result];
    let run = laps_zoo(arguments.iter().chain(&outputs).chain(more));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let matrix = Matrix::open(&sims);
    assert!(matrix.values.iter().all(|value| value.is_finite()));
    assert_eq!(matrix.captions, 5 * matrix.images);
    let result = json(Path::new(&result));
    assert_eq!(result["images"].as_u64(), Some(matrix.images as u64));
    let provenance = &result["provenance"];
    assert_eq!(provenance["checkpoint"]["format"], "torch (zip)");
    assert_eq!(provenance["checkpoint"]["epoch"], 13);
    assert_eq!(provenance["engine"]["device"], "cpu");
    println!("{name}: peak memory {} MB", result["peak_memory_bytes"].as_u64().unwrap() / 1_000_000);
    assert!(result["peak_memory_bytes"].as_u64().unwrap() < MOST_MEMORY, "{}", result["peak_memory_bytes"]);
    (run, result)
}

#[test]
fn f30k_vit_runs_at_full_size() {
    let (run, result) = evaluate("f30k_vit", 768, &[]);
    assert_eq!(result["images"], IMAGES);
    assert!(run.stdout.contains("verdict: not compared, the published results have other sizes"), "{}", run.stdout);
}

/// Both protocols; `coco_1k` needs more images for its folds of 1,000.
#[test]
fn coco_swin_runs_at_full_size() {
    let (run, result) = evaluate("coco_swin", 1024, &["--limit", "4"]);
    assert_eq!(result["images"], 4);
    let protocols: Vec<_> =
        result["evaluations"].as_array().unwrap().iter().map(|one| one["protocol"].as_str()).collect();
    assert_eq!(protocols, [Some("coco_5k")]);
    assert!(
        run.stdout.contains("note: protocol `coco_1k` was skipped: 4 images cannot be divided into its folds\n"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("verdict: not compared, published recalls are for the whole split"), "{}", run.stdout);
}
