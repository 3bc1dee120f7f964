//! One vector for an image or a caption.

use super::IndexKind;

/// How the embeddings of an item are reduced to one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemPooling {
    /// The mean of the normalised rows.
    Mean,
    /// The class token, which is the first row, plus the mean of the other rows, each of the two normalised.
    ClassTokenAndMean,
}

impl ItemPooling {
    /// How embeddings of `kind` are pooled.
    pub(crate) fn of(kind: IndexKind, has_class_token: bool) -> Self {
        match kind {
            IndexKind::Images if has_class_token => Self::ClassTokenAndMean,
            IndexKind::Images | IndexKind::Captions => Self::Mean,
        }
    }
}

/// Pools embeddings `(rows, dim)` into one vector `(dim)` of norm 1.
///
/// For an image with a class token neither summand is enough alone: on the drawn scenes the patches of a ViT hold little of
/// what a caption says, and the class token alone loses some of the lower ranks.
pub(crate) fn pool(embeddings: &[f32], dim: usize, pooling: ItemPooling) -> Vec<f32> {
    let dim = dim.max(1);
    let (class_token, rows) = match pooling {
        ItemPooling::ClassTokenAndMean => embeddings.split_at(dim.min(embeddings.len())),
        ItemPooling::Mean => embeddings.split_at(0),
    };
    let mut mean = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        add_normalised(&mut mean, row);
    }
    let mut vector = vec![0.0; dim];
    add_normalised(&mut vector, &mean);
    if !class_token.is_empty() {
        add_normalised(&mut vector, class_token);
        let sum = std::mem::replace(&mut vector, vec![0.0; dim]);
        add_normalised(&mut vector, &sum);
    }
    vector
}

fn add_normalised(sum: &mut [f32], row: &[f32]) {
    let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / norm);
}
