//! Entries with a head other than LAPS's.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
};

use insta::assert_snapshot;
use laps_hub::registry;
use laps_model::{models, params_init::init_parameters};
use tempfile::TempDir;

use crate::{
    NATIVE_ENGINE,
    files::{authors_checkpoint, repository_file, scenes, shapes_vit},
    matrix::Matrix,
    support::{expect_error, laps_zoo},
};

const HEADS: [&str; 11] = [
    "vsepp",
    "{ type: vsepp, pooling: cls }",
    "{ type: vsepp, pooling: gpo }",
    "scan_t2i",
    "scan_i2t",
    "scan_all",
    "max_mean",
    "{ type: sgr, sim_dim: 16, steps: 2 }",
    "chan",
    "{ type: chan, aggregation: lse }",
    "{ type: d2s_vse, embed_size: 64, mlp_size: 16, prompt_tokens: 4, blocks: 1, heads: 4 }",
];

/// The entry `shapes_vit` with another head, at `NAME.yaml`.
fn entry(folder: &TempDir, name: &str, head: &str) -> PathBuf {
    let text = fs_err::read_to_string(repository_file("configs/shapes_vit.yaml")).unwrap();
    let ratios = "  sparse_ratio: 0.5\n  aggr_ratio: 0.4\n";
    assert!(text.contains(ratios));
    let path = folder.path().join(format!("{name}.yaml"));
    fs_err::write(&path, text.replace(ratios, &format!("  head: {head}\n"))).unwrap();
    path
}

/// A checkpoint in the authors' container: the encoders of `shapes_vit`, and initial parameters of the entry's head.
fn checkpoint(folder: &TempDir, name: &str, entry: &Path) -> PathBuf {
    let model = registry::find(entry.to_str().unwrap()).unwrap().model;
    let parameters = models::parameters(&model).unwrap();
    let initial = init_parameters(&parameters, 7).unwrap();
    let trained = shapes_vit();
    let path = folder.path().join(format!("{name}.pth"));
    authors_checkpoint(&path, &parameters, &[("embed_size", 64.0)], |parameter, file: &mut dyn Write| {
        let trained = trained.iter().find(|(name, ..)| *name == parameter.name).map(|(.., values)| &values[..]);
        let initial = initial.iter().find(|(name, _)| *name == parameter.name).map(|(_, array)| array.values());
        for value in trained.or(initial).unwrap() {
            file.write_all(&value.to_le_bytes()).unwrap();
        }
    });
    path
}

#[test]
fn entry_of_every_head_is_evaluated() {
    let folder = scenes(4);
    let mut matrices = BTreeSet::new();
    for (number, head) in HEADS.into_iter().enumerate() {
        let name = format!("head_{number}");
        let entry = entry(&folder, &name, head);
        let checkpoint = checkpoint(&folder, &name, &entry);
        let sims = folder.path().join(format!("{name}.safetensors"));
        let [data, entry, checkpoint, sims_path] =
            [folder.path(), &entry, &checkpoint, &sims].map(|path| path.to_str().unwrap());
        let run = |batch_size: &str| {
            let options = ["--checkpoint", checkpoint, "--sims", sims_path, "--batch-size", batch_size];
            let run = laps_zoo(
                ["reproduce", entry, "--quiet", "--data", data].into_iter().chain(options).chain(NATIVE_ENGINE),
            );
            assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{head}");
            let values = Matrix::open(&sims).values;
            fs_err::remove_file(&sims).unwrap();
            values
        };
        let values = run("16");
        assert_eq!(values.len(), 4 * 20, "{head}");
        assert!(values.iter().all(|value| value.is_finite()), "{head}");
        // The padding of a batch reaches no caption; encoders in f32 differ by their order of sums.
        for (one, other) in values.iter().zip(run("3")) {
            assert!((one - other).abs() < 1e-4, "{head}: {one} and {other}");
        }
        matrices.insert(values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
    }
    assert_eq!(matrices.len(), HEADS.len(), "two heads have the same similarities");
}

#[test]
fn checkpoint_of_another_head_is_named() {
    let folder = scenes(2);
    let sgr = entry(&folder, "sgr", "{ type: sgr, sim_dim: 16, steps: 2 }");
    let scan = entry(&folder, "scan", "scan_t2i");
    let hint = |entry: &Path, checkpoint: &Path| {
        let [data, entry, checkpoint] = [folder.path(), entry, checkpoint].map(|path| path.to_str().unwrap());
        let arguments = ["reproduce", entry, "--quiet", "--data", data, "--checkpoint", checkpoint];
        let message = expect_error(folder.path(), arguments);
        message.lines().last().unwrap_or_default().to_owned()
    };
    let of_sgr = checkpoint(&folder, "of_sgr", &sgr);
    let of_scan = checkpoint(&folder, "of_scan", &scan);
    let of_laps = repository_file("checkpoints/shapes_vit.safetensors");
    assert_snapshot!(hint(&scan, &of_sgr), @"hint: the checkpoint is of another head: it has `sgr`, the model's head has no parameters");
    assert_snapshot!(hint(&sgr, &of_laps), @"hint: the checkpoint is of another head: it has `laps`, the model has `sgr`");
    assert_snapshot!(hint(&sgr, &of_scan), @"hint: the checkpoint has no parameters of a head, the model has `sgr`");
}

/// What supports only the head of LAPS says so.
#[test]
fn unsupported_head_is_an_error() {
    let folder = scenes(2);
    let scan = entry(&folder, "scan", "scan_t2i");
    let checkpoint = checkpoint(&folder, "of_scan", &scan);
    let image = fs_err::read_dir(folder.path().join("images")).unwrap().next().unwrap().unwrap().path();
    let [entry, checkpoint, image] = [&scan, &checkpoint, &image].map(|path| path.to_str().unwrap());
    let arguments = ["score", image, "--caption", "a red circle", "--entry", entry, "--checkpoint", checkpoint];
    assert_snapshot!(expect_error(folder.path(), arguments), @r"
    error: `head` of the model cannot be used
      expected: `laps`, the only head for scoring and search
      found: scan_t2i
    ");
}
