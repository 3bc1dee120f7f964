//! Where the objects of drawn scenes are.

use super::{
    DrawnConfig, DrawnSplit, PIXELS, SceneError,
    captions::shape_words,
    groups, outline,
    scene::{PlacedObject, UNIT},
};

/// An object of a drawn scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawnObject {
    /// The words for its shape.
    pub nouns: [&'static str; 2],
    /// Whether each of the [`PIXELS`] x [`PIXELS`] pixels, row by row, shows the object: not one in front of it.
    pub visible: Vec<bool>,
}

/// The objects of each scene of a split, in the order of its images.
///
/// # Errors
/// [`SceneError::TooMany`].
pub fn objects(config: &DrawnConfig, split: DrawnSplit) -> Result<Vec<Vec<DrawnObject>>, SceneError> {
    let scenes = groups::draw(config, split)?;
    Ok(scenes.iter().map(|captioned| visible_objects(&captioned.scene.objects)).collect())
}

/// The first object lies over the second.
fn visible_objects(placed: &[PlacedObject]) -> Vec<DrawnObject> {
    let mut covered = vec![false; PIXELS * PIXELS];
    let object = |placed: &PlacedObject| {
        let visible: Vec<bool> = (0..covered.len()).map(|pixel| !covered[pixel] && contains(*placed, pixel)).collect();
        covered.iter_mut().zip(&visible).for_each(|(covered, visible)| *covered |= visible);
        DrawnObject { nouns: shape_words(placed.object.shape), visible }
    };
    placed.iter().map(object).collect()
}

/// Whether the middle of a pixel lies in an object.
fn contains(placed: PlacedObject, pixel: usize) -> bool {
    let place = |value: i32| f64::from(value) / f64::from(UNIT);
    let (column, row) = ((pixel % PIXELS) as f64 + 0.5, (pixel / PIXELS) as f64 + 0.5);
    let radius = place(placed.radius);
    outline::contains(placed.object.shape, (column - place(placed.x)) / radius, (row - place(placed.y)) / radius)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::{raster, scene::Colour};

    #[test]
    fn visible_pixels_have_the_colour_of_their_object() {
        let config = DrawnConfig { seed: 3, train: 1, dev: 1, test: 20 };
        let scenes = groups::draw(&config, DrawnSplit::Test).unwrap();
        for (captioned, objects) in scenes.iter().zip(objects(&config, DrawnSplit::Test).unwrap()) {
            let picture = raster::draw(&captioned.scene);
            assert!(objects.len() >= 2);
            for (object, placed) in objects.iter().zip(&captioned.scene.objects) {
                let near = |pixel: &usize| {
                    let colour: Colour = placed.object.colour;
                    let difference = |channel: usize| i32::from(picture[3 * pixel + channel]) - colour.rgb()[channel];
                    (0..3).all(|channel| difference(channel).abs() < 60)
                };
                let shown: Vec<usize> = (0..PIXELS * PIXELS).filter(|&pixel| object.visible[pixel]).collect();
                let count = shown.iter().filter(|pixel| near(pixel)).count();
                // The rim is darker, and lies within the outline: up to 40 % of the pixels of a small shape.
                assert!(count * 10 >= shown.len() * 6 && !shown.is_empty(), "{count} of {}", shown.len());
            }
        }
    }
}
