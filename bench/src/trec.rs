//! Run files of TREC, as `trec_eval`, `ranx` and `pytrec_eval` read them: `query Q0 document rank score tag` per line.
//!
//! A file has both directions. An image is named by its id, and the caption number `k` of an image, from 0, by `id#k`;
//! a line is image to text if its document is a caption.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
};

use laps_align::{CaptionImages, Scores};
use laps_data::Split;
use laps_files::strip_mark;

use crate::{Error, Result};

/// Candidates of a query that are written.
pub const RUN_DEPTH: usize = 100;

/// Images of a run file without a data set, whose matrix is then in memory.
const MAX_NUMBERED: usize = 10_000;

/// Names of images and captions in a run file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunIds {
    images: Vec<String>,
    captions: Vec<String>,
}

impl RunIds {
    /// Names from the ids of a split.
    pub fn of(split: &Split) -> Self {
        let images = split.images().iter().map(|image| encode(&image.id)).collect();
        Self::new(images, split.image_of().iter().copied())
    }

    /// Numbers images from 0, for matrices without a data set.
    pub fn numbered(captions: &CaptionImages) -> Self {
        let image_of = (0..captions.captions()).map(|caption| captions.image(caption as u32) as usize);
        Self::new((0..captions.images()).map(|image| image.to_string()).collect(), image_of)
    }

    /// Number of images and captions.
    pub(crate) fn sizes(&self) -> [usize; 2] {
        [self.images.len(), self.captions.len()]
    }

    fn new(images: Vec<String>, image_of: impl Iterator<Item = usize>) -> Self {
        let mut counts = vec![0; images.len()];
        let captions = image_of.map(|image| {
            counts[image] += 1;
            format!("{}#{}", images[image], counts[image] - 1)
        });
        Self { captions: captions.collect(), images }
    }
}

/// An id without white space, which separates the columns, and without `#`.
fn encode(id: &str) -> String {
    let mut text = String::new();
    for letter in id.chars() {
        match letter {
            '%' | '#' => text += &format!("%{:02X}", letter as u32),
            letter if letter.is_whitespace() => text += &format!("%{:02X}", letter as u32),
            letter => text.push(letter),
        }
    }
    text
}

/// The best candidates of a query so far.
#[derive(Clone, Default)]
struct Top(Vec<(f32, u32)>);

impl Top {
    fn add(&mut self, score: f32, index: u32) {
        if self.0.len() == 2 * RUN_DEPTH {
            self.0.select_nth_unstable_by(RUN_DEPTH, order);
            self.0.truncate(RUN_DEPTH);
        }
        self.0.push((score, index));
    }

    fn finish(mut self) -> Vec<(f32, u32)> {
        self.0.sort_by(order);
        self.0.truncate(RUN_DEPTH);
        self.0
    }
}

/// Higher scores first, and of equal scores the later index, as for the ranks of laps-zoo and of `trec_eval`.
fn order(one: &(f32, u32), other: &(f32, u32)) -> std::cmp::Ordering {
    other.0.total_cmp(&one.0).then(other.1.cmp(&one.1))
}

/// Writes the first [`RUN_DEPTH`] candidates of each image and each caption. Reads the matrix once.
///
/// # Errors
/// [`Error::Write`], and errors of the matrix.
pub fn write_run(path: &Path, scores: &Scores<'_>, ids: &RunIds, tag: &str) -> Result<()> {
    let tag = encode(tag);
    let failed = |source: std::io::Error| Error::Write { path: path.to_owned(), source: source.into() };
    laps_files::write_output(path, |output| {
        let mut lines = |query: &str, documents: &[String], top: Vec<(f32, u32)>| {
            (1..).zip(top).try_for_each(|(rank, (score, index)): (usize, _)| {
                writeln!(output, "{query} Q0 {} {rank} {score} {tag}", documents[index as usize]).map_err(failed)
            })
        };
        let mut columns = vec![Top::default(); scores.captions()];
        let mut buffer = Vec::new();
        for image in 0..scores.images() {
            let mut row = Top::default();
            for (caption, &score) in scores.row(image, &mut buffer)?.iter().enumerate() {
                row.add(score, caption as u32);
                columns[caption].add(score, image as u32);
            }
            lines(&ids.images[image], &ids.captions, row.finish())?;
        }
        ids.captions.iter().zip(columns).try_for_each(|(query, top)| lines(query, &ids.images, top.finish()))
    })
}

