//! Outputs that are devices, links, FIFOs or standard output, and the mode of output files.

use std::{
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    files::{npy, scenes},
    support::{expect_error, finished, laps_zoo},
};

const REPRODUCE: [&str; 7] = ["reproduce", "shapes_vit", "--engine", "rust", "--limit", "4", "--quiet"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The names in `folder`.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A result of `reproduce --json` in `folder`.
fn result(folder: &Path) -> PathBuf {
    let path = folder.join("result.json");
    let run = laps_zoo(REPRODUCE.iter().chain(&["--json", text(&path)]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    path
}

/// Commands that write `output` as a stream of bytes; two of them read `result`.
fn streams<'a>(result: &'a str, output: &'a str) -> [Vec<&'a str>; 3] {
    [
        [&REPRODUCE[..], &["--json", output]].concat(),
        vec!["card", "shapes_vit", result, "--out", output],
        vec!["report", result, "--out", output],
    ]
}

/// The command that goes back in its output.
fn matrix(output: &str) -> Vec<&str> {
    [&REPRODUCE[..], &["--sims", output]].concat()
}

/// A device like `/dev/null` in `folder`, where a file could take its place. None, with a message, if this user cannot make
/// and open one.
fn null_device(folder: &Path) -> Option<PathBuf> {
    let path = folder.join("null");
    let made = Command::new("mknod").arg(&path).args(["c", "1", "3"]).output();
    let is_open = || fs_err::OpenOptions::new().write(true).open(&path).is_ok();
    if made.is_ok_and(|output| output.status.success()) && is_open() {
        return Some(path);
    }
    println!("skipped: `mknod` cannot make a device, which needs root");
    None
}

#[test]
fn device_is_written_into() {
    let folder = tempfile::tempdir().unwrap();
    let Some(device) = null_device(folder.path()) else { return };
    let result = result(folder.path());
    let is_device = || fs_err::symlink_metadata(&device).unwrap().file_type().is_char_device();
    for arguments in streams(text(&result), text(&device)) {
        let run = laps_zoo(&arguments);
        assert_eq!(run.status, 0, "{arguments:?}: {}", run.stderr);
        assert!(is_device(), "{arguments:?}");
    }
    let message = expect_error(folder.path(), matrix(text(&device)));
    assert!(message.starts_with("error: cannot write `DIR/null`\n  expected: a regular file"), "{message}");
    assert!(is_device());
    assert_eq!(names(folder.path()), ["null", "result.json"]);
}

#[test]
fn matrix_in_a_stream_is_rejected_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let [fifo, link] = ["fifo", "link"].map(|name| folder.path().join(name));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    symlink(&fifo, &link).unwrap();
    for output in ["-", "/dev/stdout", "/dev/fd/2", "/dev/null", text(&fifo), text(&link)] {
        // The data does not exist either, but is not looked for yet.
        let message = expect_error(folder.path(), ["reproduce", "shapes_vit", "--data", "/nowhere", "--sims", output]);
        let expected = "  expected: a regular file, because its header is written last\n  \
                        found: a pipe, a device or standard output\n";
        assert!(message.starts_with("error: cannot write `") && message.ends_with(expected), "{message}");
    }
    assert!(fs_err::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    assert_eq!(names(folder.path()), ["fifo", "link"]);
}

#[test]
fn link_stays_and_its_target_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let result = result(folder.path());
    let [real, link] = ["real", "link"].map(|name| folder.path().join(name));
    symlink("real", &link).unwrap();
    for arguments in streams(text(&result), text(&link)).into_iter().chain([matrix(text(&link))]) {
        fs_err::write(&real, "old").unwrap();
        let run = laps_zoo(&arguments);
        assert_eq!(run.status, 0, "{arguments:?}: {}", run.stderr);
        assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink(), "{arguments:?}");
        assert_ne!(fs_err::read(&real).unwrap(), b"old", "{arguments:?}");
        assert_eq!(names(folder.path()), ["link", "real", "result.json"], "{arguments:?}");
    }
}

