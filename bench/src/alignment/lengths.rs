//! Lengths of captions.

use laps_model::random::SplitMix64;

/// Number of captions with `SHORTEST`, `SHORTEST + 1`, ... tokens, including `[CLS]` and `[SEP]`.
///
/// Counted over 7,425 captions of Flickr30K (Young, Lai, Hodosh, Hockenmaier, TACL 2014), the five captions of each of
/// 1,485 images of its three splits (Karpathy, Fei-Fei, CVPR 2015), with the vocabulary of `bert-base-uncased`. The
/// mean is 14.4.
const COUNTS: [u32; 36] = [
    2, 3, 35, 57, 199, 392, 560, 613, 753, 747, 780, 713, 599, 498, 368, 303, 224, 180, 107, 98, 58, 47, 17, 16, 18, 9,
    9, 7, 4, 1, 2, 3, 1, 0, 0, 2,
];

const SHORTEST: usize = 4;

/// Random caption lengths with the distribution of Flickr30K.
#[derive(Clone, Debug)]
pub(crate) struct CaptionLengths(SplitMix64);

impl CaptionLengths {
    /// The sequence of lengths of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::named(seed, "caption lengths"))
    }
}

impl Iterator for CaptionLengths {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let mut rest = self.0.below(COUNTS.iter().sum::<u32>() as usize);
        for (more, &count) in COUNTS.iter().enumerate() {
            match rest.checked_sub(count as usize) {
                Some(remaining) => rest = remaining,
                None => return Some(SHORTEST + more),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use laps_data::{Split, Tokenizer};

    use super::{COUNTS, CaptionLengths, SHORTEST};

    #[test]
    fn sampled_lengths_follow_the_counts() {
        let sampled: Vec<usize> = CaptionLengths::new(7).take(100_000).collect();
        let mean = sampled.iter().sum::<usize>() as f64 / sampled.len() as f64;
        let [captions, tokens] = (SHORTEST..).zip(COUNTS).fold([0.0, 0.0], |[captions, tokens], (length, count)| {
            [captions + f64::from(count), tokens + length as f64 * f64::from(count)]
        });
        // Five standard errors of the mean: the lengths have a standard deviation of 4.1.
        assert!((mean - tokens / captions).abs() < 5.0 * 4.1 / 316.0, "{mean}");
        assert!(sampled.iter().all(|length| (4..=39).contains(length)));
        assert_eq!(sampled[..9], CaptionLengths::new(7).take(9).collect::<Vec<_>>());
    }

    #[test]
    fn counts_match_the_real_captions() {
        let real = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/real"));
        let captions = real.join("f30k_mini/captions");
        if !captions.is_dir() {
            println!("skipped: no `{}`", captions.display());
            return;
        }
        let tokenizer = Tokenizer::open(&real.join("tokenizer/vocab.txt")).unwrap();
        let mut counts = [0; 36];
        for name in ["train", "dev", "test"] {
            let split = Split::open(&captions, name).unwrap();
            for tokens in tokenizer.encode_all(split.captions(), 512).unwrap() {
                counts[tokens.len() - SHORTEST] += 1;
            }
        }
        assert_eq!(counts, COUNTS);
    }
}
