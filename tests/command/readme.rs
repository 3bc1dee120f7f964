//! Runs the examples of the documentation. Examples with output run in order in an empty folder and are compared with what
//! they show; then all commands run in a folder that contains the files they name.

use std::{io::Write, path::Path};

use laps_align::similarity::AlignmentConfig;
use laps_data::scenes::{self, DrawnConfig, DrawnSplit};
use laps_model::random::SplitMix64;
use safetensors::{Dtype, serialize, tensor::TensorView};

use crate::{
    documents::documents,
    files::{npy, repository_file, shapes_vit},
    graphs::runtime,
    running_server,
    support::{command, finished},
};

/// Output shown in a `text` block, by its first line, and the command that prints it.
const SHOWN: [(&str, &str); 1] = [("shapes_vit, split test", "reproduce shapes_vit --quiet")];
/// A line that stands for any number of lines.
const GAP: &str = "...";

/// A command and the output shown for it.
type Example = (String, Vec<String>);

/// The examples of each block that shows output.
fn blocks(text: &str) -> Vec<Vec<Example>> {
    let mut blocks = Vec::new();
    for fenced in text.split("\n```").skip(1).step_by(2) {
        let (kind, body) = fenced.split_once('\n').unwrap();
        let mut examples: Vec<Example> = Vec::new();
        if kind == "text" {
            let known = SHOWN.iter().find(|(first, _)| body.starts_with(first));
            examples
                .extend(known.map(|(_, command)| ((*command).to_owned(), body.lines().map(str::to_owned).collect())));
        } else if kind == "console" {
            for line in body.lines() {
                match (line.strip_prefix("$ laps-zoo "), examples.last_mut()) {
                    (Some(command), _) => {
                        let command = command.split(" #").next().unwrap_or_default();
                        examples.push((command.to_owned(), Vec::new()));
                    }
                    (None, Some((_, lines))) => lines.push(line.to_owned()),
                    (None, None) => panic!("a block has to begin with `$ laps-zoo`: {line}"),
                }
            }
        }
        if examples.iter().any(|(_, lines)| !lines.is_empty()) {
            blocks.push(examples);
        }
    }
    blocks
}

/// Masks what depends on the build, the machine and rounding: digits, column widths, engine names, hashes.
fn masked(line: &str) -> String {
    let line = line.split_once("engine ").map_or(line, |(before, _)| before);
    let plain = line.replace(['─', '═'], " ").replace(|c: char| c.is_ascii_digit(), "0");
    plain.split_whitespace().collect::<Vec<_>>().join(" ").replace("00", "0").replace("00", "0")
}

/// Checks that `found` has the lines of `shown` in order, with other lines only where `shown` has a gap.
fn assert_shown(command: &str, shown: &[String], found: &str) {
    let found: Vec<String> = found.lines().map(masked).collect();
    let mut from = 0;
    let mut after_gap = false;
    for part in shown.split(|line| line == GAP) {
        let part: Vec<String> = part.iter().map(|line| masked(line)).collect();
        if !part.is_empty() {
            let place = found[from..].windows(part.len()).position(|lines| lines == part);
            let place = place.unwrap_or_else(|| panic!("`{command}` prints\n{found:#?}\nand not\n{part:#?}"));
            assert!(after_gap || place == 0, "`{command}` prints more before\n{part:#?}");
            from += place + part.len();
        }
        after_gap = true;
    }
    let ends_in_gap = shown.last().is_some_and(|line| line == GAP);
    assert!(ends_in_gap || shown.is_empty() || from == found.len(), "`{command}` prints more: {:#?}", &found[from..]);
}

#[test]
fn examples_print_the_shown_output() {
    let mut run = 0;
    for document in documents(Path::new(crate::REPOSITORY)) {
        let text = fs_err::read_to_string(&document).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (line, shown) in blocks(&text).into_iter().flatten() {
            let output = command().current_dir(folder.path()).args(line.split_whitespace()).output().unwrap();
            let ended = finished(output);
            assert_eq!(ended.status, 0, "{}: {line}: {}", document.display(), ended.stderr);
            assert_shown(&line, &shown, &ended.stdout);
            run += 1;
        }
    }
    assert!(run >= 5, "only {run} examples were found");
}

/// Commands without test data: with `--offline` they fail with an error that names what is missing.
const WITHOUT_DATA: [&str; 5] =
    ["fetch f30k_vit", "fetch bert-base-uncased", "data fetch", "data check", "--judgements"];
/// Text in commands that need libtorch.
const OF_LIBTORCH: [&str; 2] = ["train ", "RUN"];
/// Text in commands that need ONNX Runtime, or a file that such a command writes.
const OF_ONNX_RUNTIME: [&str; 6] = ["doctor", "--engine ort", "torch,ort", "there.json", "--graphs", "int8"];

/// Splits a command line into arguments; quoted text is one argument.
fn words(line: &str) -> Vec<&str> {
    let pieces = line.split('"').enumerate();
    let words = pieces.flat_map(|(place, piece)| match place % 2 {
        0 => piece.split_whitespace().collect(),
        _ => vec![piece],
    });
    words.collect()
}