#[test]
fn outputs_have_the_mode_of_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let result = result(folder.path());
    let [output, graphs, cache] = ["output", "graphs", "cache"].map(|name| folder.path().join(name));
    let run = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 027; exec \"$0\" \"$@\"", crate::PROGRAM]).args(arguments);
        let run = finished(command.env("LAPS_ZOO_CACHE", &cache).output().unwrap());
        assert_eq!(run.status, 0, "{arguments:?}: {}", run.stderr);
    };
    let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
    for arguments in streams(text(&result), text(&output)).into_iter().chain([matrix(text(&output))]) {
        run(&arguments);
        assert_eq!(mode(&output), 0o640, "{arguments:?}");
        fs_err::remove_file(&output).unwrap();
    }
    run(&["export", "shapes_vit", "--onnx", "--out", text(&graphs)]);
    assert_eq!((mode(&graphs), mode(&graphs.join("manifest.json"))), (0o750, 0o640));
}

/// Summaries go to standard error then.
#[test]
fn standard_output_holds_nothing_but_the_output() {
    let data = scenes(1);
    let result = result(data.path());
    let [sims, link] = ["sims.npy", "page.json"].map(|name| data.path().join(name));
    let values: Vec<f32> = (0..20).map(|value| value as f32).collect();
    fs_err::write(&sims, npy(&values, [2, 10], false)).unwrap();
    // `explain` chooses the format by the name.
    symlink("/dev/stdout", &link).unwrap();
    let image = data.path().join("images/test_00000.png");
    let bench = ["bench", "--quiet", "--entry", "shapes_vit", "--engine", "rust", "--parts", "alignment"];
    let bench = [&bench[..], &["--batch-size", "2", "--warm-up", "0", "--repeats", "1"]].concat();
    let alignment = ["bench", "alignment", "--quiet", "--entry", "shapes_vit", "--images", "2", "--captions", "2"];
    let explain = ["explain", text(&image), "--caption", "a red circle", "--entry", "shapes_vit", "--engine", "rust"];
    let documents = [
        [&REPRODUCE[..], &["--json", "-"]].concat(),
        vec!["evaluate", "--sims", text(&sims), "--json", "/dev/stdout"],
        [&bench[..], &["--json", "-"]].concat(),
        [&alignment[..], &["--json", "/dev/fd/1"]].concat(),
        [&explain[..], &["--quiet", "--out", text(&link)]].concat(),
    ];
    for arguments in documents {
        let run = laps_zoo(&arguments);
        assert_eq!(run.status, 0, "{arguments:?}: {}", run.stderr);
        let parsed = serde_json::from_str::<Value>(&run.stdout);
        assert!(parsed.is_ok(), "{arguments:?}: {}", run.stdout);
        assert!(!run.stderr.is_empty(), "{arguments:?}");
    }
    // The table has lines of box-drawing characters, CSV and Markdown have none.
    for option in ["--csv", "--markdown"] {
        let run = laps_zoo(bench.iter().chain(&[option, "-"]));
        assert_eq!(run.status, 0, "{}", run.stderr);
        assert!(run.stdout.contains("alignment") && !run.stdout.contains('│'), "{}", run.stdout);
        assert!(run.stderr.contains('│'), "{}", run.stderr);
    }
    let run = laps_zoo(REPRODUCE.iter().chain(&["--run", "-"]));
    assert!(run.stdout.lines().all(|line| line.split(' ').count() == 6), "{}", run.stdout);
    assert!(run.stderr.starts_with("shapes_vit, "), "{}", run.stderr);
    let run = laps_zoo(["report", text(&result), "--out", "-"]);
    assert!(run.stdout.trim_end().ends_with("</html>"), "{}", run.stdout);
    assert_eq!(run.stderr, "wrote `-`\n");
}
