//! Images of a split as batches: decoded ahead by several threads, handed out in order, in bounded memory.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Augment, DataError, ImageFault, ImageFile,
    image::{self, ImageError, Preprocessing},
};
use crate::Result;
use laps_model::array::Array;

/// How a [`Loader`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Images of a batch; the last batch may be smaller. At least 1.
    pub batch: usize,
    /// Threads that decode. At least 1.
    pub threads: usize,
    /// Batches that are decoded ahead, beside the one that was handed out last. At least 1.
    pub ahead: usize,
}

/// What becomes of an image that can not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// It ends the loading.
    Stop,
    /// The batch says so, and its pixels are zero.
    Skip,
}

/// Consecutive images of a split.
#[derive(Debug)]
pub struct Batch {
    /// Index of the first one.
    pub first: usize,
    /// Their pixels, `(batch, 3, size, size)`, normalised.
    pub pixels: Array,
    /// The images that can not be used, by index, in order; none unless they are skipped.
    pub faults: Vec<(usize, ImageError)>,
}

/// What loading has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoaderStats {
    /// Images decoded.
    pub images: usize,
    /// Time spent on reading, decoding and preprocessing, the sum over all threads.
    pub decoding: Duration,
    /// Time that the consumer spent waiting for a batch: above zero, images are what holds it up.
    pub waiting: Duration,
    /// Most batches that were held at one time, finished or not, without those handed out.
    pub most_held: usize,
}

/// The batches of a list of images, in order. Ends after the first image that can not be used, unless these are skipped.
/// Dropping it stops its threads after the image that each of them is at.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
}

struct Shared {
    files: Vec<ImageFile>,
    preprocessing: Preprocessing,
    batch: usize,
    ahead: usize,
    /// Random changes, and the number of the first image for them.
    augment: Option<(Augment, usize)>,
    on_fault: OnFault,
    state: Mutex<State>,
    /// Told when a batch has been handed out, and when all is over.
    room: Condvar,
    /// Told when an image is finished.
    finished: Condvar,
}

#[derive(Default)]
struct State {
    /// Images that threads have begun with; always the first ones of the list.
    begun: usize,
    /// Batches begun and not yet handed out, in order.
    held: VecDeque<Held>,
    /// Batches handed out.
    handed: usize,
    /// Nothing more is begun.
    stopped: bool,
    stats: LoaderStats,
}

struct Held {
    pixels: Arc<Mutex<Vec<f32>>>,
    /// Images of the batch that threads are at.
    busy: usize,
    /// Images of the batch that nobody has begun with.
    waiting: usize,
    /// The images that can not be used.
    faults: Vec<(usize, ImageError)>,
}

impl Loader {
    /// Starts to decode `files`.
    pub fn start(
        files: Vec<ImageFile>,
        preprocessing: Preprocessing,
        options: LoaderOptions,
    ) -> Result<Self, DataError> {
        Self::begin(files, preprocessing, options, None, OnFault::Stop)
    }

    /// The same, and what becomes of an image that can not be used.
    pub fn start_on_fault(
        files: Vec<ImageFile>,
        preprocessing: Preprocessing,
        options: LoaderOptions,
        on_fault: OnFault,
    ) -> Result<Self, DataError> {
        Self::begin(files, preprocessing, options, None, on_fault)
    }

    /// The same with random crops; the number is that of the first image among the samples of the epoch.
    pub fn start_with(
        files: Vec<ImageFile>,
        preprocessing: Preprocessing,
        options: LoaderOptions,
        augment: Option<(Augment, usize)>,
    ) -> Result<Self, DataError> {
        Self::begin(files, preprocessing, options, augment, OnFault::Stop)
    }

