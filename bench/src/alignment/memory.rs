//! Peak memory of a piece of work.

use crate::machine::{load_mapped_files, mapped_files, peak_memory};

/// Measures the peak memory of this process since a point in time.
///
/// Pages of mapped files do not count: they depend on the size of the program, and the system can drop them. Their number at
/// the peak is that at the end, because all are loaded before.
#[derive(Clone, Copy, Debug)]
pub struct Watermark(Option<u64>);

impl Watermark {
    /// Resets the peak to the present memory. If the system does not allow that, [`above`](Self::above) returns `None`.
    pub fn reset() -> Self {
        load_mapped_files();
        // proc(5): writing 5 resets the peak resident set size to the present size.
        let reset = fs_err::write("/proc/self/clear_refs", "5").is_ok();
        Self(if reset { peak_without_files() } else { None })
    }

    /// Peak memory since [`reset`](Self::reset), in bytes above the memory at that time.
    pub fn above(self) -> Option<u64> {
        Some(self.peak()?.saturating_sub(self.0?))
    }

    /// Peak memory since [`reset`](Self::reset), in bytes, including the memory at that time.
    ///
    /// Of a process that does only one thing this is steadier than [`above`](Self::above): the memory at the reset includes
    /// freed blocks that the allocator kept, whose size varies with the order in which threads ran.
    pub fn peak(self) -> Option<u64> {
        self.0.and_then(|_| peak_without_files())
    }
}

fn peak_without_files() -> Option<u64> {
    Some(peak_memory()?.saturating_sub(mapped_files()?))
}

#[cfg(test)]
mod tests {
    use super::Watermark;

    #[test]
    fn freed_memory_counts_and_earlier_memory_does_not() {
        let before = std::hint::black_box(vec![1u8; 96 << 20]);
        let mark = Watermark::reset();
        drop(std::hint::black_box(vec![1u8; 32 << 20]));
        match mark.above() {
            // Other tests in this process allocate and free memory at the same time.
            Some(bytes) => {
                assert!((24 << 20..64 << 20).contains(&bytes), "{bytes}");
                assert!(mark.peak().unwrap() >= bytes + (96 << 20), "{mark:?}");
            }
            None => println!("skipped: this system does not allow resetting the peak"),
        }
        drop(before);
    }
}
