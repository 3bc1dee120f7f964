//! One vector for an image or a caption.

/// Whether the first row of some embeddings stands for all of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRow {
    /// The class token of an image.
    ClassToken,
    /// A patch or a word like the others.
    Plain,
}

/// One vector for embeddings `(rows, width)`, normalised: the mean of the rows, each normalised; where there is a class
/// token, the sum of it and of the mean of the patches, both normalised.
///
/// For an image with a class token neither part will do alone: on the drawn scenes the patches of a ViT hold little of what
/// a caption says, and the class token alone loses some of the lower places.
pub fn pool(embeddings: &[f32], width: usize, first: FirstRow) -> Vec<f32> {
    let width = width.max(1);
    let (class, rows) = match first {
        FirstRow::ClassToken => embeddings.split_at(width.min(embeddings.len())),
        FirstRow::Plain => embeddings.split_at(0),
    };
    let mut mean = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        add_normalised(&mut mean, row);
    }
    let mut vector = vec![0.0; width];
    add_normalised(&mut vector, &mean);
    if !class.is_empty() {
        add_normalised(&mut vector, class);
        let sum = std::mem::replace(&mut vector, vec![0.0; width]);
        add_normalised(&mut vector, &sum);
    }
    vector
}

fn add_normalised(sum: &mut [f32], row: &[f32]) {
    let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / norm);
}
