//! Tables, reports and cards made from results; shell completions and manual pages.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::support::{expect_error, json, laps_zoo};

/// A folder with a result of the first eight scenes.
fn measured() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let run = laps_zoo(["reproduce", "shapes_vit", "--limit", "8", "--quiet", "--json", path.to_str().unwrap()]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    (folder, path)
}

/// Standard output of a run that must succeed.
fn printed(arguments: &[&str]) -> String {
    let run = laps_zoo(arguments);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{arguments:?}");
    run.stdout
}

#[test]
fn result_renders_as_table_report_and_card() {
    let (folder, path) = measured();
    let result = json(&path);
    let total =
        |side: &str| result["ranks"][0][side].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!((total("i2t"), total("t2i")), (8, 40));
    let recall = result["evaluations"][0]["i2t"]["r1"].as_f64().unwrap();
    let path = path.to_str().unwrap();

    let csv = printed(&["table", path, "--format", "csv"]);
    let row = format!("f30k,\"shapes_vit, first 8 images\",measured,measured,{recall:.3},");
    assert!(csv.lines().nth(1).unwrap().starts_with(&row), "{csv}");
    let file = folder.path().join("table.md");
    assert_eq!(printed(&["table", path, "--format", "markdown", "--out", file.to_str().unwrap()]), "");
    let markdown = fs_err::read_to_string(file).unwrap();
    assert!(markdown.contains("| **shapes\\_vit, first 8 images** |"), "{markdown}");

    let page = folder.path().join("page.html");
    let printed_text = printed(&["report", path, "--out", page.to_str().unwrap()]);
    assert_eq!(printed_text, format!("wrote `{}`\n", page.display()));
    let html = fs_err::read_to_string(page).unwrap();
    let failures: usize = ["i2t", "t2i"].iter().map(|side| result["failures"][side].as_array().unwrap().len()).sum();
    // Deleted scenes are drawn again.
    assert!(failures == 0 || html.contains("src=\"data:image/jpeg;base64,"));
    assert!(!html.contains("<div class=\"none\">"));

    let card = printed(&["card", "shapes_vit", path]);
    assert!(card.starts_with("---\nlanguage: en\n") && card.contains("\n# shapes_vit\n"), "{card}");
    assert!(card.contains(&format!("| measured \\[1\\] | {recall:.1} |")), "{card}");
}

#[test]
fn result_without_machine_is_rejected() {
    let (folder, path) = measured();
    let mut result = json(&path);
    result["provenance"].as_object_mut().unwrap().remove("machine");
    fs_err::write(&path, result.to_string()).unwrap();
    for command in ["table", "report"] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(expect_error(folder.path(), [command, path.to_str().unwrap()]), @r"
            error: `DIR/result.json` is not a valid result
              expected: `provenance.machine` with `system`, `processor` and `processors`
              found: no machine
            hint: results must name the machine they were measured on; reproduce the result again
            ");
        }
    }
}

#[test]
fn completions_contain_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = printed(&["completions", shell]);
        assert!(["reproduce", "table", "memory-limit"].iter().all(|word| text.contains(word)), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("laps-zoo.bash");
    // Bash completes `laps-zoo rep` to these two.
    let ask = "words=($(complete -p laps-zoo)); COMP_WORDS=(laps-zoo rep); COMP_CWORD=1; \
               ${words[-2]} laps-zoo rep laps-zoo; echo ${COMPREPLY[@]}";
    fs_err::write(&script, printed(&["completions", "bash"]) + ask).unwrap();
    let Ok(output) = Command::new("bash").arg(&script).output() else {
        println!("skipped: no bash");
        return;
    };
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "reproduce report");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(printed(&["man", "--out", folder.path().join("man").to_str().unwrap()]), "");
    let read = |name: &str| fs_err::read_to_string(folder.path().join("man").join(name)).unwrap();
    assert!(read("laps-zoo-reproduce.1").contains("\\-\\-checkpoint"));
    assert!(read("laps-zoo-bench-alignment.1").contains("laps\\-zoo bench alignment"));
    let page = read("laps-zoo.1");
    assert!(page.contains(".TH laps-zoo 1") && printed(&["man"]).contains(".TH laps-zoo 1"), "{page}");
}
