//! Data sets in the layouts of other projects: the same result as the layout of LAPS.

use std::path::Path;

use insta::assert_snapshot;
use laps_data::scenes::{self, DrawnConfig, DrawnSplit};
use tempfile::TempDir;

use crate::{
    files::{npy, repository_file},
    support::{json, laps_zoo, without_times},
};

/// The data set of the files that other packages wrote.
fn drawn() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = DrawnConfig { seed: 7, train: 1, dev: 1, test: 2 };
    scenes::write(&folder.path().join("laps"), &config, &DrawnSplit::ALL).unwrap();
    folder
}

/// An entry file with the model of `shapes_vit` and this section `data`.
fn entry(folder: &Path, data: &str) -> String {
    let text = fs_err::read_to_string(repository_file("configs/shapes_vit.yaml")).unwrap();
    let model = &text[..text.find("\ndata:").unwrap()];
    let path = folder.join("entry.yaml");
    fs_err::write(&path, format!("{model}\ndata: {{ {data}, vocab: laps/vocab.txt, test: test, protocol: f30k }}\n"))
        .unwrap();
    path.to_str().unwrap().to_owned()
}

/// Data hash, similarity matrix and table of a run.
fn reproduced(folder: &Path, arguments: &[&str]) -> (String, Vec<u8>, String) {
    let [result, sims] = ["result.json", "sims.safetensors"].map(|name| folder.join(name));
    let fixed = ["reproduce", "--engine", "rust", "--device", "cpu", "--quiet"];
    let outputs = ["--json", result.to_str().unwrap(), "--sims", sims.to_str().unwrap()];
    let run = laps_zoo(fixed.iter().chain(arguments).chain(&outputs));
    assert_eq!(run.status, 0, "{arguments:?}: {}", run.stderr);
    let data = json(&result)["provenance"]["data"]["sha256"].as_str().unwrap().to_owned();
    let matrix = fs_err::read(&sims).unwrap();
    fs_err::remove_file(&sims).unwrap();
    (data, matrix, without_times(&run.stdout))
}

#[test]
fn every_layout_gives_the_same_hash_matrix_and_table() {
    let folder = drawn();
    let root = folder.path();
    let laps = root.join("laps");
    let expected = reproduced(root, &[&entry(root, "captions: laps/captions, images: laps/images")]);

    // A folder of images with texts, and the authors' tree, which need no package.
    let (images, captions) = (laps.join("images"), laps.join("captions"));
    fs_err::create_dir_all(root.join("folder")).unwrap();
    for name in ["train", "dev", "test"] {
        let split = laps_data::Split::open(&captions, name).unwrap();
        for (index, image) in split.images().iter().enumerate() {
            fs_err::copy(images.join(&image.name), root.join("folder").join(&image.name)).unwrap();
            let texts = split.captions().iter().zip(split.image_of()).filter(|&(_, &of)| of == index);
            let text: String = texts.map(|(caption, _)| format!("{caption}\n")).collect();
            fs_err::write(root.join("folder").join(&image.name).with_extension("txt"), text).unwrap();
        }
    }
    fs_err::create_dir_all(root.join("authors/f30k")).unwrap();
    for file in fs_err::read_dir(&captions).unwrap() {
        let path = file.unwrap().path();
        fs_err::copy(&path, root.join("authors/f30k").join(path.file_name().unwrap())).unwrap();
    }
    let files = repository_file("zoo/data/tests/data/sources/files");
    let files = files.to_str().unwrap();
    let splits = format!("splits: {files}/karpathy/dataset_flickr30k.json");
    let layouts = [
        format!("source: karpathy, file: {files}/karpathy/dataset_flickr30k.json, images: laps/images"),
        format!("source: coco, file: '{files}/coco/annotations/captions_*.json', images: laps/images"),
        format!("source: parquet, file: ['{files}/parquet_snappy/data/*.parquet']"),
        format!("source: parquet, file: {files}/parquet_paths/all.parquet, images: laps/images"),
        format!("source: parquet, file: {files}/hub/test-00000-of-00001.parquet"),
        format!("source: kaggle, file: {files}/kaggle/flickr30k_images/results.csv, images: laps/images, {splits}"),
        format!("source: webdataset, file: '{files}/webdataset/*.tar'"),
        format!("source: folder, file: folder, {splits}"),
        "source: authors, file: authors/f30k, images: laps/images".to_owned(),
    ];
    for layout in layouts {
        let found = reproduced(root, &[&entry(root, &layout)]);
        assert_eq!(found.0, expected.0, "{layout}");
        assert!(found.1 == expected.1, "{layout}");
        assert_eq!(found.2, expected.2, "{layout}");
    }

    // The option for entries that name no source, and the usual names of files.
    fs_err::create_dir_all(root.join("option")).unwrap();
    fs_err::copy(Path::new(files).join("karpathy/dataset_flickr30k.json"), root.join("option/dataset_flickr30k.json"))
        .unwrap();
    fs_err::copy(laps.join("vocab.txt"), root.join("option/vocab.txt")).unwrap();
    std::os::unix::fs::symlink(&images, root.join("option/images")).unwrap();
    let option = root.join("option");
    let found = reproduced(root, &["shapes_vit", "--data", option.to_str().unwrap(), "--data-source", "karpathy"]);
    assert_eq!((found.0, found.1 == expected.1), (expected.0, true));
}

