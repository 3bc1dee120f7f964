//! Matrix files: an interrupted and resumed file has the same bytes as one written without interruption.

use std::{fs, ops::ControlFlow, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::samples::{SWIN, SampleGenerator};
use crate::{
    Scores,
    similarity::{
        AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, Fingerprint, MatrixFile, Plan,
        RunOutcome, Tile, TileSink,
    },
};
use laps_model::array::Array;

const CONFIG: AlignmentConfig = AlignmentConfig { width: 32, ..SWIN };
const LENGTHS: [usize; 12] = [3, 14, 9, 22, 1, 12, 36, 17, 8, 9, 10, 11];
const IMAGES: usize = 7;

struct MatrixSample {
    weights: AggregationWeights,
    images: Array,
    captions: CaptionMatrix,
}

impl MatrixSample {
    fn new(seed: u64) -> Self {
        let mut random = SampleGenerator(seed);
        let weights = random.weights(&CONFIG, 3.0);
        let images = random.embeddings([IMAGES, 49, 32], 0.4);
        let captions = CaptionMatrix::from_arrays(&random.captions(&LENGTHS, 32, 0.4), 32).unwrap();
        Self { weights, images, captions }
    }

    fn engine(&self, threads: usize) -> Engine {
        let options = EngineOptions { threads, ..EngineOptions::default() };
        Engine::new(CONFIG, &self.weights, options).unwrap()
    }

    /// The file as the safetensors crate writes it.
    fn expected(&self) -> Vec<u8> {
        let matrix = self.engine(1).similarities(&self.images, &self.captions).unwrap();
        let bytes: Vec<u8> = matrix.values().iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, matrix.dims().to_vec(), &bytes).unwrap();
        safetensors::serialize([("sims", view)], None).unwrap()
    }

    fn fingerprint(&self) -> Fingerprint {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let words = bytes(self.captions.normalised(0..self.captions.words()));
        Fingerprint::of(&[&bytes(self.images.values()), &bytes(self.weights.scale.values()), &words])
    }

    /// Computes the missing tiles. `progress` receives the number of complete tiles and may stop the run.
    fn write(
        &self,
        threads: usize,
        path: &Path,
        progress: &mut (dyn FnMut(usize) -> ControlFlow<()> + Send),
    ) -> RunOutcome {
        let mut file = self.open(path).unwrap();
        let plan = Plan { threads, ..*file.plan() };
        let mut sink = ReportingSink { finished: file.finished_tiles(), file: &mut file, progress };
        let outcome = self.engine(threads).run(&self.images, &self.captions, &plan, &mut sink).unwrap();
        if file.finished_tiles() < plan.len() {
            return outcome;
        }
        file.finish().unwrap();
        RunOutcome { finished: true, ..outcome }
    }

    /// Tiles of three images and five captions: nine tiles.
    fn plan(&self) -> Plan {
        let plan = self.engine(1).plan(IMAGES, &self.captions).unwrap();
        Plan { tile_images: 3, tile_captions: 5, ..plan }
    }

    fn open(&self, path: &Path) -> crate::Result<MatrixFile> {
        MatrixFile::open(path, &self.plan(), &self.fingerprint())
    }
}

/// Reports each tile that the file accepts.
struct ReportingSink<'a> {
    file: &'a mut MatrixFile,
    finished: usize,
    progress: &'a mut (dyn FnMut(usize) -> ControlFlow<()> + Send),
}

impl TileSink for ReportingSink<'_> {
    fn wants(&mut self, tile: &Tile) -> bool {
        self.file.wants(tile)
    }

    fn accept(&mut self, tile: &Tile, similarities: &[f32]) -> crate::Result<ControlFlow<()>> {
        let flow = self.file.accept(tile, similarities)?;
        self.finished += 1;
        Ok(if flow.is_break() { flow } else { (self.progress)(self.finished) })
    }
}

/// Computes `count` missing tiles.
fn compute_tiles(sample: &MatrixSample, file: &mut MatrixFile, count: usize) {
    for _ in 0..count {
        let index = (0..file.plan().len()).find(|&index| file.wants(&file.plan().tile(index))).unwrap();
        let tile = file.plan().tile(index);
        let engine = sample.engine(1);
        let images = engine.prepare(&sample.images, tile.images.clone()).unwrap();
        let all = engine.compare(&images, &sample.captions).unwrap();
        let rows = all.values().chunks_exact(LENGTHS.len());
        let values: Vec<f32> = rows.flat_map(|row| row[tile.captions.clone()].to_vec()).collect();
        assert!(file.accept(&tile, &values).unwrap().is_continue());
    }
}

