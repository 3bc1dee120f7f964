//! How long captions are.

use laps_model::random::SplitMix64;

/// Captions of `SHORTEST`, `SHORTEST + 1`, ... tokens, `[CLS]` and `[SEP]` counted.
///
/// Counted over 7,425 captions of Flickr30K (Young, Lai, Hodosh, Hockenmaier, TACL 2014), the five captions of each of
/// 1,485 images of its three splits (Karpathy, Fei-Fei, CVPR 2015), with the vocabulary of `bert-base-uncased`. The mean
/// is 14.4.
const COUNTS: [u32; 36] = [
    2, 3, 35, 57, 199, 392, 560, 613, 753, 747, 780, 713, 599, 498, 368, 303, 224, 180, 107, 98, 58, 47, 17, 16, 18, 9,
    9, 7, 4, 1, 2, 3, 1, 0, 0, 2,
];

const SHORTEST: usize = 4;

/// Draws lengths of captions as they are distributed in Flickr30K.
#[derive(Clone, Debug)]
pub struct Lengths(SplitMix64);

impl Lengths {
    /// The lengths of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::named(seed, "caption lengths"))
    }
}

impl Iterator for Lengths {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let mut place = self.0.below(COUNTS.iter().sum::<u32>() as usize);
        for (more, &count) in COUNTS.iter().enumerate() {
            match place.checked_sub(count as usize) {
                Some(rest) => place = rest,
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

    use super::{COUNTS, Lengths, SHORTEST};

    #[test]
    fn drawn_lengths_are_distributed_as_counted() {
        let drawn: Vec<usize> = Lengths::new(7).take(100_000).collect();
        let mean = drawn.iter().sum::<usize>() as f64 / drawn.len() as f64;
        let [captions, tokens] = (SHORTEST..).zip(COUNTS).fold([0.0, 0.0], |[captions, tokens], (length, count)| {
            [captions + f64::from(count), tokens + length as f64 * f64::from(count)]
        });
        // Five standard errors of the mean: the lengths spread by 4.1.
        assert!((mean - tokens / captions).abs() < 5.0 * 4.1 / 316.0, "{mean}");
        assert!(drawn.iter().all(|length| (4..=39).contains(length)));
        assert_eq!(drawn[..9], Lengths::new(7).take(9).collect::<Vec<_>>());
    }

    #[test]
    fn counts_are_those_of_the_real_captions() {
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
