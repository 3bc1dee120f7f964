//! The gradient of one pair.

use std::ops::Range;

use super::{
    image::{Image, Sums},
    scratch::Scratch,
    vector::Merged,
};
use crate::{
    Result,
    similarity::{CANCELLATION, LEAKY_SLOPE},
};
use laps_model::array::product::{Accumulate, Matrix, product};

/// Squared norms below this are of factors that f32 cannot hold squared.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64 * 1e8;

/// An image and one of its captions.
pub(super) struct Pair<'a> {
    pub(super) image: &'a Image<'a>,
    /// Its words among those of the image's captions.
    pub(super) words: Range<usize>,
    /// For each word its factor in the normalised mean.
    pub(super) mean_weights: &'a [f32],
}

impl Pair<'_> {
    /// Adds `factor` times the gradient of the similarity to `sums`.
    pub(super) fn differentiate(&self, factor: f32, scratch: &mut Scratch, sums: &mut Sums) -> Result<()> {
        self.select(scratch);
        self.gather(scratch);
        self.multiply(scratch)?;
        let merged = self.norms(scratch);
        self.cosines(factor, scratch);

        let (groups, words) = (self.image.config.groups, self.words.len());
        for token in &merged {
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
        self.pass_on_groups(scratch, sums)?;
        self.pass_on_fused(groups, scratch, sums);
        if self.image.config.has_class_token {
            self.pass_on_class_token(groups + 1, scratch, sums);
        }
        Ok(())
    }

    /// Columns of the words in a row of the image's products.
    fn row<'b>(&self, table: &'b [f32], token: usize) -> &'b [f32] {
        &table[token * self.image.word_count()..][self.words.clone()]
    }

    /// The order of the patches, those that are kept first, and the weights of the others.
    fn select(&self, scratch: &mut Scratch) {
        let (image, kept) = (self.image, self.image.config.kept);
        let Scratch { scores, order, fused, .. } = scratch;
        for (patch, score) in scores.iter_mut().enumerate() {
            let row = self.row(&image.products, patch).iter().zip(self.mean_weights);
            let across: f32 = row.map(|(product, weight)| product * weight).sum();
            *score = image.own_scores[patch] + (f64::from(across) / image.norms[patch]) as f32;
        }
        order.iter_mut().zip(0..).for_each(|(slot, patch)| *slot = patch);
        if kept < order.len() {
            let score = |patch: &u32| scores[*patch as usize];
            order.select_nth_unstable_by(kept, |a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
            order[..kept].sort_unstable();
            order[kept..].sort_unstable();
        }
        let dropped = &order[kept..];
        let largest = dropped.iter().map(|&patch| scores[patch as usize]).fold(f32::NEG_INFINITY, f32::max);
        fused.iter_mut().zip(dropped).for_each(|(weight, &patch)| *weight = (scores[patch as usize] - largest).exp());
        let total: f32 = fused.iter().sum();
        fused.iter_mut().for_each(|weight| *weight /= total);
    }

    /// Tables of the patches that are kept.
    fn gather(&self, scratch: &mut Scratch) {
        let (image, groups, patches) = (self.image, self.image.config.groups, self.image.config.patches);
        let kept = &scratch.order[..image.config.kept];
        for (place, &patch) in kept.iter().enumerate() {
            let patch = patch as usize;
            scratch.factors[place * groups..][..groups].copy_from_slice(&image.factors[patch * groups..][..groups]);
            scratch.products[place * self.words.len()..][..self.words.len()]
                .copy_from_slice(self.row(&image.products, patch));
            let row = &image.gram[patch * patches..][..patches];
            let to = &mut scratch.gram[place * kept.len()..][..kept.len()];
            to.iter_mut().zip(kept).for_each(|(slot, &other)| *slot = row[other as usize]);
        }
    }

    /// Products of all merged tokens with the words, those of the groups with the patches, and squared norms.
    fn multiply(&self, scratch: &mut Scratch) -> Result<()> {
        let (image, words) = (self.image, self.words.len());
        let (kept, groups) = (image.config.kept, image.config.groups);
        let Scratch { order, fused, factors, gram, through, products, cosines, squares, .. } = scratch;
        product(
            through,
            Accumulate::Overwrite,
            [kept, kept, groups],
            Matrix::rows(gram, kept),
            Matrix::rows(factors, groups),
        )?;
        product(
            &mut cosines[..groups * words],
            Accumulate::Overwrite,
            [groups, kept, words],
            Matrix::columns(factors, groups),
            Matrix::rows(products, words),
        )?;
        squares.fill(0.0);
        for (through, factors) in through.chunks_exact(groups).zip(factors.chunks_exact(groups)) {
            let terms = through.iter().zip(factors);
            squares.iter_mut().zip(terms).for_each(|(sum, (through, factor))| *sum += through * factor);
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

    /// Norms of all merged tokens; those whose square has lost too many digits are made as vectors.
    fn norms(&self, scratch: &mut Scratch) -> Vec<Merged> {
        let (image, words) = (self.image, self.words.len());
        let (kept, groups) = (image.config.kept, image.config.groups);
        let Scratch { order, fused, factors, cosines, norms, squares, .. } = scratch;
        let mut floors = vec![0.0f64; groups + 1];
        let square = |factor: f32, patch: u32| {
            (f64::from(factor) * image.norms[patch as usize]).powi(2) / f64::from(CANCELLATION)
        };
        for (&patch, factors) in order[..kept].iter().zip(factors.chunks_exact(groups)) {
            floors.iter_mut().zip(factors).for_each(|(sum, &factor)| *sum += square(factor, patch));
        }
        floors[..groups].iter_mut().for_each(|floor| *floor = floor.max(SMALLEST));
        floors[groups] = order[kept..].iter().zip(fused.iter()).map(|(&patch, &weight)| square(weight, patch)).sum();

        let mut merged = Vec::new();
        for (column, (&square, floor)) in squares.iter().zip(floors).enumerate() {
            // Of nothing, where every patch is kept: its cosines are 0.
            let none = column == groups && kept == order.len();
            norms[column] = if none { 1.0 } else { square.sqrt() };
            if !none && (square.is_nan() || f64::from(square) < floor) {
                let token = match column == groups {
                    true => Merged::fused(image, (column, &order[kept..]), fused),
                    false => Merged::group(image, column, &order[..kept]),
                };
                token.multiply(self, &mut cosines[column * words..][..words]);
                norms[column] = token.norm as f32;
                merged.push(token);
            }
        }
        if image.config.has_class_token {
            norms[groups + 1] = image.norms[image.config.patches] as f32;
        }
        merged
    }

    /// Cosines, and `factor` times the gradient of the similarity with respect to them: of each word with the token that
    /// is nearest to it, and of each token with its nearest word.
    fn cosines(&self, factor: f32, scratch: &mut Scratch) {
        let words = self.words.len();
        let Scratch { cosines, gradients, norms, .. } = scratch;
        let tokens = norms.len();
        gradients.fill(0.0);
        let cosines = &mut cosines[..tokens * words];
        for (row, norm) in cosines.chunks_exact_mut(words).zip(norms.iter()) {
            row.iter_mut().for_each(|value| *value /= norm);
        }
        let mut add = |place: usize, count: usize| {
            let slope = if cosines[place] > 0.0 { 1.0 } else { LEAKY_SLOPE };
            gradients[place] += factor * slope / count as f32;
        };
        for token in 0..tokens {
            add(nearest((0..words).map(|word| token * words + word), cosines), tokens);
        }
        for word in 0..words {
            add(nearest((0..tokens).map(|token| token * words + word), cosines), words);
        }
    }

    fn pass_on_groups(&self, scratch: &mut Scratch, sums: &mut Sums) -> Result<()> {
        let (image, words) = (self.image, self.words.len());
        let (kept, groups, patches) = (image.config.kept, image.config.groups, image.config.patches);
        let Scratch { order, factors, scaled, gram, through, products, gradients, squares, .. } = scratch;
        let gradients = &gradients[..groups * words];

        for ((through, scaled), factors) in
            through.chunks_exact_mut(groups).zip(scaled.chunks_exact_mut(groups)).zip(factors.chunks_exact(groups))
        {
            for (group, square) in squares[..groups].iter().enumerate() {
                through[group] *= 2.0 * square;
                scaled[group] = factors[group] * square;
            }
        }
        product(
            through,
            Accumulate::Add,
            [kept, words, groups],
            Matrix::rows(products, words),
            Matrix::columns(gradients, words),
        )?;
        product(
            products,
            Accumulate::Overwrite,
            [kept, groups, words],
            Matrix::rows(factors, groups),
            Matrix::rows(gradients, words),
        )?;
        product(
            gram,
            Accumulate::Overwrite,
            [kept, groups, kept],
            Matrix::rows(scaled, groups),
            Matrix::columns(factors, groups),
        )?;
        // The length of a group has no gradient, so that this is 0 but for rounding, which large logits would magnify.
        let mut projection = vec![[0.0f32; 2]; groups];
        for (through, factors) in through.chunks_exact(groups).zip(factors.chunks_exact(groups)) {
            for (sums, (gradient, factor)) in projection.iter_mut().zip(through.iter().zip(factors)) {
                *sums = [sums[0] + gradient * factor, sums[1] + factor];
            }
        }
        let excess: Vec<f32> =
            projection.iter().map(|[projection, total]| projection / total.max(f32::MIN_POSITIVE)).collect();
        let kept = &order[..kept];
        for (place, &patch) in kept.iter().enumerate() {
            let patch = patch as usize;
            let to = &mut sums.logits[patch * groups..][..groups];
            let own = through[place * groups..].iter().zip(&factors[place * groups..]).zip(&excess);
            to.iter_mut().zip(own).for_each(|(sum, ((gradient, factor), excess))| *sum += (gradient - excess) * factor);
            let to = &mut sums.products[patch * image.word_count()..][self.words.clone()];
            to.iter_mut().zip(&products[place * words..]).for_each(|(sum, gradient)| *sum += gradient);
            let to = &mut sums.gram[patch * patches..][..patches];
            let own = &gram[place * kept.len()..][..kept.len()];
            kept.iter().zip(own).for_each(|(&other, gradient)| to[other as usize] += gradient);
        }
        Ok(())
    }

    fn pass_on_fused(&self, column: usize, scratch: &Scratch, sums: &mut Sums) {
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

    fn pass_on_class_token(&self, column: usize, scratch: &Scratch, sums: &mut Sums) {
        let (image, words, width) = (self.image, self.words.len(), self.image.config.width);
        let place = image.config.patches;
        let to = &mut sums.products[place * image.word_count()..][self.words.clone()];
        to.iter_mut().zip(&scratch.gradients[column * words..]).for_each(|(sum, gradient)| *sum += gradient);
        let twice = 2.0 * scratch.squares[column];
        let to = &mut sums.tokens[place * width..];
        to.iter_mut().zip(&image.tokens[place * width..]).for_each(|(sum, value)| *sum += twice * value);
    }
}

/// The first place of the largest value.
fn nearest(mut places: impl Iterator<Item = usize>, values: &[f32]) -> usize {
    let first = places.next().unwrap_or(0);
    places.fold(first, |best, place| if values[place] > values[best] { place } else { best })
}
