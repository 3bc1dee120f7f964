//! Model cards, with and without results.

use serde_yaml::Value;

use super::card;
use crate::results::sample;

const COCO: [[f64; 6]; 2] = [[65.1, 90.2, 94.62, 51.196, 79.3, 87.5], [83.9, 97.9, 99.1, 71.9, 93.65, 97.3]];

/// The card of a built-in entry, and its front matter.
fn of(name: &str, results: Vec<crate::reproduce::Reproduction>) -> (String, Value) {
    let text = card(&laps_hub::registry::find(name).unwrap(), results, None).unwrap();
    let front = text.strip_prefix("---\n").unwrap().split("\n---\n").next().unwrap();
    let front = serde_yaml::from_str(front).unwrap();
    (text, front)
}

fn indexed(front: &Value) -> Vec<&Value> {
    front["model-index"][0]["results"].as_sequence().unwrap().iter().collect()
}

#[test]
fn model_index_distinguishes_measured_and_published_recalls() {
    let (text, front) = of("coco_swin", vec![sample::result("coco_swin", &COCO)]);
    let results = indexed(&front);
    assert_eq!(results.len(), 6);
    for result in &results[..2] {
        let details = &result["dataset"]["args"];
        assert_eq!((&details["measured_by"], &details["images"]), (&"laps-zoo 0.1.0".into(), &5000.into()));
        // huggingface_hub refuses a source without a URL.
        assert!(result["source"].is_null(), "{result:?}");
    }
    let sources: Vec<&str> = results[2..].iter().map(|result| result["source"]["name"].as_str().unwrap()).collect();
    assert!(sources.iter().all(|source| source.starts_with("published: ")), "{sources:?}");
    assert!(results[2..].iter().all(|result| result["source"]["url"].as_str().unwrap().starts_with("https://")));
    assert_eq!(results[0]["dataset"]["type"], "nlphuji/mscoco_2014_5k_test_image_text_retrieval");
    assert_eq!(results[0]["metrics"][3]["name"], "text to image R@1");
    assert_eq!(results[0]["metrics"][3]["value"], 51.196);
    assert_eq!(results[0]["dataset"]["name"], "MS-COCO, 5,000 images");
    assert_eq!(front["license"][0], "unknown");
    assert!(text.contains("\n| measured \\[1\\] | 65.1 | 90.2 | 94.6 | 51.2 | 79.3 | 87.5 | 467.9 |\n"), "{text}");
    assert!(text.contains("\n| VSE++ | 64.0 | 88.2 |"), "{text}");
}

/// They are derived from the provenance of the recalls: a corrected table removes its sentence.
#[test]
fn known_issues_of_published_recalls_are_listed() {
    let (swin, _) = of("coco_swin", Vec::new());
    assert!(swin.contains(
        "- Text to image, coco_1k: the readme prints 51.2 / 79.3 instead of 71.9 / 93.7; the source has them in a row where \
         they cannot belong, and they fit no other row (inferred).\n"
    ), "{swin}");
    assert!(swin.contains("selected on the test split"));
    let (vit, _) = of("coco_vit", Vec::new());
    assert!(vit.contains(
        "- Text to image, coco_5k: the readme prints 71.9 / 93.7 instead of 43.9 / 73.6; an earlier version of the source \
         has them in the right place (restored).\n"
    ), "{vit}");
    let (flickr, _) = of("f30k_vit", Vec::new());
    assert!(!flickr.contains("- Text to image, "), "{flickr}");
    assert!(flickr.contains("Published recalls only; `laps-zoo card f30k_vit RESULT` adds measured ones."));
}

#[test]
fn embedded_entry_has_a_licence_and_no_known_issues() {
    let (text, front) = of("shapes_vit", Vec::new());
    assert_eq!((&front["license"][0], &front["license"][1]), (&Value::from("mit"), &Value::from("apache-2.0")));
    assert!(!text.contains("## Known issues"), "{text}");
    assert!(text.contains("Licence: MIT or Apache-2.0"));
    assert!(
        text.contains("laps-zoo reproduce shapes_vit --json result.json\nlaps-zoo card shapes_vit result.json\n"),
        "{text}"
    );
    assert!(text.contains("```yaml\ntrain:\n  epochs: 9\n  batch_size: 64\n"), "{text}");
}

#[test]
fn every_built_in_entry_has_a_card() {
    for name in laps_hub::registry::names() {
        let (text, front) = of(name, Vec::new());
        assert_eq!(front["model-index"][0]["name"], *name);
        assert!(!text.contains("\n\n\n") && text.contains("\n\nHow recalls are computed"), "{name}: {text}");
    }
}

#[test]
fn result_of_another_entry_is_rejected() {
    let entry = laps_hub::registry::find("f30k_vit").unwrap();
    let error = card(&entry, vec![sample::result("coco_swin", &COCO)], None).unwrap_err().to_string();
    assert!(
        error.starts_with("`results` cannot be used\n  expected: results of `f30k_vit` with the configuration "),
        "{error}"
    );
}
