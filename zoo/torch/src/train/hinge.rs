//! The loss of a matrix of similarities, and its gradient with respect to the matrix.

use tch::{Kind, Tensor as Tch};

use crate::{Result, train::Negatives};

/// Hinge loss in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hinge {
    /// By how much the similarity of a pair has to exceed that of a negative.
    pub margin: f64,
    /// Which negatives count.
    pub negatives: Negatives,
    /// Factor of the loss.
    pub weight: f64,
}

impl Hinge {
    /// Similarities `(images, captions)`, pair `i` at `(i, i)`, and the image of each pair: the loss, and its gradient
    /// `(images, captions)`. Pairs of one image are no negatives of each other.
    pub(super) fn differentiate(&self, similarities: &Tch, ids: &[u64]) -> Result<(f64, Tch)> {
        let leaf = similarities.f_detach()?.f_set_requires_grad(true)?;
        let loss = self.loss(&leaf, ids)?;
        let gradient = Tch::f_run_backward(&[&loss], &[&leaf], false, false)?.swap_remove(0);
        Ok((loss.f_double_value(&[])?, gradient))
    }

    /// The loss of similarities, recorded.
    pub(super) fn loss(&self, similarities: &Tch, ids: &[u64]) -> Result<Tch> {
        let ids: Vec<i64> = ids.iter().map(|&id| id.cast_signed()).collect();
        let ids = Tch::f_from_slice(&ids)?.f_to_device(similarities.device())?;
        let same = ids.f_unsqueeze(0)?.f_eq_tensor(&ids.f_unsqueeze(1)?)?;
        let pairs = similarities.f_diagonal(0, 0, 1)?;
        let costs =
            |own: &Tch| similarities.f_sub(own)?.f_add_scalar(self.margin)?.f_clamp_min(0.0)?.f_masked_fill(&same, 0.0);
        let (of_images, of_captions) = (costs(&pairs.f_unsqueeze(1)?)?, costs(&pairs.f_unsqueeze(0)?)?);
        let sum = |costs: &Tch| costs.f_sum(Kind::Float);
        let (of_images, of_captions) = match self.negatives {
            Negatives::All => (sum(&of_images)?, sum(&of_captions)?),
            Negatives::Hardest => (sum(&of_images.f_max_dim(1, false)?.0)?, sum(&of_captions.f_max_dim(0, false)?.0)?),
        };
        Ok(of_images.f_add(&of_captions)?.f_mul_scalar(self.weight)?)
    }
}
