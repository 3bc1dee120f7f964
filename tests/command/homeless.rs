//! Machines without a home, with a home that cannot be written, and without a folder for temporary files.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::{
    files::scenes,
    folders::as_nobody,
    support::{ProgramOutput, finished},
};

/// Runs the program with these variables alone.
fn run(mut command: Command, variables: &[(&str, &Path)], arguments: &[&str]) -> ProgramOutput {
    command.env_clear().envs(variables.iter().copied()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    finished(command.args(arguments).output().unwrap())
}

#[test]
fn embedded_entries_need_no_home() {
    let data = scenes(1);
    let image = data.path().join("images/test_00000.png");
    let score = ["score", image.to_str().unwrap(), "--caption", "a red circle", "--entry", "shapes_vit", "--quiet"];
    let absent = Path::new("/nonexistent");
    for variables in [&[][..], &[("HOME", absent), ("TMPDIR", absent)]] {
        let run = run(Command::new(crate::PROGRAM), variables, &score);
        assert_eq!(run.status, 0, "{}", run.stderr);
    }
}

#[test]
fn scenes_are_drawn_to_the_next_place_that_works() {
    let Some(command) = as_nobody() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs_err::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let variables = [("HOME", Path::new("/proc/nonexistent")), ("TMPDIR", folder.path())];
    let run = run(command, &variables, &["reproduce", "shapes_vit", "--limit", "4", "--quiet"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let places: Vec<_> = fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(places.len(), 1, "{places:?}");
    assert!(places[0].file_name().to_string_lossy().starts_with("laps-zoo-"), "{places:?}");
    assert_eq!(places[0].metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

/// `auto` takes ONNX Runtime where its library is found; its graphs go to the next place that works, such as `/tmp`.
#[test]
fn auto_engine_needs_no_folder_for_temporary_files() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    let variables = [("LAPS_ZOO_CACHE", &*cache), ("TMPDIR", Path::new("/nonexistent"))];
    let arguments = ["reproduce", "shapes_vit", "--limit", "4", "--quiet"];
    let run = run(Command::new(crate::PROGRAM), &variables, &arguments);
    assert_eq!(run.status, 0, "{}", run.stderr);
}

/// The program on a machine whose folders are all read-only, as a user without rights, with these variables alone: as in a
/// container. None, with a message, if this user cannot make one. `folder` is one of the folders.
#[cfg(target_os = "linux")]
pub(crate) fn on_read_only_machine(folder: &Path, variables: &[(&str, &Path)]) -> Option<Command> {
    let script = "mount --make-rprivate / && \
        while read -r _ point _; do mount -o remount,bind,ro \"$point\" 2>/dev/null; done </proc/mounts; \
        ! touch \"$1/probe\" /tmp/probe 2>/dev/null && shift && \
        exec setpriv --reuid=65534 --regid=65534 --clear-groups env -i \"$@\"";
    let isolated = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(folder);
        command.args(variables.iter().map(|(name, value)| format!("{name}={}", value.display()))).arg(crate::PROGRAM);
        command
    };
    let probe = isolated().arg("--version").output();
    if probe.as_ref().is_ok_and(|output| output.status.success()) {
        return Some(isolated());
    }
    println!("skipped: `unshare --mount` cannot make the machine read-only: {probe:?}");
    None
}

#[test]
#[cfg(target_os = "linux")]
fn auto_engine_works_without_a_place_for_graphs_and_says_so() {
    let Ok(library) = laps_onnx::runtime::library::find() else {
        println!("skipped: ONNX Runtime was not found");
        return;
    };
    let data = scenes(2);
    fs_err::set_permissions(data.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let Some(mut command) = on_read_only_machine(data.path(), &[("ORT_DYLIB_PATH", &library.path)]) else { return };
    command.args(["reproduce", "shapes_vit", "--quiet", "--data"]).arg(data.path());
    let run = finished(command.output().unwrap());
    assert_ne!(run.status, 2, "{}", run.stderr);
    assert!(run.stdout.contains("\nnote: the graphs of ONNX Runtime are in memory, because "), "{}", run.stdout);
}
