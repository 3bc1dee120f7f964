//! What moved, for people.

use comfy_table::{CellAlignment, Table, presets};

use super::{Finding, GroupReport, State};

/// A table of what moved, and a line for each group. Nothing in it changes from run to run while nothing moves.
pub fn render(reports: &[GroupReport]) -> String {
    let mut text = moved(reports);
    for report in reports {
        text += &format!("{:12}{}\n", report.group.name(), summary(report));
    }
    if reports.iter().any(GroupReport::fails) {
        text +=
            "hint: where the change is meant, `laps-zoo bench --bless` takes what was measured for the new baseline\n";
    }
    text
}

/// The same after what was measured became the baseline.
pub fn render_blessed(reports: &[GroupReport]) -> String {
    let mut text = moved(reports);
    for report in reports {
        let line = match &report.findings {
            Err(reason) => format!("kept as it was: {reason}"),
            Ok(findings) => {
                let measured = findings.iter().filter(|finding| finding.found.is_some()).count();
                let changed = findings.iter().filter(|finding| finding.baseline != finding.found).count();
                let lacking = findings.iter().filter(|finding| finding.state == State::Lacking).count();
                format!("{measured} figures taken, {} of them changed", changed - lacking)
            }
        };
        text += &format!("{:12}{line}\n", report.group.name());
    }
    text
}

fn summary(report: &GroupReport) -> String {
    let findings = match &report.findings {
        Err(reason) => return format!("skipped: {reason}"),
        Ok(findings) => findings,
    };
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let mut parts = vec![format!("{} figures", findings.len() - count(State::Lacking) - count(State::Gone))];
    for (state, words) in [
        (State::Moved, "moved"),
        (State::New, "without a baseline"),
        (State::Gone, "gone"),
        (State::Better, "better"),
        (State::Lacking, "skipped, for this processor has no such instructions"),
    ] {
        match count(state) {
            0 => {}
            number => parts.push(format!("{number} {words}")),
        }
    }
    if !report.fails() {
        parts.push("none moved".to_owned());
    }
    parts.join(", ")
}

fn moved(reports: &[GroupReport]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["what moved", "baseline", "found", "change", ""]);
    let mut rows = 0;
    for report in reports {
        for finding in report.findings.iter().flatten() {
            let word = match finding.state {
                State::Same | State::Lacking => continue,
                State::Moved => "",
                State::Better => "better",
                State::New => "new",
                State::Gone => "gone",
            };
            let name = format!("{}: {}", report.group, finding.name);
            let [before, found] = [finding.baseline, finding.found].map(figure);
            table.add_row([name, before, found, change(finding), word.to_owned()]);
            rows += 1;
        }
    }
    for column in 1..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if rows == 0 { String::new() } else { format!("{table}\n") }
}

fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2e}"),
    }
}

fn change(finding: &Finding) -> String {
    let (Some(before), Some(found)) = (finding.baseline, finding.found) else { return "-".to_owned() };
    let difference = found - before;
    match difference.fract() == 0.0 && difference.abs() < 1000.0 {
        true => format!("{difference:+.0}"),
        false => format!("{:+.2} %", 100.0 * (found / before - 1.0)),
    }
}

#[cfg(test)]
mod tests {
    use laps_align::{CaptionImages, Scores};

    use super::{render, render_blessed};
    use crate::gate::{Baseline, Gathered, Group, GroupReport, KernelCounts, Measure, MeasuredOn, judge, recalls};

    fn against(gathered: &Gathered, before: &Gathered) -> GroupReport {
        let values = before.measures.clone().unwrap().into_iter();
        let values = values.map(|measure| (measure.name, serde_json::Number::from_f64(measure.value).unwrap()));
        judge(gathered, &Baseline { measured_on: None, values: values.collect() }, &MeasuredOn::here())
    }

    fn counts(pairs: &[(&str, u64)]) -> Gathered {
        let counts = pairs.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        KernelCounts { skipped: None, counts }.gathered()
    }

    /// Every image's own captions score highest, but for `lost` of them.
    fn matrix(lost: usize) -> Gathered {
        let mut values = vec![0.1; 20 * 100];
        for image in lost..20 {
            values[image * 100 + image * 5..][..5].fill(0.9);
        }
        // One caption of another image comes first.
        for image in 0..lost {
            values[image * 100 + image * 5..][..5].fill(0.8);
            values[image * 100 + 99] = 0.85;
        }
        let captions = CaptionImages::uniform(20, 5).unwrap();
        let measures = recalls("shapes_vit", &Scores::new(&values, 20, 100).unwrap(), &captions).unwrap();
        Gathered::measured(Group::Recalls, measures)
    }

    #[test]
    fn a_slower_kernel_and_a_recall_lower_by_one_hit_are_named() {
        let before = counts(&[("vit/avx2/compare", 21_593_438), ("swin/avx2/compare", 6_013_638)]);
        let slower = counts(&[("vit/avx2/compare", 22_093_438), ("swin/avx2/compare", 6_013_638)]);
        let graphs = |nodes| Gathered::measured(Group::Graphs, vec![Measure::count("shapes_vit/image/nodes", nodes)]);
        let reports = [
            against(&slower, &before),
            against(&matrix(1), &matrix(0)),
            against(&graphs(132), &graphs(131)),
            GroupReport { group: Group::Drift, findings: Err("ONNX Runtime is not there".to_owned()) },
        ];
        assert!(reports[..3].iter().all(GroupReport::fails) && !reports[3].fails());
        insta::assert_snapshot!(render(&reports), @"
        ┌──────────────────────────────────────────────────────────────────────────────────────────────┐
        │ what moved                                                 baseline      found    change     │
        ╞══════════════════════════════════════════════════════════════════════════════════════════════╡
        │ kernels: vit/avx2/compare                                  21593438   22093438   +2.32 %     │
        │ recalls: shapes_vit/image to text/hits among the first 1         20         19        -1     │
        │ graphs: shapes_vit/image/nodes                                  131        132        +1     │
        └──────────────────────────────────────────────────────────────────────────────────────────────┘
        kernels     2 figures, 1 moved
        recalls     6 figures, 1 moved
        graphs      1 figures, 1 moved
        drift       skipped: ONNX Runtime is not there
        hint: where the change is meant, `laps-zoo bench --bless` takes what was measured for the new baseline
        ");
        insta::assert_snapshot!(render_blessed(&reports), @"
        ┌──────────────────────────────────────────────────────────────────────────────────────────────┐
        │ what moved                                                 baseline      found    change     │
        ╞══════════════════════════════════════════════════════════════════════════════════════════════╡
        │ kernels: vit/avx2/compare                                  21593438   22093438   +2.32 %     │
        │ recalls: shapes_vit/image to text/hits among the first 1         20         19        -1     │
        │ graphs: shapes_vit/image/nodes                                  131        132        +1     │
        └──────────────────────────────────────────────────────────────────────────────────────────────┘
        kernels     2 figures taken, 1 of them changed
        recalls     6 figures taken, 1 of them changed
        graphs      1 figures taken, 1 of them changed
        drift       kept as it was: ONNX Runtime is not there
        ");
    }

    #[test]
    fn nothing_is_shown_of_what_stayed() {
        let same =
            [against(&matrix(1), &matrix(1)), against(&counts(&[("a", 1000)]), &counts(&[("a", 1001), ("b", 1)]))];
        insta::assert_snapshot!(render(&same), @"
        recalls     6 figures, none moved
        kernels     1 figures, 1 skipped, for this processor has no such instructions, none moved
        ");
    }
}
