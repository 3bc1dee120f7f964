//! Event files of a run, read by TensorBoard's own reader.
//!
//! It is a Python package: `.ci/run` installs it below `.runtime/`, and the test is skipped where it is absent.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

use crate::{
    files::project,
    training::{data, trained, until_saved},
};

/// Prints each tag's steps and values as TensorBoard's front end gets them: all event files of a folder, without what a
/// later file declares void, and without sampling.
const READER: &str = r#"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
reader = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
reader.Reload()
scalars = {tag: [[event.step, event.value] for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
print(json.dumps(scalars))
"#;

type Scalars = BTreeMap<String, Vec<(u64, f64)>>;

/// What TensorBoard sees in a folder.
fn read(python: &Path, folder: &Path) -> Scalars {
    let output = Command::new(python).arg("-c").arg(READER).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the log of the run says, under the tags that it should have.
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
        for key in ["mean_loss", "data_wait"] {
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
fn its_own_reader_sees_what_the_log_says_and_no_step_twice() {
    let python = project(".runtime/tensorboard/bin/python");
    if !python.exists() {
        println!("skipped: `{}` is not there; `.ci/run tensorboard` makes it", python.display());
        return;
    }
    let folder = data();
    let out = folder.path().join("run");
    // Killed after it has saved, so that steps of the first file may be made again.
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
            // The log has 64 bits, an event file 32.
            assert_eq!(found as f32, expected as f32, "{tag} at step {step}");
        }
    }
}
