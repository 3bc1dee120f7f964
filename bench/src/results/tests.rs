//! Valid and invalid results.

use serde_json::{Value, json};

use super::{read, sample};

/// Recalls of 1,000 images and 5,000 captions.
const RECALLS: [f64; 6] = [75.8, 93.8, 97.1, 62.46, 87.5, 92.0];

/// Writes `value` to a file and reads it.
fn reading(value: &Value) -> Result<crate::reproduce::Reproduction, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    fs_err::write(&path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
    read(&path).map_err(|error| {
        let hint = error.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
        format!("{error}{hint}").replace(&folder.path().display().to_string(), "DIR")
    })
}

#[test]
fn result_is_read_as_written() {
    let value = sample::value("f30k_vit", &[RECALLS]);
    let result = reading(&value).unwrap();
    assert_eq!(reading(&serde_json::to_value(&result).unwrap()).unwrap(), result);
    assert_eq!(result.evaluations[0].headline.t2i.r1, 62.46);
    assert_eq!(result.provenance.entry().unwrap().engine.to_string(), "torch 2.13.0 on cpu, 2 threads");
}

#[test]
fn byte_order_mark_of_a_result_is_not_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let value = sample::value("f30k_vit", &[RECALLS]);
    fs_err::write(&path, format!("\u{feff}{value}")).unwrap();
    assert_eq!(read(&path).unwrap(), reading(&value).unwrap());
    fs_err::write(&path, b"\xff\xfe{\0}\0").unwrap();
    assert!(read(&path).unwrap_err().to_string().ends_with("found: text in UTF-16"));
}

#[test]
fn version_1_result_is_read_without_ranks() {
    let mut value = sample::value("f30k_vit", &[RECALLS]);
    value["schema"] = json!(1);
    let result = reading(&value).unwrap();
    assert!(result.ranks.is_empty() && result.failures.t2i.is_empty());
}

#[test]
fn evaluations_in_other_precisions_are_read_from_the_field_beside() {
    let mut value = sample::value("f30k_vit", &[RECALLS]);
    value["beside"] = json!([{
        "engine": value["provenance"]["engine"], "evaluations": value["evaluations"], "rsum_lost": [0.5], "tolerance": 2.0,
    }]);
    let result = reading(&value).unwrap();
    assert!(result.schema == 2 && result.precisions.len() == 1 && !result.precisions[0].failed());
    assert_eq!(serde_json::to_value(&result).unwrap()["beside"][0]["rsum_lost"], json!([0.5]));
}

#[test]
fn result_without_machine_is_rejected() {
    let mut value = sample::value("f30k_vit", &[RECALLS]);
    value["provenance"].as_object_mut().unwrap().remove("machine");
    insta::assert_snapshot!(reading(&value).unwrap_err(), @r"
    `DIR/result.json` is not a valid result
      expected: `provenance.machine` with `system`, `processor` and `processors`
      found: no machine
    hint: results must name the machine they were measured on; reproduce the result again
    ");
    value["provenance"]["machine"] = json!({ "system": "linux x86_64", "processor": " ", "processors": 2 });
    assert!(reading(&value).unwrap_err().contains("no machine"));
}

#[test]
fn other_files_are_rejected() {
    let alignment = json!({ "schema": 1, "entry": "f30k_vit", "us_per_pair": 6.5 });
    insta::assert_snapshot!(reading(&alignment).unwrap_err(), @r"
    `DIR/result.json` is not a valid result
      expected: a JSON result of `laps-zoo reproduce` or `laps-zoo evaluate`
      found: no `evaluations`
    ");
    let mut newer = sample::value("f30k_vit", &[RECALLS]);
    newer["schema"] = json!(4);
    insta::assert_snapshot!(reading(&newer).unwrap_err(), @r"
    `DIR/result.json` is not a valid result
      expected: `schema` from 1 to 3
      found: 4
    hint: update laps-zoo to read results of newer versions
    ");
    let folder = tempfile::tempdir().unwrap();
    assert!(read(&folder.path().join("none")).unwrap_err().to_string().starts_with("cannot read `"));
    fs_err::write(folder.path().join("text"), "recall: 100").unwrap();
    assert!(read(&folder.path().join("text")).unwrap_err().to_string().contains("expected value at line 1"));
}

#[test]
fn contradictory_result_is_rejected() {
    let changes: [(&str, Value, &str); 7] = [
        ("/evaluations/0/i2t/r1", json!(85.8), "found: an rSum of"),
        ("/evaluations/0/i2t/r1", json!(95.8), "found: [95.8, 93.8"),
        ("/evaluations/0/i2t/r10", json!(197.1), "found: [75.8, 93.8, 197.1"),
        ("/evaluations/0/rsum", json!(600.0), "found: an rSum of 600"),
        ("/comparisons/1/recalls/0/difference", json!(3.0), "expected: measured minus published of `readme`"),
        ("/evaluations", json!([]), "expected: at least one of `evaluations`"),
        ("/comparisons/0/protocol", json!("coco_1k"), "expected: an evaluation by `coco_1k`"),
    ];
    for (pointer, changed, expected) in changes {
        let mut value = sample::value("f30k_vit", &[RECALLS]);
        *value.pointer_mut(pointer).unwrap() = changed;
        let error = reading(&value).unwrap_err();
        assert!(error.contains(expected), "{pointer}: {error}");
    }
}

/// An i2t R@1 of 75.8 needs 758 of 1,000 images at rank 1.
#[test]
fn recalls_that_contradict_the_ranks_are_rejected() {
    let mut value = sample::value("f30k_vit", &[RECALLS]);
    let i2t = json!({ "1": 758, "3": 180, "8": 33, "40": 29 });
    let t2i = json!({ "1": 3123, "2": 1252, "6": 225, "11": 400 });
    value["ranks"] = json!([{ "protocol": "f30k", "i2t": i2t, "t2i": t2i }]);
    assert_eq!(reading(&value).unwrap().ranks[0].i2t[&40], 29);
    value["ranks"][0]["i2t"]["1"] = json!(757);
    assert!(reading(&value).unwrap_err().contains("expected: `ranks.i2t` of 1000 queries\n  found: 999"));
    value["ranks"][0]["i2t"]["3"] = json!(181);
    assert!(reading(&value).unwrap_err().contains("i2t R@1 of 75.7, from the ranks"));
    // The mean over folds is not the recall of all queries if folds have different numbers of captions.
    let mut fold = value["evaluations"][0].clone();
    fold["first_image"] = json!(0);
    value["evaluations"][0]["folds"] = json!([fold, fold]);
    assert_eq!(reading(&value).unwrap().evaluations[0].folds.len(), 2);
}
