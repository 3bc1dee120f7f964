//! Training: complete runs, resumed runs and invalid requests.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use laps_data::scenes::{self, DrawnConfig, DrawnSplit};
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::{
    files::repository_file,
    support::{ProgramOutput, expect_error, laps_zoo},
};

/// 8 training images with five captions each, and 4 validation images.
pub(crate) fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = DrawnConfig { seed: 7, train: 8, dev: 4, test: 4 };
    scenes::write(folder.path(), &config, &[DrawnSplit::Train, DrawnSplit::Dev, DrawnSplit::Test]).unwrap();
    folder
}

/// Two epochs of five steps, with augmented images.
const RECIPE: [&str; 8] = [
    "--device",
    "cpu",
    "--set=train.epochs=2",
    "--set=train.batch_size=8",
    "--set=train.save_every=2",
    "--set=train.image_augmentation=true",
    "--set=train.frozen_epochs=1",
    "--set=train.learning_rate=1e-3",
];

/// The random components that [`RECIPE`] lacks. With dropout, batches are not encoded in halves.
pub(crate) const REGULARIZATION: [&str; 3] =
    ["--set=train.dropout=0.1", "--set=train.drop_path=0.1", "--set=train.text_augmentation=true"];

/// With two threads, batches are encoded in halves.
const TWO_THREADS: &str = "--threads=2";

pub(crate) fn arguments<'a>(folder: &'a Path, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let paths = ["train", "shapes_vit", "--data", folder.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let threads = if more.contains(&TWO_THREADS) { &[][..] } else { &["--threads=1"] };
    paths.iter().chain(&RECIPE).chain(threads).chain(more).copied().collect()
}

pub(crate) fn trained(folder: &Path, out: &Path, more: &[&str]) -> ProgramOutput {
    let run = laps_zoo(arguments(folder, out, more));
    assert_eq!(run.status, 0, "{}", run.stderr);
    run
}

/// The tensors of a file as bytes.
pub(crate) fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs_err::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect()
}

/// The step lines of a log; epoch lines contain times.
pub(crate) fn steps(out: &Path) -> Vec<String> {
    let text = fs_err::read_to_string(out.join("log.jsonl")).unwrap();
    text.lines().filter(|line| line.contains("grad_norm")).map(str::to_owned).collect()
}

/// Temporary files in a run folder.
pub(crate) fn temporary_files(out: &Path) -> Vec<String> {
    let names = fs_err::read_dir(out).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".part")).collect()
}

/// The bytes of the files of a run, without the log and the event files, which contain times, and without what a killed
/// run has left.
pub(crate) fn without_events(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs_err::read_dir(out).unwrap().map(|file| file.unwrap());
    let named = files.map(|file| (file.file_name().into_string().unwrap(), file.path()));
    let timeless =
        named.filter(|(name, _)| !name.starts_with("events.") && name != "log.jsonl" && !name.ends_with(".part"));
    timeless.map(|(name, path)| (name, fs_err::read(path).unwrap())).collect()
}

/// Starts a run and waits until it reports a saved state.
pub(crate) fn until_saved(folder: &Path, out: &Path, more: &[&str]) -> Child {
    let mut child = Command::new(crate::PROGRAM)
        .args(arguments(folder, out, more))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let saved = lines.find(|line| line.as_ref().unwrap().contains("saved"));
    assert!(saved.is_some(), "it ended without having saved");
    // Keep reading its output, or it would block on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn resume_is_bit_identical() {
    assert_resume_is_bit_identical(&REGULARIZATION);
}

#[test]
fn resume_is_bit_identical_on_two_threads() {
    assert_resume_is_bit_identical(&[TWO_THREADS]);
}

fn assert_resume_is_bit_identical(more: &[&str]) {
    let resumed = [more, &["--resume"]].concat();
    let folder = data();
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    let run = trained(folder.path(), &whole, more);
    assert!(run.stdout.starts_with("10 steps, best on `dev`: rSum "), "{}", run.stdout);
    assert_eq!(steps(&whole).len(), 10);

    // SIGINT: the run saves its state. It may have finished before the signal arrives.
    let mut child = until_saved(folder.path(), &broken, more);
    let signalled = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert!(!signalled.success() || status.code() == Some(2) || status.success(), "{status}");
    assert_eq!(temporary_files(&broken), Vec::<String>::new());
    // SIGKILL twice, at arbitrary points.
    for _ in 0..2 {
        if steps(&broken).len() < 8 {
            let mut child = until_saved(folder.path(), &broken, &resumed);
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    trained(folder.path(), &broken, &resumed);

    // The same files with the same bytes.
    let (found, expected) = (without_events(&broken), without_events(&whole));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name}");
    }
    assert_eq!(steps(&broken), steps(&whole));
}

