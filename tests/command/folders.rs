//! Folders with odd files, names of any bytes, outputs of other kinds, and interruption.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use insta::assert_snapshot;
use laps_data::image::{RgbImage, jpeg};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    files::scenes,
    support::{command, expect_error, finished, laps_zoo},
};

const MODEL: [&str; 5] = ["--entry", "shapes_vit", "--engine", "rust", "--quiet"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let run = laps_zoo(arguments.iter().chain(&MODEL).chain(&["--json"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A folder of two photos, and the index to write.
fn photos() -> (TempDir, PathBuf, PathBuf) {
    let data = scenes(2);
    let [images, out] = ["images", "photos.index"].map(|name| data.path().join(name));
    (data, images, out)
}

/// The program as another user than root, because root can read every folder. None, with a message, if that is not possible.
pub(crate) fn as_nobody() -> Option<Command> {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout.trim_ascii() != b"0" {
        return Some(Command::new(crate::PROGRAM));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", crate::PROGRAM]);
    let mut probe = Command::new("setpriv");
    probe.args(["--reuid=65534", "--regid=65534", "--clear-groups", crate::PROGRAM, "--version"]);
    if probe.output().is_ok_and(|output| output.status.success()) {
        return Some(command);
    }
    println!("skipped: root cannot start the program as another user with `setpriv`");
    None
}

/// The names and reasons of skipped files.
fn skipped(output: &Value) -> Vec<(&str, &str)> {
    let items = output["skipped"].as_array().unwrap();
    items.iter().map(|item| (item["name"].as_str().unwrap(), item["reason"].as_str().unwrap())).collect()
}

#[test]
fn unreadable_subfolder_is_skipped_and_named() {
    let Some(mut command) = as_nobody() else { return };
    let (data, images, out) = photos();
    let closed = images.join("lost+found");
    fs_err::create_dir(&closed).unwrap();
    let set = |path: &Path, mode| fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(&closed, 0o000);
    set(data.path(), 0o777);
    command.env("LAPS_ZOO_CACHE", data.path().join("cache"));
    let arguments = ["index", text(&images), "--out", text(&out)];
    let run = finished(command.args(arguments.iter().chain(&MODEL)).output().unwrap());
    set(&closed, 0o700);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().skip(1).collect();
    assert_snapshot!(lines.join("\n").replace(text(data.path()), "DIR"), @r"
    2 images in `DIR/photos.index`: 2 encoded, 0 unchanged, 1 skipped
      skipped `lost+found`: the folder cannot be read: Permission denied (os error 13)
    ");
}

#[test]
fn fifo_device_and_other_formats_are_skipped_and_named() {
    let (_data, images, out) = photos();
    mkfifo(&images.join("pipe.jpg"));
    std::os::unix::fs::symlink("/dev/zero", images.join("device.png")).unwrap();
    fs_err::write(images.join("IMG.HEIC"), b"\0\0\0\x18ftypheic").unwrap();
    let photo = jpeg(&RgbImage::new(8, 8, vec![90; 192]).unwrap(), 90).unwrap();
    for name in ["x.jfif", "y.jpe"] {
        fs_err::write(images.join(name), &photo).unwrap();
    }
    let made = json(&["index", text(&images), "--out", text(&out)]);
    let expected = [
        ("IMG.HEIC", "not a JPEG, PNG, GIF, BMP or WebP file"),
        ("device.png", "it is a device, not a regular file"),
        ("pipe.jpg", "it is a FIFO, not a regular file"),
    ];
    assert_eq!((&made["items"], skipped(&made)), (&4.into(), expected.to_vec()));

    // `embed` skips what a folder holds, and refuses what is named.
    let npy = images.parent().unwrap().join("photos.npy");
    let embedded = json(&["embed", text(&images), "--pooled", "--out", text(&npy)]);
    assert_eq!((&embedded["shape"][0], embedded["skipped"].as_array().unwrap().len()), (&4.into(), 3));
    let pipe = images.join("pipe.jpg");
    let arguments = [&["embed", text(&pipe), "--out", text(&npy)], &MODEL[..]].concat();
    assert_snapshot!(expect_error(images.parent().unwrap(), arguments), @"error: `DIR/images/pipe.jpg` cannot be used: cannot be read: it is a FIFO, not a regular file");
}

#[test]
fn names_of_any_bytes_stay_distinct_and_lead_back() {
    let (_data, images, out) = photos();
    let photo = fs_err::read(images.join("test_00000.png")).unwrap();
    for name in [&b"\xffone.png"[..], b"\xfeone.png", b"two\nlines.png"] {
        fs_err::write(images.join(OsStr::from_bytes(name)), &photo).unwrap();
    }
    let made = json(&["index", text(&images), "--out", text(&out)]);
    assert_eq!((&made["items"], made["skipped"].as_array().unwrap().len()), (&5.into(), 0));
    let found = json(&["search", text(&out), "a red circle"]);
    let mut names: Vec<&str> =
        found["results"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, [r"\xfeone.png", r"\xffone.png", "test_00000.png", "test_00001.png", "two\nlines.png"]);

    let run = command().args(["search", text(&out), "a red circle", "--paths", "-0"]).args(MODEL).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    let mut paths: Vec<&Path> =
        run.stdout.split(|&byte| byte == 0).map(|path| Path::new(OsStr::from_bytes(path))).collect();
    assert_eq!(paths.pop(), Some(Path::new("")), "a NUL ends each path");
    assert_eq!(paths.len(), 5);
    assert!(paths.iter().all(|path| path.is_file()), "{paths:?}");
    let lines =
        command().args(["search", text(&out), "a red circle", "--paths", "--top", "1"]).args(MODEL).output().unwrap();
    assert_eq!(lines.stdout, [paths[0].as_os_str().as_bytes(), b"\n"].concat());
}

#[test]
fn too_long_captions_are_named_by_file_and_line() {
    let (data, images, out) = photos();
    let file = data.path().join("captions.txt");
    let long = "red ".repeat(600);
    fs_err::write(&file, format!("a red circle\n\n\na blue square\n{long}\n")).unwrap();
    let arguments = ["index", "--captions", text(&file), "--out", text(&out)];
    let run = laps_zoo(arguments.iter().chain(&MODEL));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().skip(1).collect();
    assert_snapshot!(lines.join("\n").replace(text(data.path()), "DIR"), @r"
    2 captions in `DIR/photos.index`: 2 encoded, 0 unchanged, 1 skipped
      skipped `DIR/captions.txt`, line 5: too long: 602 tokens, where 64 are allowed
    ");

    // Beside a photo: one without words, one too long, one usable.
    fs_err::remove_file(&out).unwrap();
    fs_err::write(images.join("test_00000.txt"), format!("{long}\na red circle\n")).unwrap();
    fs_err::write(images.join("test_00001.txt"), " \n").unwrap();
    let made = json(&["index", text(&images), "--out", text(&out), "--evaluate"]);
    assert_eq!(made["evaluation"]["queries"], 1);
    let names: Vec<_> =
        made["skipped_queries"].as_array().unwrap().iter().map(|item| (&item["name"], &item["line"])).collect();
    assert_eq!(names, [(&"test_00001.txt".into(), &Value::Null), (&"test_00000.txt".into(), &1.into())]);
}

#[test]
fn photos_that_are_decoded_in_part_are_counted_and_named() {
    let (data, images, out) = photos();
    let photo = laps_data::image::read(&images.join("test_00001.png")).unwrap().image;
    let bytes = jpeg(&photo, 90).unwrap();
    fs_err::write(images.join("test_00001.png"), &bytes[..bytes.len() / 2]).unwrap();
    let run = laps_zoo(["index", text(&images), "--out", text(&out)].iter().chain(&MODEL));
    let lines: Vec<&str> = run.stdout.lines().skip(1).collect();
    assert_snapshot!(lines.join("\n").replace(text(data.path()), "DIR"), @r"
    2 images in `DIR/photos.index`: 2 encoded, 0 unchanged, 1 damaged
      damaged `test_00001.png`, decoded in part: Premature end of JPEG file
    ");
    let embedded = json(&["embed", text(&images), "--out", text(&data.path().join("photos.npy"))]);
    let damaged = &embedded["damaged"][0];
    assert_eq!(damaged["name"], text(&images.join("test_00001.png")));
    assert!(damaged["warning"].as_str().unwrap().contains("JPEG"), "{damaged}");
}

#[test]
fn photos_like_a_photo_are_found_by_pooled_vectors() {
    let data = scenes(8);
    let [images, out] = ["images", "photos.index"].map(|name| data.path().join(name));
    json(&["index", text(&images), "--out", text(&out), "--precision", "fp32"]);
    let query = images.join("test_00005.png");
    let found = json(&["search", text(&out), "--image", text(&query), "--top", "3"]);
    assert_eq!((&found["ranked_by"], &found["compared"]), (&"pooled".into(), &0.into()));
    let first = &found["results"][0];
    assert_eq!((&first["name"], &first["similarity"]), (&"test_00005.png".into(), &Value::Null));
    // The same image, in another batch.
    assert!((first["pooled"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{first}");
    let run = laps_zoo(["search", text(&out), "--image", text(&query)].iter().chain(&MODEL[..4]));
    assert_eq!(run.stdout.lines().nth(1), Some("8 images compared by pooled vectors"));
}

#[test]
fn excluded_photos_are_left_out_and_orientation_is_kept() {
    let (_data, images, out) = photos();
    let made = json(&["index", text(&images), "--out", text(&out), "--exclude", "*1.png", "--exif-orientation"]);
    assert_eq!(made["items"], 1);
    // The update without the option keeps it, so nothing is encoded again.
    let updated = json(&["index", text(&images), "--out", text(&out)]);
    assert_eq!((&updated["encoded"], &updated["kept"]), (&1.into(), &1.into()));
    let bytes = fs_err::read(&out).unwrap();
    let key = br#"\"exif_orientation\":true"#;
    assert!(bytes.windows(key.len()).any(|window| window == key));
}

#[test]
fn non_seekable_outputs_are_rejected_before_encoding() {
    let (data, images, _) = photos();
    let [fifo, npy] = ["fifo", "fifo.npy"].map(|name| data.path().join(name));
    mkfifo(&fifo);
    mkfifo(&npy);
    let expected = "  expected: a regular file, because its header is written last\n";
    for arguments in [
        ["index", text(&images), "--out", text(&fifo)],
        ["index", text(&images), "--out", "-"],
        ["embed", text(&images), "--out", text(&npy)],
    ] {
        let run = laps_zoo(arguments.iter().chain(&MODEL));
        assert_eq!(run.status, 2);
        assert!(run.stderr.starts_with("error: cannot write `") && run.stderr.contains(expected), "{}", run.stderr);
    }
}

#[test]
fn link_to_an_index_stays_and_the_index_has_the_mode_of_the_umask() {
    let (data, images, out) = photos();
    let [real, plain] = ["real.index", "plain"].map(|name| data.path().join(name));
    std::os::unix::fs::symlink("real.index", &out).unwrap();
    json(&["index", text(&images), "--out", text(&out)]);
    assert!(fs_err::symlink_metadata(&out).unwrap().is_symlink());
    fs_err::write(&plain, "").unwrap();
    let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&real), mode(&plain));
}

#[test]
fn second_run_says_who_writes_the_output() {
    let (data, images, out) = photos();
    let [sims, npy, package, weights] =
        ["sims", "photos.npy", "package", "out.safetensors"].map(|name| data.path().join(name));
    let locks = [&out, &sims, &npy, &package, &weights].map(|path| laps_files::FileLock::try_acquire(path).unwrap());
    let holder = format!("process {}", std::process::id());
    let of = |arguments: &[&str]| expect_error(data.path(), arguments).replace(&holder, "process PID");
    assert_snapshot!(of(&[&["index", text(&images), "--out", text(&out)], &MODEL[..]].concat()), @r"
    error: another process is writing `DIR/photos.index`
      expected: no other writer
      found: process PID
    hint: wait for that process, or write to another path
    ");
    let reproduce = ["reproduce", "shapes_vit", "--engine", "rust", "--quiet", "--data", text(data.path())];
    assert_snapshot!(of(&[&reproduce[..], &["--sims", text(&sims)]].concat()), @r"
    error: another process is writing `DIR/sims`
      expected: no other writer
      found: process PID
    hint: wait for that process, or write to another path
    ");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/vit_tiny.pth");
    let commands = [
        (&npy, [&["embed", text(&images), "--out", text(&npy)], &MODEL[..]].concat()),
        (&weights, vec!["convert", golden, text(&weights)]),
        (&package, vec!["export", "shapes_vit", "--onnx", "--out", text(&package)]),
    ];
    for (output, command) in commands {
        let message = of(&command);
        let name = output.file_name().unwrap().to_str().unwrap();
        let expected = format!(
            "error: another process is writing `DIR/{name}`\n  expected: no other writer\n  found: process PID\n"
        );
        assert!(message.starts_with(&expected), "{command:?}: {message}");
    }
    drop(locks);
    json(&["index", text(&images), "--out", text(&out)]);
    assert!(!data.path().join("photos.index.lock").exists());
}

/// The run waits for the writer of a FIFO, which never writes. Opening the FIFO here waits until the run has opened it.
#[test]
fn first_interrupt_ends_a_run_that_waits_for_input() {
    let (data, images, out) = photos();
    let fifo = data.path().join("queries");
    mkfifo(&fifo);
    let child = Command::new(crate::PROGRAM)
        .args(["index", text(&images), "--out", text(&out), "--evaluate", "--queries", text(&fifo)])
        .args(MODEL)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _writer = fs_err::OpenOptions::new().write(true).open(&fifo).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let run = finished(child.wait_with_output().unwrap());
    assert_eq!((run.status, run.stderr.as_str()), (2, "error: interrupted: nothing more was written\n"));
}

/// The result is written into a FIFO that nobody reads, so opening it waits.
#[test]
fn first_interrupt_ends_a_run_whose_output_blocks() {
    let data = scenes(2);
    let fifo = data.path().join("result.json");
    mkfifo(&fifo);
    let arguments = ["reproduce", "shapes_vit", "--engine", "rust", "--data", text(data.path()), "--json", text(&fifo)];
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let running = crate::interruption::RunningCommand::command_until("encode and score images: ", &arguments);
    let (status, output) = running.interrupt();
    // By itself if the signal came before the end of the work, else after the grace time.
    assert_eq!(status, Some(2), "{output}");
    assert!(output.contains("error: interrupted: "), "{output}");
}

/// A vocabulary of the size of `bert-base-uncased`.
fn write_vocabulary(path: &Path) {
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    let tokens: String = (5..30_522).map(|number| format!("token{number}\n")).collect();
    fs_err::write(path, format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{tokens}")).unwrap();
}

/// The files of captions are in `f30k`, and the images in `flickr30k-images`.
#[test]
fn data_check_reads_the_tree_of_the_authors() {
    let data = scenes(2);
    let root = data.path().join("data");
    write_vocabulary(&root.join("bert-base-uncased/vocab.txt"));
    let check = || {
        let run = laps_zoo(["data", "check", "f30k", "--data", text(&root), "--quiet"]);
        assert_eq!(run.status, 1, "{}", run.stderr);
        run.stdout
    };
    fs_err::create_dir(root.join("f30k")).unwrap();
    fs_err::rename(data.path().join("captions"), root.join("f30k/captions")).unwrap();
    fs_err::rename(data.path().join("images"), root.join("f30k/flickr30k-images")).unwrap();
    let own = check();
    assert!(own.contains("test: 2 images, 10 captions, expected 1000 and 5000\n  data sha256 "), "{own}");

    for entry in fs_err::read_dir(root.join("f30k/captions")).unwrap() {
        let entry = entry.unwrap();
        fs_err::rename(entry.path(), root.join("f30k").join(entry.file_name())).unwrap();
    }
    fs_err::remove_dir(root.join("f30k/captions")).unwrap();
    fs_err::rename(root.join("f30k/flickr30k-images"), root.join("flickr30k-images")).unwrap();
    assert_eq!(check(), own);
}

#[test]
fn data_check_names_every_fault_of_every_split() {
    let data = tempfile::tempdir().unwrap();
    let entry = laps_hub::registry::find("f30k_vit").unwrap();
    let paths = entry.data_paths(Some(data.path())).unwrap();
    fs_err::create_dir_all(&paths.captions).unwrap();
    fs_err::create_dir_all(&paths.images).unwrap();
    let write = |name: &str, content: &str| fs_err::write(paths.captions.join(name), content).unwrap();
    write("id_mapping.json", r#"{"1": "absent.jpg", "2": "pipe.jpg", "3": "text.jpg"}"#);
    write("test_ids.txt", "1\n2\n3\n");
    let long = "one ".repeat(600);
    write("test_caps.txt", &format!("one\n{long}\n\n"));
    write_vocabulary(&paths.vocab);
    write("dev_ids.txt", "1\n2\n");
    write("dev_caps.txt", "one\n");
    mkfifo(&paths.images.join("pipe.jpg"));
    fs_err::write(paths.images.join("text.jpg"), "text").unwrap();
    fs_err::write(paths.images.join(OsStr::from_bytes(b"\xffextra.jpg")), "").unwrap();
    let run = laps_zoo(["data", "check", "f30k", "--data", text(data.path()), "--quiet"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert_snapshot!(run.stdout.replace(text(data.path()), "DIR"), @r"
    dev: `DIR/f30k/captions/dev_ids.txt` and `DIR/f30k/captions/dev_caps.txt` do not belong together
      expected: as many ids as captions, or one id for five captions
      found: 2 ids and 1 captions
    test: 3 images, 3 captions, expected 1000 and 5000
      unusable captions: 2
        caption in line 2 of `DIR/f30k/captions/test_caps.txt`: too long: 602 tokens, where 512 are allowed
        caption in line 3 of `DIR/f30k/captions/test_caps.txt`: empty
      missing: 1
        absent.jpg (line 1 of `test_ids.txt`)
      unreadable: 2
        pipe.jpg (line 2 of `test_ids.txt`): cannot be read: it is a FIFO, not a regular file
        text.jpg (line 3 of `test_ids.txt`): not a JPEG, PNG, GIF, BMP or WebP file
    train: not found
      unexpected: 1
        \xffextra.jpg
    ");
    fs_err::remove_file(&paths.vocab).unwrap();
    let run = laps_zoo(["data", "check", "f30k", "--data", text(data.path()), "--quiet"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert!(
        run.stdout.contains("unusable captions: 1\n") && run.stdout.contains("vocabulary: not found: "),
        "{}",
        run.stdout
    );
}