/// `evaluate --data-source`, and `source` of an entry and of a matrix in a suite.
#[test]
fn evaluate_and_suites_read_other_layouts() {
    let folder = drawn();
    let root = folder.path();
    let [laps, other, sims, result] = ["laps", "other", "theirs.npy", "result.json"].map(|name| root.join(name));
    fs_err::create_dir_all(&other).unwrap();
    let file = "dataset_flickr30k.json";
    let karpathy = repository_file("zoo/data/tests/data/sources/files/karpathy");
    fs_err::copy(karpathy.join(file), other.join(file)).unwrap();
    fs_err::copy(laps.join("vocab.txt"), other.join("vocab.txt")).unwrap();
    std::os::unix::fs::symlink(laps.join("images"), other.join("images")).unwrap();
    let values: Vec<f32> = (0..20).map(|index| (index * 7 % 20) as f32).collect();
    fs_err::write(&sims, npy(&values, [2, 10], false)).unwrap();

    let evaluated = |data: &Path, more: &[&str]| {
        let out = root.join("theirs.run");
        let [sims, data, out_text, result_text] =
            [sims.as_path(), data, &out, &result].map(|path| path.to_str().unwrap().to_owned());
        let fixed =
            ["evaluate", "--sims", &sims, "--data", &data, "--run", &out_text, "--json", &result_text, "--quiet"];
        let run = laps_zoo(fixed.iter().chain(more));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{more:?}");
        let found = json(&result);
        ([found["evaluations"].clone(), found["failures"].clone()], fs_err::read_to_string(&out).unwrap())
    };
    let expected = evaluated(&laps, &[]);
    let id = laps_data::Split::open(&laps.join("captions"), "test").unwrap().images()[1].id.clone();
    assert!(expected.1.contains(&format!("{id} Q0 ")), "{}", expected.1);
    assert_eq!(evaluated(&other, &["--data-source", "karpathy"]), expected);
    // By itself, the folder is none of LAPS's layout.
    let refused = laps_zoo(["evaluate", "--sims", sims.to_str().unwrap(), "--data", other.to_str().unwrap()]);
    assert_eq!(refused.status, 2, "{}", refused.stdout);

    let suite = root.join("suite.yaml");
    let text = "runs:\n\
        - { name: entry, entry: shapes_vit, engine: rust, data: other, source: karpathy }\n\
        - { name: matrix, sims: theirs.npy, data: other, source: karpathy }\n";
    fs_err::write(&suite, text).unwrap();
    let out = root.join("out");
    let arguments = ["suite", suite.to_str().unwrap(), "--out", out.to_str().unwrap(), "--device", "cpu", "--quiet"];
    let run = laps_zoo(arguments);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let of_run = |name: &str| {
        let mut files = fs_err::read_dir(out.join("results")).unwrap().map(|file| file.unwrap().path());
        json(&files.find(|file| file.file_name().unwrap().to_str().unwrap().starts_with(name)).unwrap())
    };
    let matrix = of_run("matrix.");
    assert_eq!([matrix["evaluations"].clone(), matrix["failures"].clone()], expected.0);
    let (data, ..) = reproduced(root, &["shapes_vit", "--data", laps.to_str().unwrap()]);
    let entry = of_run("entry.");
    assert_eq!(entry["provenance"]["data"]["sha256"], data);
    assert_eq!(entry["evaluations"], json(&result)["evaluations"]);
}

