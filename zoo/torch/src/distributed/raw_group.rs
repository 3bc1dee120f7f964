//! The C interface of `shim/shim.cpp`.
//!
//! It is sound because a [`RawGroup`] owns its pointer and is used by one thread at a time, every tensor that is passed is
//! borrowed until the call returns, and C++ exceptions end in the shim. The sums of [`raw_sum`](super::raw_sum) use the process
//! group from threads of a backward pass, which the thread of the group waits for.
#![allow(unsafe_code, reason = "the C interface of the shim over libtorch's process groups")]

use std::{
    ffi::{CStr, CString, c_char},
    ptr::{NonNull, null_mut},
    time::Duration,
};

use tch::Tensor as Tch;

/// A C++ group.
#[repr(C)]
pub(super) struct CGroup {
    _opaque: [u8; 0],
}

/// A C++ tensor, `at::Tensor`.
#[repr(C)]
pub(super) struct CTensor {
    _opaque: [u8; 0],
}

/// Field for field the C++ struct `LapsDistOptions`.
#[repr(C)]
struct OpenOptions {
    host: *const c_char,
    prefix: *const c_char,
    timeout_ms: i64,
    rank: i32,
    world_size: i32,
    cuda_device: i32,
    port: u16,
    hosts_store: u8,
    nccl: u8,
}

unsafe extern "C" {
    fn laps_dist_free(text: *mut c_char);
    fn laps_dist_has_nccl() -> i32;
    fn laps_dist_open(options: *const OpenOptions, group: *mut *mut CGroup) -> *mut c_char;
    fn laps_dist_close(group: *mut CGroup);
    fn laps_dist_all_reduce(group: *mut CGroup, tensors: *mut *mut CTensor, count: usize) -> *mut c_char;
    fn laps_dist_broadcast(group: *mut CGroup, tensor: *mut CTensor, root: i32) -> *mut c_char;
    fn laps_dist_all_gather(group: *mut CGroup, output: *mut CTensor, input: *mut CTensor) -> *mut c_char;
    fn laps_dist_barrier(group: *mut CGroup) -> *mut c_char;
    fn laps_dist_store_set(group: *mut CGroup, key: *const c_char, value: *const c_char) -> *mut c_char;
    fn laps_dist_store_get(
        group: *mut CGroup,
        key: *const c_char,
        timeout_ms: i64,
        value: *mut *mut c_char,
    ) -> *mut c_char;
}

/// Options of a group.
#[derive(Clone, Debug)]
pub(super) struct GroupOptions {
    pub(super) host: String,
    pub(super) port: u16,
    /// Prefix of all keys in the store.
    pub(super) prefix: String,
    pub(super) timeout: Duration,
    pub(super) rank: usize,
    pub(super) world_size: usize,
    /// Whether this process hosts the store.
    pub(super) hosts_store: bool,
    /// The GPU of this rank for NCCL; None for Gloo.
    pub(super) nccl_device: Option<usize>,
}

/// An open group with its key-value store.
#[derive(Debug)]
pub(super) struct RawGroup(NonNull<CGroup>);

// The C++ objects are not tied to the thread that created them.
unsafe impl Send for RawGroup {}

impl Drop for RawGroup {
    fn drop(&mut self) {
        unsafe { laps_dist_close(self.0.as_ptr()) }
    }
}

/// Whether the shim was compiled with NCCL.
pub(super) fn has_nccl() -> bool {
    unsafe { laps_dist_has_nccl() != 0 }
}

impl RawGroup {
    /// Joins a group.
    pub(super) fn open(options: &GroupOptions) -> Result<Self, String> {
        let (host, prefix) = (c_text(&options.host)?, c_text(&options.prefix)?);
        let options = OpenOptions {
            host: host.as_ptr(),
            prefix: prefix.as_ptr(),
            timeout_ms: milliseconds(options.timeout),
            rank: c_int(options.rank)?,
            world_size: c_int(options.world_size)?,
            cuda_device: c_int(options.nccl_device.unwrap_or(0))?,
            port: options.port,
            hosts_store: options.hosts_store.into(),
            nccl: options.nccl_device.is_some().into(),
        };
        let mut group = null_mut();
        check(unsafe { laps_dist_open(&raw const options, &raw mut group) })?;
        NonNull::new(group).map(Self).ok_or_else(|| "no group was returned".to_owned())
    }

    /// The C++ group.
    pub(super) fn as_ptr(&self) -> *mut CGroup {
        self.0.as_ptr()
    }

    /// Replaces each contiguous tensor by its sum over all ranks.
    pub(super) fn all_reduce(&self, tensors: &[Tch]) -> Result<(), String> {
        let mut pointers: Vec<*mut CTensor> = tensors.iter().map(c_tensor).collect();
        check(unsafe { laps_dist_all_reduce(self.0.as_ptr(), pointers.as_mut_ptr(), pointers.len()) })
    }

    /// Replaces a contiguous tensor by that of rank `root`.
    pub(super) fn broadcast(&self, tensor: &Tch, root: usize) -> Result<(), String> {
        check(unsafe { laps_dist_broadcast(self.0.as_ptr(), c_tensor(tensor), c_int(root)?) })
    }

    /// Writes the flat tensors `input` of all ranks to the flat `output`.
    pub(super) fn all_gather(&self, output: &Tch, input: &Tch) -> Result<(), String> {
        check(unsafe { laps_dist_all_gather(self.0.as_ptr(), c_tensor(output), c_tensor(input)) })
    }

    /// Waits for all ranks.
    pub(super) fn barrier(&self) -> Result<(), String> {
        check(unsafe { laps_dist_barrier(self.0.as_ptr()) })
    }

    /// Sets a key of the store.
    pub(super) fn set(&self, key: &str, value: &str) -> Result<(), String> {
        let (key, value) = (c_text(key)?, c_text(value)?);
        check(unsafe { laps_dist_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr()) })
    }

    /// Waits for a key of the store.
    pub(super) fn get(&self, key: &str, timeout: Duration) -> Result<String, String> {
        let key = c_text(key)?;
        let mut value = null_mut();
        check(unsafe { laps_dist_store_get(self.0.as_ptr(), key.as_ptr(), milliseconds(timeout), &raw mut value) })?;
        Ok(take_text(value).unwrap_or_default())
    }
}

pub(super) fn c_tensor(tensor: &Tch) -> *mut CTensor {
    tensor.as_ptr().cast_mut().cast()
}

fn c_int(number: usize) -> Result<i32, String> {
    i32::try_from(number).map_err(|error| format!("{number}: {error}"))
}

fn c_text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|error| error.to_string())
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The error of a function of the shim.
pub(super) fn check(error: *mut c_char) -> Result<(), String> {
    take_text(error).map_or(Ok(()), Err)
}

/// A text of the shim, which is freed. None for null.
fn take_text(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    unsafe { laps_dist_free(text) };
    Some(owned)
}