/// Creates the files that the documentation names, from tiny models and drawn scenes.
fn prepare(room: &Path) {
    let config = DrawnConfig { seed: 7, train: 64, dev: 20, test: 200 };
    scenes::write(&room.join("DATA"), &config, &DrawnSplit::ALL).unwrap();
    let entry = fs_err::read_to_string(repository_file("configs/shapes_vit.yaml")).unwrap();
    // int8 cannot reach the recalls of the embedded entry.
    let entry = entry.split("references:").next().unwrap().replace("name: shapes_vit", "name: mine");
    fs_err::write(room.join("mine.yaml"), entry).unwrap();
    for name in ["mine.safetensors", "model_best.pth"] {
        fs_err::copy(repository_file("checkpoints/shapes_vit.safetensors"), room.join(name)).unwrap();
    }
    for (prefix, name) in [("img_enc.visual_encoder.", "vit"), ("txt_enc.bert.", "bert")] {
        let tensors: Vec<_> = shapes_vit().into_iter().filter(|(own, ..)| own.starts_with(prefix)).collect();
        let named: Vec<_> = tensors
            .iter()
            .map(|(own, shape, values)| {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (own[prefix.len()..].to_owned(), shape.clone(), bytes)
            })
            .collect();
        let views =
            named.iter().map(|(own, shape, bytes)| (own, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        fs_err::write(room.join(name).with_extension("safetensors"), serialize(views, None).unwrap()).unwrap();
    }
    let image = |number: usize| room.join(format!("DATA/images/test_{number:05}.png"));
    fs_err::create_dir(room.join("photos")).unwrap();
    for number in 0..6 {
        fs_err::copy(image(number), room.join(format!("photos/{number}.png"))).unwrap();
    }
    for (number, name) in ["a.png", "b.png", "a.jpg"].into_iter().enumerate() {
        fs_err::copy(image(number), room.join(name)).unwrap();
    }
    let captions = fs_err::read_to_string(room.join("DATA/captions/test_caps.txt")).unwrap();
    let few: Vec<&str> = captions.lines().take(20).collect();
    fs_err::write(room.join("titles.txt"), few.join("\n")).unwrap();
    prepare_foreign(room);
    fs_err::create_dir(room.join("baselines")).unwrap();
    for entry in ["shapes_vit", "shapes_swin"] {
        let name = entry.replace("shapes_", "") + ".json";
        let arguments = ["reproduce", entry, "--data", "DATA", "--quiet", "--json", &name];
        let made = finished(command().current_dir(room).args(arguments).output().unwrap());
        assert_eq!(made.status, 0, "{}", made.stderr);
    }
}

/// Creates the files of another program: matrices of the drawn test split, embeddings, and a head with its parameters.
fn prepare_foreign(room: &Path) {
    let mut random = SplitMix64::named(7, "foreign");
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
    fs_err::write(room.join("sims.npy"), npy(&values(200 * 1000), [200, 1000], false)).unwrap();
    let mut archive = zip::ZipWriter::new(fs_err::File::create(room.join("captions_first.npz")).unwrap());
    archive.start_file("sims.npy", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(&npy(&values(1000 * 200), [1000, 200], false)).unwrap();
    archive.finish().unwrap();
    fs_err::write(room.join("images.npy"), npy(&values(20 * 32), [20, 32], false)).unwrap();
    fs_err::write(room.join("captions.npy"), npy(&values(100 * 32), [100, 32], false)).unwrap();

    let config = AlignmentConfig::of(&laps_hub::registry::find("shapes_vit").unwrap().model);
    let shapes = [vec![20, config.tokens(), config.width], vec![100, 6, config.width]];
    let bytes = |values: Vec<f32>| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let [images, captions] = [0, 1].map(|side: usize| bytes(values(shapes[side].iter().product())));
    let lengths: Vec<u8> = (0..100_i64).flat_map(|caption| (1 + caption % 6).to_le_bytes()).collect();
    let [image_shape, caption_shape] = shapes;
    let tensors = [
        ("images", TensorView::new(Dtype::F32, image_shape, &images).unwrap()),
        ("captions", TensorView::new(Dtype::F32, caption_shape, &captions).unwrap()),
        ("lengths", TensorView::new(Dtype::I64, vec![100], &lengths).unwrap()),
    ];
    fs_err::write(room.join("embeddings.safetensors"), serialize(tensors, None).unwrap()).unwrap();
    fs_err::write(room.join("head.yaml"), "{ type: vsepp, pooling: gpo }").unwrap();
    let golden = repository_file("tests/golden/head_vsepp_gpo_swin.safetensors");
    fs_err::copy(golden, room.join("head.safetensors")).unwrap();
}

/// Copies a folder and everything in it.
fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => _ = fs_err::copy(&path, &target).unwrap(),
        }
    }
}

#[test]
fn every_documented_command_runs() {
    let template = tempfile::tempdir().unwrap();
    prepare(template.path());
    let counts = documents(Path::new(crate::REPOSITORY)).into_iter().map(|document| {
        let folder = tempfile::tempdir().unwrap();
        copy(template.path(), folder.path());
        run_commands(&document, folder.path())
    });
    let count: usize = counts.sum();
    assert!(count > 60, "only {count} commands were found");
}

