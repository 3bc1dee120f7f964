//! Runs the command.

use std::{ffi::OsStr, path::Path, process::Output, time::Duration};

use assert_cmd::Command;

/// Timeout, longer than any run takes, so that a hanging run fails.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Exit code and output of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with a cache that the tests share.
pub(crate) fn command() -> Command {
    let mut command = Command::new(crate::PROGRAM);
    command.env("LAPS_ZOO_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache")).timeout(TIMEOUT);
    command
}

/// Runs the program.
pub(crate) fn laps_zoo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Run {
    finished(command().args(arguments).output().unwrap())
}

pub(crate) fn finished(output: Output) -> Run {
    Run {
        status: output.status.code().expect("ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command that must fail; returns its message with `folder` replaced by `DIR`.
pub(crate) fn expect_error<A: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = A>) -> String {
    let run = laps_zoo(arguments);
    assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{}", run.stderr);
    run.stderr.replace(&folder.display().to_string(), "DIR")
}

/// Reads a result written by `--json`.
pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

/// Removes the times from a table: keeps stages and counts.
pub(crate) fn without_times(stdout: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    let mut held = None;
    for line in stdout.lines() {
        if line.starts_with('┌') {
            held = Some(line);
            continue;
        }
        let border = held.take();
        inside |= line.starts_with("│ stage ");
        if let (Some(border), false) = (border, inside) {
            text += &format!("{border}\n");
        }
        if !inside {
            text += &format!("{line}\n");
            continue;
        }
        let cells: Vec<&str> =
            line.trim_matches('│').split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        if let [name, _, items, _] = cells[..] {
            text += &format!("{name}: {items}\n");
        }
        inside = !line.starts_with('└');
    }
    text
}
