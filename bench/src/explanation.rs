//! Explanations of a similarity as an HTML page and as a picture.

use askama::Template;
use laps::ExplanationDocument;
use laps_data::image::{self, RgbImage};

use crate::{Error, Result, report::data_url};

/// Longer side of the picture in the page, in pixels.
const SIDE: usize = 640;
/// JPEG quality of the picture in the page.
const QUALITY: u8 = 85;
/// Colour of a patch that adds to the similarity, and of one that takes from it.
const COLORS: [[f64; 3]; 2] = [[230.0, 60.0, 20.0], [30.0, 90.0, 220.0]];
/// Opacity of the patch that adds or takes most.
const OPACITY: f64 = 0.75;

#[derive(Template)]
#[template(path = "explanation.html")]
struct ExplanationPage<'a> {
    caption: &'a str,
    image: &'a str,
    model: &'a str,
    similarity: String,
    picture: String,
    /// The document as JSON that cannot end its element.
    json: String,
}

/// The document as indented JSON.
///
/// # Errors
/// [`Error::Template`]; values are finite, so none is expected.
pub fn json(document: &ExplanationDocument<'_>) -> Result<String> {
    let text = serde_json::to_string_pretty(document).map_err(|source| Error::Template { source: source.into() })?;
    Ok(text + "\n")
}

/// A page that needs no other file: the picture, the words, and which patches add to which word.
///
/// # Errors
/// [`Error::Template`] if the picture cannot be encoded.
pub fn page(document: &ExplanationDocument<'_>, image: &RgbImage) -> Result<String> {
    let template = |source: Box<dyn std::error::Error + Send + Sync>| Error::Template { source };
    let picture = data_url(image, SIDE, QUALITY).map_err(|source| template(source.into()))?;
    let json = serde_json::to_string(document).map_err(|source| template(source.into()))?;
    let page = ExplanationPage {
        caption: document.caption,
        image: &document.image,
        model: &document.model.entry,
        similarity: format!("{:.4}", document.similarity),
        picture,
        // `</script>` in a caption or a file name would end the element.
        json: json.replace('<', "\\u003c"),
    };
    page.render().map_err(|source| template(source.into()))
}

/// The image as PNG under the map of what each patch adds to the similarity, or to that of the word of index `word`.
/// Red adds, blue takes away, and the strongest patch is the most opaque.
///
/// # Errors
/// [`Error::Template`] if the image is too large for the format.
pub fn overlay(document: &ExplanationDocument<'_>, image: &RgbImage, word: Option<usize>) -> Result<Vec<u8>> {
    let map: Vec<f64> = match word.and_then(|word| document.words.get(word)) {
        Some(word) => word.patches.to_vec(),
        None => document.patches.iter().map(|patch| patch.contribution).collect(),
    };
    let overlay = overlaid(image, document.grid, &map);
    let overlay = overlay.ok_or_else(|| Error::Template { source: "the image has no pixels".into() })?;
    image::png(&overlay).map_err(|source| Error::Template { source: source.into() })
}

/// The image under a map of its patches, whose grid has this number of rows and columns; None for an image without pixels.
pub(crate) fn overlaid(image: &RgbImage, [rows, columns]: [usize; 2], map: &[f64]) -> Option<RgbImage> {
    let largest = map.iter().fold(f64::MIN_POSITIVE, |largest, part| largest.max(part.abs()));
    let (width, height) = (image.width(), image.height());
    let mut pixels = image.pixels().to_vec();
    for (index, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (row, column) = (index / width * rows / height, index % width * columns / width);
        let part = map.get(row * columns + column).copied().unwrap_or_default();
        let color = COLORS[usize::from(part < 0.0)];
        let opacity = OPACITY * part.abs() / largest;
        for (channel, color) in pixel.iter_mut().zip(color) {
            *channel = (f64::from(*channel) * (1.0 - opacity) + color * opacity).round() as u8;
        }
    }
    RgbImage::new(width, height, pixels)
}
