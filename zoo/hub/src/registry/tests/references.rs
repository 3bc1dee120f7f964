use std::collections::BTreeMap;

use crate::registry::{AuditMark, Protocol, References, SourceAudit, Status, Table};

/// Every table with its row and protocol.
fn tables(references: &References) -> Vec<(String, Protocol, &Table)> {
    let rows = references
        .paper
        .iter()
        .flat_map(|(row, methods)| {
            methods.iter().map(move |(method, tables)| (format!("paper {row} {method}"), tables))
        })
        .chain(references.paper_clip.iter().map(|(row, tables)| (format!("paper_clip {row}"), tables)))
        .chain(references.readme.iter().map(|(row, tables)| (format!("readme {row}"), tables)));
    rows.flat_map(|(row, tables)| tables.iter().map(move |(&protocol, table)| (row.clone(), protocol, table))).collect()
}

fn recalls(table: &Table) -> impl Iterator<Item = f64> {
    table.i2t.into_iter().chain(table.t2i).flatten()
}

/// The value in tenths, which is the printed precision.
fn tenths(value: f64) -> i64 {
    let tenths = (value * 10.0).round();
    assert!((value * 10.0 - tenths).abs() < 1e-9, "{value} has more than one decimal");
    tenths as i64
}

#[test]
fn all_tables_are_present() {
    let references = References::embedded().unwrap();
    // 4 encoders x 5 methods x 3 protocols, 2 CLIP encoders x 2, and 6 in the README.
    assert_eq!(tables(&references).len(), 60 + 4 + 6);
    assert_eq!(references.paper_ablation_f30k_vit_224.len(), 9);
    let [i2t, t2i] = [
        references.paper["vit_224"]["laps"][&Protocol::F30k].i2t,
        references.paper["vit_224"]["laps"][&Protocol::F30k].t2i,
    ];
    let complete = references.paper_ablation_f30k_vit_224["complete"];
    assert_eq!([i2t[0], i2t[1], t2i[0], t2i[1]], complete.map(Some));
}

#[test]
fn recalls_are_percents_that_increase_with_k() {
    for (row, protocol, table) in tables(&References::embedded().unwrap()) {
        assert_eq!(table.problem(), None, "{row} {protocol}");
        for recall in recalls(table) {
            tenths(recall);
        }
    }
}

#[test]
fn recalls_on_1k_are_at_least_those_on_5k() {
    let references = References::embedded().unwrap();
    let mut rows: BTreeMap<String, BTreeMap<Protocol, &Table>> = BTreeMap::new();
    for (row, protocol, table) in tables(&references) {
        rows.entry(row).or_default().insert(protocol, table);
    }
    let mut compared = 0;
    for (row, tables) in rows {
        let (Some(small), Some(large)) = (tables.get(&Protocol::Coco1k), tables.get(&Protocol::Coco5k)) else {
            continue;
        };
        for (small, large) in small.i2t.iter().chain(&small.t2i).zip(large.i2t.iter().chain(&large.t2i)) {
            assert!(small >= large, "{row}: {small:?} on 1K, {large:?} on 5K");
        }
        compared += 1;
    }
    assert_eq!(compared, 22);
}

/// Rounding to 0.1 changes each of six recalls and their sum by at most 0.05: 0.35 together, which is 0.3 in whole tenths.
/// The rows of LAPS are within 0.1 and the others within 0.2.
#[test]
fn printed_sums_match_the_recalls() {
    let (mut largest, mut sums) = (0, 0);
    for (row, protocol, table) in tables(&References::embedded().unwrap()) {
        let Some(rsum) = table.rsum else { continue };
        let difference = (tenths(rsum) - recalls(table).map(tenths).sum::<i64>()).abs();
        assert_eq!(recalls(table).count(), 6, "{row} {protocol}");
        assert!(difference <= if row.ends_with("laps") { 1 } else { 3 }, "{row} {protocol}: {difference} tenths off");
        largest = largest.max(difference);
        sums += 1;
    }
    assert_eq!((sums, largest), (60, 2));
}

#[test]
fn misplaced_cells_have_a_status() {
    for (row, protocol, table) in tables(&References::embedded().unwrap()) {
        assert_eq!(table.status != Status::Printed, table.printed_t2i.is_some(), "{row} {protocol}");
        let status = match (row.as_str(), protocol) {
            ("readme coco_vit", Protocol::Coco5k) => Status::Restored,
            ("readme coco_swin", Protocol::Coco1k) => Status::Inferred,
            _ => Status::Printed,
        };
        assert_eq!(table.status, status, "{row} {protocol}");
    }
}

