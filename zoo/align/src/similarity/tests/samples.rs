//! Random embeddings and weights. A seed gives the same values on every machine.

use laps_align::{
    Result,
    similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, Engine},
};
use laps_model::array::Array;

/// The published ViT-224.
pub(crate) const VIT: AlignmentConfig =
    AlignmentConfig { patches: 196, has_class_token: true, kept: 98, groups: 39, width: 512 };

/// The published Swin-224.
pub(crate) const SWIN: AlignmentConfig =
    AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: 512 };

/// Xorshift generator.
pub(crate) struct SampleGenerator(pub(crate) u64);

impl SampleGenerator {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    /// Approximately normal values with standard deviation `spread`.
    pub(crate) fn normal(&mut self, shape: &[usize], spread: f32) -> Array {
        let count = shape.iter().product();
        let values = (0..count).map(|_| ((0..12).map(|_| self.next()).sum::<f32>() - 6.0) * spread).collect();
        Array::new(shape, values).unwrap()
    }

    /// Weights whose logits have a standard deviation of about `scale`.
    pub(crate) fn weights(&mut self, config: &AlignmentConfig, scale: f32) -> AggregationWeights {
        let [width, hidden, groups] = [config.width, (config.width / 5).max(1), config.groups];
        AggregationWeights {
            norm_weight: self.normal(&[width], 1.0),
            norm_bias: self.normal(&[width], 0.1),
            hidden_weight: self.normal(&[hidden, width], (width as f32).powf(-0.5)),
            hidden_bias: self.normal(&[hidden], 0.1),
            group_weight: self.normal(&[groups, hidden], (hidden as f32).powf(-0.5)),
            group_bias: self.normal(&[groups], 0.1),
            scale: Array::new(&[1, 1, 1], vec![scale]).unwrap(),
        }
    }

    /// Embeddings `(count, rows, width)` around a common direction of length `shared`, like those of trained models.
    pub(crate) fn embeddings(&mut self, shape: [usize; 3], shared: f32) -> Array {
        let direction = self.normal(&[shape[2]], shared);
        let mut values = self.normal(&shape, 1.0).into_values();
        for row in values.chunks_exact_mut(shape[2]) {
            row.iter_mut().zip(direction.values()).for_each(|(value, shared)| *value += shared);
        }
        Array::new(&shape, values).unwrap()
    }

    /// Two images whose patches stand in nearly opposite pairs.
    pub(crate) fn opposite_pairs(&mut self, config: &AlignmentConfig) -> Array {
        let shape = [2, config.tokens(), config.width];
        let mut values = self.embeddings(shape, 0.0).into_values();
        let first = usize::from(config.has_class_token);
        for image in values.chunks_exact_mut(config.tokens() * config.width) {
            let patches = &mut image[first * config.width..];
            for pair in patches.chunks_exact_mut(2 * config.width) {
                let (one, other) = pair.split_at_mut(config.width);
                one.iter().zip(other).for_each(|(one, other)| *other = 0.15 * *other - one);
            }
        }
        Array::new(&shape, values).unwrap()
    }

    /// Captions of the given lengths, around a common direction.
    pub(crate) fn captions(&mut self, lengths: &[usize], width: usize, shared: f32) -> Vec<Array> {
        let words = self.embeddings([1, lengths.iter().sum(), width], shared);
        let mut start = 0;
        let cut = |&length: &usize| {
            start += length;
            Array::new(&[length, width], words.values()[(start - length) * width..start * width].to_vec()).unwrap()
        };
        lengths.iter().map(cut).collect()
    }
}

/// Similarity of one image `(tokens, width)` and one caption `(words, width)`.
pub(crate) fn score(engine: &Engine, image: &Array, caption: &Array) -> Result<f32> {
    let image = Array::new(&[&[1], image.dims()].concat(), image.values().to_vec())?;
    let captions = CaptionMatrix::from_arrays(std::slice::from_ref(caption), engine.config().width)?;
    Ok(engine.similarities(&image, &captions)?.values()[0])
}
