//! Drawing: pixels from a scene.

use super::{
    outline,
    scene::{Colour, PlacedObject, Scene, UNIT},
};

/// Width and height of a picture in pixels.
pub const PIXELS: usize = 64;

/// Samples of a pixel on each axis.
const SAMPLES: usize = 4;
/// Width of the dark rim of an object in pixels.
const RIM: f64 = 1.1;
/// How far the shadow of an object lies to the right of and below it, in pixels.
const SHADOW: (f64, f64) = (1.0, 1.75);

/// Backgrounds: muted, and neither so light nor so dark that a white or black object drowns.
const BACKGROUNDS: [[i32; 3]; 6] =
    [[166, 171, 178], [184, 172, 152], [150, 168, 174], [160, 174, 152], [178, 162, 172], [142, 150, 164]];

impl Colour {
    /// Red, green, blue.
    pub(super) fn rgb(self) -> [i32; 3] {
        match self {
            Self::Red => [214, 44, 44],
            Self::Yellow => [248, 212, 52],
            Self::Green => [44, 158, 64],
            Self::Blue => [44, 92, 214],
            Self::Purple => [142, 62, 176],
            Self::White => [243, 243, 241],
            Self::Black => [34, 34, 38],
        }
    }
}

/// The scene as `PIXELS x PIXELS x 3` bytes: red, green, blue, row by row.
pub(super) fn draw(scene: &Scene) -> Vec<u8> {
    let base = BACKGROUNDS[scene.jitter.background % BACKGROUNDS.len()];
    let mut picture = Vec::with_capacity(PIXELS * PIXELS);
    for row in 0..PIXELS as i32 {
        let light = (PIXELS as i32 / 2 - row) / 3;
        picture.extend(std::iter::repeat_n(base.map(|channel| channel + light), PIXELS));
    }
    // The first object comes last, so that it lies over the second.
    for index in (0..scene.objects.len()).rev() {
        paint(&mut picture, scene.objects[index], scene.jitter.tint[index]);
    }
    picture.into_iter().flatten().map(|channel| channel.clamp(0, 255) as u8).collect()
}

/// Lays the shadow of an object, its rim and its face over the picture.
fn paint(picture: &mut [[i32; 3]], placed: PlacedObject, tint: [i32; 3]) {
    let colour = placed.object.colour.rgb();
    let radius = f64::from(placed.radius) / f64::from(UNIT);
    let inner = radius / (radius - RIM);
    let centre = (f64::from(placed.x) / f64::from(UNIT), f64::from(placed.y) / f64::from(UNIT));
    for (index, pixel) in picture.iter_mut().enumerate() {
        let (column, row) = ((index % PIXELS) as f64, (index / PIXELS) as f64);
        if (column - centre.0).abs() > radius + 4.0 || (row - centre.1).abs() > radius + 4.0 {
            continue;
        }
        let (mut shadow, mut rim, mut face) = (0, 0, 0);
        for sample in 0..SAMPLES * SAMPLES {
            let step = |number: usize| (number as f64 + 0.5) / SAMPLES as f64;
            let x = (column + step(sample % SAMPLES) - centre.0) / radius;
            let y = (row + step(sample / SAMPLES) - centre.1) / radius;
            let shape = placed.object.shape;
            shadow += i32::from(outline::contains(shape, x - SHADOW.0 / radius, y - SHADOW.1 / radius));
            if outline::contains(shape, x, y) {
                let in_face = outline::contains(shape, x * inner, y * inner);
                *(if in_face { &mut face } else { &mut rim }) += 1;
            }
        }
        let all = (SAMPLES * SAMPLES) as i32;
        // Lighter towards the top.
        let light = ((centre.1 - row) * 14.0 / radius) as i32;
        for (channel, value) in pixel.iter_mut().enumerate() {
            let shaded = *value - *value * shadow / (all * 4);
            let (rim_value, face_value) = (colour[channel] * 5 / 9, colour[channel] + tint[channel] + light);
            *value = (shaded * (all - rim - face) + rim_value * rim + face_value.clamp(0, 255) * face) / all;
        }
    }
}
