//! A paired test of two results on the same queries.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use laps_align::Protocol;
use laps_model::random::SplitMix64;
use serde::Serialize;

use super::{fold_sizes, hits, query_ranks};
use crate::{
    Error, Result,
    reproduce::{Reproduction, recalls, signed},
    tables::{COLUMNS, TableFormat},
};

/// Number of random sign changes of the test of rSum.
pub const PERMUTATIONS: usize = 10_000;
/// Random seed of the sign changes: the same results give the same p-value.
const SEED: u64 = 1;

/// Recalls of two results by one protocol, with the significance of their differences.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairedComparison {
    /// The protocol.
    pub protocol: Protocol,
    /// R@1, R@5, R@10 of image to text, then of text to image: exact McNemar tests.
    pub recalls: [RecallTest; 6],
    /// The sum of the six recalls: a sign-flip permutation test.
    pub rsum: RecallTest,
}

/// One recall of two results.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RecallTest {
    /// In percent.
    pub first: f64,
    /// In percent.
    pub second: f64,
    /// Two-sided p-value of the hypothesis that both models are equally good.
    pub p: f64,
}

/// Compares two results, which `paths` name in errors, by each protocol that both have.
///
/// # Errors
/// [`Error::InvalidResult`] for a result without the rank of each query; [`Error::Argument`] if the results are of
/// different data or have no protocol in common.
pub fn compare(results: [&Reproduction; 2], paths: [&Path; 2]) -> Result<Vec<PairedComparison>> {
    let [first, second] = results;
    let data = results.map(|result| result.provenance.entry().map(|entry| entry.data.sha256.as_str()));
    let sizes = results.map(|result| (result.images, result.captions));
    let is_other_data = matches!(data, [Some(first), Some(second)] if first != second);
    if is_other_data || sizes[0] != sizes[1] {
        let describe = |index: usize| {
            let (images, captions) = sizes[index];
            let hash = data[index].map_or_else(String::new, |hash| format!(", data sha256 {hash}"));
            format!("{images} images, {captions} captions{hash}")
        };
        return Err(Error::Argument {
            argument: "results",
            expected: format!("two results on the same data: {}", describe(0)),
            found: describe(1),
        });
    }
    let mut comparisons = Vec::new();
    for (index, evaluation) in first.evaluations.iter().enumerate() {
        let protocol = evaluation.protocol;
        let Some(other) = second.evaluations.iter().position(|evaluation| evaluation.protocol == protocol) else {
            continue;
        };
        let ranks = [query_ranks(first, index, paths[0])?, query_ranks(second, other, paths[1])?];
        let sides = [ranks.map(|ranks| ranks.i2t.as_slice()), ranks.map(|ranks| ranks.t2i.as_slice())];
        let values = [recalls(&evaluation.headline), recalls(&second.evaluations[other].headline)];
        let recalls = std::array::from_fn(|recall| RecallTest {
            first: values[0][recall],
            second: values[1][recall],
            p: mcnemar(sides[recall / 3], recall % 3),
        });
        let rsum = RecallTest {
            first: evaluation.headline.rsum,
            second: second.evaluations[other].headline.rsum,
            p: sign_flip(&sides, &fold_sizes(first, index)),
        };
        comparisons.push(PairedComparison { protocol, recalls, rsum });
    }
    if comparisons.is_empty() {
        let names = |result: &Reproduction| -> Vec<_> {
            result.evaluations.iter().map(|evaluation| evaluation.protocol.name()).collect()
        };
        return Err(Error::Argument {
            argument: "results",
            expected: format!("a second result by one of the protocols {}", names(first).join(", ")),
            found: names(second).join(", "),
        });
    }
    Ok(comparisons)
}

/// Exact McNemar test (McNemar 1947): of the queries that only one of the results answers within the depth, each is
/// answered by either with probability 1/2 under the hypothesis.
fn mcnemar([first, second]: [&[u32]; 2], depth: usize) -> f64 {
    let mut only = [0_u64; 2];
    for (&first, &second) in first.iter().zip(second) {
        match (hits(first)[depth], hits(second)[depth]) {
            (1, 0) => only[0] += 1,
            (0, 1) => only[1] += 1,
            _ => {}
        }
    }
    binomial(only[0].min(only[1]), only[0] + only[1])
}

