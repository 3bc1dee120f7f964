//! The reports as text.

use comfy_table::{CellAlignment, Table, presets};

use super::{GroupReport, MeasureReport, MeasureState};

/// A table of changed measures, and one line per group. While no measure changes, the text is the same in every run.
pub fn render(reports: &[GroupReport]) -> String {
    let mut text = changes(reports);
    for report in reports {
        text += &format!("{:12}{}\n", report.group.name(), summary(report));
    }
    if reports.iter().any(GroupReport::fails) {
        text += "hint: if the change is intended, `laps-zoo bench --bless` writes the measured values as the new baseline\n";
    }
    text
}

/// The same text after the measured values were written as the new baseline.
pub fn render_blessed(reports: &[GroupReport]) -> String {
    let mut text = changes(reports);
    for report in reports {
        let line = match &report.measures {
            Err(reason) => format!("not updated: {reason}"),
            Ok(measures) => {
                let measured = measures.iter().filter(|measure| measure.found.is_some()).count();
                let changed = measures.iter().filter(|measure| measure.baseline != measure.found).count();
                let unavailable = measures.iter().filter(|measure| measure.state == MeasureState::Unavailable).count();
                format!("{measured} values written, {} changed", changed - unavailable)
            }
        };
        text += &format!("{:12}{line}\n", report.group.name());
    }
    text
}

fn summary(report: &GroupReport) -> String {
    let measures = match &report.measures {
        Err(reason) => return format!("skipped: {reason}"),
        Ok(measures) => measures,
    };
    let count = |state| measures.iter().filter(|measure| measure.state == state).count();
    let measured = measures.len() - count(MeasureState::Unavailable) - count(MeasureState::Missing);
    let mut parts = vec![format!("{measured} values")];
    for (state, words) in [
        (MeasureState::Changed, "changed"),
        (MeasureState::New, "without a baseline"),
        (MeasureState::Missing, "no longer measured"),
        (MeasureState::Better, "better"),
        (MeasureState::Unavailable, "skipped (this CPU lacks the instruction set)"),
    ] {
        match count(state) {
            0 => {}
            number => parts.push(format!("{number} {words}")),
        }
    }
    if !report.fails() {
        parts.push("none changed".to_owned());
    }
    parts.join(", ")
}

fn changes(reports: &[GroupReport]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["changed measure", "baseline", "measured", "change", ""]);
    let mut rows = 0;
    for report in reports {
        for measure in report.measures.iter().flatten() {
            let note = match measure.state {
                MeasureState::Same | MeasureState::Unavailable => continue,
                MeasureState::Changed => "",
                MeasureState::Better => "better",
                MeasureState::New => "new",
                MeasureState::Missing => "no longer measured",
            };
            let name = format!("{}: {}", report.group, measure.name);
            let [before, found] = [measure.baseline, measure.found].map(number);
            table.add_row([name, before, found, change(measure), note.to_owned()]);
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

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2e}"),
    }
}

fn change(measure: &MeasureReport) -> String {
    let (Some(before), Some(found)) = (measure.baseline, measure.found) else { return "-".to_owned() };
    let difference = found - before;
    match difference.fract() == 0.0 && difference.abs() < 1000.0 {
        true => format!("{difference:+.0}"),
        false => format!("{:+.2} %", 100.0 * (found / before - 1.0)),
    }
}

#[cfg(test)]
mod tests {
    use laps_align::{CaptionImages, Scores};

    use super::{changes, render, render_blessed};
    use crate::gate::{
        Baseline, GateGroup, GroupMeasures, GroupReport, KernelCounts, Measure, MeasuredOn, evaluation::recalls, judge,
    };

    fn compare(measured: &GroupMeasures, before: &GroupMeasures) -> GroupReport {
        let values = before.measures.clone().unwrap().into_iter();
        let values = values.map(|measure| (measure.name, serde_json::Number::from_f64(measure.value).unwrap()));
        judge(measured, &Baseline { measured_on: None, values: values.collect() }, &MeasuredOn::here())
    }

    fn counts(pairs: &[(&str, u64)]) -> GroupMeasures {
        let counts = pairs.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        KernelCounts { skipped: None, counts }.measures()
    }

    /// Hits of 20 images whose own captions score highest, except for `lost` images.
    fn hits(lost: usize) -> GroupMeasures {
        let mut values = vec![0.1; 20 * 100];
        for image in lost..20 {
            values[image * 100 + image * 5..][..5].fill(0.9);
        }
        // A caption of another image ranks first.
        for image in 0..lost {
            values[image * 100 + image * 5..][..5].fill(0.8);
            values[image * 100 + 99] = 0.85;
        }
        let captions = CaptionImages::uniform(20, 5).unwrap();
        let measures = recalls("shapes_vit", &Scores::new(&values, 20, 100).unwrap(), &captions).unwrap();
        GroupMeasures::measured(GateGroup::Recalls, measures)
    }

    #[test]
    fn slower_kernel_and_one_lost_hit_are_reported() {
        let before = counts(&[("vit/avx2/compare", 21_593_438), ("swin/avx2/compare", 6_013_638)]);
        let slower = counts(&[("vit/avx2/compare", 22_093_438), ("swin/avx2/compare", 6_013_638)]);
        let graphs =
            |nodes| GroupMeasures::measured(GateGroup::Graphs, vec![Measure::count("shapes_vit/image/nodes", nodes)]);
        let reports = [
            compare(&slower, &before),
            compare(&hits(1), &hits(0)),
            compare(&graphs(132), &graphs(131)),
            GroupReport { group: GateGroup::Drift, measures: Err("ONNX Runtime is not installed".to_owned()) },
        ];
        assert!(reports[..3].iter().all(GroupReport::fails) && !reports[3].fails());
        insta::assert_snapshot!(render(&reports), @"
        ┌──────────────────────────────────────────────────────────────────────────────────────────────┐
        │ changed measure                                            baseline   measured    change     │
        ╞══════════════════════════════════════════════════════════════════════════════════════════════╡
        │ kernels: vit/avx2/compare                                  21593438   22093438   +2.32 %     │
        │ recalls: shapes_vit/image to text/hits among the first 1         20         19        -1     │
        │ graphs: shapes_vit/image/nodes                                  131        132        +1     │
        └──────────────────────────────────────────────────────────────────────────────────────────────┘
        kernels     2 values, 1 changed
        recalls     6 values, 1 changed
        graphs      1 values, 1 changed
        drift       skipped: ONNX Runtime is not installed
        hint: if the change is intended, `laps-zoo bench --bless` writes the measured values as the new baseline
        ");
        let blessed = render_blessed(&reports);
        let groups = blessed.strip_prefix(&changes(&reports)).unwrap();
        insta::assert_snapshot!(groups, @"
        kernels     2 values written, 1 changed
        recalls     6 values written, 1 changed
        graphs      1 values written, 1 changed
        drift       not updated: ONNX Runtime is not installed
        ");
    }

    #[test]
    fn unchanged_measures_are_not_listed() {
        let same = [compare(&hits(1), &hits(1)), compare(&counts(&[("a", 1000)]), &counts(&[("a", 1001), ("b", 1)]))];
        insta::assert_snapshot!(render(&same), @"
        recalls     6 values, none changed
        kernels     1 values, 1 skipped (this CPU lacks the instruction set), none changed
        ");
    }
}