#[test]
fn resume_after_any_tile_gives_the_same_bytes() {
    let sample = MatrixSample::new(5);
    let expected = sample.expected();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matrix.safetensors");
    for stop in 0..=9 {
        let mut file = sample.open(&path).unwrap();
        compute_tiles(&sample, &mut file, stop);
        drop(file);
        assert!(!path.exists() || stop > 0);
        // A resumed file keeps its tiles with any number of threads.
        let mut reported = Vec::new();
        let mut progress = |finished: usize| {
            reported.push(finished);
            ControlFlow::Continue(())
        };
        assert!(sample.write(1 + stop % 3, &path, &mut progress).finished);
        assert_eq!(reported, (stop + 1..=9).collect::<Vec<_>>());
        assert_eq!(fs::read(&path).unwrap(), expected, "stopped after {stop}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn run_stopped_by_its_caller_can_be_resumed() {
    let sample = MatrixSample::new(6);
    let expected = sample.expected();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matrix.safetensors");
    drop(sample.open(&path).unwrap());
    for run in 1..=9 {
        assert!(!path.exists());
        let mut stop = |finished: usize| {
            assert_eq!(finished, run);
            ControlFlow::Break(())
        };
        assert_eq!(sample.write(1, &path, &mut stop).finished, run == 9);
    }
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes, expected);
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    Scores::from_bytes(tensors.tensor("sims").unwrap().data(), IMAGES, LENGTHS.len()).unwrap();
}

/// Values of tiles that are not marked as complete are computed again, and a truncated file is started again.
#[test]
fn torn_and_truncated_files_are_repaired() {
    let sample = MatrixSample::new(7);
    let expected = sample.expected();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matrix.safetensors");
    let partial = folder.path().join("matrix.safetensors.partial");
    let mut file = sample.open(&path).unwrap();
    compute_tiles(&sample, &mut file, 4);
    drop(file);
    // Complete tiles can be read, and missing ones are known.
    let file = sample.open(&path).unwrap();
    assert_eq!(file.missing().iter().map(|tile| tile.index).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    assert_eq!(file.partial(), partial);
    let matrix = sample.engine(1).similarities(&sample.images, &sample.captions).unwrap();
    let stored = file.stored().unwrap();
    let mut row = [0.0; 5];
    stored.read(2 * LENGTHS.len(), &mut row).unwrap();
    assert_eq!(row, matrix.values()[2 * LENGTHS.len()..][..5]);
    drop(file);
    let whole = fs::read(&partial).unwrap();
    let mut torn = whole.clone();
    let end = expected.len();
    torn[end - 4 * LENGTHS.len()..end].fill(0xff);
    let mut resume = |_: usize| ControlFlow::Continue(());
    for bytes in [torn.as_slice(), &whole[..whole.len() - 1], &whole[..end], &whole[..40], &whole[..3], &[]] {
        fs::write(&partial, bytes).unwrap();
        assert!(sample.write(1, &path, &mut resume).finished);
        assert_eq!(fs::read(&path).unwrap(), expected, "{} bytes", bytes.len());
    }
}

#[test]
fn second_writer_is_rejected() {
    let sample = MatrixSample::new(8);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matrix.safetensors");
    let _file = sample.open(&path).unwrap();
    let second = sample.open(&path).unwrap_err();
    let holder = Some(std::process::id());
    assert!(matches!(&second, crate::Error::Files(laps_files::Error::Held { pid, .. }) if *pid == holder), "{second}");
}

/// The lock and the partial file are those of the target, so a run by the other name resumes too.
#[cfg(unix)]
#[test]
fn link_stays_and_a_run_through_it_resumes() {
    let sample = MatrixSample::new(10);
    let folder = tempfile::tempdir().unwrap();
    let [real, link] = ["real.safetensors", "link.safetensors"].map(|name| folder.path().join(name));
    std::os::unix::fs::symlink("real.safetensors", &link).unwrap();
    fs::write(&real, "old").unwrap();
    let mut file = sample.open(&link).unwrap();
    assert_eq!(file.partial(), folder.path().join("real.safetensors.partial"));
    compute_tiles(&sample, &mut file, 4);
    let second = sample.open(&real).unwrap_err();
    assert!(matches!(&second, crate::Error::Files(laps_files::Error::Held { .. })), "{second}");
    drop(file);
    assert_eq!(sample.open(&real).unwrap().finished_tiles(), 4);
    let mut resume = |_: usize| ControlFlow::Continue(());
    assert!(sample.write(1, &link, &mut resume).finished);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&real).unwrap(), sample.expected());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn output_that_cannot_go_back_is_rejected() {
    let sample = MatrixSample::new(8);
    for name in ["-", "/dev/stdout", "/dev/null"].iter().take(if cfg!(unix) { 3 } else { 1 }) {
        let error = sample.open(Path::new(name)).unwrap_err();
        assert!(matches!(&error, crate::Error::Files(laps_files::Error::NotSeekable { .. })), "{error}");
    }
}

#[test]
fn partial_file_of_other_inputs_is_rejected() {
    let sample = MatrixSample::new(8);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matrix.safetensors");
    let mut file = sample.open(&path).unwrap();
    compute_tiles(&sample, &mut file, 1);
    assert!(file.finish().unwrap_err().to_string().contains("found: 1 tiles"));

    let mut images = sample.images.values().to_vec();
    images[4000] += 1e-3;
    let mut weights = sample.weights.clone();
    weights.scale = Array::new(&[1, 1, 1], vec![2.0]).unwrap();
    let longer = Array::new(&[IMAGES, 49, 32], sample.images.values().iter().map(|value| value * 2.0).collect());
    let others = [
        MatrixSample { images: Array::new(&[IMAGES, 49, 32], images).unwrap(), ..MatrixSample::new(8) },
        MatrixSample { images: longer.unwrap(), ..MatrixSample::new(8) },
        MatrixSample { weights, ..MatrixSample::new(8) },
        MatrixSample { captions: MatrixSample::new(9).captions, ..MatrixSample::new(8) },
    ];
    for other in &others {
        let error = other.open(&path).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("cannot be resumed\n  expected: a matrix of the same embeddings"), "{message}");
        assert!(error.hint().unwrap().starts_with("repeat the original arguments"));
    }
    assert_eq!(sample.open(&path).unwrap().finished_tiles(), 1);
}

#[test]
fn fingerprint_depends_on_the_boundaries_of_its_parts() {
    let fingerprint = |parts: &[&[u8]]| Fingerprint::of(parts);
    assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
    assert_ne!(fingerprint(&[b"ab"]), fingerprint(&[b"ab", b""]));
    assert_eq!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"ab", b"c"]));
}
