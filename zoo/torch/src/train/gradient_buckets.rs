//! Buckets of gradients, which are summed over the ranks of a process group.
//!
//! Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020. A backward pass computes
//! gradients in about the reverse of the order in which the weights are listed, and so are the buckets filled: the first one is
//! sent while the backward pass computes the next. The buckets and their order do not depend on when they are sent, so neither do
//! the bits of the sums.

use std::ops::Range;

use super::{Weights, weights::Weight};
use crate::{
    Result,
    distributed::{Collective, GradientSum, SummedWeight},
};

/// Maximum bytes of a bucket, unless a single gradient has more: that of torch's DistributedDataParallel.
const BUCKET_BYTES: usize = 25 << 20;

/// The buckets of the weights that are trained.
pub(super) struct GradientBuckets {
    max_bytes: usize,
    /// Whether sums start during the backward pass.
    overlap: bool,
    /// Positions of the members of each bucket in [`Weights::list`].
    buckets: Vec<Vec<usize>>,
    /// Buckets of the last sum that had started before the end of the backward pass.
    #[cfg(test)]
    started_early: usize,
}

impl GradientBuckets {
    /// No buckets yet. With `overlap`, sums start during the backward pass.
    pub(super) fn new(overlap: bool) -> Self {
        Self {
            max_bytes: BUCKET_BYTES,
            overlap,
            buckets: Vec::new(),
            #[cfg(test)]
            started_early: 0,
        }
    }

    /// Forgets the buckets. The next sum creates them for the weights that are trained then.
    pub(super) fn clear(&mut self) {
        self.buckets.clear();
    }

    /// Prepares the sums of a step, before the last backward passes of the step. `passes` is how many of these add to the gradient
    /// of a weight.
    pub(super) fn begin(
        &self,
        group: &Collective,
        weights: &Weights,
        passes: impl Fn(&Weight) -> i32,
    ) -> Result<Option<GradientSum>> {
        let passes = |weight: &Weight| if self.overlap { passes(weight) } else { 0 };
        self.begin_buckets(0..self.buckets.len(), group, weights, passes)
    }

    fn begin_buckets(
        &self,
        buckets: Range<usize>,
        group: &Collective,
        weights: &Weights,
        passes: impl Fn(&Weight) -> i32,
    ) -> Result<Option<GradientSum>> {
        let member = |&position: &usize| {
            let weight = &weights.list[position];
            SummedWeight { tensor: &weight.tensor, passes: passes(weight) }
        };
        let buckets = self.buckets[buckets].iter().map(|members| members.iter().map(member).collect());
        group.begin_sum(&buckets.collect::<Vec<_>>())
    }

    /// Replaces the gradients of all weights by their sums over all ranks, after the last backward passes of a step.
    pub(super) fn finish(&mut self, sum: Option<GradientSum>, group: &Collective, weights: &Weights) -> Result<()> {
        let Some(sum) = sum else { return Ok(()) };
        #[cfg(test)]
        {
            self.started_early = sum.started();
        }
        group.finish_sum(sum)?;
        let added = self.add_buckets(weights)?;
        if added.is_empty() {
            return Ok(());
        }
        self.begin_buckets(added, group, weights, |_| 0)?.map_or(Ok(()), |sum| group.finish_sum(sum))
    }

    /// Adds buckets of the weights that have a gradient and are in none. Which weights have a gradient follows from the model, so
    /// all ranks add the same.
    fn add_buckets(&mut self, weights: &Weights) -> Result<Range<usize>> {
        let mut has_bucket = vec![false; weights.list.len()];
        self.buckets.iter().flatten().for_each(|&position| has_bucket[position] = true);
        let first = self.buckets.len();
        let mut bytes = self.max_bytes;
        for (position, weight) in weights.list.iter().enumerate().rev() {
            if has_bucket[position] || !weight.tensor.requires_grad() {
                continue;
            }
            let Some(gradient) = weight.gradient()? else { continue };
            let size = 4 * gradient.numel();
            if bytes + size > self.max_bytes {
                self.buckets.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            if let Some(bucket) = self.buckets.last_mut() {
                bucket.push(position);
            }
        }
        Ok(first..self.buckets.len())
    }
}

#[cfg(test)]
impl GradientBuckets {
    /// Buckets of at most `max_bytes`.
    pub(super) fn with_max_bytes(overlap: bool, max_bytes: usize) -> Self {
        Self { max_bytes, ..Self::new(overlap) }
    }

    /// Number of buckets.
    pub(super) fn count(&self) -> usize {
        self.buckets.len()
    }

    /// Number of buckets of the last step that had started before the end of its backward passes.
    pub(super) fn started_early(&self) -> usize {
        self.started_early
    }
}
