//! Steps and their times.

use std::time::{Duration, Instant};

use crate::{Error, Result, alignment::Watermark};

/// Times of the steps that were measured, in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    times: Vec<Duration>,
    /// The most memory of the process meanwhile, in bytes above what it had before the first step; None where the system
    /// does not tell.
    pub peak_bytes: Option<u64>,
}

impl Steps {
    /// Does `step` without looking at the clock `warm_up` times, and with it `repeats` times. Memory counts from the
    /// beginning: what the first step takes and keeps is its own.
    ///
    /// # Errors
    /// That of the first step that fails.
    pub fn measure<T, E>(warm_up: usize, repeats: usize, mut step: impl FnMut() -> Result<T, E>) -> Result<Self>
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

    /// From times, of which there is at least one.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { times, peak_bytes: None }
    }

    /// Steps that were measured.
    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// The shortest time that at least `percent` percent of the steps stay within, in milliseconds. Of fewer than a
    /// hundred steps the 99th is the longest.
    pub fn percentile(&self, percent: usize) -> f64 {
        let place = (percent * self.times.len()).div_ceil(100).max(1) - 1;
        self.times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// Steps a second over all of them.
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.times.iter().sum::<Duration>().as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Steps;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let steps = Steps::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!([50, 90, 99, 100].map(|percent| steps.percentile(percent).round() as u64), [100, 180, 198, 200]);
        // The sum of 1 to 200 is 20,100.
        assert!((steps.rate() - 200.0 / 20.1).abs() < 1e-9);
        let few = Steps::of([3, 1, 2].map(Duration::from_millis).to_vec());
        assert_eq!([50, 90, 99].map(|percent| few.percentile(percent).round() as u64), [2, 3, 3]);
    }

    #[test]
    fn warm_up_is_done_and_not_counted() {
        let mut done = 0;
        let steps = Steps::measure(3, 5, || {
            done += 1;
            Ok::<_, crate::Error>(())
        });
        assert_eq!((steps.unwrap().count(), done), (5, 8));
    }
}
