//! [`Loader`]: decodes images on several threads and returns batches in order, with bounded memory.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Augment, DataError, ExifOrientation, ImageFault, ImageFile,
    image::{self, Decoded, ImageError, Preprocessing},
    orientation::orient,
};
use crate::Result;
use laps_files::read_regular;
use laps_model::array::Array;

/// Options of a [`Loader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Images per batch, at least 1. The last batch may be smaller.
    pub batch_size: usize,
    /// Decoding threads, at least 1.
    pub threads: usize,
    /// Batches that are decoded ahead of the one returned last, at least 1.
    pub prefetch: usize,
}

/// Treatment of an image that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// Return its error and end.
    Stop,
    /// List it in [`ImageBatch::faults`], with zeros as its pixels.
    Skip,
}

/// Consecutive images of a list.
#[derive(Debug)]
pub struct ImageBatch {
    /// Index of the first image.
    pub first: usize,
    /// Normalised pixels `(batch, 3, size, size)`.
    pub pixels: Array,
    /// Images that cannot be used, by index, in order. Always empty with [`OnFault::Stop`].
    pub faults: Vec<(usize, ImageError)>,
    /// Images that were decoded in part, by index, in order, with the decoder's warning.
    pub damaged: Vec<(usize, String)>,
}

/// Counts and times of a [`Loader`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoaderStats {
    /// Images decoded.
    pub images: usize,
    /// Time of reading, decoding and preprocessing, summed over the threads.
    pub decoding: Duration,
    /// Time that the consumer waited for batches. It is 0 if decoding is never the bottleneck.
    pub waiting: Duration,
    /// Maximum number of batches in memory at one time, finished or not, without those returned.
    pub max_pending: usize,
}

/// An iterator of [`ImageBatch`]es. Dropping it stops its threads after their current image.
///
/// ```
/// use laps_data::{FileLine, ImageFile, Loader, LoaderOptions, SplitImage, image::{Preprocessing, RgbImage, jpeg}};
///
/// # let folder = tempfile::tempdir()?;
/// let image = RgbImage::new(2, 2, vec![128; 12]).ok_or("12 values")?;
/// let path = folder.path().join("grey.jpg");
/// std::fs::write(&path, jpeg(&image, 90)?)?;
///
/// let line = FileLine { file: None, line: 1 };
/// let image = SplitImage { id: "1".to_owned(), name: "grey.jpg".to_owned(), line };
/// let options = LoaderOptions { batch_size: 8, threads: 2, prefetch: 1 };
/// let loader = Loader::start(vec![ImageFile { image, path }], Preprocessing::imagenet(32), options)?;
/// for batch in loader {
///     assert_eq!(batch?.pixels.dims(), [1, 3, 32, 32]);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Loader {
    shared: Arc<LoaderShared>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
}

struct LoaderShared {
    files: Vec<ImageFile>,
    preprocessing: Preprocessing,
    batch_size: usize,
    prefetch: usize,
    /// Random crops, and the sample index of each image.
    augment: Option<(Augment, Vec<usize>)>,
    on_fault: OnFault,
    orientation: ExifOrientation,
    state: Mutex<LoaderState>,
    /// Notified when a batch was returned, and when the loader stops.
    room: Condvar,
    /// Notified when an image is finished.
    finished: Condvar,
}

#[derive(Default)]
struct LoaderState {
    /// Number of images that threads have started: always the first ones of the list.
    started: usize,
    /// Batches that were started and not returned, in order.
    pending: VecDeque<PendingBatch>,
    /// Number of batches returned.
    returned: usize,
    /// No more images are started.
    stopped: bool,
    stats: LoaderStats,
}

struct PendingBatch {
    pixels: Arc<Mutex<Vec<f32>>>,
    /// Images of the batch in progress.
    busy: usize,
    /// Images of the batch not started.
    waiting: usize,
    /// Images that cannot be used, by index.
    faults: Vec<(usize, ImageError)>,
    /// Images that were decoded in part, by index.
    damaged: Vec<(usize, String)>,
}

