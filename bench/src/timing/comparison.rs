//! Comparison of two results.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::{TimingResult, TimingRow};

/// Compares the rows that two results have in common.
///
/// Two rows are comparable if part, engine, flavour, device, precision and batch size are equal. Results with different
/// configurations, scenarios, thread counts or builds have no comparable rows.
pub struct TimingComparison<'a> {
    /// The new result.
    pub new: &'a TimingResult,
    /// The old result.
    pub old: &'a TimingResult,
}

impl TimingComparison<'_> {
    /// The reasons why no rows are comparable; empty if some may be.
    fn mismatches(&self) -> Vec<String> {
        let Self { new, old } = self;
        let pairs = [
            ("configuration", &new.config_sha256, &old.config_sha256),
            ("scenario", &new.scenario.to_string(), &old.scenario.to_string()),
            ("number of threads", &new.threads.to_string(), &old.threads.to_string()),
            ("build", &new.versions.build, &old.versions.build),
        ];
        let differ = |(what, new, old): &(&str, &String, &String)| {
            (new != old).then(|| format!("the {what} differs: `{new}` (new), `{old}` (old)"))
        };
        pairs.iter().filter_map(differ).collect()
    }

    /// Comparable rows, new and old, in the order of the new result.
    pub fn pairs(&self) -> Vec<(&TimingRow, &TimingRow)> {
        if !self.mismatches().is_empty() {
            return Vec::new();
        }
        let other = |row: &TimingRow| self.old.rows.iter().find(|old| old.key() == row.key());
        self.new.rows.iter().filter_map(|row| Some((row, other(row)?))).collect()
    }

    /// A table with both throughputs and their ratio, and notes about everything else that differs.
    pub fn render(&self) -> String {
        let Self { new, old } = self;
        let mut text = String::new();
        for reason in self.mismatches() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "not compared: {reason}");
        }
        if new.machine != old.machine {
            let _ = writeln!(text, "note: the machines differ, so the ratios do not compare the programs alone");
            let _ = writeln!(text, "  new: {}\n  old: {}", new.machine, old.machine);
        }
        if new.versions != old.versions {
            let name = |timing: &TimingResult| {
                let versions = &timing.versions;
                format!("{} ({})", versions.laps_zoo, versions.commit.as_deref().unwrap_or("commit unknown"))
            };
            let _ = writeln!(text, "versions: new {}, old {}", name(new), name(old));
        }
        let pairs = self.pairs();
        if !pairs.is_empty() {
            let _ = writeln!(text, "{}", table(&pairs));
        }
        let unmatched = [new.rows.len() - pairs.len(), old.rows.len() - pairs.len()];
        if unmatched != [0; 2] {
            let _ = writeln!(text, "not in both results: {} new rows, {} old rows", unmatched[0], unmatched[1]);
        }
        text
    }
}

fn table(pairs: &[(&TimingRow, &TimingRow)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "part",
        "engine",
        "device",
        "precision",
        "batch",
        "per second (new)",
        "(old)",
        "ratio",
        "p90 ratio",
    ]);
    for (new, old) in pairs {
        let version = if new.version == old.version {
            new.engine_label()
        } else {
            format!("{} {} / {}", new.engine_label(), new.version, old.version)
        };
        table.add_row([
            new.part.to_string(),
            version,
            new.device.clone(),
            new.precision.clone(),
            new.batch.to_string(),
            format!("{:.1}", new.throughput),
            format!("{:.1}", old.throughput),
            format!("{:.2}", new.throughput / old.throughput),
            format!("{:.2}", new.p90_ms / old.p90_ms),
        ]);
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