#[test]
fn identical_runs_write_identical_files() {
    let folder = data();
    let runs = ["first", "second"].map(|name| {
        let out = folder.path().join(name);
        trained(folder.path(), &out, &[]);
        without_events(&out)
    });
    assert_eq!(runs[0].keys().collect::<Vec<_>>(), runs[1].keys().collect::<Vec<_>>());
    for (name, bytes) in &runs[0] {
        assert!(runs[1][name] == *bytes, "{name}");
    }
}

#[test]
fn run_is_resumed_with_more_epochs() {
    let folder = data();
    let [whole, longer] = ["whole", "longer"].map(|name| folder.path().join(name));
    trained(folder.path(), &whole, &[]);
    trained(folder.path(), &longer, &["--set=train.epochs=1"]);
    let run = trained(folder.path(), &longer, &["--resume"]);
    assert!(run.stderr.contains("note: the schedule is longer than before: 2 epochs instead of 1"), "{}", run.stderr);
    let log = fs_err::read_to_string(longer.join("log.jsonl")).unwrap();
    assert!(log.contains(r#"{"step":5,"epochs":2,"epochs_before":1}"#), "{log}");
    assert!(without_events(&longer) == without_events(&whole));
    assert_eq!(steps(&longer), steps(&whole));
    let shorter = expect_error(folder.path(), arguments(folder.path(), &longer, &["--resume", "--set=train.epochs=1"]));
    assert!(shorter.contains("holds a run of another configuration"), "{shorter}");
}

#[test]
fn run_folder_holds_checkpoint_entry_and_logs() {
    let folder = data();
    let out = folder.path().join("run");
    let once = ["--set=train.epochs=1", "--select-on=test", "--seed=3"];
    let run = trained(folder.path(), &out, &once);
    assert!(run.stderr.contains("note: the best epoch is selected on the test split"), "{}", run.stderr);
    assert!(run.stdout.contains("best on `test`"), "{}", run.stdout);
    let entry = fs_err::read_to_string(out.join("entry.yaml")).unwrap();
    for line in ["seed: 3", "select_on: test", "batch_size: 8", "grad_clip: 2.0"] {
        assert!(entry.contains(line), "{entry}");
    }
    let events = fs_err::read_dir(&out)
        .unwrap()
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("events.out.tfevents."));
    assert_eq!(events.count(), 1);

    // `reproduce` accepts the checkpoint and measures the recalls that the run reported.
    let checkpoint = out.join("best.safetensors");
    let evaluated = laps_zoo(
        ["reproduce", "shapes_vit", "--data", folder.path().to_str().unwrap(), "--checkpoint"]
            .into_iter()
            .chain([checkpoint.to_str().unwrap(), "--quiet"]),
    );
    assert_eq!(evaluated.status, 0, "{}", evaluated.stderr);
    let rsum = run.stdout.split("rSum ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(evaluated.stdout.contains(&format!(" {rsum} ")), "{rsum} is not in\n{}", evaluated.stdout);

    let state = fs_err::read(out.join("state.safetensors")).unwrap();
    let refuse =
        |more: &[&str]| expect_error(folder.path(), arguments(folder.path(), &out, &[more, &["--quiet"]].concat()));
    assert_eq!(
        refuse(&once),
        "error: `DIR/run` holds a run already\nhint: resume the run, or use another output folder\n"
    );
    let other = refuse(&["--set=train.margin=0.3", "--resume"]);
    assert!(other.starts_with("error: `DIR/run` holds a run of another configuration\n  expected: "), "{other}");
    assert!(other.ends_with("hint: use another output folder\n"), "{other}");
    assert_eq!(fs_err::read(out.join("state.safetensors")).unwrap(), state);
    // Resuming a finished run does nothing and prints the same.
    assert_eq!(trained(folder.path(), &out, &[&once[..], &["--resume"]].concat()).stdout, run.stdout);

    // Weights of another model under the name of the state file.
    fs_err::copy(repository_file("checkpoints/shapes_swin.safetensors"), out.join("state.safetensors")).unwrap();
    let foreign = refuse(&[&once[..], &["--resume"]].concat());
    assert!(foreign.contains("another configuration") && foreign.contains("found: none"), "{foreign}");
}

#[test]
fn bad_input_is_rejected_before_anything_is_written() {
    let folder = data();
    let out = folder.path().join("run");
    let refuse = |more: &[&str]| {
        let message = expect_error(folder.path(), arguments(folder.path(), &out, more));
        assert!(!out.exists(), "{message}");
        message
    };
    insta::assert_snapshot!(refuse(&["--set=train.batch_size=41"]), @r"
    error: the data does not fill one batch
      expected: at least 41 captions
      found: 40 captions
    hint: set `train.batch_size` to 40 or less
    ");
    let unknown = refuse(&["--set=train.epoch=1"]);
    assert!(unknown.starts_with("error: setting `train.epoch=1`: there is no key `train.epoch`\n"), "{unknown}");
    assert!(unknown.ends_with("hint: did you mean `epochs`?\n"), "{unknown}");
    insta::assert_snapshot!(refuse(&["--set=train.precision=fp16"]), @r"
    error: device `cpu` cannot be used: precision `fp16` needs a GPU
    hint: use `f32` or `bf16`, or a GPU
    ");
    let swin = repository_file("checkpoints/shapes_swin.safetensors");
    let other = refuse(&["--checkpoint", swin.to_str().unwrap()]);
    assert!(other.starts_with("error: the options in the checkpoint differ from the entry\n"), "{other}");
    let foreign = refuse(&["--image-backbone", swin.to_str().unwrap()]);
    assert!(foreign.contains("shapes_swin.safetensors") && foreign.contains("missing"), "{foreign}");
    insta::assert_snapshot!(refuse(&["--resume"]), @r"
    error: `DIR/run` holds no state to resume from
    hint: start the run without resuming
    ");

    let image = fs_err::read_dir(folder.path().join("images")).unwrap().next().unwrap().unwrap().path();
    fs_err::remove_file(image).unwrap();
    let missing = refuse(&[]);
    assert!(missing.contains("images cannot be used"), "{missing}");
}

#[test]
fn long_captions_are_refused_or_truncated_and_counted() {
    let folder = data();
    let out = folder.path().join("run");
    let path = folder.path().join("captions/train_caps.txt");
    let text = fs_err::read_to_string(&path).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    fs_err::write(&path, format!("{}\n{rest}", [first; 40].join(" "))).unwrap();
    let message = expect_error(folder.path(), arguments(folder.path(), &out, &[]));
    assert!(message.contains("caption in line 1 of `DIR/captions/train_caps.txt`: too long: "), "{message}");
    assert!(!out.exists());
    let run = trained(folder.path(), &out, &["--truncate", "--set=train.epochs=1"]);
    let line = run.stdout.lines().next().unwrap();
    assert!(line.ends_with("; truncated captions: 1"), "{line}");
}

#[test]
fn unwritable_or_foreign_run_folder_is_not_touched() {
    let folder = data();
    let file = folder.path().join("vocab.txt");
    let below = file.join("run");
    let message = expect_error(folder.path(), arguments(folder.path(), &below, &[]));
    assert!(message.starts_with("error: cannot "), "{message}");
    let message = expect_error(folder.path(), arguments(folder.path(), &folder.path().join("images"), &[]));
    assert!(message.starts_with("error: `DIR/images` is not empty and does not hold a run"), "{message}");
}

#[test]
fn prefixes_that_are_removed_from_the_initial_checkpoint_are_noted() {
    let folder = data();
    let bytes = fs_err::read(repository_file("checkpoints/shapes_vit.safetensors")).unwrap();
    let plain = SafeTensors::deserialize(&bytes).unwrap();
    let wrapped = plain.iter().map(|(name, view)| (format!("module.{name}"), view));
    let path = folder.path().join("wrapped.safetensors");
    fs_err::write(&path, safetensors::serialize(wrapped, None).unwrap()).unwrap();
    let run = trained(folder.path(), &folder.path().join("run"), &["--checkpoint", path.to_str().unwrap()]);
    let note = "note: removed from the names in the checkpoint: `module.`\n";
    assert!(run.stderr.contains(note), "{}", run.stderr);
}
