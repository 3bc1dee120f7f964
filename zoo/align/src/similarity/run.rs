//! The threads of a run: each takes tiles until none is left.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::thread;

use super::{
    plan::{Plan, Tile},
    scratch::PairCounts,
    sink::TileSink,
};
use crate::{Error, Result};

/// Result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// Whether every tile that the sink wanted was computed; false if the sink stopped the run.
    pub finished: bool,
    /// The work that was done.
    pub counts: PairCounts,
}

/// Computes tiles on one thread.
pub(super) trait TileWorker {
    /// Similarities of a tile, `(images of the tile, captions of the tile)`.
    fn compute(&mut self, tile: &Tile, output: &mut [f32]) -> Result<()>;

    /// The work that was done so far.
    fn counts(&self) -> PairCounts;
}

/// State that the threads of a run share.
struct RunState<'a> {
    /// Index of the next tile.
    next: AtomicUsize,
    stopped: AtomicBool,
    sink: Mutex<&'a mut dyn TileSink>,
    /// Sum of the counts, and the first error.
    end: Mutex<(PairCounts, Option<Error>)>,
}

/// Computes the tiles of `plan` that `sink` wants, with a worker of `new_worker` for each thread.
pub(super) fn run_tiles<W: TileWorker>(
    plan: &Plan,
    sink: &mut dyn TileSink,
    new_worker: impl Fn() -> W + Sync,
) -> Result<RunOutcome> {
    let shared = RunState {
        next: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        sink: Mutex::new(sink),
        end: Mutex::new((PairCounts::default(), None)),
    };
    let work = || {
        let mut worker = new_worker();
        let result = take_tiles(plan, &shared, &mut worker);
        let mut end = shared.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.0.add(worker.counts());
        if let Err(error) = result {
            shared.stopped.store(true, Ordering::Relaxed);
            end.1.get_or_insert(error);
        }
    };
    thread::scope(|scope| {
        for _ in 1..plan.threads.min(plan.len()) {
            scope.spawn(work);
        }
        work();
    });
    let finished = !shared.stopped.load(Ordering::Relaxed);
    match shared.end.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (_, Some(error)) => Err(error),
        (counts, None) => Ok(RunOutcome { finished, counts }),
    }
}

fn take_tiles(plan: &Plan, shared: &RunState<'_>, worker: &mut impl TileWorker) -> Result<()> {
    let mut output = vec![0.0; plan.tile_images * plan.tile_captions];
    while !shared.stopped.load(Ordering::Relaxed) {
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        if index >= plan.len() {
            break;
        }
        let tile = plan.tile(index);
        if !shared.sink.lock().unwrap_or_else(PoisonError::into_inner).wants(&tile) {
            continue;
        }
        let output = &mut output[..tile.images.len() * tile.captions.len()];
        worker.compute(&tile, output)?;
        let mut sink = shared.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if sink.accept(&tile, output)?.is_break() {
            shared.stopped.store(true, Ordering::Relaxed);
        }
    }
    Ok(())
}
