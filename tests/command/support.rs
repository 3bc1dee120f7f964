//! Runs the command.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::Path,
    process::{self, Child, Output, Stdio},
    thread,
    time::Duration,
};

use assert_cmd::Command;
use laps_model::random::SplitMix64;

/// Timeout, longer than any run takes, so that a hanging run fails.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Exit code and output of a run.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The cache that the tests share.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");

/// The program with the shared cache.
pub(crate) fn command() -> Command {
    let mut command = Command::new(crate::PROGRAM);
    command.env("LAPS_ZOO_CACHE", CACHE).timeout(TIMEOUT);
    command
}

/// Runs the program.
pub(crate) fn laps_zoo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> ProgramOutput {
    finished(command().args(arguments).output().unwrap())
}

/// Starts the program with a pipe for its standard error.
pub(crate) fn start<A: AsRef<OsStr>>(arguments: &[A], stdout: Stdio) -> Child {
    process::Command::new(crate::PROGRAM)
        .env("LAPS_ZOO_CACHE", CACHE)
        .args(arguments)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs the program again and again, and kills it (SIGKILL) after a seeded number of lines of progress below `lines` and up
/// to 20 ms, until it was killed 8 times, or `LAPS_ZOO_TEST_KILLS` times. `ended` is called for each run that is complete
/// before; it removes the output, so that the next run begins again.
pub(crate) fn kill_repeatedly<A: AsRef<OsStr>>(arguments: &[A], seed: u64, lines: usize, mut ended: impl FnMut()) {
    let wanted: usize = std::env::var("LAPS_ZOO_TEST_KILLS").map_or(8, |text| text.parse().expect("a number"));
    let mut random = SplitMix64::new(seed);
    let (mut kills, mut runs) = (0, 0);
    while kills < wanted {
        runs += 1;
        assert!(runs <= 20 * wanted, "{kills} kills in {runs} runs: too few lines of progress");
        let mut child = start(arguments, Stdio::null());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = random.below(lines);
        let moment = Duration::from_micros(random.below(20_000) as u64);
        let seen = (0..lines).take_while(|_| stderr.read_line(&mut String::new()).unwrap() > 0).count();
        // A run with fewer lines is complete.
        if seen == lines {
            thread::sleep(moment);
            child.kill().unwrap();
        }
        match child.wait().unwrap().code() {
            None => kills += 1,
            Some(code) => {
                assert_eq!(code, 0);
                ended();
            }
        }
    }
}

pub(crate) fn finished(output: Output) -> ProgramOutput {
    ProgramOutput {
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
