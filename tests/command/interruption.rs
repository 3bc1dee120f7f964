//! `reproduce --sims`: an interrupted run resumes, and gives the same result as an uninterrupted one.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
};

use crate::support::{ProgramOutput, command, finished, json, start};

/// Arguments for 200 images in batches of 16, which makes four blocks.
fn arguments(more: &[&str]) -> Vec<String> {
    let fixed = ["reproduce", "shapes_vit", "--device", "cpu", "--threads", "1", "--batch-size", "16"];
    fixed.iter().chain(more).map(|&argument| argument.to_owned()).collect()
}

fn run(more: &[&str]) -> ProgramOutput {
    finished(command().args(arguments(more)).output().unwrap())
}

/// A running command that has printed a given line.
pub(crate) struct RunningCommand {
    child: Child,
    rest: JoinHandle<String>,
}

impl RunningCommand {
    /// Starts `reproduce` and waits until a progress line contains `text`.
    fn until(text: &str, more: &[&str]) -> Self {
        Self::command_until(text, &arguments(more))
    }

    /// The same for any command.
    pub(crate) fn command_until(text: &str, arguments: &[String]) -> Self {
        let mut child = start(arguments, Stdio::null());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.lines().last().is_some_and(|line| line.contains(text)) {
            assert!(stderr.read_line(&mut seen).unwrap() > 0, "it ended without `{text}`:\n{seen}");
        }
        // Keep reading its output, or it would block on a full pipe.
        let rest = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, rest }
    }

    /// Sends SIGINT; returns the exit code and the remaining output.
    pub(crate) fn interrupt(mut self) -> (Option<i32>, String) {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
        (self.child.wait().unwrap().code(), self.rest.join().unwrap())
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.rest.join().unwrap();
    }
}

fn evaluations(path: &Path) -> serde_json::Value {
    json(path)["evaluations"].clone()
}

#[test]
fn resume_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    let [whole, broken, partial] = ["whole.safetensors", "broken.safetensors", "broken.safetensors.partial"].map(file);
    let [expected, found] = ["whole.json", "broken.json"].map(file);
    let outputs = |sims: &Path, json: &Path| {
        ["--sims", sims.to_str().unwrap(), "--json", json.to_str().unwrap()].map(str::to_owned)
    };
    let whole_outputs = outputs(&whole, &expected);
    let broken_outputs = outputs(&broken, &found);
    let whole_outputs: Vec<&str> = whole_outputs.iter().map(String::as_str).collect();
    let broken_outputs: Vec<&str> = broken_outputs.iter().map(String::as_str).collect();
    let uninterrupted = run(&whole_outputs);
    assert_eq!(uninterrupted.status, 0, "{}", uninterrupted.stderr);
    assert!(uninterrupted.stderr.contains("encode and score images: saved 4 of 4 parts\n"), "{}", uninterrupted.stderr);
    assert!(!file("whole.safetensors.partial").exists());

    // SIGINT: three blocks of work are left, and a signal takes less time.
    let (status, output) = RunningCommand::until("saved 1 of 4", &broken_outputs).interrupt();
    assert_eq!(status, Some(2), "{output}");
    let message =
        output.split("error: ").nth(1).unwrap_or_default().replace(&folder.path().display().to_string(), "DIR");
    let blocks: usize = message.split(' ').nth(1).unwrap().parse().unwrap();
    assert!((1..4).contains(&blocks), "{output}");
    assert_eq!(
        message,
        format!(
            "interrupted: {blocks} of 4 blocks of images are saved in `DIR/broken.safetensors.partial`\n\
             hint: run it again with the same arguments to resume\n"
        )
    );
    assert!(partial.exists() && !broken.exists() && !found.exists());

    // The batch of an image decides the last bits of its embedding.
    let kept = fs_err::read(&partial).unwrap();
    let other = run(&[&broken_outputs[..], &["--limit", "100", "--quiet"]].concat());
    let message = other.stderr.replace(&folder.path().display().to_string(), "DIR");
    assert_eq!(other.status, 2, "{message}");
    insta::assert_snapshot!(message, @r"
    error: `DIR/broken.safetensors.partial` cannot be resumed
      expected: a matrix of the same embeddings, parameters and options
      found: one of other inputs
    hint: repeat the original arguments, including the number of threads, or write to another file
    ");
    assert_eq!(fs_err::read(&partial).unwrap(), kept);

    // SIGKILL at an arbitrary point.
    if blocks < 3 {
        RunningCommand::until(&format!("saved {} of 4", blocks + 1), &broken_outputs).kill();
        assert!(partial.exists() && !broken.exists());
    }
    let last = run(&broken_outputs);
    assert_eq!(last.status, 0, "{}", last.stderr);
    assert!(last.stdout.contains(" images were encoded and scored by an earlier run\n"), "{}", last.stdout);
    assert!(!last.stderr.contains("saved 1 of 4"), "{}", last.stderr);
    assert!(!partial.exists());
    assert!(fs_err::read(&broken).unwrap() == fs_err::read(&whole).unwrap(), "the matrices differ");
    assert_eq!(evaluations(&found), evaluations(&expected));
    // Ranks counted from the file equal those of a matrix in memory.
    let held = file("held.json");
    assert_eq!(run(&["--json", held.to_str().unwrap(), "--quiet"]).status, 0);
    assert_eq!(evaluations(&held), evaluations(&expected));
}

#[test]
fn interrupted_run_without_sims_file_leaves_nothing() {
    let (status, output) = RunningCommand::until("encode captions: 1000 to do", &[]).interrupt();
    assert_eq!(status, Some(2), "{output}");
    assert_eq!(
        output,
        "error: interrupted: nothing was saved\nhint: a run that writes its similarity matrix to a file can be resumed\n"
    );
}
