//! Content of the page, and its rendering in a browser.

mod browser;
mod chromium;

use laps_data::image::{RgbImage, jpeg};
use serde_json::{Value, json};

use super::{Thumbnails, page};
use crate::{reproduce::Reproduction, results::sample};

const FLICKR: [f64; 6] = [75.8, 93.8, 97.1, 62.46, 87.5, 92.0];
const COCO: [[f64; 6]; 2] = [[65.1, 90.2, 94.62, 51.196, 79.3, 87.5], [83.9, 97.9, 99.1, 71.9, 93.65, 97.3]];

/// A result with ranks, and failures with hostile captions.
fn with_queries() -> Reproduction {
    let mut value = sample::value("f30k_vit", &[FLICKR]);
    let i2t = json!({ "1": 758, "3": 180, "8": 33, "40": 29 });
    let t2i = json!({ "1": 3123, "2": 1252, "6": 225, "110": 400 });
    value["ranks"] = json!([{ "protocol": "f30k", "i2t": i2t, "t2i": t2i }]);
    let image = |index: usize, similarity: f64, is_right: bool| json!({ "index": index, "image": format!("{index}.jpg"), "caption": null, "similarity": similarity, "is_right": is_right });
    let caption = |index: usize, text: &str, is_right: bool| json!({ "index": index, "image": "3.jpg", "caption": text, "similarity": 1.25, "is_right": is_right });
    let first: Vec<Value> = (0..5).map(|index| image(index, 1.5 - 0.1 * index as f64, false)).collect();
    value["failures"] = json!({
        "t2i": [{
            "query": 12, "image": "7.jpg", "caption": "<script>alert('x')</script> & \"a dog\"", "rank": 110,
            "right": image(7, 0.25, true), "first": first,
        }],
        "i2t": [{
            "query": 3, "image": "3.jpg", "caption": null, "rank": 40, "right": caption(15, "a man on a bench", true),
            "first": [caption(9, "a cat", false)],
        }],
    });
    serde_json::from_value(value).unwrap()
}

fn with_folds() -> Reproduction {
    let mut value = sample::value("coco_swin", &COCO);
    let whole = value["evaluations"][1].clone();
    let fold = |index: usize| {
        let mut fold = json!({ "first_image": 1000 * index, "images": 1000, "captions": 5000, "ties": whole["ties"] });
        for name in ["i2t", "t2i", "optimistic", "pessimistic"] {
            fold[name] = whole[name].clone();
        }
        fold["rsum"] = json!(whole["rsum"].as_f64().unwrap() + index as f64 - 2.0);
        fold
    };
    value["evaluations"][1]["folds"] = (0..5).map(fold).collect();
    serde_json::from_value(value).unwrap()
}

/// Nine images in a folder.
fn images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..9_u8 {
        let pixels = [index * 25, 90, 200].repeat(60 * 40);
        let bytes = jpeg(&RgbImage::new(60, 40, pixels).unwrap(), 90).unwrap();
        fs_err::write(folder.path().join(format!("{index}.jpg")), bytes).unwrap();
    }
    folder
}

#[test]
fn page_is_self_contained_and_runs_no_scripts() {
    let folder = images();
    let thumbnails = Thumbnails::new(vec![folder.path().to_owned()]);
    let html = page(vec![with_queries(), with_folds()], &thumbnails).unwrap();
    assert_eq!(thumbnails.missing(), 0);
    assert_eq!(html.matches("src=\"data:image/jpeg;base64,").count(), 7);
    assert_eq!(html.matches("src=").count(), 7);
    // Everything a browser would load; the SVG namespace is only a name.
    for address in ["url(", "@import", "<script", "<iframe", "href=\"http", "src=\"http"] {
        assert!(!html.contains(address), "{address}");
    }
    assert!(html.contains("default-src 'none'"));
    // askama and the charts escape text from files.
    assert!(html.contains("&#60;script&#62;alert") || html.contains("&lt;script&gt;alert"));
}

#[test]
fn page_shows_recalls_ranks_failures_and_provenance() {
    let html = page(vec![with_queries(), with_folds()], &Thumbnails::new(Vec::new())).unwrap();
    for text in [
        "<title>LAPS: f30k_vit, coco_swin</title>",
        // Measured, published and inferred recalls.
        "<td>measured [1]</td><td class=\"measured\">75.8</td>",
        "<td>VSE++</td><td class=\"published\">71.8</td>",
        "<td class=\"published\">71.9\u{2021}</td>",
        // Table 4 of the paper, in which another row is not measured.
        "<td class=\"measured\">75.8 [1]</td>",
        "<td class=\"not_measured\">n/m</td>",
        "<td class=\"not_published\">n/p</td>",
        "<td class=\"published\">74.0 p</td>",
        "<p class=\"verdict good\">reproduced, every published recall is within 0.1 points</p>",
        // Ranks in the histogram and in the failures.
        "<title>rank 1, image to text: 75.8 %</title>",
        "<title>rank &gt;50, text to image: 8.0 %</title>",
        "Rank of the correct image: 110 of 1000.",
        "<li class=\"right\" value=\"40\">a man on a bench",
        // Folds, ties, provenance, times.
        "4000 to 4999",
        "queries with ties</td><td>1</td><td>2</td>",
        "A Processor, 2 CPUs available",
        "50.00 s, 20 images per second",
        "This result was written by an older version",
    ] {
        assert!(html.contains(text), "{text}");
    }
    // Missing images are replaced by their names.
    assert_eq!(html.matches("<div class=\"none\">").count(), 7);
}
