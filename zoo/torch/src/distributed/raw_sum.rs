//! The C interface of `shim/gradients.cpp`.
//!
//! It is sound because a [`RawSum`] owns its pointer, the shim holds references to the process group and to all tensors, the
//! hooks lock what they share, and C++ exceptions end in the shim.
#![allow(unsafe_code, reason = "the C interface of the shim over hooks of libtorch's backward pass")]

use std::{
    ffi::c_char,
    ptr::{NonNull, null_mut},
};

use tch::{TchError, Tensor as Tch};

use super::raw_group::{CGroup, CTensor, RawGroup, c_tensor, check};

/// C++ sums.
#[repr(C)]
struct CSum {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn laps_sum_open(
        group: *mut CGroup,
        weights: *const *mut CTensor,
        passes: *const i32,
        ends: *const usize,
        count: usize,
        sum: *mut *mut CSum,
    ) -> *mut c_char;
    fn laps_sum_close(sum: *mut CSum);
    fn laps_sum_start(sum: *mut CSum) -> *mut c_char;
    fn laps_sum_wait(sum: *mut CSum) -> *mut c_char;
    fn laps_sum_copy(sum: *mut CSum) -> *mut c_char;
    fn laps_run_backward_early(tensor: *mut CTensor) -> *mut c_char;
    #[cfg(test)]
    fn laps_sum_started(sum: *mut CSum) -> usize;
    #[cfg(test)]
    fn laps_has_hook(tensor: *mut CTensor) -> i32;
}

/// A weight whose gradient is summed over all ranks.
#[derive(Debug)]
pub(crate) struct SummedWeight<'a> {
    /// A leaf tensor.
    pub(crate) tensor: &'a Tch,
    /// Number of backward passes that add to its gradient before it is final. With 0, the sum starts after all of them.
    pub(crate) passes: i32,
}

/// Sums of gradients, with hooks on their weights until this is dropped.
#[derive(Debug)]
pub(super) struct RawSum(NonNull<CSum>);

impl Drop for RawSum {
    fn drop(&mut self) {
        unsafe { laps_sum_close(self.0.as_ptr()) }
    }
}

impl RawSum {
    /// Prepares the sums of buckets. One starts when the gradients of its weights are final and those before it have started.
    pub(super) fn open(group: &RawGroup, buckets: &[Vec<SummedWeight<'_>>]) -> Result<Self, String> {
        let weights: Vec<*mut CTensor> = buckets.iter().flatten().map(|weight| c_tensor(weight.tensor)).collect();
        let passes: Vec<i32> = buckets.iter().flatten().map(|weight| weight.passes).collect();
        let mut end = 0;
        let ends = buckets.iter().map(|bucket| {
            end += bucket.len();
            end
        });
        let ends: Vec<usize> = ends.collect();
        let mut sum = null_mut();
        check(unsafe {
            laps_sum_open(group.as_ptr(), weights.as_ptr(), passes.as_ptr(), ends.as_ptr(), ends.len(), &raw mut sum)
        })?;
        NonNull::new(sum).map(Self).ok_or_else(|| "no sum was returned".to_owned())
    }

    /// Starts the other buckets. Fails if a bucket could not be started during the backward pass.
    pub(super) fn start(&self) -> Result<(), String> {
        check(unsafe { laps_sum_start(self.0.as_ptr()) })
    }

    /// Waits for all sums.
    pub(super) fn wait(&self) -> Result<(), String> {
        check(unsafe { laps_sum_wait(self.0.as_ptr()) })
    }

    /// Replaces the gradients by the sums.
    pub(super) fn copy(&self) -> Result<(), String> {
        check(unsafe { laps_sum_copy(self.0.as_ptr()) })
    }

    /// Number of buckets that have started.
    #[cfg(test)]
    pub(super) fn started(&self) -> usize {
        unsafe { laps_sum_started(self.0.as_ptr()) }
    }
}

/// Lets a backward pass compute the gradient of what `tensor` was computed from as soon as that of `tensor` is there. Without
/// this, a weight that is converted before the forward pass has no gradient before the end of the backward pass.
pub(crate) fn run_backward_early(tensor: &Tch) -> Result<(), TchError> {
    check(unsafe { laps_run_backward_early(c_tensor(tensor)) }).map_err(TchError::Torch)
}

/// Whether a leaf tensor has a hook.
#[cfg(test)]
pub(super) fn has_hook(tensor: &Tch) -> bool {
    unsafe { laps_has_hook(c_tensor(tensor)) != 0 }
}