/// A similarity matrix from a run file.
pub(crate) struct RunMatrix {
    /// Images x captions.
    pub(crate) values: Vec<f32>,
    /// Candidates that the file does not list, if any.
    pub(crate) note: Option<String>,
}

/// Number of images of a run file with numbered images: one more than the largest number. Every number below it has to be
/// there, so that a short file cannot ask for a large matrix.
pub(crate) fn count_images(path: &Path) -> Result<usize> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut count = 0;
    let mut is_listed = vec![false; MAX_NUMBERED];
    for text in BufReader::new(fs_err::File::open(path).map_err(read)?).lines() {
        let text = text.map_err(read)?;
        let ids = strip_mark(&text).split_ascii_whitespace().step_by(2).take(2);
        for number in ids.filter_map(|id| id.split('#').next()?.parse::<usize>().ok()) {
            count = count.max(number.saturating_add(1));
            if let Some(is_listed) = is_listed.get_mut(number) {
                *is_listed = true;
            }
        }
    }
    let refuse = |expected: String, found: String| {
        let hint = "name the data set whose ids the run file has";
        Err(Error::Foreign { path: path.to_owned(), expected, found, hint })
    };
    if count == 0 || count > MAX_NUMBERED {
        return refuse(format!("numbered images, at most {MAX_NUMBERED}"), format!("{count}"));
    }
    let listed = is_listed.iter().filter(|&&is_listed| is_listed).count();
    if listed < count {
        let expected =
            format!("all images from 0 to {}, because the largest number says how many there are", count - 1);
        return refuse(expected, format!("{listed} of them"));
    }
    Ok(count)
}

