//! Times of iterations.

use std::time::{Duration, Instant};

use crate::{Error, Result, alignment::Watermark};

/// Times of the measured iterations, in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StepTimes {
    times: Vec<Duration>,
    /// Peak memory of the process, in bytes above the memory before the first iteration; `None` if the system does not
    /// report it.
    pub(super) peak_bytes: Option<u64>,
}

impl StepTimes {
    /// Runs `step` `warm_up` times unmeasured, then `repeats` times measured. Peak memory includes the warm-up, because
    /// what the first iteration allocates and keeps belongs to the work.
    ///
    /// # Errors
    /// The error of the first iteration that fails.
    pub(super) fn measure<T, E>(warm_up: usize, repeats: usize, mut step: impl FnMut() -> Result<T, E>) -> Result<Self>
    where
        Error: From<E>,
    {
        let mark = Watermark::reset();
        for _ in 0..warm_up {
            step()?;
        }
        let mut times = Vec::with_capacity(repeats);
        for _ in 0..repeats.max(1) {
            let began = Instant::now();
            step()?;
            times.push(began.elapsed());
        }
        Ok(Self { peak_bytes: mark.above(), ..Self::of(times) })
    }

    /// Times of at least one iteration.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { times, peak_bytes: None }
    }

    /// The shortest time that at least `percent` percent of the iterations stay within, in milliseconds. With fewer
    /// than 100 iterations, the 99th percentile is the longest.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let index = (percent * self.times.len()).div_ceil(100).max(1) - 1;
        self.times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// Iterations per second.
    pub(super) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.times.iter().sum::<Duration>().as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::StepTimes;

    #[test]
    fn percentiles_are_measured_times() {
        let steps = StepTimes::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!([50, 90, 99, 100].map(|percent| steps.percentile(percent).round() as u64), [100, 180, 198, 200]);
        // The sum of 1 to 200 is 20,100.
        assert!((steps.rate() - 200.0 / 20.1).abs() < 1e-9);
        let few = StepTimes::of([3, 1, 2].map(Duration::from_millis).to_vec());
        assert_eq!([50, 90, 99].map(|percent| few.percentile(percent).round() as u64), [2, 3, 3]);
    }

    #[test]
    fn warm_up_iterations_run_but_are_not_counted() {
        let mut done = 0;
        let steps = StepTimes::measure(3, 5, || {
            done += 1;
            Ok::<_, crate::Error>(())
        });
        assert_eq!((steps.unwrap().times.len(), done), (5, 8));
    }
}
