//! Audits: evaluations of changed inputs, whose outcome a sound protocol predicts.
//!
//! | check | passes if |
//! |---|---|
//! | captions shuffled within their image | the recalls stay the same |
//! | captions shuffled between images | the recalls are those of chance: nothing but the texts tells the images apart |
//! | side texts of the queries | a text that all captions of an image share and no other image has does not help: the recalls stay the same without it, and with that of another image |
//! | duplicate images across splits | no image of the evaluated split is in another split |
//! | duplicate captions across splits | counted; two people may well write the same sentence |
//! | resolution against the name | a size in the name of the entry, or of a published row, is that of its image encoder |

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    path::Path,
    sync::atomic::AtomicBool,
};

use laps::embedded;
use laps_align::{Evaluation, Protocol};
use laps_data::Split;
use laps_files::{Progress, read_regular, sha256};
use laps_hub::registry::{Entry, References};
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    reproduce::{ReproduceRequest, Reproduction, recalls, reproduce},
    side_texts::{SideTextChange, SideTexts},
};

/// Sizes of images in names of entries.
const SIZES: [usize; 6] = [224, 256, 336, 384, 448, 480];
/// One image in so many has to have a side text. Fewer are chance: five sentences can end in the same words.
const SIDE_TEXT_SHARE: usize = 10;
/// Recalls of shuffled captions may be this many standard errors above chance.
const STANDARD_ERRORS: f64 = 6.0;

/// Which text each caption has when it is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptionOrder {
    /// Its own.
    #[default]
    AsWritten,
    /// That of the next caption of its image.
    WithinImages,
    /// That of a caption of another image, half the split away.
    BetweenImages,
    /// Its own, without what all captions of its image share.
    WithoutSideTexts,
    /// Its own, with what all captions of another image share instead.
    ShuffledSideTexts,
}

impl CaptionOrder {
    /// For each caption the caption whose text it gets. `image_of` has the image of each caption.
    pub(crate) fn sources(self, images: usize, image_of: &[usize]) -> Vec<usize> {
        let mut captions = vec![Vec::new(); images];
        for (caption, &image) in image_of.iter().enumerate() {
            captions[image].push(caption);
        }
        let mut sources: Vec<usize> = (0..image_of.len()).collect();
        for (image, own) in captions.iter().enumerate() {
            let (from, shift) = match self {
                Self::AsWritten | Self::WithoutSideTexts | Self::ShuffledSideTexts => (own, 0),
                Self::WithinImages => (own, 1),
                Self::BetweenImages => (&captions[(image + images / 2) % images.max(1)], 0),
            };
            for (index, &caption) in own.iter().enumerate() {
                if let Some(&source) = from.get((index + shift) % from.len().max(1)) {
                    sources[caption] = source;
                }
            }
        }
        sources
    }

