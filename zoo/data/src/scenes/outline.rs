//! Outlines of the shapes.

use super::scene::{PlacedObject, Shape, UNIT};

/// Corners of a five-pointed star with its points on a circle of radius 1.05, in turn a point and a notch.
const STAR: [(f64, f64); 10] = [
    (0.0, -1.05),
    (0.258_602, -0.355_935),
    (0.998_609, -0.324_468),
    (0.418_427, 0.135_955),
    (0.617_175, 0.849_468),
    (0.0, 0.44),
    (-0.617_175, 0.849_468),
    (-0.418_427, 0.135_955),
    (-0.998_609, -0.324_468),
    (-0.258_602, -0.355_935),
];

/// Whether a point lies in the shape of radius 1 around the origin; `y` points down. Sums and products only, which are
/// the same on every platform.
pub(super) fn contains(shape: Shape, x: f64, y: f64) -> bool {
    match shape {
        Shape::Circle => x * x + y * y <= 1.0,
        Shape::Square => x.abs() <= 0.88 && y.abs() <= 0.88,
        Shape::Triangle => y <= 0.85 && x.abs() <= (y + 1.0) * 0.55,
        Shape::Cross => (x.abs() <= 0.34 && y.abs() <= 1.0) || (y.abs() <= 0.34 && x.abs() <= 1.0),
        Shape::Heart => {
            let (x, y) = (1.17 * x, 0.14 - 1.12 * y);
            let ring = x * x + y * y - 1.0;
            ring * ring * ring - x * x * y * y * y <= 0.0
        }
        Shape::Star => {
            let mut inside = false;
            let mut last = STAR[STAR.len() - 1];
            for corner in STAR {
                let crosses = (corner.1 > y) != (last.1 > y);
                if crosses && x < (last.0 - corner.0) * (y - corner.1) / (last.1 - corner.1) + corner.0 {
                    inside = !inside;
                }
                last = corner;
            }
            inside
        }
    }
}

/// How far below its centre a shape is widest, in hundredths of the radius: where something inside it looks right.
pub(super) fn middle(shape: Shape) -> i32 {
    match shape {
        Shape::Triangle => 28,
        Shape::Heart => -8,
        _ => 0,
    }
}

/// How two objects cover each other, counted in pixels.
pub(super) struct Overlap {
    front: usize,
    back: usize,
    both: usize,
}

/// The overlap of two objects at the centres given, in [`UNIT`]s.
pub(super) fn overlap(front: PlacedObject, front_at: (i32, i32), back: PlacedObject, back_at: (i32, i32)) -> Overlap {
    let reach = (2 * (front.radius + back.radius)) / UNIT;
    let inside = |object: PlacedObject, at: (i32, i32), x: i32, y: i32| {
        let scale = f64::from(object.radius);
        contains(object.object.shape, f64::from(x * UNIT - at.0) / scale, f64::from(y * UNIT - at.1) / scale)
    };
    let mut overlap = Overlap { front: 0, back: 0, both: 0 };
    for y in -reach..=reach {
        for x in -reach..=reach {
            let (front, back) = (inside(front, front_at, x, y), inside(back, back_at, x, y));
            overlap.front += usize::from(front);
            overlap.back += usize::from(back);
            overlap.both += usize::from(front && back);
        }
    }
    overlap
}

impl Overlap {
    /// Whether at least `percent` of the front object lies on the back one.
    pub(super) fn covers_front(&self, percent: usize) -> bool {
        self.front > 0 && 100 * self.both >= percent * self.front
    }

    /// Whether a person sees that one object covers a part of the other, and still what each of them is.
    pub(super) fn is_clear(&self) -> bool {
        self.both >= 20 && 100 * self.both >= 12 * self.back.min(self.front) && 100 * self.both <= 36 * self.back
    }
}
