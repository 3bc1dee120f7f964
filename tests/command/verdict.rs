//! The verdict: which published recalls are compared, and the exit code.

use std::path::Path;

use insta::assert_snapshot;
use tempfile::TempDir;

use crate::{
    files::{repository_file, scenes},
    support::{ProgramOutput, json, laps_zoo, without_times},
};

/// Writes an entry file with these references next to its data, and its checkpoint.
fn write_entry(folder: &Path, references: &str) {
    let text = fs_err::read_to_string(repository_file("configs/shapes_vit.yaml")).unwrap();
    let (text, _) = text.split_once("references:").unwrap();
    let text: String = text.lines().filter(|line| !line.contains("drawn:")).map(|line| format!("{line}\n")).collect();
    fs_err::write(folder.join("entry.yaml"), text + references + "\n").unwrap();
}

fn reproduce(folder: &Path, more: &[&str]) -> ProgramOutput {
    let [entry, checkpoint] = [folder.join("entry.yaml"), repository_file("checkpoints/shapes_vit.safetensors")];
    let [entry, checkpoint] = [&entry, &checkpoint].map(|path| path.to_str().unwrap());
    laps_zoo(["reproduce", entry, "--checkpoint", checkpoint, "--quiet"].iter().chain(more))
}

/// Data and the recalls measured on it.
fn measured() -> (TempDir, [f64; 6]) {
    let folder = scenes(12);
    write_entry(folder.path(), "references: { }");
    let result = folder.path().join("result.json");
    let run = reproduce(folder.path(), &["--json", result.to_str().unwrap()]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.ends_with("verdict: not compared, the entry has no published recalls\n"), "{}", run.stdout);
    let evaluation = &json(&result)["evaluations"][0];
    let recall = |side: &str, name: &str| evaluation[side][name].as_f64().unwrap();
    let names = ["r1", "r5", "r10"];
    let sides = [names.map(|name| recall("i2t", name)), names.map(|name| recall("t2i", name))].concat();
    (folder, sides.try_into().unwrap())
}

/// Published recalls: image-to-text R@1 is `distance` points below the measured one, the rest are the measured values to one
/// decimal.
fn references(measured: [f64; 6], distance: f64) -> String {
    let [a, b, c, d, e, f] = measured;
    format!(
        "references: {{ rerun: {{ f30k: {{ i2t: [{:.1}, {b:.1}, {c:.1}], t2i: [{d:.1}, {e:.1}, {f:.1}] }} }} }}",
        a - distance
    )
}

/// The output without the engine line, which depends on the build and the machine.
fn table(run: &ProgramOutput) -> String {
    let text = without_times(&run.stdout);
    let text: String =
        text.lines().filter(|line| !line.starts_with("engine ")).map(|line| format!("{line}\n")).collect();
    text
}

/// The lines of `table` that differ from those of `other`.
fn changed_lines(table: &str, other: &str) -> String {
    assert_eq!(table.lines().count(), other.lines().count());
    let pairs = table.lines().zip(other.lines());
    pairs.filter(|(line, other)| line != other).map(|(line, _)| format!("{line}\n")).collect()
}

#[test]
fn exit_code_is_0_if_reproduced_and_1_if_not() {
    let (folder, recalls) = measured();
    write_entry(folder.path(), &references(recalls, 0.0));
    let near = reproduce(folder.path(), &[]);
    assert_eq!((near.status, near.stderr.as_str()), (0, ""));
    assert_snapshot!(table(&near), @r"
    shapes_vit, split test: 12 images, 60 captions
    checkpoint shapes_vit.safetensors (sha256 28c8821cd05b)

    ┌──────────────────────────────────────────────────────────────────────────┐
    │ f30k           i2t R@1     R@5    R@10   t2i R@1     R@5    R@10    rSum │
    ╞══════════════════════════════════════════════════════════════════════════╡
    │ measured          91.7   100.0   100.0      86.7   100.0   100.0   578.3 │
    │ rerun             91.7   100.0   100.0      86.7   100.0   100.0       - │
    │   difference     -0.03    0.00    0.00     -0.03    0.00    0.00       - │
    └──────────────────────────────────────────────────────────────────────────┘
    median rank 1 / 1, mean rank 1.250 / 1.200 (image to text / text to image)

    stage: items
    read captions: 60 captions
    check checkpoint: 98 tensors
    hash images: 12 images
    open encoders: 2 encoders
    encode captions: 60 captions
    wait for images: 12 images
    encode images: 12 images
    score: 720 pairs
    rank: 72 queries
    verdict: reproduced, every published recall is within 0.1 points
    ");

    write_entry(folder.path(), &references(recalls, 3.0));
    let far = reproduce(folder.path(), &[]);
    assert_eq!((far.status, far.stderr.as_str()), (1, ""));
    assert_snapshot!(changed_lines(&table(&far), &table(&near)), @r"
    │ rerun             88.7   100.0   100.0      86.7   100.0   100.0       - │
    │   difference     +2.97    0.00    0.00     -0.03    0.00    0.00       - │
    verdict: deviates, 1 published recall is off by more than 0.1 points (largest difference: 2.97)
    ");

    let wide = reproduce(folder.path(), &["--tolerance", "3.1"]);
    assert_eq!(wide.status, 0, "{}", wide.stdout);
    assert!(
        wide.stdout.ends_with("verdict: reproduced, every published recall is within 3.1 points\n"),
        "{}",
        wide.stdout
    );
}

#[test]
fn limited_or_other_splits_are_not_compared() {
    let (folder, recalls) = measured();
    write_entry(folder.path(), &references(recalls, 3.0));
    let part = reproduce(folder.path(), &["--limit", "3"]);
    assert_eq!(part.status, 0);
    assert!(
        part.stdout.ends_with("verdict: not compared, published recalls are for the whole split\n"),
        "{}",
        part.stdout
    );
    assert!(part.stdout.contains("split test: 3 images, 15 captions"), "{}", part.stdout);
    for end in ["ids.txt", "caps.txt"] {
        let captions = folder.path().join("captions");
        fs_err::copy(captions.join(format!("test_{end}")), captions.join(format!("dev_{end}"))).unwrap();
    }
    let other = reproduce(folder.path(), &["--split", "dev"]);
    assert_eq!(other.status, 0);
    assert!(
        other.stdout.ends_with("verdict: not compared, published recalls are for the split `test`\n"),
        "{}",
        other.stdout
    );
}

#[test]
fn json_and_table_agree() {
    let (folder, recalls) = measured();
    write_entry(folder.path(), &references(recalls, 3.0));
    let path = folder.path().join("result.json");
    let run = reproduce(folder.path(), &["--json", path.to_str().unwrap()]);
    assert_eq!(run.status, 1);
    let result = json(&path);
    let cell = &result["comparisons"][0]["recalls"][0];
    assert_eq!(result["comparisons"][0]["source"], "rerun");
    assert!((cell["difference"].as_f64().unwrap() - 3.0).abs() <= 0.051, "{cell}");
    assert_eq!(result["verdict"]["outcome"], "deviates");
    assert_eq!(result["verdict"]["outside"], 1);
    assert_eq!(result["verdict"]["tolerance"], 0.1);
}