/// `min(1, 2 P(X <= fewer))` for X of the binomial distribution of `all` trials with probability 1/2.
fn binomial(fewer: u64, all: u64) -> f64 {
    // In logarithms: 2^-25000 is smaller than any f64.
    let mut term = -(all as f64) * std::f64::consts::LN_2;
    let mut sum = term.exp();
    for successes in 0..fewer {
        term += ((all - successes) as f64 / (successes + 1) as f64).ln();
        sum += term.exp();
    }
    (2.0 * sum).min(1.0)
}

/// Sign-flip permutation test of rSum: under the hypothesis, the two answers to a query can be exchanged. The p-value is
/// `(1 + n) / (1 + N)` for `n` of `N` random exchanges with a difference at least as large.
fn sign_flip(sides: &[[&[u32]; 2]; 2], sizes: &[Vec<usize>; 2]) -> f64 {
    let mut differences = Vec::new();
    for ([first, second], sizes) in sides.iter().zip(sizes) {
        let weights = sizes.iter().flat_map(|&size| {
            let weight = 100.0 / size.max(1) as f64 / sizes.len() as f64;
            std::iter::repeat_n(weight, size)
        });
        for ((&first, &second), weight) in first.iter().zip(second.iter()).zip(weights) {
            let hits_of = |rank| hits(rank).iter().sum::<usize>() as f64;
            let difference = (hits_of(second) - hits_of(first)) * weight;
            if difference != 0.0 {
                differences.push(difference);
            }
        }
    }
    let measured = differences.iter().sum::<f64>().abs();
    let mut random = SplitMix64::named(SEED, "sign flips");
    // Sums in another order differ by rounding; the smallest real difference is above 1e-6.
    let least = measured - 1e-9;
    let as_large = (0..PERMUTATIONS).filter(|_| flipped(&differences, &mut random).abs() >= least).count();
    (1 + as_large) as f64 / (1 + PERMUTATIONS) as f64
}

/// The sum with random signs.
fn flipped(differences: &[f64], random: &mut SplitMix64) -> f64 {
    let signed = differences.chunks(64).map(|differences| {
        let mut bits = random.bits();
        let mut sum = 0.0;
        for difference in differences {
            sum += if bits & 1 == 0 { *difference } else { -difference };
            bits >>= 1;
        }
        sum
    });
    signed.sum()
}