#[test]
fn imported_data_is_complete_and_the_source_stays_as_it_was() {
    let folder = drawn();
    let source = repository_file("zoo/data/tests/data/sources/files/webdataset");
    let (data, out) = (source.to_str().unwrap(), folder.path().join("out"));
    let run = laps_zoo(["data", "import", "webdataset", "--data", data, "--out", out.to_str().unwrap()]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_snapshot!(run.stdout.replace(&folder.path().display().to_string(), "DIR"), @r"
    dev: 1 images, 5 captions
    test: 2 images, 10 captions
    train: 1 images, 5 captions
    captions and images are in `DIR/out`
    ");
    let laps = folder.path().join("laps");
    for (at, name) in [("captions", "test_ids.txt"), ("captions", "test_caps.txt"), ("images", "test_00001.png")] {
        let read = |root: &Path| fs_err::read(root.join(at).join(name)).unwrap();
        assert_eq!(read(&out), read(&laps), "{name}");
    }
    let again = laps_zoo(["data", "import", "webdataset", "--data", data, "--out", out.to_str().unwrap()]);
    assert_eq!(again.status, 2);
    assert!(again.stderr.contains("expected: a folder that does not exist"), "{}", again.stderr);
}

/// Layouts with images of their own and without, copied and linked.
#[test]
fn import_of_other_layouts_writes_the_files_of_laps() {
    let folder = drawn();
    let root = folder.path();
    let laps = root.join("laps");
    let file = |name: &str| repository_file("zoo/data/tests/data/sources/files").join(name).display().to_string();
    let [karpathy, kaggle, parquet, splits] =
        ["karpathy", "kaggle", "parquet_snappy", "karpathy/dataset_flickr30k.json"].map(file);
    let images = laps.join("images").display().to_string();
    let layouts: [(&str, &[&str]); 3] = [
        ("karpathy", &["--data", &karpathy, "--images", &images, "--link"]),
        ("kaggle", &["--data", &kaggle, "--images", &images, "--splits", &splits]),
        ("parquet", &["--data", &parquet]),
    ];
    for (layout, more) in layouts {
        let out = root.join(layout);
        let fixed = ["data", "import", layout, "--out", out.to_str().unwrap()];
        let run = laps_zoo(fixed.iter().chain(more));
        assert_eq!(run.status, 0, "{layout}: {}", run.stderr);
        assert!(run.stdout.contains("test: 2 images, 10 captions\n"), "{layout}: {}", run.stdout);
        let files = [
            ("captions", "test_ids.txt"),
            ("captions", "test_caps.txt"),
            ("images", "test_00000.png"),
            ("images", "test_00001.png"),
        ];
        for (at, name) in files {
            let [found, expected] = [&out, &laps].map(|root| fs_err::read(root.join(at).join(name)).unwrap());
            assert!(found == expected, "{layout}: {name}");
        }
        assert_eq!(out.join("images/test_00000.png").is_symlink(), more.contains(&"--link"), "{layout}");
    }
    let out = root.join("authors");
    let refused =
        laps_zoo(["data", "import", "authors", "--data", laps.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(refused.status, 2);
    assert!(refused.stderr.contains("expected: a layout other than that of LAPS"), "{}", refused.stderr);
}

#[test]
fn data_check_names_traps_of_a_source() {
    let folder = drawn();
    let root = folder.path();
    let text =
        fs_err::read_to_string(repository_file("zoo/data/tests/data/sources/files/karpathy/dataset_flickr30k.json"))
            .unwrap();
    // The first image has a sixth caption, the last one only four.
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let sixth = document["images"][0]["sentences"][0].clone();
    document["images"][0]["sentences"].as_array_mut().unwrap().push(sixth);
    document["images"][3]["sentences"].as_array_mut().unwrap().pop();
    fs_err::write(root.join("dataset.json"), document.to_string()).unwrap();
    let entry = entry(root, "source: karpathy, file: dataset.json, images: laps/images");
    let run = laps_zoo(["data", "check", &entry, "--quiet"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let lines: Vec<&str> = run.stdout.lines().filter(|line| !line.contains("sha256")).collect();
    assert_snapshot!(lines.join("\n"), @r"
    note: images with more than 5 captions: 1; further captions, which are left out as in the published protocols: 1
    dev: 1 images, 5 captions
    test: 2 images, 9 captions
      note: images with 4 instead of 5 captions: 1
    train: 1 images, 5 captions
    ");
}

#[test]
fn entry_with_a_source_refuses_keys_of_another_layout() {
    let folder = drawn();
    let root = folder.path();
    let refusal = |data: &str| {
        let run = laps_zoo(["reproduce", &entry(root, data)]);
        assert_eq!(run.status, 2);
        run.stderr
            .lines()
            .filter(|line| line.contains("expected") || line.contains("found"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_snapshot!(refusal("source: karpathy, captions: x"), @r"
      expected: `file`, for the layout `karpathy`
      found: `x`
    ");
    assert_snapshot!(refusal("captions: x, images: y, file: z"), @r"
      expected: a `source` that has it, such as `karpathy` or `parquet`
      found: the layout `laps`
    ");
    assert_snapshot!(refusal("source: karpathy, file: none.json").replace(&root.display().to_string(), "DIR"), @r"
      expected: `none.json`
      found: no such file
    ");
}

/// An entry file, whose splits have no expected size.
#[test]
fn data_check_names_the_published_splits_of_the_same_size() {
    let folder = drawn();
    let root = folder.path();
    let image = |index: usize| {
        let sentences: Vec<_> = (0..5).map(|number| serde_json::json!({ "raw": format!("circle {number}") })).collect();
        let filename = format!("{index}.png");
        serde_json::json!({ "filename": filename, "imgid": index, "split": "test", "sentences": sentences })
    };
    let images: Vec<_> = (0..1000).map(image).collect();
    fs_err::write(root.join("d.json"), serde_json::json!({ "images": images }).to_string()).unwrap();
    let entry = entry(root, "source: karpathy, file: d.json, images: none");
    let run = laps_zoo(["data", "check", &entry, "--quiet"]);
    assert_eq!((run.status, run.stderr.as_str()), (1, ""), "{}", run.stdout);
    let first: Vec<&str> = run.stdout.lines().take(3).collect();
    assert_snapshot!(first.join("\n"), @r"
    test: 1000 images, 5000 captions
      note: the size is that of `coco` `dev` and of `f30k` `test`: 1000 images and 5000 captions
      missing: 1000
    ");
}

#[test]
fn run_file_gives_the_recalls_of_its_matrix() {
    let folder = drawn();
    let root = folder.path();
    let [run, sims, result] =
        ["x.run", "sims.safetensors", "result.json"].map(|name| root.join(name).to_str().unwrap().to_owned());
    let reproduced = root.join("reproduced.json");
    let fixed = ["reproduce", "shapes_vit", "--limit", "40", "--engine", "rust", "--device", "cpu", "--quiet"];
    let outputs = ["--run", &run, "--sims", &sims, "--json", reproduced.to_str().unwrap()];
    let status = laps_zoo(fixed.iter().chain(&outputs));
    assert_eq!(status.status, 0, "{}", status.stderr);
    assert_eq!(fs_err::read_to_string(&run).unwrap().lines().count(), 40 * 100 + 200 * 40);
    let mut arguments = vec!["evaluate", "--sims", &sims, "--json", &result, "--quiet"];
    assert_eq!(laps_zoo(&arguments).status, 0);
    let of_matrix = json(Path::new(&result))["evaluations"].clone();
    assert!(of_matrix[0]["i2t"]["r1"].is_number());
    assert_eq!(json(&reproduced)["evaluations"][0]["i2t"], of_matrix[0]["i2t"]);
    // Ids are those of the images; without a data set they are numbers, and a new file has those.
    let numbered = root.join("numbered.run");
    assert_eq!(laps_zoo(["evaluate", "--sims", &sims, "--run", numbered.to_str().unwrap(), "--quiet"]).status, 0);
    arguments[2] = numbered.to_str().unwrap();
    let read = laps_zoo(&arguments);
    assert_eq!(read.status, 0, "{}", read.stderr);
    let of_run = json(Path::new(&result));
    for direction in ["i2t", "t2i"] {
        for recall in ["r1", "r5", "r10"] {
            let value = |evaluations: &serde_json::Value| evaluations[0][direction][recall].clone();
            assert!(value(&of_matrix).is_number());
            assert_eq!(value(&of_run["evaluations"]), value(&of_matrix), "{direction} {recall}");
        }
    }
}

#[test]
fn long_captions_are_refused_or_truncated_and_counted() {
    let folder = drawn();
    let laps = folder.path().join("laps");
    let path = laps.join("captions/test_caps.txt");
    let text = fs_err::read_to_string(&path).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    fs_err::write(&path, format!("{}\n{rest}", [first; 40].join(" "))).unwrap();
    let result = folder.path().join("result.json");
    let mut arguments =
        vec!["reproduce", "shapes_vit", "--data", laps.to_str().unwrap(), "--engine", "rust", "--quiet"];
    let refused = laps_zoo(&arguments);
    assert_eq!(refused.status, 2);
    assert!(refused.stderr.contains("caption in line 1 of"), "{}", refused.stderr);
    arguments.extend(["--truncate", "--json", result.to_str().unwrap()]);
    let run = laps_zoo(&arguments);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains("tokens: 1\n"), "{}", run.stdout);
    assert_eq!(json(&result)["provenance"]["data"]["truncated_captions"], 1);
}
