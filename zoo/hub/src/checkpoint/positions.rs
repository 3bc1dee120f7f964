//! Position embeddings of another image size.

use laps_model::{array::Array, models::config::ImageConfig, params::Parameter};

/// Name of the position embeddings in a model, `(1, 1 + side * side, width)` with the class token first.
pub(super) const NAME: &str = "img_enc.visual_encoder.embeddings.position_embeddings";
/// The free parameter of the bicubic filter in PyTorch. Pillow's is -0.5.
const A: f64 = -0.75;

/// Sides of the grids of position embeddings of `shape` and of those of the model, if they have to be resized: the encoder
/// asks for it, and the shapes differ in nothing but the side.
pub(super) fn sides(image: &ImageConfig, shape: &[usize], parameters: &[Parameter]) -> Option<[usize; 2]> {
    if !image.interpolates_positions() {
        return None;
    }
    let wanted = &parameters.iter().find(|parameter| parameter.name == NAME)?.shape;
    let (&[1, from, width], &[1, to, wanted_width]) = (shape, wanted.as_slice()) else { return None };
    let side = |tokens: usize| {
        let patches = tokens.checked_sub(1)?;
        Some(patches.isqrt()).filter(|side| *side > 0 && side * side == patches)
    };
    (width == wanted_width && from != to).then_some([side(from)?, side(to)?])
}

/// Resizes position embeddings `(1, 1 + from * from, width)` to `(1, 1 + to * to, width)` as
/// `torch.nn.functional.interpolate` does with `mode="bicubic"`, `align_corners=False` and a size. The embedding of the class
/// token stays.
///
/// # Errors
/// A shape that does not fit `from`.
pub(super) fn resize(positions: &Array, [from, to]: [usize; 2]) -> laps_model::Result<Array> {
    let width = positions.dims().last().copied().unwrap_or(0);
    let taps = taps(from, to);
    let values = positions.values();
    let (class_token, grid) = values.split_at(width.min(values.len()));
    let mut resized = class_token.to_vec();
    for row in &taps {
        for column in &taps {
            let mut sums = vec![0.0; width];
            for &(y, down) in row {
                for &(x, across) in column {
                    let at = (y * from + x) * width;
                    for (sum, value) in sums.iter_mut().zip(grid.iter().skip(at)) {
                        *sum += down * across * f64::from(*value);
                    }
                }
            }
            resized.extend(sums.into_iter().map(|sum| sum as f32));
        }
    }
    Array::new(&[1, 1 + to * to, width], resized)
}

/// The four positions of the old side that make each position of the new one, and their weights. Beyond the edge positions
/// repeat.
fn taps(from: usize, to: usize) -> Vec<[(usize, f64); 4]> {
    let scale = from as f64 / to as f64;
    let weight = |distance: f64| {
        let x = distance.abs();
        match x {
            ..1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            1.0..2.0 => ((x - 5.0) * x + 8.0) * x * A - 4.0 * A,
            _ => 0.0,
        }
    };
    let position = |index: usize| {
        let center = (index as f64 + 0.5) * scale - 0.5;
        [-1.0, 0.0, 1.0, 2.0].map(|offset| {
            let at = center.floor() + offset;
            (at.clamp(0.0, (from - 1) as f64) as usize, weight(center - at))
        })
    };
    (0..to).map(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: `torch.nn.functional.interpolate` of PyTorch 2.13 in f64, of a grid of 3 x 3 to 5 x 5 and to 2 x 2.
    #[test]
    fn positions_are_those_of_pytorch() {
        let grid = (0..18).map(|index| (1.3 * f64::from(index)).sin() as f32);
        let positions = Array::new(&[1, 10, 2], [7.0, 8.0].into_iter().chain(grid).collect()).unwrap();
        let larger = [
            -0.166931, 1.189209, 0.310405, 0.304311, 0.644461, -0.680641, -0.313911, -0.300608, -1.167296, 0.219923,
            0.497012, 0.958747, 0.296177, 0.074033, -0.021765, -0.815024, -0.296059, -0.069600, -0.451951, 0.728598,
            1.173875, 0.422882, 0.200056, -0.226272, -0.827826, -0.761984, -0.195553, 0.230417, 0.539974, 1.154652,
            0.651357, -0.545053, -0.100468, -0.295389, -0.788074, 0.069597, 0.104755, 0.295010, 0.980193, 0.400966,
            0.080382, -1.220388, -0.325155, -0.287628, -0.583425, 0.736822, 0.328329, 0.283620, 1.127484, -0.305055,
        ];
        let smaller = [0.273714, 0.454215, -0.424534, 0.104116, 0.052495, -0.446564, 0.468688, 0.229138];
        for (to, expected) in [(5, larger.as_slice()), (2, &smaller)] {
            let resized = resize(&positions, [3, to]).unwrap();
            assert_eq!(resized.dims(), [1, 1 + to * to, 2]);
            assert_eq!(resized.values()[..2], [7.0, 8.0]);
            for (found, expected) in resized.values()[2..].iter().zip(expected) {
                // The expected values have six decimals.
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} and {expected}");
            }
        }
    }

    #[test]
    fn grid_of_the_same_size_is_unchanged() {
        let positions = Array::new(&[1, 5, 1], vec![0.1, 0.2, 0.3, -4.0, 5.0]).unwrap();
        assert_eq!(resize(&positions, [2, 2]).unwrap(), positions);
    }
}