    fn begin(
        files: Vec<ImageFile>,
        preprocessing: Preprocessing,
        options: LoaderOptions,
        augment: Option<(Augment, usize)>,
        on_fault: OnFault,
    ) -> Result<Self, DataError> {
        let shared = Arc::new(Shared {
            files,
            preprocessing,
            batch: options.batch.max(1),
            ahead: options.ahead.max(1),
            augment,
            on_fault,
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

    /// What loading has cost so far.
    pub fn stats(&self) -> LoaderStats {
        self.shared.lock().stats
    }

    /// Images in all.
    pub fn images(&self) -> usize {
        self.shared.files.len()
    }

    fn wait(&mut self, first: usize) -> Result<Batch> {
        let began = Instant::now();
        let mut state = self.shared.lock();
        let held = loop {
            if state.held.front().is_some_and(|held| held.busy == 0 && (held.waiting == 0 || state.stopped)) {
                break state.held.pop_front();
            }
            state = self.shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.handed += 1;
        state.stats.waiting += began.elapsed();
        drop(state);
        self.shared.room.notify_all();

        let Some(Held { pixels, mut faults, .. }) = held else { return Err(lost(first).into()) };
        faults.sort_by_key(|&(index, _)| index);
        if self.shared.on_fault == OnFault::Stop && !faults.is_empty() {
            let (index, cause) = faults.swap_remove(0);
            let ImageFile { image, path } = self.shared.files[index].clone();
            return Err(DataError::Image(Box::new(ImageFault { id: image.id, row: image.row, path, cause })).into());
        }
        let values = Arc::try_unwrap(pixels).map_err(|_| lost(first))?;
        let values = values.into_inner().unwrap_or_else(PoisonError::into_inner);
        let size = self.shared.preprocessing.size;
        let count = self.shared.range(first / self.shared.batch).len();
        Ok(Batch { first, pixels: Array::new(&[count, 3, size, size], values)?, faults })
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.next;
        if first >= self.shared.files.len() {
            return None;
        }
        let batch = self.wait(first);
        self.next = if batch.is_ok() { first + self.shared.batch } else { usize::MAX };
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Images of batch `index`.
    fn range(&self, index: usize) -> Range<usize> {
        index * self.batch..((index + 1) * self.batch).min(self.files.len())
    }

    fn work(&self) {
        let mut values = vec![0.0; self.preprocessing.values()];
        while let Some((index, pixels)) = self.begin() {
            let began = Instant::now();
            let result = self.load(index, &mut values);
            if result.is_ok() {
                let start = index % self.batch * values.len();
                let mut pixels = pixels.lock().unwrap_or_else(PoisonError::into_inner);
                pixels[start..start + values.len()].copy_from_slice(&values);
            }
            drop(pixels);
            self.end(index, result, began.elapsed());
        }
    }

    fn load(&self, index: usize, values: &mut [f32]) -> Result<(), ImageError> {
        let mut image = image::read(&self.files[index].path)?.image;
        if let Some((augment, first)) = self.augment
            && let Some(part) = augment.crop(first + index, image.width(), image.height()).of(&image)
        {
            image = part;
        }
        self.preprocessing.write(&image, values).map_err(|error| io::Error::other(error).into())
    }

    /// The next image, once there is room for its batch.
    fn begin(&self) -> Option<(usize, Arc<Mutex<Vec<f32>>>)> {
        let mut state = self.lock();
        loop {
            let index = state.begun;
            if state.stopped || index >= self.files.len() {
                return None;
            }
            if index / self.batch >= state.handed + self.ahead {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if index.is_multiple_of(self.batch) {
                let waiting = self.range(index / self.batch).len();
                let pixels = Arc::new(Mutex::new(vec![0.0; waiting * self.preprocessing.values()]));
                state.held.push_back(Held { pixels, busy: 0, waiting, faults: Vec::new() });
                state.stats.most_held = state.stats.most_held.max(state.held.len());
            }
            let held = state.held.back_mut()?;
            held.busy += 1;
            held.waiting -= 1;
            let pixels = Arc::clone(&held.pixels);
            state.begun += 1;
            return Some((index, pixels));
        }
    }

    fn end(&self, index: usize, result: Result<(), ImageError>, took: Duration) {
        let mut state = self.lock();
        state.stats.decoding += took;
        state.stats.images += usize::from(result.is_ok());
        let place = index / self.batch - state.handed;
        if result.is_err() && self.on_fault == OnFault::Stop {
            // All images before this one have been begun with, so the first fault is always found.
            state.stopped = true;
            self.room.notify_all();
        }
        if let Some(held) = state.held.get_mut(place) {
            held.busy -= 1;
            held.faults.extend(result.err().map(|cause| (index, cause)));
        }
        drop(state);
        self.finished.notify_all();
    }
}

fn lost(first: usize) -> DataError {
    DataError::Read(io::Error::other(format!("the batch of images from {first} on was lost")))
}