/// Reads a run file. Pairs that it does not list get one similarity below all others, so that they rank last.
///
/// # Errors
/// [`Error::Foreign`] for a line of another format, an id that is not in `ids`, and different scores of one pair.
pub(crate) fn read_run(path: &Path, ids: &RunIds) -> Result<RunMatrix> {
    let refuse = |expected: String, found: String| Error::Foreign {
        path: path.to_owned(),
        expected,
        found,
        hint: "a run file has lines `query Q0 document rank score tag`; an image is named by its id, or by its number from \
               0 without a data set, and its caption k by `id#k`",
    };
    let read = |source| Error::Read { path: path.to_owned(), source };
    let images: HashMap<&str, usize> = ids.images.iter().map(String::as_str).zip(0..).collect();
    let captions: HashMap<&str, usize> = ids.captions.iter().map(String::as_str).zip(0..).collect();
    let mut values = vec![f32::NAN; ids.images.len() * ids.captions.len()];
    let (mut listed, mut lowest) = (0, f32::INFINITY);
    for (line, text) in (1..).zip(BufReader::new(fs_err::File::open(path).map_err(read)?).lines()) {
        let text = text.map_err(read)?;
        let columns: Vec<&str> = strip_mark(&text).split_ascii_whitespace().collect();
        if columns.is_empty() {
            continue;
        }
        let &[query, _, document, _, score, _] = columns.as_slice() else {
            return Err(refuse(format!("six columns in line {line}"), format!("{}", columns.len())));
        };
        let (image, caption) = if document.contains('#') { (query, document) } else { (document, query) };
        let (Some(image_index), Some(caption_index)) = (images.get(image), captions.get(caption)) else {
            let expected =
                format!("an image and a caption of the {} x {} in line {line}", images.len(), captions.len());
            return Err(refuse(expected, format!("`{query}` and `{document}`")));
        };
        let value = score.parse::<f32>().ok().filter(|value| value.is_finite());
        let Some(value) = value else {
            return Err(refuse(format!("a finite score in line {line}"), format!("`{score}`")));
        };
        let cell = &mut values[image_index * captions.len() + caption_index];
        if cell.is_nan() {
            listed += 1;
        } else if *cell != value {
            let expected = format!("one score for image `{image}` and caption `{caption}`, {cell}");
            return Err(refuse(expected, format!("{value} in line {line}")));
        }
        *cell = value;
        lowest = lowest.min(value);
    }
    if listed == 0 {
        return Err(refuse("lines".to_owned(), "none".to_owned()));
    }
    let below = (lowest - lowest.abs().max(1.0)).max(f32::MIN);
    values.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = below);
    let all = values.len();
    let note = (listed < all).then(|| {
        format!("the run file lists {listed} of {all} pairs; the others rank last, so that mean ranks are upper limits")
    });
    Ok(RunMatrix { values, note })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix with ties, of `images` with two captions each.
    fn matrix(images: usize) -> (Vec<f32>, CaptionImages) {
        let mut random = laps_model::random::SplitMix64::new(3);
        let values = (0..images * 2 * images).map(|_| random.below(1000) as f32 / 999.0 - 0.3).collect();
        (values, CaptionImages::uniform(images, 2).unwrap())
    }

    #[test]
    fn run_file_of_a_small_matrix_is_the_matrix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.run");
        let (values, captions) = matrix(40);
        let ids = RunIds::numbered(&captions);
        write_run(&path, &Scores::new(&values, 40, 80).unwrap(), &ids, "a model").unwrap();
        let read = read_run(&path, &ids).unwrap();
        assert_eq!((read.values, read.note), (values.clone(), None));
        let text = fs_err::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2 * 40 * 80);
        let first = (0..80).max_by(|&a, &b| order(&(values[b], b as u32), &(values[a], a as u32))).unwrap();
        let expected = format!("0 Q0 {}#{} 1 {} a%20model", first / 2, first % 2, values[first]);
        assert_eq!(text.lines().next(), Some(expected.as_str()));
    }

    #[test]
    fn longer_lists_are_cut_and_the_first_candidates_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.run");
        let (values, captions) = matrix(150);
        let ids = RunIds::numbered(&captions);
        write_run(&path, &Scores::new(&values, 150, 300).unwrap(), &ids, "x").unwrap();
        let read = read_run(&path, &ids).unwrap();
        let note = read.note.unwrap();
        assert!(note.ends_with("of 45000 pairs; the others rank last, so that mean ranks are upper limits"), "{note}");
        let recalls = |values: &[f32]| {
            let scores = Scores::new(values, 150, 300).unwrap();
            let evaluation = laps_align::evaluate(&scores, &captions, laps_align::Protocol::F30k).unwrap();
            crate::reproduce::recalls(&evaluation.headline)
        };
        assert_eq!(recalls(&read.values), recalls(&values));
    }

    /// Its matrix would have 2 GB.
    #[test]
    fn short_run_file_with_a_large_number_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.run");
        let count = |text: &str| {
            fs_err::write(&path, text).unwrap();
            count_images(&path).map_err(|error| error.to_string().split_once("expected: ").unwrap().1.to_owned())
        };
        insta::assert_snapshot!(count("9999 Q0 9999#0 1 0.5 x\n").unwrap_err(), @r"
        all images from 0 to 9999, because the largest number says how many there are
          found: 1 of them
        ");
        insta::assert_snapshot!(count("10000 Q0 0#0 1 0.5 x\n").unwrap_err(), @r"
        numbered images, at most 10000
          found: 10001
        ");
        // An image that only a caption names is there.
        assert_eq!(count("0 Q0 0#0 1 0.5 x\n1#4 Q0 0 1 0.5 x\n").unwrap(), 2);
    }

    #[test]
    fn bad_run_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.run");
        let ids = RunIds::numbered(&CaptionImages::uniform(2, 1).unwrap());
        let refusal = |text: &str| {
            fs_err::write(&path, text).unwrap();
            let error = read_run(&path, &ids).err().unwrap().to_string();
            error.split_once("expected: ").unwrap().1.to_owned()
        };
        insta::assert_snapshot!(refusal("0 Q0 0#0 1 0.5\n"), @r"
        six columns in line 1
          found: 5
        ");
        insta::assert_snapshot!(refusal("0 Q0 0#0 1 0.5 x\n0 Q0 7#0 1 0.5 x\n"), @r"
        an image and a caption of the 2 x 2 in line 2
          found: `0` and `7#0`
        ");
        insta::assert_snapshot!(refusal("0 Q0 0#0 1 inf x\n"), @r"
        a finite score in line 1
          found: `inf`
        ");
        insta::assert_snapshot!(refusal("0 Q0 0#0 1 0.5 x\n0#0 Q0 0 1 0.25 x\n"), @r"
        one score for image `0` and caption `0#0`, 0.5
          found: 0.25 in line 2
        ");
        insta::assert_snapshot!(refusal("\n"), @r"
        lines
          found: none
        ");
    }
}
