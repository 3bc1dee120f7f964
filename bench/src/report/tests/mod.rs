//! Content of the page, and its rendering in a browser.

mod browser;
mod chromium;

use laps::{EngineChoice, ExplainedPair, Image, Model};
use laps_data::image::{RgbImage, jpeg, read};
use serde_json::{Value, json};

use super::{Explainer, Thumbnails, page};
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
    let html = page(vec![with_queries(), with_folds()], &thumbnails, &Explainer::default()).unwrap();
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
    let html = page(vec![with_queries(), with_folds()], &Thumbnails::new(Vec::new()), &Explainer::default()).unwrap();
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

/// The printed table of a successor comes with the audit of its published recalls.
#[test]
fn page_shows_the_audit_of_a_successor() {
    let result = sample::result("f30k_vit_384_d2s", &[FLICKR]);
    let html = page(vec![result], &Thumbnails::new(Vec::new()), &Explainer::default()).unwrap();
    assert!(html.contains("table of D2S-VSE: f30k"), "{html}");
    assert_eq!(html.matches("<li>audit of d2s_vse, does a text-to-image query contain").count(), 1, "{html}");
}

/// An embedded model, and a result that it has evaluated.
fn explained() -> (Explainer, Reproduction) {
    let mut explainer = Explainer::default();
    let model = Model::builder("shapes_vit").engine(EngineChoice::Rust).open().unwrap();
    let mut result = with_queries();
    assert!(!explainer.knows(&result));
    let entry = sample::entry(&mut result);
    entry.config_sha256.clone_from(&model.used().config_sha256);
    entry.checkpoint.sha256.clone_from(&model.used().checkpoint_sha256);
    explainer.add(model);
    assert!(explainer.knows(&result));
    (explainer, result)
}

#[test]
fn failures_show_the_explanations_of_the_first_and_the_correct_answer() {
    let folder = images();
    let thumbnails = Thumbnails::new(vec![folder.path().to_owned()]);
    let (explainer, result) = explained();
    let model = Model::builder("shapes_vit").engine(EngineChoice::Rust).open().unwrap();
    let explain = |image: usize, caption: &str| {
        let pixels = read(&folder.path().join(format!("{image}.jpg"))).unwrap().image;
        model.explain(Image::Pixels(pixels), caption).unwrap()
    };

    // A caption, for which image 0 is first and image 7 is correct.
    let failure = &result.failures.t2i[0];
    let caption = failure.caption.as_deref().unwrap();
    let pairs = [explain(0, caption), explain(7, caption)];
    let view = explainer.contrast(&result, failure, &thumbnails).unwrap().unwrap();
    for (answer, pair) in view.answers.iter().zip(&pairs) {
        assert_eq!(answer.similarity, format!("{:.3}", pair.explanation.similarity));
        assert!(answer.picture.is_some() && answer.words.is_empty());
        let part = |text: &str| text.parse::<f64>().unwrap();
        // Three numbers with three decimals.
        let sum = part(&answer.class_token) + part(&answer.patches);
        assert!((sum - part(&answer.similarity)).abs() < 0.0016, "{sum} {}", answer.similarity);
    }
    assert_eq!(view.words.len(), pairs[0].words.len());
    let differences: Vec<f64> = view.words.iter().map(|word| word[3].parse().unwrap()).collect();
    assert!(
        differences.is_sorted_by(|a, b| a >= b) && differences.iter().any(|&value| value != 0.0),
        "{differences:?}"
    );
    // A piece can occur several times.
    let of_word = |position: usize| {
        let similarity = |pair: &ExplainedPair| format!("{:.3}", pair.explanation.words[position].similarity);
        (pairs[0].words[position] == view.words[0][0]).then(|| pairs.each_ref().map(similarity))
    };
    let mut of_first = (0..view.words.len()).filter_map(of_word);
    assert!(of_first.any(|similarities| similarities == view.words[0][1..3]), "{:?}", view.words[0]);

    // An image, for which `a cat` is first and `a man on a bench` is correct.
    let view = explainer.contrast(&result, &result.failures.i2t[0], &thumbnails).unwrap().unwrap();
    let captions = view.answers.each_ref().map(|answer| answer.caption.as_deref().unwrap());
    assert_eq!((captions, view.words.len()), (["a cat", "a man on a bench"], 0));
    let pair = explain(3, "a man on a bench");
    let words = &view.answers[1].words;
    let best = pair.explanation.words.iter().map(|word| word.similarity).fold(f64::MIN, f64::max);
    assert_eq!((words.len(), &words[0][1]), (pair.words.len(), &format!("{best:.3}")));

    let html = page(vec![result.clone(), with_folds()], &thumbnails, &explainer).unwrap();
    assert_eq!(html.matches("<summary>Why the first one won</summary>").count(), 2);
    assert_eq!(html.matches("src=\"data:image/jpeg;base64,").count(), 7 + 4);
    assert!(!html.contains("<script"));
    // Without the images there is nothing to show.
    let html = page(vec![result], &Thumbnails::new(Vec::new()), &explainer).unwrap();
    assert!(!html.contains("<summary>Why the first one won</summary>"));
}
