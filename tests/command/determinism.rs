//! Every file that the program writes is a function of its inputs: two processes write the same bytes.
//!
//! Converted checkpoints, indexes, embeddings, matrices and trained weights are compared by the test target `faults`.

use std::{collections::BTreeMap, path::Path};

use tempfile::TempDir;

use crate::{
    graphs,
    support::{json, laps_zoo},
};

fn run(arguments: &[&str]) -> String {
    let run = laps_zoo(arguments);
    assert_eq!(run.status, 0, "{}", run.stderr);
    run.stdout
}

/// All files below a folder, by relative path.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => _ = files.insert(path.display().to_string(), fs_err::read(&path).unwrap()),
        }
    }
    let prefix = folder.display().to_string();
    files.into_iter().map(|(name, bytes)| (name.trim_start_matches(&prefix).to_owned(), bytes)).collect()
}

#[test]
fn graphs_are_the_same_bytes_in_two_processes() {
    if !graphs::runtime() {
        return;
    }
    let [first, second] = [(); 2].map(|()| {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("graphs");
        run(&["export", "shapes_vit", "--onnx", "--out", out.to_str().unwrap(), "--quiet"]);
        files(&out)
    });
    assert!(first.len() > 3, "{:?}", first.keys());
    assert!(first == second, "{:?}", first.keys().filter(|&name| first.get(name) != second.get(name)));
}

#[test]
fn results_differ_in_times_and_memory_only_and_pages_not_at_all() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [first, second] = ["first.json", "second.json"].map(|name| {
        let sims = path("sims.safetensors");
        run(&[
            "reproduce",
            "shapes_vit",
            "--limit",
            "8",
            "--engine",
            "rust",
            "--quiet",
            "--json",
            &path(name),
            "--sims",
            &sims,
        ]);
        fs_err::remove_file(sims).unwrap();
        let mut result = json(Path::new(&path(name)));
        result["peak_memory_bytes"].take();
        assert!(result["time"].take().is_object());
        for stage in result["stages"].as_array_mut().unwrap() {
            assert!(stage["seconds"].take().is_number());
        }
        result
    });
    assert_eq!(first, second);

    let result = path("first.json");
    let page = |name: &str, arguments: &[&str]| {
        let out = path(name);
        run(&[arguments, &["--out", &out]].concat());
        fs_err::read(out).unwrap()
    };
    assert!(page("a.html", &["report", &result]) == page("b.html", &["report", &result]));
    assert!(page("a.md", &["card", "shapes_vit", &result]) == page("b.md", &["card", "shapes_vit", &result]));
    for format in ["terminal", "markdown", "csv", "latex", "json"] {
        let table = || run(&["table", &result, "--format", format]);
        assert_eq!(table(), table(), "{format}");
    }
}
