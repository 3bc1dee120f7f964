//! A result as a table, as Markdown and as CSV.

use comfy_table::{CellAlignment, Table, presets};

use super::{TimingResult, TimingRow};

const HEADER: [&str; 15] = [
    "part",
    "engine",
    "device",
    "precision",
    "batch",
    "per second",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "parameters",
    "GMACs",
    "peak MiB",
    "file MB",
    "load ms",
    "version",
];

/// The last column of numbers.
const LAST_NUMBER: usize = 13;

fn cells(row: &TimingRow) -> [String; 15] {
    let or =
        |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
    let time = |milliseconds: f64| match milliseconds {
        short if short < 10.0 => format!("{short:.3}"),
        long => format!("{long:.1}"),
    };
    let gmacs = row.gmacs.map_or_else(|| "-".to_owned(), |count| format!("{count:.4}"));
    [
        row.part.to_string(),
        row.engine_label(),
        row.device.clone(),
        row.precision.clone(),
        row.batch.to_string(),
        format!("{:.1} {}", row.throughput, row.items),
        time(row.p50_ms),
        time(row.p90_ms),
        time(row.p99_ms),
        row.parameters.map_or_else(|| "-".to_owned(), |count| count.to_string()),
        gmacs,
        or(row.peak_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)), 1),
        or(row.file_bytes.map(|bytes| bytes as f64 / 1e6), 2),
        or(row.load_ms, 1),
        row.version.clone(),
    ]
}

/// Lines above the table: what the rows have in common.
fn heading(timing: &TimingResult) -> [String; 3] {
    let TimingResult { entry, scenario, weights, warm_up, repeats, threads, machine, versions, .. } = timing;
    let commit = versions.commit.as_deref().unwrap_or("commit unknown");
    let load = timing.load_before.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.1}"));
    [
        format!(
            "{entry}, scenario {scenario}, {warm_up} warm-up and {repeats} measured iterations; weights: {weights}"
        ),
        format!("{machine}; {threads} thread{}; load average before: {load}", if *threads == 1 { "" } else { "s" }),
        format!("laps-zoo {} ({commit}), {} build", versions.laps_zoo, versions.build),
    ]
}

/// A table with borders, below the lines of the heading.
pub fn render(timing: &TimingResult) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(HEADER);
    for row in &timing.rows {
        table.add_row(cells(row));
    }
    for column in 4..=LAST_NUMBER {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n{table}\n", heading(timing).join("\n"))
}

/// A Markdown table, below the lines of the heading.
pub fn markdown(timing: &TimingResult) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ").replace('\n', " "));
    let mut text = format!("{}\n\n", heading(timing).join("  \n"));
    text += &line(&HEADER.map(str::to_owned));
    let rule: String =
        (0..HEADER.len()).map(|column| if (4..=LAST_NUMBER).contains(&column) { "---:|" } else { "---|" }).collect();
    text += &format!("|{rule}\n");
    timing.rows.iter().for_each(|row| text += &line(&cells(row)));
    text
}

