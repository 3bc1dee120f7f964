//! Examples of the documentation that show what is printed: they are run, in order, in an empty folder.

use crate::{
    files::project,
    support::{command, finished},
};

/// What the README shows without the command before it.
const SHOWN: [(&str, &str); 1] = [("shapes_vit, split test", "reproduce shapes_vit --quiet")];
/// A line that stands for any others.
const GAP: &str = "...";

/// A command, and the lines that are said to follow.
type Example = (String, Vec<String>);

/// The examples of each block that shows what is printed.
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

/// Without what hangs on the build, the machine and rounding: digits, widths of columns, names of engines, hashes.
fn masked(line: &str) -> String {
    let line = line.split_once("engine ").map_or(line, |(before, _)| before);
    let plain = line.replace(['─', '═'], " ").replace(|c: char| c.is_ascii_digit(), "0");
    plain.split_whitespace().collect::<Vec<_>>().join(" ").replace("00", "0").replace("00", "0")
}

/// Whether `found` has the lines of `shown` in their order, with others in the gaps only.
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
fn examples_print_what_they_show() {
    let mut run = 0;
    for document in ["README.md", "bench/docs/numbers.md"] {
        let text = fs_err::read_to_string(project(document)).unwrap();
        for block in blocks(&text) {
            let folder = tempfile::tempdir().unwrap();
            for (line, shown) in block {
                let output = command().current_dir(folder.path()).args(line.split_whitespace()).output().unwrap();
                let ended = finished(output);
                assert_eq!(ended.status, 0, "{document}: {line}: {}", ended.stderr);
                assert_shown(&line, &shown, &ended.stdout);
                run += 1;
            }
        }
    }
    assert!(run >= 4, "only {run} examples were found");
}

#[test]
fn what_is_not_printed_is_found() {
    let shown = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
    assert_shown("c", &shown(&["a 12.5", "...", "z"]), "a 3.1\nb\nz\n");
    for wrong in [&["a", "z"][..], &["...", "y"], &["b", "..."], &["a"]] {
        assert!(std::panic::catch_unwind(|| assert_shown("c", &shown(wrong), "a\nb\nz\n")).is_err(), "{wrong:?}");
    }
}