/// The shared tables have the same numbers.
#[test]
fn numbers_are_those_of_the_shared_tables() {
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/references.yaml");
    let Ok(theirs) = std::fs::read_to_string(shared) else {
        println!("skipped: {shared} does not exist");
        return;
    };
    let ours = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/references.yaml"));
    let numbers = |text: &str| -> serde_json::Value {
        // Two lists there omit a trailing number that is not printed.
        let text = text.replace("printed_t2i: [71.9, 93.7]", "printed_t2i: [71.9, 93.7, null]");
        serde_yaml::from_str(&text.replace("printed_t2i: [51.2, 79.3]", "printed_t2i: [51.2, 79.3, null]")).unwrap()
    };
    assert_eq!(numbers(ours), numbers(&theirs));
}

/// The shared file of the successors has the same numbers and audits.
#[test]
fn numbers_of_successors_are_those_of_the_shared_file() {
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/successors.yaml");
    let Ok(theirs) = std::fs::read_to_string(shared) else {
        println!("skipped: {shared} does not exist");
        return;
    };
    let theirs: serde_json::Value = serde_yaml::from_str(&theirs).unwrap();
    let ours = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/successors.yaml"));
    let ours: serde_json::Value = serde_yaml::from_str(ours).unwrap();
    let sources = |file: &serde_json::Value| file.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(sources(&ours), sources(&theirs));
    let (mut compared, mut audits) = (0, Vec::new());
    for (source, ours) in ours.as_object().unwrap() {
        assert_eq!(ours.get("audit"), theirs[source].get("audit"), "{source}");
        audits.extend(ours.get("audit").map(|_| source.as_str()));
        for (row, protocols) in ours["rows"].as_object().unwrap() {
            for (protocol, table) in protocols.as_object().unwrap() {
                let mut expected = match source.as_str() {
                    "d2s_vse" => theirs[source]["rows"][row][protocol].clone(),
                    "clip_zero_shot" => theirs[source][format!("openai/{}", row.replace('_', "-"))][protocol].clone(),
                    _ => theirs[source]["rows"][format!("{protocol}_{row}")].clone(),
                };
                // A note there that the cells sum to another value.
                expected.as_object_mut().unwrap().remove("cells_sum_to");
                assert_eq!(table, &expected, "{source} {row} {protocol}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 6 + 12 + 6);
    audits.sort_unstable();
    assert_eq!(audits, ["avse", "d2s_vse", "seps"]);
    assert!(theirs["avse"]["rows"].is_null());
    assert_eq!(theirs["seps"]["rows"].as_object().unwrap().len(), 12);
}

/// Queries of SEPS contain a generated description of the test image; those of D2S-VSE and AVSE do not.
#[test]
fn successors_have_audits() {
    let audits = References::embedded().unwrap().audits;
    let marks: Vec<(&str, AuditMark)> = audits.iter().map(|(source, audit)| (source.as_str(), audit.mark)).collect();
    assert_eq!(marks, [("avse", AuditMark::No), ("d2s_vse", AuditMark::No), ("seps", AuditMark::Yes)]);
    assert!(audits.values().all(|audit| audit.text.contains("seen in code")));
    assert!(SourceAudit::try_from("perhaps".to_owned()).unwrap_err().contains("starts with `yes` or `no`"));
}

#[test]
fn recalls_of_successors_are_valid() {
    let references = References::embedded().unwrap();
    for source in ["d2s_vse", "seps", "clip_zero_shot"] {
        for (row, tables) in references.rows(source).unwrap() {
            for (protocol, table) in tables {
                assert_eq!(table.problem(), None, "{source} {row} {protocol}");
            }
        }
    }
}

#[test]
fn rows_of_every_source_can_be_referred_to() {
    let references = References::embedded().unwrap();
    let counts = References::SOURCES.map(|source| references.rows(source).unwrap().len());
    assert_eq!(counts, [20, 2, 9, 4, 6, 4, 3]);
    let rows = references.rows("paper").unwrap();
    assert_eq!(rows["vit_224"][&Protocol::F30k].rsum, Some(507.3));
    assert_eq!(rows["vit_224/scan"][&Protocol::F30k].rsum, Some(485.6));
    let ablation = &references.rows("paper_ablation").unwrap()["scan_alignment"][&Protocol::F30k];
    assert_eq!((ablation.i2t, ablation.t2i), ([Some(71.3), Some(91.4), None], [Some(60.8), Some(85.6), None]));
    assert!(references.rows("other").is_none());
}
