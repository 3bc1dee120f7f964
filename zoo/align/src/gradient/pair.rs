//! The gradient of one pair.

use std::ops::Range;

use super::{
    image::{ImageGradients, ImagePairs},
    scratch::GradientScratch,
    vector::MergedVector,
};
use crate::{
    Result,
    similarity::{CANCELLATION, LEAKY_SLOPE, MIN_SQUARED_NORM, patches, select_patches},
};
use laps_model::array::product::{Accumulate, MatrixView, product};

/// Computes the gradient of an image and one of its captions.
pub(super) struct PairGradient<'a> {
    pub(super) image: &'a ImagePairs<'a>,
    /// Words of the caption among those of the paired captions.
    pub(super) words: Range<usize>,
    /// Weight of each word in the normalised mean.
    pub(super) mean_weights: &'a [f32],
}

impl PairGradient<'_> {
    /// Adds `factor` times the gradient of the similarity to `sums`.
    pub(super) fn differentiate(
        &self,
        factor: f32,
        scratch: &mut GradientScratch,
        sums: &mut ImageGradients,
    ) -> Result<()> {
        self.select(scratch);
        self.gather(scratch);
        self.multiply(scratch)?;
        let vectors = self.norms(scratch);
        self.max_mean(factor, scratch);

        let (groups, words) = (self.image.config.groups, self.words.len());
        for token in &vectors {
            let row = &mut scratch.gradients[token.column * words..][..words];
            token.differentiate(self, row, &scratch.cosines[token.column * words..][..words], sums);
            row.fill(0.0);
        }
        for (column, square) in scratch.squares.iter_mut().enumerate() {
            let [cosines, gradients] =
                [&scratch.cosines, &scratch.gradients].map(|rows| &rows[column * words..][..words]);
            let projection: f32 = cosines.iter().zip(gradients).map(|(cosine, gradient)| cosine * gradient).sum();
            *square = -projection / (2.0 * scratch.norms[column] * scratch.norms[column]);
        }
        let rows = scratch.gradients.chunks_exact_mut(words).zip(&scratch.norms);
        rows.for_each(|(row, norm)| row.iter_mut().for_each(|value| *value /= norm));
        self.backward_groups(scratch, sums)?;
        self.backward_fused(groups, scratch, sums);
        if self.image.config.has_class_token {
            self.backward_class_token(groups + 1, scratch, sums);
        }
        Ok(())
    }

    /// Columns of the caption's words in a row of the image's products.
    fn row<'b>(&self, table: &'b [f32], token: usize) -> &'b [f32] {
        &table[token * self.image.word_count()..][self.words.clone()]
    }

    /// Selects the patches that the caption keeps, and computes the weights of the dropped ones.
    fn select(&self, scratch: &mut GradientScratch) {
        let (image, kept) = (self.image, self.image.config.kept);
        let GradientScratch { scores, mask, order, fused, .. } = scratch;
        for (patch, score) in scores[..image.config.patches].iter_mut().enumerate() {
            let row = self.row(&image.products, patch).iter().zip(self.mean_weights);
            let across: f32 = row.map(|(product, weight)| product * weight).sum();
            *score = image.mean_scores[patch] + (f64::from(across) / image.tokens.norms[patch]) as f32;
        }
        select_patches(image.level, scores, image.config.patches, kept, mask);
        order.iter_mut().zip(patches(mask)).for_each(|(slot, patch)| *slot = patch as u32);
        let is_dropped = |patch: &usize| mask[patch / 64] >> (patch % 64) & 1 == 0;
        let dropped = (0..image.config.patches).filter(is_dropped);
        order[kept..].iter_mut().zip(dropped).for_each(|(slot, patch)| *slot = patch as u32);
        let dropped = &order[kept..];
        let largest = dropped.iter().map(|&patch| scores[patch as usize]).fold(f32::NEG_INFINITY, f32::max);
        fused.iter_mut().zip(dropped).for_each(|(weight, &patch)| *weight = (scores[patch as usize] - largest).exp());
        let total: f32 = fused.iter().sum();
        fused.iter_mut().for_each(|weight| *weight /= total);
    }

    /// Copies the tables of the kept patches.
    fn gather(&self, scratch: &mut GradientScratch) {
        let (image, groups, patches) = (self.image, self.image.config.groups, self.image.config.patches);
        let kept = &scratch.order[..image.config.kept];
        for (row, &patch) in kept.iter().enumerate() {
            let patch = patch as usize;
            scratch.factors[row * groups..][..groups].copy_from_slice(&image.factors[patch * groups..][..groups]);
            scratch.products[row * self.words.len()..][..self.words.len()]
                .copy_from_slice(self.row(&image.products, patch));
            let products = &image.gram[patch * patches..][..patches];
            let to = &mut scratch.gram[row * kept.len()..][..kept.len()];
            to.iter_mut().zip(kept).for_each(|(slot, &other)| *slot = products[other as usize]);
        }
    }

    /// Computes the products of the merged tokens with the words, those of the groups with the patches, and squared norms.
    fn multiply(&self, scratch: &mut GradientScratch) -> Result<()> {
        let (image, words) = (self.image, self.words.len());
        let (kept, groups) = (image.config.kept, image.config.groups);
        let GradientScratch { order, fused, factors, gram, group_products, products, cosines, squares, .. } = scratch;
        product(
            group_products,
            Accumulate::Overwrite,
            [kept, kept, groups],
            MatrixView::rows(gram, kept),
            MatrixView::rows(factors, groups),
        )?;
        product(
            &mut cosines[..groups * words],
            Accumulate::Overwrite,
            [groups, kept, words],
            MatrixView::columns(factors, groups),
            MatrixView::rows(products, words),
        )?;
        squares.fill(0.0);
        for (group_products, factors) in group_products.chunks_exact(groups).zip(factors.chunks_exact(groups)) {
            let terms = group_products.iter().zip(factors);
            squares.iter_mut().zip(terms).for_each(|(sum, (group_products, factor))| *sum += group_products * factor);
        }

        let row = &mut cosines[groups * words..][..words];
        row.fill(0.0);
        let dropped = &order[kept..];
        for (&patch, &weight) in dropped.iter().zip(fused.iter()) {
            let products = self.row(&image.products, patch as usize);
            row.iter_mut().zip(products).for_each(|(sum, product)| *sum += weight * product);
            let gram = &image.gram[patch as usize * image.config.patches..];
            let projection: f32 =
                dropped.iter().zip(fused.iter()).map(|(&other, weight)| gram[other as usize] * weight).sum();
            squares[groups] += weight * projection;
        }
        if image.config.has_class_token {
            let class_token = self.row(&image.products, image.config.patches);
            cosines[(groups + 1) * words..][..words].copy_from_slice(class_token);
        }
        Ok(())
    }

    /// Computes the norms of the merged tokens. Tokens whose squared norm has lost too many digits are computed as vectors and
    /// returned.
    fn norms(&self, scratch: &mut GradientScratch) -> Vec<MergedVector> {
        let (image, words) = (self.image, self.words.len());
        let (kept, groups) = (image.config.kept, image.config.groups);
        let GradientScratch { order, fused, factors, cosines, norms, squares, .. } = scratch;
        let mut floors = vec![0.0f64; groups + 1];
        let square = |factor: f32, patch: u32| {
            (f64::from(factor) * image.tokens.norms[patch as usize]).powi(2) / f64::from(CANCELLATION)
        };
        for (&patch, factors) in order[..kept].iter().zip(factors.chunks_exact(groups)) {
            floors.iter_mut().zip(factors).for_each(|(sum, &factor)| *sum += square(factor, patch));
        }
        floors[..groups].iter_mut().for_each(|floor| *floor = floor.max(f64::from(MIN_SQUARED_NORM)));
        floors[groups] = order[kept..].iter().zip(fused.iter()).map(|(&patch, &weight)| square(weight, patch)).sum();

        let mut vectors = Vec::new();
        for (column, (&square, floor)) in squares.iter().zip(floors).enumerate() {
            // If no patch is dropped, the fused patch is the zero vector and its cosines are 0.
            let is_zero = column == groups && kept == order.len();
            norms[column] = if is_zero { 1.0 } else { square.sqrt() };
            if !is_zero && (square.is_nan() || f64::from(square) < floor) {
                let token = match column == groups {
                    true => MergedVector::fused(image, column, &order[kept..], fused),
                    false => MergedVector::group(image, column, &order[..kept]),
                };
                token.multiply(self, &mut cosines[column * words..][..words]);
                norms[column] = token.norm as f32;
                vectors.push(token);
            }
        }
        if image.config.has_class_token {
            norms[groups + 1] = image.tokens.norms[image.config.patches] as f32;
        }
        vectors
    }

    /// Computes the cosines, and `factor` times the gradient of the similarity with respect to them. The cosines of each word
    /// with its nearest token and of each token with its nearest word have a gradient.
    fn max_mean(&self, factor: f32, scratch: &mut GradientScratch) {
        let words = self.words.len();
        let GradientScratch { cosines, gradients, norms, .. } = scratch;
        let tokens = norms.len();
        gradients.fill(0.0);
        let cosines = &mut cosines[..tokens * words];
        for (row, norm) in cosines.chunks_exact_mut(words).zip(norms.iter()) {
            row.iter_mut().for_each(|value| *value /= norm);
        }
        let mut add = |index: usize, count: usize| {
            let slope = if cosines[index] > 0.0 { 1.0 } else { LEAKY_SLOPE };
            gradients[index] += factor * slope / count as f32;
        };
        for token in 0..tokens {
            add(nearest((0..words).map(|word| token * words + word), cosines), tokens);
        }
        for word in 0..words {
            add(nearest((0..tokens).map(|token| token * words + word), cosines), words);
        }
    }

    fn backward_groups(&self, scratch: &mut GradientScratch, sums: &mut ImageGradients) -> Result<()> {
        let (image, words) = (self.image, self.words.len());
        let (kept, groups, patches) = (image.config.kept, image.config.groups, image.config.patches);
        let GradientScratch {
            order, factors, scaled_factors, gram, group_products, products, gradients, squares, ..
        } = scratch;
        let gradients = &gradients[..groups * words];

        for ((group_products, scaled_factors), factors) in group_products
            .chunks_exact_mut(groups)
            .zip(scaled_factors.chunks_exact_mut(groups))
            .zip(factors.chunks_exact(groups))
        {
            for (group, square) in squares[..groups].iter().enumerate() {
                group_products[group] *= 2.0 * square;
                scaled_factors[group] = factors[group] * square;
            }
        }
        product(
            group_products,
            Accumulate::Add,
            [kept, words, groups],
            MatrixView::rows(products, words),
            MatrixView::columns(gradients, words),
        )?;
        product(
            products,
            Accumulate::Overwrite,
            [kept, groups, words],
            MatrixView::rows(factors, groups),
            MatrixView::rows(gradients, words),
        )?;
        product(
            gram,
            Accumulate::Overwrite,
            [kept, groups, kept],
            MatrixView::rows(scaled_factors, groups),
            MatrixView::columns(factors, groups),
        )?;
        // The similarity does not depend on the length of a group, so this projection is 0 except for rounding errors, which
        // large logits would amplify.
        let mut projection = vec![[0.0f32; 2]; groups];
        for (group_products, factors) in group_products.chunks_exact(groups).zip(factors.chunks_exact(groups)) {
            for (sums, (gradient, factor)) in projection.iter_mut().zip(group_products.iter().zip(factors)) {
                *sums = [sums[0] + gradient * factor, sums[1] + factor];
            }
        }
        let excess: Vec<f32> =
            projection.iter().map(|[projection, total]| projection / total.max(f32::MIN_POSITIVE)).collect();
        let kept = &order[..kept];
        for (row, &patch) in kept.iter().enumerate() {
            let patch = patch as usize;
            let to = &mut sums.logits[patch * groups..][..groups];
            let own = group_products[row * groups..].iter().zip(&factors[row * groups..]).zip(&excess);
            to.iter_mut().zip(own).for_each(|(sum, ((gradient, factor), excess))| *sum += (gradient - excess) * factor);
            let to = &mut sums.products[patch * image.word_count()..][self.words.clone()];
            to.iter_mut().zip(&products[row * words..]).for_each(|(sum, gradient)| *sum += gradient);
            let to = &mut sums.gram[patch * patches..][..patches];
            let own = &gram[row * kept.len()..][..kept.len()];
            kept.iter().zip(own).for_each(|(&other, gradient)| to[other as usize] += gradient);
        }
        Ok(())
    }

    fn backward_fused(&self, column: usize, scratch: &GradientScratch, sums: &mut ImageGradients) {
        let (image, words) = (self.image, self.words.len());
        let gradients = &scratch.gradients[column * words..][..words];
        let (dropped, square) = (&scratch.order[image.config.kept..], scratch.squares[column]);
        for (&patch, &weight) in dropped.iter().zip(&scratch.fused) {
            let to = &mut sums.products[patch as usize * image.word_count()..][self.words.clone()];
            to.iter_mut().zip(gradients).for_each(|(sum, gradient)| *sum += weight * gradient);
            let to = &mut sums.gram[patch as usize * image.config.patches..];
            let others = dropped.iter().zip(&scratch.fused);
            others.for_each(|(&other, other_weight)| to[other as usize] += square * weight * other_weight);
        }
    }

    fn backward_class_token(&self, column: usize, scratch: &GradientScratch, sums: &mut ImageGradients) {
        let (image, words, width) = (self.image, self.words.len(), self.image.config.width);
        let row = image.config.patches;
        let to = &mut sums.products[row * image.word_count()..][self.words.clone()];
        to.iter_mut().zip(&scratch.gradients[column * words..]).for_each(|(sum, gradient)| *sum += gradient);
        let twice = 2.0 * scratch.squares[column];
        let to = &mut sums.tokens[row * width..];
        to.iter_mut().zip(&image.tokens.values[row * width..]).for_each(|(sum, value)| *sum += twice * value);
    }
}

/// The first index of the largest of some values.
fn nearest(mut indices: impl Iterator<Item = usize>, values: &[f32]) -> usize {
    let first = indices.next().unwrap_or(0);
    indices.fold(first, |best, index| if values[index] > values[best] { index } else { best })
}
