//! The hinge loss of a similarity matrix, and its gradient.

use tch::{Kind, Tensor as Tch};

use super::Negatives;
use crate::Result;

/// Triplet hinge loss in both retrieval directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HingeLoss {
    /// Required difference between the similarity of a pair and that of a negative.
    pub margin: f64,
    /// The negatives that count.
    pub negatives: Negatives,
    /// Factor of the loss.
    pub weight: f64,
}

impl HingeLoss {
    /// The loss of similarities `(images, captions)` and its gradient `(images, captions)`. Pair `i` is at `(i, i)`, and
    /// `image_ids` holds the image of each pair: pairs of the same image are not negatives of each other.
    pub(super) fn differentiate(&self, similarities: &Tch, image_ids: &[u64]) -> Result<(f64, Tch)> {
        let leaf = similarities.f_detach()?.f_set_requires_grad(true)?;
        let loss = self.loss(&leaf, image_ids)?;
        let gradient = Tch::f_run_backward(&[&loss], &[&leaf], false, false)?.swap_remove(0);
        Ok((loss.f_double_value(&[])?, gradient))
    }

    /// The loss of similarities, recorded for a backward pass.
    pub(crate) fn loss(&self, similarities: &Tch, image_ids: &[u64]) -> Result<Tch> {
        let ids: Vec<i64> = image_ids.iter().map(|&id| id.cast_signed()).collect();
        let ids = Tch::f_from_slice(&ids)?.f_to_device(similarities.device())?;
        let same_image = ids.f_unsqueeze(0)?.f_eq_tensor(&ids.f_unsqueeze(1)?)?;
        let positives = similarities.f_diagonal(0, 0, 1)?;
        let costs = |positives: &Tch| {
            similarities.f_sub(positives)?.f_add_scalar(self.margin)?.f_clamp_min(0.0)?.f_masked_fill(&same_image, 0.0)
        };
        let (image_costs, caption_costs) = (costs(&positives.f_unsqueeze(1)?)?, costs(&positives.f_unsqueeze(0)?)?);
        let sum = |costs: &Tch| costs.f_sum(Kind::Float);
        let (image_loss, caption_loss) = match self.negatives {
            Negatives::All => (sum(&image_costs)?, sum(&caption_costs)?),
            Negatives::Hardest => {
                (sum(&image_costs.f_max_dim(1, false)?.0)?, sum(&caption_costs.f_max_dim(0, false)?.0)?)
            }
        };
        Ok(image_loss.f_add(&caption_loss)?.f_mul_scalar(self.weight)?)
    }
}
