//! Memory of the similarity engines at the size of Flickr30K's test split, measured by a counting allocator.

#![allow(unsafe_code, reason = "a counting global allocator")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code)] // the sizes of the golden tensors
#[path = "../../model/tests/heads/configs.rs"]
mod configs;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ops::ControlFlow,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use configs::heads_of;
use laps_align::Result;
use laps_align::similarity::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, HeadEngine, ImageSource, Plan,
    SimdLevel, SimilarityEngine, Tile,
};
use laps_model::{
    array::Array,
    heads::{Ablation, D2sVseConfig, HeadConfig, HeadSizes},
    params::Parameter,
    params_init::init_parameters,
};

/// Counts allocations and bytes.
struct CountingAllocator;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Allocations of this thread. The threads of the test harness, which start tests and print results, also allocate.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
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

/// Held by each test, because the counters of bytes are global.
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

/// Captions of a head that pools: one vector each.
fn vectors(count: usize) -> CaptionMatrix {
    let mut captions = CaptionMatrix::new(512);
    let values: Vec<f32> = (0..512 + count).map(golden_ratio_sequence).collect();
    (0..count).for_each(|caption| captions.push(&[1, 512], &values[caption..caption + 512]).unwrap());
    captions
}

/// Images that are computed when they are read, and need no memory.
struct ComputedImages {
    tokens: usize,
    count: usize,
}

impl ImageSource for ComputedImages {
    fn len(&self) -> usize {
        self.count
    }

    fn shape(&self) -> [usize; 2] {
        [self.tokens, 512]
    }

    fn read(&self, image: usize, tokens: &mut [f32]) -> Result<()> {
        tokens.iter_mut().enumerate().for_each(|(index, value)| *value = golden_ratio_sequence(index + 31 * image));
        Ok(())
    }
}

/// The plan of all images and captions, and the peak memory in bytes of its first tiles besides the inputs. They have as many
/// images and words per block as in the whole run, but `tile_captions` captions, so that the run takes seconds.
fn measure(
    engine: &dyn SimilarityEngine,
    images: &ComputedImages,
    captions: &CaptionMatrix,
    tile_captions: usize,
) -> (Plan, usize) {
    let whole = engine.plan(images.count, captions).unwrap();
    let plan = Plan { tile_captions, ..whole };
    let mut left = 4;
    let mut sink = |_: &Tile, _: &[f32]| {
        left -= 1;
        Ok(if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    };
    let before = BYTES.load(Relaxed);
    PEAK.store(before, Relaxed);
    engine.run(images, captions, &plan, &mut sink).unwrap();
    (whole, PEAK.load(Relaxed) - before)
}

#[test]
fn run_stays_within_the_memory_of_its_plan() {
    let _lock = COUNTERS.lock().unwrap();
    let captions = captions(5000);
    for config in [VIT, SWIN] {
        let images = ComputedImages { tokens: config.tokens(), count: 1000 };
        let (whole, peak) = measure(&engine(config, 2), &images, &captions, 24);
        println!("{config:?}: {peak} bytes besides the inputs, {} planned for the whole run", whole.bytes);
        assert!(whole.bytes < 1 << 30, "{whole:?}");
        assert!(peak <= whole.bytes, "{peak} bytes, planned {}", whole.bytes);
        // A lower bound: the memory of the blocks of images and of products is really used.
        assert!(2 * peak > whole.bytes - 8 * (whole.tile_images * whole.tile_captions), "{peak} of {}", whole.bytes);
    }
}

/// The engine of a head on ViT, with initial parameters.
fn head_engine(head: HeadConfig) -> HeadEngine {
    let read = |parameter: &Parameter| {
        init_parameters(std::slice::from_ref(parameter), 5).map(|mut made| made.swap_remove(0).1)
    };
    let options = EngineOptions { threads: 2, ..EngineOptions::default() };
    let AlignmentConfig { has_class_token, width, .. } = VIT;
    let sizes = HeadSizes { tokens: VIT.tokens(), has_class_token, width, word_width: width };
    let level = SimdLevel::detect();
    match head {
        HeadConfig::LapsAblation { ablation } => HeadEngine::of_ablation(ablation, VIT, read, options, level).unwrap(),
        _ => HeadEngine::with_sizes(head, sizes.encoded(&head), read, options, level).unwrap(),
    }
}

/// Every head besides LAPS's, at the sizes of the entries with ViT.
#[test]
fn run_of_every_head_stays_within_the_memory_of_its_plan() {
    let _lock = COUNTERS.lock().unwrap();
    let cosine = HeadConfig::Cosine { embed_size: 512 };
    let others = heads_of(HeadConfig::Sgr { sim_dim: 256, steps: 3 }, D2sVseConfig::default());
    let others = std::iter::once(cosine).chain(others.into_iter().map(|(_, head)| head));
    let ablations = Ablation::ALL.map(|ablation| HeadConfig::LapsAblation { ablation });
    let (of_words, of_vectors) = ([captions(3), captions(5000)], [vectors(3), vectors(5000)]);
    for head in others.chain(ablations) {
        let engine = head_engine(head);
        let (tokens, [few, all]) = if head.pools() { (1, &of_vectors) } else { (VIT.tokens(), &of_words) };
        // The threads of matrix products keep their buffers, which belong to no run.
        engine.similarities(&ComputedImages { tokens, count: 2 }, few).unwrap();
        // Ten captions fill a block of words.
        let (whole, peak) = measure(&engine, &ComputedImages { tokens, count: 1000 }, all, 10);
        println!("{head}: {peak} bytes besides the inputs, {} planned for the whole run", whole.bytes);
        assert!(whole.bytes < 1 << 28, "{head}: {whole:?}");
        assert!(peak <= whole.bytes, "{head}: {peak} bytes, planned {}", whole.bytes);
        // A lower bound, so that the plan is not a multiple of what is used.
        assert!(8 * peak > whole.bytes - 8 * (whole.tile_images * whole.tile_captions), "{head}: {peak} of {whole:?}");
    }
}

#[test]
fn pairs_are_computed_without_allocations() {
    let _lock = COUNTERS.lock().unwrap();
    for config in [VIT, SWIN] {
        let engine = engine(config, 1);
        let images = ComputedImages { tokens: config.tokens(), count: 2 };
        let images = engine.prepare(&images, 0..2).unwrap();
        let calls = [3, 60].map(|count| {
            let captions = captions(count);
            let before = CALLS.get();
            engine.compare(&images, &captions).unwrap();
            CALLS.get() - before
        });
        assert_eq!(calls[0], calls[1], "{config:?}");
        assert!(calls[0] > 0, "the allocator does not count");
    }
}
