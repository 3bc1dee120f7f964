//! Memory of the similarity engine at the size of Flickr30K's test split, measured by a counting allocator.

#![allow(unsafe_code, reason = "a counting global allocator")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ops::ControlFlow,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use laps_align::Result;
use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, ImageSource, Plan, Tile,
};
use laps_model::array::Array;

/// Counts allocations and bytes.
struct CountingAllocator;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        PEAK.fetch_max(BYTES.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Held by each test, because the counters are global.
static COUNTERS: Mutex<()> = Mutex::new(());

const VIT: AlignmentConfig = AlignmentConfig { patches: 196, has_class_token: true, kept: 98, groups: 39, width: 512 };
const SWIN: AlignmentConfig = AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: 512 };

/// A low-discrepancy sequence: fractional parts of the multiples of the golden ratio, from -0.5 to 0.5.
fn golden_ratio_sequence(number: usize) -> f32 {
    ((number as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32
}

fn array(shape: &[usize]) -> Array {
    let values = (0..shape.iter().product()).map(|number| 0.1 * golden_ratio_sequence(number)).collect();
    Array::new(shape, values).unwrap()
}

fn engine(config: AlignmentConfig, threads: usize) -> Engine {
    let hidden = config.width / 5;
    let weights = AggregationWeights {
        norm_weight: array(&[config.width]),
        norm_bias: array(&[config.width]),
        hidden_weight: array(&[hidden, config.width]),
        hidden_bias: array(&[hidden]),
        group_weight: array(&[config.groups, hidden]),
        group_bias: array(&[config.groups]),
        scale: array(&[1, 1, 1]),
    };
    Engine::new(config, &weights, EngineOptions { threads, ..EngineOptions::default() }).unwrap()
}

fn captions(count: usize) -> CaptionMatrix {
    let mut captions = CaptionMatrix::new(512);
    let values: Vec<f32> = (0..32 * 512).map(golden_ratio_sequence).collect();
    for caption in 0..count {
        let words = 5 + caption * 7 % 20;
        let first = caption % 7;
        captions.push(&[words, 512], &values[first * 512..(first + words) * 512]).unwrap();
    }
    captions
}

/// A number of images that are computed when they are read, and need no memory.
struct ComputedImages(AlignmentConfig, usize);

impl ImageSource for ComputedImages {
    fn len(&self) -> usize {
        self.1
    }

    fn shape(&self) -> [usize; 2] {
        [self.0.tokens(), self.0.width]
    }

    fn read(&self, image: usize, tokens: &mut [f32]) -> Result<()> {
        tokens.iter_mut().enumerate().for_each(|(index, value)| *value = golden_ratio_sequence(index + 31 * image));
        Ok(())
    }
}

#[test]
fn run_stays_within_the_memory_of_its_plan() {
    let _lock = COUNTERS.lock().unwrap();
    let captions = captions(5000);
    for config in [VIT, SWIN] {
        let engine = engine(config, 2);
        let whole = engine.plan(1000, &captions).unwrap();
        assert!(whole.bytes < 1 << 30, "{whole:?}");
        // As many images and words per block as in the whole run, but fewer captions, so that it takes seconds.
        let plan = Plan { tile_captions: 24, ..whole };
        let mut left = 4;
        let mut sink = |_: &Tile, _: &[f32]| {
            left -= 1;
            Ok(if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        let before = BYTES.load(Relaxed);
        PEAK.store(before, Relaxed);
        engine.run(&ComputedImages(config, 1000), &captions, &plan, &mut sink).unwrap();
        let peak = PEAK.load(Relaxed) - before;
        println!("{config:?}: {peak} bytes besides the inputs, {} planned for the whole run", whole.bytes);
        assert!(peak <= whole.bytes, "{peak} bytes, planned {}", whole.bytes);
        // A lower bound: the memory of the blocks of images and of products is really used.
        assert!(2 * peak > whole.bytes - 8 * (whole.tile_images * whole.tile_captions), "{peak} of {}", whole.bytes);
    }
}

#[test]
fn pairs_are_computed_without_allocations() {
    let _lock = COUNTERS.lock().unwrap();
    for config in [VIT, SWIN] {
        let engine = engine(config, 1);
        let images = engine.prepare(&ComputedImages(config, 2), 0..2).unwrap();
        let calls = [3, 60].map(|count| {
            let captions = captions(count);
            let before = CALLS.load(Relaxed);
            engine.compare(&images, &captions).unwrap();
            CALLS.load(Relaxed) - before
        });
        assert_eq!(calls[0], calls[1], "{config:?}");
        assert!(calls[0] > 0, "the allocator does not count");
    }
}
