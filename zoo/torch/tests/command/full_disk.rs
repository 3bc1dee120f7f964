//! A training state that cannot be written completely: full disk or file size limit.

use std::process::Command;

use crate::{
    support::finished,
    training::{arguments, data, tensors, trained, until_saved},
};

#[test]
fn failed_state_write_keeps_the_previous_state() {
    let folder = data();
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    trained(folder.path(), &whole, &[]);
    let mut child = until_saved(folder.path(), &broken, &[]);
    child.kill().unwrap();
    child.wait().unwrap();

    let state = broken.join("state.safetensors");
    let before = fs_err::read(&state).unwrap();
    // Weights and the two moments have the same size, so this limit is in the middle of the second third, and checkpoints
    // fit. The limit is in blocks of 512 bytes; with its signal ignored, a write beyond it fails halfway as on a full disk.
    let limit = before.len() / 2 / 512;
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(script).arg(crate::PROGRAM).args(arguments(folder.path(), &broken, &["--resume", "--quiet"]));
    let run = finished(limited.output().unwrap());
    let message = run.stderr.replace(&folder.path().display().to_string(), "DIR");
    assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{message}");
    assert!(message.starts_with("error: cannot write `DIR/broken/state.safetensors`"), "{message}");
    assert!(message.contains("File too large"), "{message}");
    assert!(fs_err::read(&state).unwrap() == before, "the last state has changed");
    let names = fs_err::read_dir(&broken).unwrap().map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    let left: Vec<String> = names.filter(|name| name.ends_with(".part")).collect();
    assert!(left.is_empty(), "{left:?}");

    trained(folder.path(), &broken, &["--resume"]);
    for name in ["last.safetensors", "best.safetensors", "state.safetensors"] {
        assert_eq!(tensors(&broken.join(name)), tensors(&whole.join(name)), "{name}");
    }
}
