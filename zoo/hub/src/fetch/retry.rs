//! When to try again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use laps_model::random::SplitMix64;

/// New bytes that count as progress: attempts are counted anew after them. A server that sends a little each time would
/// otherwise be asked without end.
pub(super) const PROGRESS: u64 = 1 << 18;

/// Longest that a server's own wish is followed, in seconds.
const LONGEST_WISH: u64 = 120;

/// How often and after which time an attempt follows one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts without progress before giving up, at least 1.
    pub attempts: u32,
    /// Mean wait before the second attempt; it doubles with each further one.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
}

impl Default for Retry {
    /// Eight attempts over about a minute and a half.
    fn default() -> Self {
        Self { attempts: 8, first: Duration::from_millis(500), longest: Duration::from_secs(30) }
    }
}

impl Retry {
    /// How long to wait after `failed` attempts: between half and one and a half times the nominal time, at random, so
    /// that many clients that were cut off together do not come back together.
    pub(super) fn wait(&self, failed: u32, wish: Option<u64>) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX));
        let jitter = 0.5 + SplitMix64::new(RandomState::new().hash_one(failed)).uniform();
        let wait = doubled.min(self.longest).mul_f64(jitter);
        wish.map_or(wait, |seconds| wait.max(Duration::from_secs(seconds.min(LONGEST_WISH))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Retry;

    #[test]
    fn waits_double_within_bounds_and_differ() {
        let retry = Retry::default();
        for (failed, nominal) in [(1, 500), (2, 1000), (4, 4000), (8, 30_000), (60, 30_000)] {
            for _ in 0..20 {
                let wait = retry.wait(failed, None).as_millis() as u64;
                assert!((nominal / 2..=nominal * 3 / 2).contains(&wait), "{failed}: {wait}");
            }
        }
        assert!((0..20).any(|_| retry.wait(3, None) != retry.wait(3, None)));
        assert!(retry.wait(1, Some(7)) >= Duration::from_secs(7));
        assert!(retry.wait(1, Some(u64::MAX)) <= Duration::from_secs(120));
    }
}