impl Loader {
    /// Starts to decode `files`.
    pub fn start(
        files: Vec<ImageFile>,
        preprocessing: Preprocessing,
        options: LoaderOptions,
    ) -> Result<Self, DataError> {
        Self::begin(files, preprocessing, options, None, OnFault::Stop, ExifOrientation::Ignore)
    }

    /// Starts to decode `files`, with a choice for images that cannot be used and for EXIF orientation.
    pub fn start_on_fault(
        files: Vec<ImageFile>,
        preprocessing: Preprocessing,
        options: LoaderOptions,
        on_fault: OnFault,
        orientation: ExifOrientation,
    ) -> Result<Self, DataError> {
        Self::begin(files, preprocessing, options, None, on_fault, orientation)
    }

    /// Starts to decode `files` with random crops. The numbers are the index of each file among the samples of the epoch.
    pub fn start_with(
        files: Vec<ImageFile>,
        preprocessing: Preprocessing,
        options: LoaderOptions,
        augment: Option<(Augment, Vec<usize>)>,
    ) -> Result<Self, DataError> {
        Self::begin(files, preprocessing, options, augment, OnFault::Stop, ExifOrientation::Ignore)
    }

    fn begin(
        files: Vec<ImageFile>,
        preprocessing: Preprocessing,
        options: LoaderOptions,
        augment: Option<(Augment, Vec<usize>)>,
        on_fault: OnFault,
        orientation: ExifOrientation,
    ) -> Result<Self, DataError> {
        let shared = Arc::new(LoaderShared {
            files,
            preprocessing,
            batch_size: options.batch_size.max(1),
            prefetch: options.prefetch.max(1),
            augment,
            on_fault,
            orientation,
            state: Mutex::default(),
            room: Condvar::new(),
            finished: Condvar::new(),
        });
        let mut loader = Self { shared: Arc::clone(&shared), threads: Vec::new(), next: 0 };
        let threads = options.threads.max(1);
        for _ in 0..threads {
            let shared = Arc::clone(&shared);
            let thread = Builder::new().name("image loader".to_owned()).spawn(move || shared.work());
            loader.threads.push(thread.map_err(|source| DataError::Threads { threads, source })?);
        }
        Ok(loader)
    }

    /// Counts and times so far.
    pub fn stats(&self) -> LoaderStats {
        self.shared.lock().stats
    }

    /// Number of images in the list.
    pub fn images(&self) -> usize {
        self.shared.files.len()
    }

    fn wait(&mut self, first: usize) -> Result<ImageBatch> {
        let began = Instant::now();
        let mut state = self.shared.lock();
        let pending = loop {
            if state.pending.front().is_some_and(|pending| pending.busy == 0 && (pending.waiting == 0 || state.stopped))
            {
                break state.pending.pop_front();
            }
            state = self.shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.returned += 1;
        state.stats.waiting += began.elapsed();
        drop(state);
        self.shared.room.notify_all();

        let Some(PendingBatch { pixels, mut faults, mut damaged, .. }) = pending else {
            return Err(lost(first).into());
        };
        faults.sort_by_key(|&(index, _)| index);
        damaged.sort_by_key(|&(index, _)| index);
        if self.shared.on_fault == OnFault::Stop && !faults.is_empty() {
            let (index, cause) = faults.swap_remove(0);
            let ImageFile { image, path } = self.shared.files[index].clone();
            return Err(DataError::Image(Box::new(ImageFault { id: image.id, line: image.line, path, cause })).into());
        }
        let values = Arc::try_unwrap(pixels).map_err(|_| lost(first))?;
        let values = values.into_inner().unwrap_or_else(PoisonError::into_inner);
        let size = self.shared.preprocessing.size;
        let count = self.shared.range(first / self.shared.batch_size).len();
        Ok(ImageBatch { first, pixels: Array::new(&[count, 3, size, size], values)?, faults, damaged })
    }
}

impl Iterator for Loader {
    type Item = Result<ImageBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.next;
        if first >= self.shared.files.len() {
            return None;
        }
        let batch = self.wait(first);
        self.next = if batch.is_ok() { first + self.shared.batch_size } else { usize::MAX };
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has no result.
            let _ = thread.join();
        }
    }
}

