//! Memory of the similarity engine at the size of Flickr30K's test split, counted at the allocator.

#![allow(unsafe_code, reason = "a global allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test stops at what is not as it should be")]

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

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
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
static ALLOCATOR: Counting = Counting;

/// Both tests count, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

const VIT: AlignmentConfig = AlignmentConfig { patches: 196, has_class_token: true, kept: 98, groups: 39, width: 512 };
const SWIN: AlignmentConfig = AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width: 512 };

/// The multiples of the golden ratio, without their whole part: spread evenly over -0.5 to 0.5.
fn spread(number: usize) -> f32 {
    ((number as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32
}

fn array(shape: &[usize]) -> Array {
    Array::new(shape, (0..shape.iter().product()).map(|number| 0.1 * spread(number)).collect()).unwrap()
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
    let values: Vec<f32> = (0..32 * 512).map(spread).collect();
    for caption in 0..count {
        let words = 5 + caption * 7 % 20;
        let first = caption % 7;
        captions.push(&[words, 512], &values[first * 512..(first + words) * 512]).unwrap();
    }
    captions
}

/// Images that take no memory.
struct Images(AlignmentConfig, usize);

impl ImageSource for Images {
    fn len(&self) -> usize {
        self.1
    }

    fn shape(&self) -> [usize; 2] {
        [self.0.tokens(), self.0.width]
    }

    fn read(&self, image: usize, tokens: &mut [f32]) -> Result<()> {
        tokens.iter_mut().enumerate().for_each(|(place, value)| *value = spread(place + 31 * image));
        Ok(())
    }
}

#[test]
fn a_run_stays_within_what_its_plan_says() {
    let _turn = TURN.lock().unwrap();
    let captions = captions(5000);
    for config in [VIT, SWIN] {
        let engine = engine(config, 2);
        let whole = engine.plan(1000, &captions).unwrap();
        assert!(whole.bytes < 1 << 30, "{whole:?}");
        // As many images and words at once as in the whole run, but fewer captions: a matter of seconds.
        let plan = Plan { tile_captions: 24, ..whole };
        let mut left = 4;
        let mut sink = |_: &Tile, _: &[f32]| {
            left -= 1;
            Ok(if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        let before = BYTES.load(Relaxed);
        PEAK.store(before, Relaxed);
        engine.run(&Images(config, 1000), &captions, &plan, &mut sink).unwrap();
        let peak = PEAK.load(Relaxed) - before;
        println!("{config:?}: {peak} bytes above the inputs, planned for the whole run: {}", whole.bytes);
        assert!(peak <= whole.bytes, "{peak} bytes, planned {}", whole.bytes);
        // The estimate is no wild one: the blocks of images and of products are really there.
        assert!(2 * peak > whole.bytes - 8 * (whole.tile_images * whole.tile_captions), "{peak} of {}", whole.bytes);
    }
}

#[test]
fn nothing_is_allocated_for_a_pair() {
    let _turn = TURN.lock().unwrap();
    for config in [VIT, SWIN] {
        let engine = engine(config, 1);
        let images = engine.prepare(&Images(config, 2), 0..2).unwrap();
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
