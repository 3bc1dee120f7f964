//! Reads similarity matrices and counts ranks with a simple reference implementation.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// Captions per image, which are consecutive.
const CAPTIONS: usize = 5;

/// A similarity matrix, images x captions.
pub(crate) struct Matrix {
    pub(crate) images: usize,
    pub(crate) captions: usize,
    pub(crate) values: Vec<f32>,
}

/// Direction of retrieval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Direction {
    ImageToText,
    TextToImage,
}

impl Matrix {
    /// Reads the tensor `sims`, which must be the only one in the file.
    pub(crate) fn open(path: &Path) -> Self {
        let bytes = fs_err::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.names(), ["sims"]);
        let view = file.tensor("sims").unwrap();
        assert_eq!(view.dtype(), Dtype::F32);
        let [images, captions] = *view.shape() else { panic!("shape {:?}", view.shape()) };
        let values = view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        Self { images, captions, values: values.collect() }
    }

    pub(crate) fn at(&self, image: usize, caption: usize) -> f32 {
        self.values[image * self.captions + caption]
    }

    /// Scores of a query against every candidate.
    pub(crate) fn scores(&self, direction: Direction, query: usize) -> Vec<f32> {
        match direction {
            Direction::ImageToText => (0..self.captions).map(|caption| self.at(query, caption)).collect(),
            Direction::TextToImage => (0..self.images).map(|image| self.at(image, query)).collect(),
        }
    }

    pub(crate) fn queries(&self, direction: Direction) -> usize {
        match direction {
            Direction::ImageToText => self.images,
            Direction::TextToImage => self.captions,
        }
    }

    /// The correct answer with the best score.
    pub(crate) fn target(&self, direction: Direction, query: usize) -> usize {
        let scores = self.scores(direction, query);
        match direction {
            Direction::ImageToText => {
                let own = query * CAPTIONS..(query + 1) * CAPTIONS;
                own.max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap()
            }
            Direction::TextToImage => query / CAPTIONS,
        }
    }

    /// For each query, the number of candidates ranked before the best correct answer. Ties go to the later candidate.
    pub(crate) fn ranks(&self, direction: Direction) -> Vec<usize> {
        let rank = |query| {
            let scores = self.scores(direction, query);
            let target = self.target(direction, query);
            let before = |candidate: usize| match scores[candidate].total_cmp(&scores[target]) {
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => candidate > target,
                std::cmp::Ordering::Less => false,
            };
            (0..scores.len()).filter(|&candidate| before(candidate)).count()
        };
        (0..self.queries(direction)).map(rank).collect()
    }
}

/// R@1, R@5, R@10 in percent, median and mean rank, as in the reference implementation.
pub(crate) fn figures(ranks: &[usize]) -> [f64; 5] {
    let recall = |k| 100.0 * ranks.iter().filter(|&&rank| rank < k).count() as f64 / ranks.len() as f64;
    let mut sorted = ranks.to_vec();
    sorted.sort_unstable();
    let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2;
    let mean = ranks.iter().sum::<usize>() as f64 / ranks.len() as f64;
    [recall(1), recall(5), recall(10), (middle + 1) as f64, mean + 1.0]
}

/// The same values from a JSON result.
pub(crate) fn reported(evaluation: &serde_json::Value, direction: Direction) -> [f64; 5] {
    let side = match direction {
        Direction::ImageToText => "i2t",
        Direction::TextToImage => "t2i",
    };
    ["r1", "r5", "r10", "median_rank", "mean_rank"].map(|name| evaluation[side][name].as_f64().unwrap())
}
