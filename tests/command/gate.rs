//! The gate: changed measures are named, and nothing else fails it.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use insta::assert_snapshot;

use crate::support::{ProgramOutput, json, laps_zoo};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/baselines");

/// A copy of the committed baselines.
fn baselines() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in fs_err::read_dir(COMMITTED).unwrap() {
        let file = file.unwrap();
        fs_err::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

fn gate(folder: &Path, more: &[&str]) -> ProgramOutput {
    laps_zoo(["bench", "--gate", "--quiet", "--baselines", folder.to_str().unwrap()].iter().chain(more))
}

/// Changes one value of a baseline.
fn change(folder: &Path, group: &str, name: &str, by: i64) {
    let path = folder.join(format!("{group}.json"));
    let mut baseline = json(&path);
    let value = &mut baseline["values"][name];
    *value = (value.as_i64().unwrap() + by).into();
    fs_err::write(path, baseline.to_string()).unwrap();
}

/// Compares the current graphs and hits with baselines that differ by one node and by one hit.
#[test]
fn changed_node_count_and_hits_fail_the_gate() {
    let folder = baselines();
    let of_one = ["--entries", "shapes_vit", "--only", "parameters,graphs,recalls"];
    let run = gate(folder.path(), &of_one);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    assert_snapshot!(run.stdout, @"
    recalls     6 values, none changed
    parameters  2 values, none changed
    graphs      168 values, none changed
    ");
    change(folder.path(), "graphs", "shapes_vit/portable/fp32/text/nodes", -1);
    change(folder.path(), "recalls", "shapes_vit/text to image/hits among the first 5", 1);
    change(folder.path(), "parameters", "shapes_vit/numbers", 64);
    let run = gate(folder.path(), &of_one);
    assert_eq!((run.status, run.stderr.as_str()), (1, ""));
    let found = |group: &str, name: &str| json(&Path::new(COMMITTED).join(group))["values"][name].as_i64().unwrap();
    let nodes = found("graphs.json", "shapes_vit/portable/fp32/text/nodes");
    let hits = found("recalls.json", "shapes_vit/text to image/hits among the first 5");
    let numbers = found("parameters.json", "shapes_vit/numbers");
    for (line, before, after, change) in [
        ("graphs: shapes_vit/portable/fp32/text/nodes", nodes - 1, nodes, "+1"),
        ("recalls: shapes_vit/text to image/hits among the first 5", hits + 1, hits, "-1"),
        ("parameters: shapes_vit/numbers", numbers + 64, numbers, "-64"),
    ] {
        let row = run.stdout.lines().find(|row| row.contains(line)).unwrap_or_else(|| panic!("{}", run.stdout));
        let cells: Vec<&str> = row.split(line).nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells[..3], [before.to_string(), after.to_string(), change.to_owned()], "{row}");
    }
    assert_eq!(run.stdout.lines().filter(|row| row.contains("shapes_vit/")).count(), 3, "{}", run.stdout);
}

/// Instruction counts as the kernel benchmark writes them, with one 3 % higher.
#[test]
fn slower_kernel_fails_the_gate() {
    let folder = baselines();
    let file = folder.path().join("counts.json");
    let values = json(&folder.path().join("kernels.json"))["values"].clone();
    let run = |counts: &serde_json::Value| {
        fs_err::write(&file, serde_json::json!({ "counts": counts }).to_string()).unwrap();
        gate(folder.path(), &["--only", "kernels", "--kernels", file.to_str().unwrap()])
    };
    assert_eq!(run(&values).status, 0);
    let mut slower = values.clone();
    let name = "vit/portable/compare";
    let count = slower[name].as_u64().unwrap();
    slower[name] = (count + count * 3 / 100).into();
    let failed = run(&slower);
    assert_eq!(failed.status, 1);
    let row = failed.stdout.lines().find(|row| row.contains(name)).unwrap();
    assert!(row.contains("+3.00 %"), "{row}");
    assert_eq!(failed.stdout.lines().filter(|row| row.contains("kernels: ")).count(), 1, "{}", failed.stdout);

    fs_err::write(&file, r#"{ "skipped": "valgrind is not installed" }"#).unwrap();
    let skipped = gate(folder.path(), &["--only", "kernels", "--kernels", file.to_str().unwrap()]);
    assert_eq!((skipped.status, skipped.stdout.as_str()), (0, "kernels     skipped: valgrind is not installed\n"));
}

/// Other load on the machine changes neither the verdict nor the output.
#[test]
fn verdict_does_not_depend_on_machine_load() {
    let arguments = ["--entries", "shapes_swin", "--only", "memory,recalls,parameters,drift"];
    let alone = gate(Path::new(COMMITTED), &arguments);
    assert_eq!(alone.status, 0, "{}", alone.stdout);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut value = 1.0_f64;
                while !done.load(Ordering::Relaxed) {
                    value = std::hint::black_box(value).sqrt() + 1.0;
                }
            });
        }
        let loaded: Vec<ProgramOutput> = (0..3).map(|_| gate(Path::new(COMMITTED), &arguments)).collect();
        done.store(true, Ordering::Relaxed);
        for run in loaded {
            assert_eq!((run.status, &run.stdout), (alone.status, &alone.stdout));
        }
    });
}