impl LoaderShared {
    fn lock(&self) -> MutexGuard<'_, LoaderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Images of batch `index`.
    fn range(&self, index: usize) -> Range<usize> {
        index * self.batch_size..((index + 1) * self.batch_size).min(self.files.len())
    }

    fn work(&self) {
        let mut values = vec![0.0; self.preprocessing.values()];
        while let Some((index, pixels)) = self.begin() {
            let began = Instant::now();
            let result = self.load(index, &mut values);
            if result.is_ok() {
                let start = index % self.batch_size * values.len();
                let mut pixels = pixels.lock().unwrap_or_else(PoisonError::into_inner);
                pixels[start..start + values.len()].copy_from_slice(&values);
            }
            drop(pixels);
            self.end(index, result, began.elapsed());
        }
    }

    /// Writes the pixels of an image to `values`, and returns the decoder's warning.
    fn load(&self, index: usize, values: &mut [f32]) -> Result<Option<String>, ImageError> {
        let bytes = read_regular(&self.files[index].path)?;
        let Decoded { image, damage } = image::decode(&bytes)?;
        let mut image = orient(&bytes, image, self.orientation);
        if let Some((augment, samples)) = &self.augment
            && let Some(&sample) = samples.get(index)
            && let Some(part) = augment.crop(sample, image.width(), image.height()).of(&image)
        {
            image = part;
        }
        self.preprocessing.write(&image, values).map_err(io::Error::other)?;
        Ok(damage)
    }

    /// The next image, as soon as there is room for its batch.
    fn begin(&self) -> Option<(usize, Arc<Mutex<Vec<f32>>>)> {
        let mut state = self.lock();
        loop {
            let index = state.started;
            if state.stopped || index >= self.files.len() {
                return None;
            }
            if index / self.batch_size >= state.returned + self.prefetch {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if index.is_multiple_of(self.batch_size) {
                let waiting = self.range(index / self.batch_size).len();
                let pixels = Arc::new(Mutex::new(vec![0.0; waiting * self.preprocessing.values()]));
                state.pending.push_back(PendingBatch {
                    pixels,
                    busy: 0,
                    waiting,
                    faults: Vec::new(),
                    damaged: Vec::new(),
                });
                state.stats.max_pending = state.stats.max_pending.max(state.pending.len());
            }
            let pending = state.pending.back_mut()?;
            pending.busy += 1;
            pending.waiting -= 1;
            let pixels = Arc::clone(&pending.pixels);
            state.started += 1;
            return Some((index, pixels));
        }
    }

    fn end(&self, index: usize, result: Result<Option<String>, ImageError>, took: Duration) {
        let mut state = self.lock();
        state.stats.decoding += took;
        state.stats.images += usize::from(result.is_ok());
        let position = index / self.batch_size - state.returned;
        if result.is_err() && self.on_fault == OnFault::Stop {
            // All images before this one were started, so the first fault is always found.
            state.stopped = true;
            self.room.notify_all();
        }
        if let Some(pending) = state.pending.get_mut(position) {
            pending.busy -= 1;
            match result {
                Ok(damage) => pending.damaged.extend(damage.map(|warning| (index, warning))),
                Err(cause) => pending.faults.push((index, cause)),
            }
        }
        drop(state);
        self.finished.notify_all();
    }
}

fn lost(first: usize) -> DataError {
    DataError::Read(io::Error::other(format!("the batch of images from {first} on was lost")))
}