/// CSV: a header, then one self-contained line per row.
pub fn csv(timing: &TimingResult) -> String {
    let quoted = |cell: &str| match cell.contains([',', '"', '\n']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    };
    let mut text = "entry,config_sha256,scenario,threads,part,engine,version,device,precision,batch,items,throughput,\
        p50_ms,p90_ms,p99_ms,parameters,gmacs,peak_bytes,file_bytes,load_ms,weights,warm_up,repeats,seed,processor,\
        processors,system,load_before,laps_zoo,commit,build,gpus,flavour\n"
        .to_owned();
    for row in &timing.rows {
        let some = |value: Option<String>| value.unwrap_or_default();
        let cells = [
            timing.entry.clone(),
            timing.config_sha256.clone(),
            timing.scenario.to_string(),
            timing.threads.to_string(),
            row.part.to_string(),
            row.engine.clone(),
            row.version.clone(),
            row.device.clone(),
            row.precision.clone(),
            row.batch.to_string(),
            row.items.clone(),
            row.throughput.to_string(),
            row.p50_ms.to_string(),
            row.p90_ms.to_string(),
            row.p99_ms.to_string(),
            some(row.parameters.map(|count| count.to_string())),
            some(row.gmacs.map(|count| count.to_string())),
            some(row.peak_bytes.map(|bytes| bytes.to_string())),
            some(row.file_bytes.map(|bytes| bytes.to_string())),
            some(row.load_ms.map(|time| time.to_string())),
            timing.weights.clone(),
            timing.warm_up.to_string(),
            timing.repeats.to_string(),
            timing.seed.to_string(),
            timing.machine.processor.clone(),
            timing.machine.processors.to_string(),
            timing.machine.system.clone(),
            some(timing.load_before.map(|load| load.to_string())),
            timing.versions.laps_zoo.clone(),
            some(timing.versions.commit.clone()),
            timing.versions.build.clone(),
            timing.machine.gpus.join("; "),
            some(row.flavour.clone()),
        ];
        text += &cells.map(|cell| quoted(&cell)).join(",");
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{csv, markdown, render};
    use crate::{
        machine::Machine,
        timing::{BenchPart, Scenario, TimingComparison, TimingResult, TimingRow, Versions},
    };

    fn timing() -> TimingResult {
        let row = TimingRow {
            part: BenchPart::Image,
            engine: "ort".to_owned(),
            flavour: Some("portable".to_owned()),
            version: "1.32.0".to_owned(),
            device: "cpu".to_owned(),
            precision: "int8".to_owned(),
            batch: 8,
            items: "images".to_owned(),
            throughput: 123.5,
            p50_ms: 64.0,
            p90_ms: 65.5,
            p99_ms: 70.5,
            parameters: Some(86_000_000),
            gmacs: Some(16.5),
            peak_bytes: Some(3 << 20),
            file_bytes: Some(2_500_000),
            load_ms: Some(9.5),
        };
        let alignment = TimingRow {
            part: BenchPart::Alignment,
            engine: "cpu".to_owned(),
            flavour: None,
            version: "AVX2, FMA".to_owned(),
            precision: "fp32".to_owned(),
            items: "pairs".to_owned(),
            throughput: 1e5,
            p50_ms: 0.625,
            file_bytes: None,
            load_ms: None,
            peak_bytes: None,
            ..row.clone()
        };
        TimingResult {
            schema: 1,
            entry: "f30k_vit".to_owned(),
            config_sha256: "ab".repeat(32),
            weights: "random, seed 7".to_owned(),
            scenario: Scenario::Offline,
            warm_up: 2,
            repeats: 10,
            seed: 7,
            threads: 2,
            machine: Machine {
                system: "linux x86_64".to_owned(),
                processor: "One, of \"many\"".to_owned(),
                processors: 4,
                gpus: Vec::new(),
            },
            load_before: Some(0.5),
            versions: Versions { laps_zoo: "0.1.0".to_owned(), commit: None, build: "release".to_owned() },
            rows: vec![row, alignment],
        }
    }

    /// The cells of the line that starts with `start`.
    fn cells<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
        line.split_whitespace().filter(|cell| !matches!(*cell, "│" | "|")).collect()
    }

    #[test]
    fn every_format_names_engine_and_machine() {
        let timing = timing();
        let head = [
            "f30k_vit, scenario offline, 2 warm-up and 10 measured iterations; weights: random, seed 7",
            "One, of \"many\", 4 CPUs, linux x86_64; 2 threads; load average before: 0.5",
            "laps-zoo 0.1.0 (commit unknown), release build",
        ];
        let image = [
            "image", "ort,", "portable", "cpu", "int8", "8", "123.5", "images", "64.0", "65.5", "70.5", "86000000",
            "16.5000", "3.0", "2.50", "9.5", "1.32.0",
        ];
        let text = render(&timing);
        assert_eq!(text.lines().take(3).collect::<Vec<_>>(), head);
        assert_eq!(cells(&text, "│ image"), image);
        let alignment = cells(&text, "│ alignment");
        assert_eq!(alignment[5..8], ["100000.0", "pairs", "0.625"]);
        assert_eq!(alignment[12..], ["-", "-", "-", "AVX2,", "FMA"]);

        let text = markdown(&timing);
        assert_eq!(text.lines().take(3).map(str::trim_end).collect::<Vec<_>>(), head);
        assert_eq!(cells(&text, "| image"), image);
        assert!(text.contains("\n|---|---|---|---|---:|"), "{text}");

        let text = csv(&timing);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let expected = format!(
            "f30k_vit,{},offline,2,image,ort,1.32.0,cpu,int8,8,images,123.5,64,65.5,70.5,86000000,16.5,3145728,2500000,\
             9.5,\"random, seed 7\",2,10,7,\"One, of \"\"many\"\"\",4,linux x86_64,0.5,0.1.0,,release,,portable",
            "ab".repeat(32)
        );
        assert_eq!(lines[1], expected);
        let columns = lines[0].split(',').count();
        assert_eq!(columns, 33);
        // Three quoted cells of the second row have a comma each.
        assert_eq!(lines[2].split(',').count(), columns + 3);

        let text = serde_json::to_string(&timing).unwrap();
        assert_eq!(serde_json::from_str::<TimingResult>(&text).unwrap(), timing);
    }

    #[test]
    fn only_equal_rows_are_compared_and_other_machines_are_noted() {
        let new = timing();
        let mut old = timing();
        old.rows[0].throughput = 30.875;
        old.rows[1].batch = 16;
        old.machine.processor = "Another".to_owned();
        old.versions.laps_zoo = "0.0.9".to_owned();
        let comparison = TimingComparison { new: &new, old: &old };
        assert_eq!(comparison.pairs().len(), 1);
        let text = comparison.render();
        for line in [
            "note: the machines differ, so the ratios do not compare the programs alone",
            "  old: Another, 4 CPUs, linux x86_64",
            "versions: new 0.1.0 (commit unknown), old 0.0.9 (commit unknown)",
            "not in both results: 1 new rows, 1 old rows",
        ] {
            assert!(text.lines().any(|own| own == line), "{text}");
        }
        assert_eq!(
            cells(&text, "│ image"),
            ["image", "ort,", "portable", "cpu", "int8", "8", "123.5", "30.9", "4.00", "1.00"]
        );
        let other = [
            TimingResult { threads: 1, ..timing() },
            TimingResult { scenario: Scenario::Single, ..timing() },
            TimingResult { config_sha256: "cd".repeat(32), ..timing() },
        ];
        for old in &other {
            let comparison = TimingComparison { new: &new, old };
            assert!(comparison.pairs().is_empty() && comparison.render().starts_with("not compared: the "));
        }
    }
}