#[test]
fn bless_writes_the_measured_values() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("baselines");
    let bless_in = |folder: &Path| {
        let folder = folder.to_str().unwrap();
        laps_zoo(["bench", "--bless", "--quiet", "--only", "parameters,kernels", "--baselines", folder])
    };
    let bless = || bless_in(&folder);
    let nowhere = bless_in(&folder.join("none").join("deeper"));
    assert_eq!(nowhere.status, 2);
    assert!(nowhere.stderr.contains("expected: a folder of baselines"), "{}", nowhere.stderr);
    assert!(!folder.exists());
    fs_err::create_dir(&folder).unwrap();
    let missing = gate(&folder, &["--only", "parameters"]);
    assert_eq!(missing.status, 1);
    assert!(missing.stdout.contains("160 values, 160 without a baseline"), "{}", missing.stdout);
    fs_err::remove_dir(&folder).unwrap();
    let first = bless();
    assert_eq!((first.status, first.stderr.as_str()), (0, ""));
    assert!(first.stdout.contains("160 values written, 160 changed"), "{}", first.stdout);
    assert_eq!(gate(&folder, &["--only", "parameters"]).status, 0);
    let again = bless();
    assert_snapshot!(again.stdout, @"
    parameters  160 values written, 0 changed
    kernels     not updated: no file of instruction counts; `cargo bench -p laps-bench --bench kernels -- --counts FILE` writes one
    ");
    assert_eq!(json(&folder.join("parameters.json")), json(&Path::new(COMMITTED).join("parameters.json")));
}

#[test]
fn invalid_gate_options_are_rejected() {
    let text = |arguments: &[&str]| {
        let run = laps_zoo(arguments);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""));
        run.stderr
    };
    assert_snapshot!(text(&["bench", "--gate", "--only", "clocks", "--baselines", COMMITTED]), @"
    error: `group` cannot be used
      expected: `memory`, `recalls`, `parameters`, `graphs`, `drift`, `kernels`, `results`
      found: `clocks`
    ");
    assert_snapshot!(text(&["bench", "--gate", "--baselines", "nowhere"]), @"
    error: `baselines` cannot be used
      expected: a folder of baselines, such as `bench/baselines` in the repository of laps-zoo
      found: `nowhere`
    ");
    assert!(text(&["bench", "--gate", "--bless"]).contains("cannot be used with"));
    let folder = baselines();
    fs_err::write(folder.path().join("graphs.json"), "{").unwrap();
    let broken = text(&["bench", "--gate", "--baselines", folder.path().to_str().unwrap()]);
    assert_snapshot!(broken.replace(&folder.path().display().to_string(), "DIR"), @"
    error: `DIR/graphs.json` does not contain valid measures
      caused by: EOF while parsing an object at line 1 column 1
    ");
}
