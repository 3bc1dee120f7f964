//! Event files of a training run, read by TensorBoard's own reader.
//!
//! The reader is a Python package that `.ci/run tensorboard` installs in `.runtime/`; without it the test is skipped.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

use crate::{
    files::repository_file,
    training::{data, trained, until_saved},
};

/// Prints the steps and values of each tag as TensorBoard's front end gets them: all event files of a folder, without events
/// that a later file invalidates, and without sampling.
const READER: &str = r#"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
reader = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
reader.Reload()
scalars = {tag: [[event.step, event.value] for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
print(json.dumps(scalars))
"#;

type Scalars = BTreeMap<String, Vec<(u64, f64)>>;

/// The scalars that TensorBoard reads from a folder.
fn read(python: &Path, folder: &Path) -> Scalars {
    let output = Command::new(python).arg("-c").arg(READER).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The scalars of the run's log, by expected tag.
fn expected(folder: &Path) -> Scalars {
    let mut scalars = Scalars::new();
    for line in fs_err::read_to_string(folder.join("log.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let step = line["step"].as_u64().unwrap();
        let mut add = |tag: &str, value: &Value| {
            scalars.entry(tag.to_owned()).or_default().push((step, value.as_f64().unwrap()));
        };
        if line.get("grad_norm").is_some() {
            for key in ["loss", "grad_norm", "learning_rate"] {
                add(&format!("train/{key}"), &line[key]);
            }
            continue;
        }
        for key in ["mean_loss", "data_wait", "pairs_per_second"] {
            add(&format!("train/{key}"), &line[key]);
        }
        add("validation/rsum", &line["recalls"]["rsum"]);
        for direction in ["i2t", "t2i"] {
            for recall in ["r1", "r5", "r10"] {
                add(&format!("validation/{direction}_{recall}"), &line["recalls"][direction][recall]);
            }
        }
    }
    scalars
}

#[test]
fn event_files_match_the_log_without_duplicate_steps() {
    let python = repository_file(".runtime/tensorboard/bin/python");
    if !python.exists() {
        println!("skipped: `{}` does not exist; `.ci/run tensorboard` creates it", python.display());
        return;
    }
    let folder = data();
    let out = folder.path().join("run");
    // Killed after a save, so that some steps of the first file are repeated.
    let mut child = until_saved(folder.path(), &out, &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    trained(folder.path(), &out, &["--resume"]);

    let (found, expected) = (read(&python, &out), expected(&out));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert_eq!(expected["train/loss"].len(), 10);
    for (tag, expected) in &expected {
        let steps = |scalars: &[(u64, f64)]| scalars.iter().map(|&(step, _)| step).collect::<Vec<_>>();
        assert_eq!(steps(&found[tag]), steps(expected), "{tag}");
        for (&(step, found), &(_, expected)) in found[tag].iter().zip(expected) {
            // The log stores f64, an event file f32.
            assert_eq!(found as f32, expected as f32, "{tag} at step {step}");
        }
    }
}