/// Runs every command of a document in order, in the folder `room`; returns how many there are.
fn run_commands(document: &Path, room: &Path) -> usize {
    let text = fs_err::read_to_string(document).unwrap();
    if text.contains("coco.npy") {
        // A fold of COCO; too large for the folder of every document.
        let mut random = SplitMix64::named(7, "coco");
        let values: Vec<f32> = (0..1000 * 5000).map(|_| random.uniform() as f32).collect();
        fs_err::write(room.join("coco.npy"), npy(&values, [1000, 5000], false)).unwrap();
    }
    let (mut run, mut left_out) = (0, Vec::new());
    for line in text.lines().filter_map(|line| line.strip_prefix("$ laps-zoo ")) {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let names = |list: &[&str]| list.iter().any(|word| line.contains(word));
        let without_data = names(&WITHOUT_DATA);
        let entry = if without_data { "f30k_vit" } else { "shapes_vit" };
        let line = &line.replace("f30k_vit", entry).replace("IMAGES", "DATA/images");
        if (names(&OF_LIBTORCH) && crate::NATIVE_ENGINE[1] != "torch") || (names(&OF_ONNX_RUNTIME) && !runtime()) {
            left_out.push(line.clone());
            continue;
        }
        let more: &[&str] = match words(line)[..] {
            ["fetch", ..] | ["data", "fetch", ..] => &["--offline"],
            ["evaluate", ..] if without_data => &["--offline"],
            ["bench", "--gate" | "--bless"] => &["--only", "parameters", "--baselines", "baselines"],
            ["bench", "alignment", ..] => &["--quiet"],
            _ => &[],
        };
        // The gate compares with baselines made here; the committed ones have their own test.
        if line == "bench --gate" {
            let bless = ["bench", "--bless", "--quiet"];
            let blessed = command().current_dir(room).args(bless).args(more).output().unwrap();
            assert_eq!(finished(blessed).status, 0);
        }
        if line.starts_with("serve ") {
            running_server::start_and_stop(room, &words(&line.replace("--port 8080", "--port 0")));
            run += 1;
            continue;
        }
        // Use the engines of this build.
        let line = &line.replace("torch,ort", &format!("{},ort", crate::NATIVE_ENGINE[1]));
        let mut command = command();
        command.current_dir(room).env("LAPS_ZOO_CACHE", room.join("cache")).args(words(line)).args(more);
        let ended = finished(command.output().unwrap());
        if without_data {
            assert!(ended.status == 2 && ended.stderr.contains("error: "), "{line}: {}", ended.stderr);
        } else {
            assert_eq!(ended.status, 0, "{}: {line}: {}{}", document.display(), ended.stdout, ended.stderr);
        }
        if line.contains("--json here.json") {
            fs_err::copy(room.join("here.json"), room.join("there.json")).unwrap();
        }
        run += 1;
    }
    println!("{}: {run} commands; not possible in this build or on this machine: {left_out:#?}", document.display());
    run + left_out.len()
}

#[test]
fn wrong_example_output_is_detected() {
    let shown = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
    assert_shown("c", &shown(&["a 12.5", "...", "z"]), "a 3.1\nb\nz\n");
    for wrong in [&["a", "z"][..], &["...", "y"], &["b", "..."], &["a"]] {
        assert!(std::panic::catch_unwind(|| assert_shown("c", &shown(wrong), "a\nb\nz\n")).is_err(), "{wrong:?}");
    }
}

/// Every function and type that the architecture page names exists in the source.
#[test]
fn architecture_names_exist() {
    let page = fs_err::read_to_string(repository_file("docs/src/architecture.md")).unwrap();
    let mut source = String::new();
    let mut folders: Vec<_> = ["src", "zoo", "export/src", "bench/src"].map(repository_file).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if !path.is_symlink() && !path.ends_with("target") => folders.push(path),
                _ if path.extension().is_some_and(|extension| extension == "rs") => {
                    source += &fs_err::read_to_string(path).unwrap();
                }
                _ => {}
            }
        }
    }
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut checked = 0;
    for span in page.split('`').skip(1).step_by(2) {
        let parts: Vec<&str> = span.split("::").collect();
        let is_type =
            |text: &str| text.starts_with(|c: char| c.is_ascii_uppercase()) && text.contains(char::is_lowercase);
        let is_path = parts.len() > 1 || is_type(span);
        if !is_path || !parts.iter().all(|part| is_name(part)) {
            continue;
        }
        for part in parts {
            let kinds: &[&str] = if is_type(part) { &["struct", "enum", "trait"] } else { &["fn", "mod", "name ="] };
            let exists = kinds.iter().any(|kind| {
                let item = format!("{kind} {part}");
                source.match_indices(&item).any(|(at, _)| {
                    !source[at + item.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                })
            });
            // The library `laps` is a crate, not an item.
            assert!(exists || ["laps", "commands"].contains(&part), "`{span}`: there is no `{part}` in the source");
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}
