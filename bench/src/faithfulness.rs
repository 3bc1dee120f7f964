//! How faithful explanations are: whether the patches that are said to add to a similarity do.
//!
//! - **Maps of nouns.** On drawn scenes it is known which pixels show an object. The share of a noun's map that falls on its
//!   object is compared with the object's share of the picture, and so is the strongest patch (the pointing game).
//! - **Deletion and insertion.** Patches are replaced by the mean colour, or put into a picture of it, in the order of their
//!   contributions. The similarity is measured at each step, and averaged over the steps. The baseline is a random order.

use laps::{Array, Image, Model};
use laps_align::similarity::CaptionMatrix;
use laps_data::{
    image::{self, RgbImage},
    scenes::{DrawnObject, PIXELS},
};
use laps_files::Progress;
use laps_model::random::SplitMix64;
use serde::Serialize;
use std::path::PathBuf;

use crate::{Result, progress::StageProgress};

/// Steps of a deletion or insertion curve: at each the next eighth of the patches is replaced.
const STEPS: usize = 8;

/// An image with the captions that belong to it.
#[derive(Clone, Debug)]
pub struct CaptionedImage {
    /// The file.
    pub path: PathBuf,
    /// Its captions.
    pub captions: Vec<String>,
    /// Its objects, if it is drawn.
    pub objects: Vec<DrawnObject>,
}

/// Measures of explanations, each a mean.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Faithfulness {
    /// Images; of each the first caption is used for deletion and insertion.
    pub images: usize,
    /// Maps of nouns; none without drawn scenes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nouns: Option<NounMaps>,
    /// Similarity while patches are removed; lower is better.
    pub deletion: Curve,
    /// Similarity while patches are put in; higher is better.
    pub insertion: Curve,
}

/// Similarity by the share of the patches that are removed or put in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Mean over the steps, with patches in the order of their contributions.
    pub explained: f64,
    /// Mean over the steps, with patches in a random order.
    pub random: f64,
    /// From no patch to all of them.
    pub steps: Vec<CurveStep>,
}

/// One step of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurveStep {
    /// Share of the patches that are removed or put in, in percent. Of a picture whose patches it does not divide, it is rounded
    /// down to whole patches.
    pub percent: f64,
    /// Similarity with patches in the order of their contributions.
    pub explained: f64,
    /// Similarity with patches in a random order.
    pub random: f64,
}

/// Maps of nouns that name one object of their scene.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct NounMaps {
    /// Nouns.
    pub count: usize,
    /// Share of the map that falls on the object, in percent.
    pub on_object: f64,
    /// Share of the picture that shows the object, in percent.
    pub area: f64,
    /// Nouns whose strongest patch shows the object, in percent.
    pub pointing: f64,
    /// Patches that show the object, in percent: what pointing at random hits.
    pub pointing_random: f64,
}

/// Measures explanations of `images` by `model`. `seed` decides the random orders.
///
/// # Errors
/// Images that cannot be read and captions that are too long.
pub fn faithfulness(
    model: &Model,
    images: &[CaptionedImage],
    seed: u64,
    progress: &dyn Progress,
) -> Result<Faithfulness> {
    let stage = StageProgress::begin(progress, "explain", images.len());
    let mut random = SplitMix64::new(seed);
    let mut nouns = NounMaps::default();
    let (mut deletion, mut insertion) = (CurveSum::default(), CurveSum::default());
    for CaptionedImage { path, captions, objects } in images {
        let pixels = image::read(path).map_err(|source| laps::Error::Image { path: path.clone(), source })?.image;
        for caption in captions {
            let pair = model.explain(Image::Pixels(pixels.clone()), caption)?;
            for (text, word) in pair.words.iter().zip(&pair.explanation.words) {
                let mut named = objects.iter().filter(|object| object.nouns.contains(&text.as_str()));
                if let (Some(object), None) = (named.next(), named.next()) {
                    nouns.add(&cover(object, pair.grid), &word.patches);
                }
            }
        }
        if let Some(caption) = captions.first() {
            let pair = model.explain(Image::Pixels(pixels.clone()), caption)?;
            let parts: Vec<f64> = pair.explanation.patches.iter().map(|patch| patch.contribution).collect();
            let mut order: Vec<usize> = (0..parts.len()).collect();
            order.sort_by(|&a, &b| parts[b].total_cmp(&parts[a]));
            let mut shuffled = order.clone();
            random.shuffle(&mut shuffled);
            let [explained, by_chance] = [
                curves(model, &pixels, caption, pair.grid, &order)?,
                curves(model, &pixels, caption, pair.grid, &shuffled)?,
            ];
            deletion.add(&explained.deletion, &by_chance.deletion);
            insertion.add(&explained.insertion, &by_chance.insertion);
        }
        stage.advance(1);
    }
    stage.end(&format!("{} images", images.len()));
    let (deletion, insertion) = (deletion.mean(), insertion.mean());
    Ok(Faithfulness { images: images.len(), nouns: nouns.means(), deletion, insertion })
}

/// Similarity at each step, added up over images.
#[derive(Default)]
struct CurveSum {
    images: usize,
    explained: [f64; STEPS + 1],
    random: [f64; STEPS + 1],
}

