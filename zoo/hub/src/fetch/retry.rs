//! When a failed download is retried.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use laps_model::random::SplitMix64;

/// An attempt that brings at least this many bytes resets the attempt counter. The threshold keeps a server that sends
/// a few bytes per attempt from being retried forever.
pub(super) const MIN_PROGRESS_BYTES: u64 = 1 << 18;

/// Maximum `Retry-After` that is honoured, in seconds.
const MAX_RETRY_AFTER: u64 = 120;

/// How often a failed download is retried, and after which delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum number of consecutive attempts without progress, at least 1.
    pub attempts: u32,
    /// Mean delay before the second attempt; it doubles with each further attempt.
    pub first_delay: Duration,
    /// Maximum mean delay.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// Eight attempts over about a minute and a half.
    fn default() -> Self {
        Self { attempts: 8, first_delay: Duration::from_millis(500), max_delay: Duration::from_secs(30) }
    }
}

impl RetryPolicy {
    /// The delay after `failed` attempts, with random jitter between 0.5 and 1.5 so that clients that were disconnected
    /// together do not return together. `retry_after` is the server's own wish in seconds.
    pub(crate) fn delay(&self, failed: u32, retry_after: Option<u64>) -> Duration {
        let doubled = self.first_delay.saturating_mul(1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX));
        let jitter = 0.5 + SplitMix64::new(RandomState::new().hash_one(failed)).uniform();
        let delay = doubled.min(self.max_delay).mul_f64(jitter);
        retry_after.map_or(delay, |seconds| delay.max(Duration::from_secs(seconds.min(MAX_RETRY_AFTER))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::RetryPolicy;

    #[test]
    fn delay_doubles_within_bounds_and_is_jittered() {
        let retry = RetryPolicy::default();
        for (failed, nominal) in [(1, 500), (2, 1000), (4, 4000), (8, 30_000), (60, 30_000)] {
            for _ in 0..20 {
                let delay = retry.delay(failed, None).as_millis() as u64;
                assert!((nominal / 2..=nominal * 3 / 2).contains(&delay), "{failed}: {delay}");
            }
        }
        assert!((0..20).any(|_| retry.delay(3, None) != retry.delay(3, None)));
        assert!(retry.delay(1, Some(7)) >= Duration::from_secs(7));
        assert!(retry.delay(1, Some(u64::MAX)) <= Duration::from_secs(120));
    }
}