/// The comparisons as text: a table for a terminal, Markdown or JSON.
///
/// # Errors
/// [`Error::Argument`] for a format that paired comparisons do not have.
pub fn render(names: [&str; 2], comparisons: &[PairedComparison], format: TableFormat) -> Result<String> {
    let preset = match format {
        TableFormat::Terminal => presets::UTF8_BORDERS_ONLY,
        TableFormat::Markdown => presets::ASCII_MARKDOWN,
        TableFormat::Json => {
            #[derive(Serialize)]
            struct Comparisons<'a> {
                first: &'a str,
                second: &'a str,
                comparisons: &'a [PairedComparison],
            }
            let [first, second] = names;
            let text = serde_json::to_string_pretty(&Comparisons { first, second, comparisons });
            return text.map(|text| text + "\n").map_err(|source| Error::Template { source: source.into() });
        }
        TableFormat::Csv | TableFormat::Latex => {
            return Err(Error::Argument {
                argument: "format",
                expected: "`terminal`, `markdown` or `json` for a comparison of two results".to_owned(),
                found: format!("`{}`", format.name()),
            });
        }
    };
    let mut text = String::new();
    for comparison in comparisons {
        let tests: Vec<RecallTest> = comparison.recalls.iter().copied().chain([comparison.rsum]).collect();
        let mut table = Table::new();
        table.load_style(preset);
        table.set_header([comparison.protocol.name()].iter().chain(&COLUMNS));
        let mut row = |name: &str, cell: &dyn Fn(&RecallTest) -> String| {
            table.add_row([name.to_owned()].into_iter().chain(tests.iter().map(cell)));
        };
        row(names[0], &|test| format!("{:.2}", test.first));
        row(names[1], &|test| format!("{:.2}", test.second));
        row("difference", &|test| signed(test.second - test.first));
        row("p", &|test| if test.p < 0.001 { "<0.001".to_owned() } else { format!("{:.3}", test.p) });
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        text += &format!("{table}\n\n");
    }
    text += &format!("p: two-sided; recalls: exact McNemar test; rSum: {PERMUTATIONS} random sign flips\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{binomial, compare, render};
    use crate::{statistics::tests::result, tables::TableFormat};

    const PATHS: [&str; 2] = ["a.json", "b.json"];

    fn compared(first: [&[u32]; 2], second: [&[u32]; 2]) -> super::PairedComparison {
        let results = [result(first[0], first[1]), result(second[0], second[1])];
        compare([&results[0], &results[1]], PATHS.map(Path::new)).unwrap().remove(0)
    }

    /// Twice the sum of the first binomial coefficients, divided by `2^n`; for large `n` the normal approximation with a
    /// continuity correction, `erfc(99.5 / sqrt(12500))`, which is exact to three digits.
    #[test]
    fn binomial_probabilities_equal_those_computed_by_hand() {
        for (fewer, all, expected) in [(0, 0, 1.0), (3, 10, 0.34375), (5, 10, 1.0), (1, 12, 0.006_347_656_25)] {
            assert!((binomial(fewer, all) - expected).abs() < 1e-12, "{fewer} of {all}: {}", binomial(fewer, all));
        }
        // 2^-1099 is below the smallest f64.
        assert_eq!(binomial(0, 1100), 0.0);
        assert!((binomial(12_400, 25_000) - 0.208_2).abs() < 2e-4, "{}", binomial(12_400, 25_000));
    }

    #[test]
    fn equal_results_do_not_differ() {
        let ranks: [&[u32]; 2] = [&[1, 2, 7, 12], &[1, 1, 3, 4, 20, 6, 7, 8]];
        let found = compared(ranks, ranks);
        assert!(found.recalls.iter().chain([&found.rsum]).all(|test| test.p == 1.0 && test.first == test.second));
    }

    /// 20 queries of one direction that only the second result answers: p = 2 * 2^-20 for that recall.
    #[test]
    fn consistent_difference_is_significant() {
        let t2i = vec![1; 200];
        let (mut first, second) = (vec![1; 40], vec![1; 40]);
        first[..20].fill(3);
        let found = compared([&first, &t2i], [&second, &t2i]);
        assert_eq!(found.recalls[0].p, 2.0 * f64::powi(0.5, 20));
        assert_eq!((found.recalls[0].first, found.recalls[0].second), (50.0, 100.0));
        assert!(found.recalls[1..].iter().all(|test| test.p == 1.0));
        assert_eq!(found.rsum.p, 1.0 / 10_001.0);
        let text = render(["a", "b"], &[found], TableFormat::Terminal).unwrap();
        assert!(text.contains("+50.00") && text.contains("<0.001"), "{text}");
    }

    #[test]
    fn results_of_different_data_are_rejected() {
        let results = [result(&[1, 2], &[1, 1, 3, 4]), result(&[1, 2, 3], &[1, 1, 3, 4, 5, 6])];
        let error = compare([&results[0], &results[1]], PATHS.map(Path::new)).unwrap_err().to_string();
        assert!(error.contains("found: 3 images, 6 captions"), "{error}");
        let mut old = result(&[1, 2], &[1, 1, 3, 4]);
        old.ranks[0].queries = None;
        let error = compare([&results[0], &old], PATHS.map(Path::new)).unwrap_err().to_string();
        assert!(error.contains("`b.json` is not a valid result"), "{error}");
    }
}
