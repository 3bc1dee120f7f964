//! How much memory a piece of work takes.

use crate::machine::peak_memory;

/// The memory of this process from now on.
#[derive(Clone, Copy, Debug)]
pub struct Watermark(Option<u64>);

impl Watermark {
    /// Forgets the peak so far. Where the system does not let it, there is no answer later.
    pub fn reset() -> Self {
        // proc(5): 5 sets the peak of the resident set to its present size.
        let reset = fs_err::write("/proc/self/clear_refs", "5").is_ok();
        Self(if reset { peak_memory() } else { None })
    }

    /// Bytes that the process had at most since, above those that it had then.
    pub fn above(self) -> Option<u64> {
        Some(peak_memory()?.saturating_sub(self.0?))
    }
}

#[cfg(test)]
mod tests {
    use super::Watermark;

    #[test]
    fn it_sees_what_was_freed_again_and_not_what_was_there_before() {
        let before = std::hint::black_box(vec![1u8; 96 << 20]);
        let mark = Watermark::reset();
        drop(std::hint::black_box(vec![1u8; 32 << 20]));
        match mark.above() {
            // Other tests of this process take some and give some back meanwhile.
            Some(bytes) => assert!((24 << 20..64 << 20).contains(&bytes), "{bytes}"),
            None => println!("skipped: the peak can not be reset here"),
        }
        drop(before);
    }
}