impl CurveSum {
    fn add(&mut self, explained: &[f64], random: &[f64]) {
        self.images += 1;
        self.explained.iter_mut().zip(explained).for_each(|(sum, similarity)| *sum += similarity);
        self.random.iter_mut().zip(random).for_each(|(sum, similarity)| *sum += similarity);
    }

    fn mean(&self) -> Curve {
        let images = self.images.max(1) as f64;
        let step = |(step, (explained, random)): (usize, (&f64, &f64))| CurveStep {
            percent: 100.0 * step as f64 / STEPS as f64,
            explained: explained / images,
            random: random / images,
        };
        let steps: Vec<CurveStep> = self.explained.iter().zip(&self.random).enumerate().map(step).collect();
        let mean = |of: fn(&CurveStep) -> f64| steps.iter().map(of).sum::<f64>() / steps.len() as f64;
        let (explained, random) = (mean(|step| step.explained), mean(|step| step.random));
        Curve { explained, random, steps }
    }
}

/// Similarity of one image at each step.
struct ImageCurves {
    deletion: Vec<f64>,
    insertion: Vec<f64>,
}

impl NounMaps {
    /// `cover` is the share of each patch that shows the object.
    fn add(&mut self, cover: &[f64], map: &[f64]) {
        let positive = |part: f64| part.max(0.0);
        let sum: f64 = map.iter().copied().map(positive).sum();
        let strongest = (0..map.len()).max_by(|&a, &b| map[a].total_cmp(&map[b]));
        let (true, Some(strongest)) = (sum > 0.0, strongest) else { return };
        let patches = cover.len() as f64;
        self.count += 1;
        self.on_object += map.iter().zip(cover).map(|(&part, cover)| positive(part) * cover).sum::<f64>() / sum;
        self.area += cover.iter().sum::<f64>() / patches;
        self.pointing += f64::from(u8::from(cover[strongest] > 0.0));
        self.pointing_random += cover.iter().filter(|&&cover| cover > 0.0).count() as f64 / patches;
    }

    fn means(self) -> Option<Self> {
        let Self { count, on_object, area, pointing, pointing_random } = self;
        let [on_object, area, pointing, pointing_random] =
            [on_object, area, pointing, pointing_random].map(|sum| 100.0 * sum / count as f64);
        (count > 0).then_some(Self { count, on_object, area, pointing, pointing_random })
    }
}

/// The share of each patch that shows an object.
fn cover(object: &DrawnObject, [rows, columns]: [usize; 2]) -> Vec<f64> {
    // Pixels need not divide into patches: each goes to the patch of its middle.
    let (mut shown, mut all) = (vec![0.0; rows * columns], vec![0.0; rows * columns]);
    for (pixel, &visible) in object.visible.iter().enumerate() {
        let patch = |place: usize, count: usize| (2 * place + 1) * count / (2 * PIXELS);
        let patch = patch(pixel / PIXELS, rows) * columns + patch(pixel % PIXELS, columns);
        shown[patch] += f64::from(u8::from(visible));
        all[patch] += 1.0;
    }
    shown.iter().zip(&all).map(|(shown, all): (&f64, &f64)| shown / all.max(1.0)).collect()
}

/// Similarities while the patches of `order` are removed, and while they are put in.
fn curves(model: &Model, image: &RgbImage, caption: &str, grid: [usize; 2], order: &[usize]) -> Result<ImageCurves> {
    let preprocessing = model.preprocessing();
    let mut whole = vec![0.0; preprocessing.values()];
    preprocessing.write(image, &mut whole).map_err(laps::Error::from)?;
    let size = preprocessing.size;
    let mut pictures = Vec::with_capacity(2 * (STEPS + 1));
    for is_deletion in [true, false] {
        for step in 0..=STEPS {
            let mut changed = vec![false; order.len()];
            order[..order.len() * step / STEPS].iter().for_each(|&patch| changed[patch] = true);
            let mut picture = whole.clone();
            for (index, value) in picture.iter_mut().enumerate() {
                let (row, column) = (index % (size * size) / size, index % size);
                if changed[row * grid[0] / size * grid[1] + column * grid[1] / size] == is_deletion {
                    // The mean colour, after normalisation.
                    *value = 0.0;
                }
            }
            pictures.push(picture);
        }
    }
    let sizes = model.sizes();
    let embeddings = model.encoding(&|_| ()).encode_pixels(&pictures).map_err(laps::Error::from)?;
    let values = embeddings.iter().flat_map(|image| image.values()).copied().collect();
    let images = Array::new(&[pictures.len(), sizes.tokens, sizes.width], values)?;
    let words = CaptionMatrix::from_arrays(&model.embed_captions(&[caption])?, sizes.width)?;
    let similarities = model.similarity().similarities(&images, &words)?;
    let doubles = |values: &[f32]| values.iter().copied().map(f64::from).collect();
    let (deletion, insertion) = similarities.values().split_at(STEPS + 1);
    Ok(ImageCurves { deletion: doubles(deletion), insertion: doubles(insertion) })
}