    /// `split` with the captions that are encoded, before they are moved.
    pub(crate) fn rewrite(self, split: Split) -> Split {
        let change = match self {
            Self::AsWritten | Self::WithinImages | Self::BetweenImages => return split,
            Self::WithoutSideTexts => SideTextChange::Remove,
            Self::ShuffledSideTexts => SideTextChange::Shuffle,
        };
        SideTexts::find(&split).change(split, change)
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditCheck {
    /// The check.
    pub name: Cow<'static, str>,
    /// Whether it passed; `None` for a count that decides nothing.
    pub passed: Option<bool>,
    /// The outcome.
    pub detail: String,
}

/// Runs all checks on the request of `result`.
///
/// # Errors
/// As [`reproduce`].
pub fn audit(
    request: &ReproduceRequest,
    result: &Reproduction,
    stop: &AtomicBool,
    progress: &dyn Progress,
) -> Result<Vec<AuditCheck>> {
    let again = |caption_order| {
        let request = ReproduceRequest { caption_order, sims: None, run: None, mteb: None, ..request.clone() };
        reproduce(&request, stop, progress)
    };
    let within = again(CaptionOrder::WithinImages)?;
    let between = again(CaptionOrder::BetweenImages)?;
    let mut checks = vec![unchanged(result, &within, request.tolerance), chance(&between)];
    checks.push(side_texts(request, result, again)?);
    checks.extend(duplicates(request)?);
    checks.extend(resolution(&request.entry));
    Ok(checks)
}

/// The checks as text, one a line.
pub fn render(checks: &[AuditCheck]) -> String {
    let line = |check: &AuditCheck| {
        let state = match check.passed {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "note",
        };
        format!("audit: {:<39} {state:<7} {}\n", check.name, check.detail)
    };
    checks.iter().map(line).collect()
}

/// Largest difference of a recall of two results, in points.
fn largest_difference(result: &Reproduction, other: &Reproduction) -> f64 {
    let pairs = result.evaluations.iter().zip(&other.evaluations);
    let differences = pairs.flat_map(|(one, other)| {
        let (one, other) = (recalls(&one.headline), recalls(&other.headline));
        one.into_iter().zip(other).map(|(one, other)| (one - other).abs())
    });
    differences.fold(0.0, f64::max)
}

/// Whether all recalls of two results are within `tolerance` points.
fn unchanged(result: &Reproduction, other: &Reproduction, tolerance: f64) -> AuditCheck {
    let largest = largest_difference(result, other);
    AuditCheck {
        name: "captions shuffled within their image".into(),
        passed: Some(largest <= tolerance),
        detail: format!("recalls differ by {largest:.2} points at most"),
    }
}

/// Whether the recalls depend on side texts. `again` evaluates with other texts.
fn side_texts(
    request: &ReproduceRequest,
    result: &Reproduction,
    again: impl Fn(CaptionOrder) -> Result<Reproduction>,
) -> Result<AuditCheck> {
    let evaluated = request.split.as_deref().unwrap_or(&request.entry.data.test);
    let paths = embedded::split_paths(&request.entry, request.data.as_deref(), &[evaluated])?;
    let split = Split::open(&paths.captions, evaluated)?;
    let split = match request.limit {
        Some(limit) => split.limit(limit),
        None => split,
    };
    let found = SideTexts::find(&split);
    let check = |passed, detail| AuditCheck { name: "side texts of the queries".into(), passed: Some(passed), detail };
    let images = split.images().len();
    let example = found.example().filter(|_| found.images() * SIDE_TEXT_SHARE >= images);
    let Some(example) = example else {
        let detail = format!("{} of {images} images have a text in all of their captions alone", found.images());
        return Ok(check(true, detail));
    };
    let [removed, shuffled] = [CaptionOrder::WithoutSideTexts, CaptionOrder::ShuffledSideTexts];
    let [removed, shuffled] =
        [largest_difference(result, &again(removed)?), largest_difference(result, &again(shuffled)?)];
    let detail = format!(
        "{} of {images} images have a text in all of their captions, such as `{example}`; recalls differ by up to {removed:.2} \
         points without them and {shuffled:.2} with those of other images",
        found.images(),
    );
    Ok(check(removed.max(shuffled) <= request.tolerance, detail))
}

/// Whether all recalls are those of a random order of the candidates.
fn chance(result: &Reproduction) -> AuditCheck {
    let mut worst: Option<(f64, String)> = None;
    for evaluation in &result.evaluations {
        for (measured, (name, expected, limit)) in
            recalls(&evaluation.headline).into_iter().zip(chances(evaluation, result))
        {
            let detail = format!("{name} is {measured:.1}, chance is {expected:.1}, the limit {limit:.1}");
            if worst.as_ref().is_none_or(|(margin, _)| measured - limit > *margin) {
                worst = Some((measured - limit, detail));
            }
        }
    }
    let (margin, detail) = worst.unwrap_or((0.0, "there are no recalls".to_owned()));
    AuditCheck { name: "captions shuffled between images".into(), passed: Some(margin <= 0.0), detail }
}

/// Name, chance and limit of each recall, in percent: of image to text at 1, 5 and 10, then of text to image.
fn chances(evaluation: &Evaluation, result: &Reproduction) -> [(String, f64, f64); 6] {
    let images = match evaluation.protocol {
        Protocol::Coco1k => result.images.min(1000),
        _ => result.images,
    };
    let per_image = result.captions / result.images.max(1);
    let captions = images * per_image;
    let recall = |direction: &str, k: usize, share: f64| {
        // Captions of one image depend on each other, so an image counts as one query.
        let error = (share * (1.0 - share) / result.images as f64).sqrt();
        (format!("{direction} R@{k}"), 100.0 * share, 100.0 * (share + STANDARD_ERRORS * error))
    };
    let i2t = |k: usize| {
        let missed = (0..k.min(captions))
            .map(|drawn| captions.saturating_sub(per_image + drawn) as f64 / (captions - drawn).max(1) as f64);
        recall("i2t", k, 1.0 - missed.product::<f64>())
    };
    let t2i = |k: usize| recall("t2i", k, (k as f64 / images.max(1) as f64).min(1.0));
    [i2t(1), i2t(5), i2t(10), t2i(1), t2i(5), t2i(10)]
}

/// Images and captions of the evaluated split that are in another split of the entry too.
fn duplicates(request: &ReproduceRequest) -> Result<[AuditCheck; 2]> {
    let data = &request.entry.data;
    let evaluated = request.split.as_deref().unwrap_or(&data.test);
    let names = [&data.train, &data.dev, &data.test].map(String::as_str);
    let mut names: Vec<&str> = names.into_iter().filter(|name| *name != evaluated).collect();
    names.sort_unstable();
    names.dedup();
    let wanted: Vec<&str> = names.iter().copied().chain([evaluated]).collect();
    let paths = embedded::split_paths(&request.entry, request.data.as_deref(), &wanted)?;
    let split = Split::open(&paths.captions, evaluated)?;
    let own_images = image_hashes(&split, &paths.images)?;
    let own_captions: HashSet<&str> = split.captions().iter().map(|caption| caption.trim()).collect();
    let (mut images, mut captions, mut compared) = (Vec::new(), 0, Vec::new());
    for name in names {
        // A data folder may have the evaluated split only.
        if !laps_data::splits(&paths.captions).iter().any(|known| known == name) {
            continue;
        }
        compared.push(name);
        let other = Split::open(&paths.captions, name)?;
        for (hash, file) in image_hashes(&other, &paths.images)? {
            if let Some(own) = own_images.get(&hash) {
                images.push(format!("`{own}` of `{evaluated}` is `{file}` of `{name}`"));
            }
        }
        captions += other.captions().iter().filter(|caption| own_captions.contains(caption.trim())).count();
    }
    images.sort();
    let compared = if compared.is_empty() { "no other split is there".to_owned() } else { compared.join(", ") };
    let detail = match images.first() {
        Some(first) => format!("{}: {first}", images.len()),
        None => format!("none ({compared})"),
    };
    Ok([
        AuditCheck { name: "duplicate images across splits".into(), passed: Some(images.is_empty()), detail },
        AuditCheck {
            name: "duplicate captions across splits".into(),
            passed: None,
            detail: format!("{captions} captions of other splits are in `{evaluated}` ({compared})"),
        },
    ])
}

/// The name of each image that can be read, by the hash of its file.
fn image_hashes(split: &Split, root: &Path) -> Result<HashMap<[u8; 32], String>> {
    let files = split.image_files(root).into_iter();
    // Images of a split that is not evaluated may be missing.
    Ok(files.filter_map(|file| Some((sha256(&read_regular(&file.path).ok()?), file.image.name))).collect())
}

/// Whether a size in the name of an entry, or of a published row that it refers to, is that of its image encoder.
fn resolution(entry: &Entry) -> Vec<AuditCheck> {
    let size = entry.model.image.image_size();
    let check = |name: &str, described: String| {
        let named =
            name.split(['_', '-', '/']).filter_map(|part| part.parse().ok()).find(|size| SIZES.contains(size))?;
        Some(AuditCheck {
            name: "resolution against the name".into(),
            passed: Some(named == size),
            detail: format!("{described} is evaluated at {size} pixels"),
        })
    };
    let row = |source: &str| {
        let row = entry.reference_row(source)?;
        check(row, format!("`{row}` of the published table `{source}`"))
    };
    check(&entry.name, format!("`{}`", entry.name))
        .into_iter()
        .chain(References::SOURCES.into_iter().filter_map(row))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use laps_data::scenes::{self, DrawnConfig};
    use laps_hub::registry;

    use super::*;

    #[test]
    fn texts_move_within_and_between_images() {
        let image_of = [0, 0, 1, 1, 1, 2, 3];
        assert_eq!(CaptionOrder::AsWritten.sources(4, &image_of), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(CaptionOrder::WithinImages.sources(4, &image_of), [1, 0, 3, 4, 2, 5, 6]);
        assert_eq!(CaptionOrder::BetweenImages.sources(4, &image_of), [5, 5, 6, 6, 6, 0, 2]);
    }

    #[test]
    fn planted_leak_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let drawn = DrawnConfig { seed: 3, train: 8, dev: 4, test: 6 };
        scenes::write(folder.path(), &drawn, &scenes::DrawnSplit::ALL).unwrap();
        let entry = registry::find("shapes_vit").unwrap();
        let request = ReproduceRequest { data: Some(folder.path().to_owned()), ..ReproduceRequest::new(entry) };
        let passed = |request: &ReproduceRequest| duplicates(request).unwrap()[0].clone();
        assert_eq!(passed(&request).detail, "none (dev, train)");
        assert_eq!(passed(&request).passed, Some(true));

        let paths = request.entry.data_paths(Some(folder.path())).unwrap();
        let file = |split, index: usize| {
            Split::open(&paths.captions, split).unwrap().image_files(&paths.images).swap_remove(index).path
        };
        std::fs::copy(file("test", 2), file("train", 5)).unwrap();
        let check = passed(&request);
        assert_eq!(check.passed, Some(false));
        assert!(check.detail.starts_with("1: `") && check.detail.contains("of `train`"), "{}", check.detail);
    }

    #[test]
    fn embedded_entry_passes_and_a_score_by_position_fails() {
        let entry = registry::find("shapes_vit").unwrap();
        let request = ReproduceRequest { limit: NonZeroUsize::new(60), ..ReproduceRequest::new(entry) };
        let stop = AtomicBool::new(false);
        let result = reproduce(&request, &stop, &()).unwrap();
        let checks = audit(&request, &result, &stop, &()).unwrap();
        println!("{}", render(&checks));
        let audited = Reproduction { audit: checks.clone(), ..result.clone() };
        let written = serde_json::to_value(&audited).unwrap();
        assert_eq!(written["audit"][0]["name"], "captions shuffled within their image");
        assert_eq!(serde_json::from_value::<Reproduction>(written).unwrap().audit, checks);
        assert!(checks.iter().all(|check| check.passed != Some(false)), "{checks:?}");
        // Recalls that stay high with the texts of other images come from something else than the texts.
        assert_eq!(chance(&result).passed, Some(false));
        assert_eq!(
            unchanged(
                &result,
                &reproduce(&ReproduceRequest { caption_order: CaptionOrder::BetweenImages, ..request }, &stop, &())
                    .unwrap(),
                0.1
            )
            .passed,
            Some(false)
        );
    }

    /// Each query carries a description of its image, here the first caption of the image, as queries of SEPS do.
    #[test]
    fn planted_side_texts_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let drawn = DrawnConfig { seed: 5, train: 2, dev: 2, test: 30 };
        scenes::write(folder.path(), &drawn, &scenes::DrawnSplit::ALL).unwrap();
        let entry = registry::find("shapes_vit").unwrap();
        let request = ReproduceRequest { data: Some(folder.path().to_owned()), ..ReproduceRequest::new(entry) };
        let stop = AtomicBool::new(false);
        let evaluate = |caption_order| reproduce(&ReproduceRequest { caption_order, ..request.clone() }, &stop, &());
        let check = || side_texts(&request, &evaluate(CaptionOrder::AsWritten).unwrap(), evaluate).unwrap();
        let clean = check();
        assert_eq!(clean.passed, Some(true), "{}", clean.detail);

        let file = request.entry.data_paths(Some(folder.path())).unwrap().captions.join("test_caps.txt");
        let captions = fs_err::read_to_string(&file).unwrap();
        let lines: Vec<&str> = captions.lines().collect();
        let planted = lines.chunks(5).flat_map(|own| own.iter().map(|caption| format!("{} {caption}\n", own[0])));
        fs_err::write(&file, planted.collect::<String>()).unwrap();
        let leak = check();
        assert_eq!(leak.passed, Some(false), "{}", leak.detail);
        assert!(
            leak.detail.contains("of 30 images have a text in all of their captions, such as `"),
            "{}",
            leak.detail
        );
    }

    #[test]
    fn size_in_a_name_has_to_be_that_of_the_encoder() {
        let entry = registry::find("f30k_vit_384").unwrap();
        let passed = |entry: &Entry| resolution(entry).iter().map(|check| check.passed).collect::<Vec<_>>();
        assert_eq!(passed(&entry), [Some(true); 2]);
        let renamed = Entry::from_yaml(
            entry.origin.clone(),
            &registry::text("f30k_vit_384").unwrap().1.replace("name: f30k_vit_384", "name: d2s_vit_224"),
        );
        let renamed = renamed.unwrap();
        assert_eq!(passed(&renamed), [Some(false), Some(true)]);
        assert_eq!(passed(&registry::find("f30k_vit").unwrap()), [Some(true)]);
        // Our name has the pixels that the model is run at, that of the published row has not.
        let d2s = registry::find("f30k_vit_384_d2s").unwrap();
        assert_eq!(passed(&d2s), [Some(true), Some(false)]);
        let detail = &resolution(&d2s)[1].detail;
        assert_eq!(detail, "`f30k_vit_224` of the published table `d2s_vse` is evaluated at 384 pixels");
    }
}
