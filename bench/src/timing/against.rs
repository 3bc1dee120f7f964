//! Two results beside each other.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::{Row, Timing};

/// The rows that two results have in common. Rows that differ in part, engine, operators of graphs, device, precision or
/// batch size are not compared, nor are results of different models, scenarios or numbers of threads.
pub struct Against<'a> {
    /// The result.
    pub new: &'a Timing,
    /// What it is compared with.
    pub old: &'a Timing,
}

impl Against<'_> {
    /// Why no row can be compared.
    pub fn unlike(&self) -> Vec<String> {
        let Self { new, old } = self;
        let pairs = [
            ("configuration", &new.config_sha256, &old.config_sha256),
            ("scenario", &new.scenario.to_string(), &old.scenario.to_string()),
            ("number of threads", &new.threads.to_string(), &old.threads.to_string()),
            ("build", &new.versions.build, &old.versions.build),
        ];
        let differ = |(what, new, old): &(&str, &String, &String)| {
            (new != old).then(|| format!("the {what} differs: `{new}` here, `{old}` there"))
        };
        pairs.iter().filter_map(differ).collect()
    }

    /// Rows of both, in the order of the new ones.
    pub fn pairs(&self) -> Vec<(&Row, &Row)> {
        if !self.unlike().is_empty() {
            return Vec::new();
        }
        let other = |row: &Row| self.old.rows.iter().find(|old| old.key() == row.key());
        self.new.rows.iter().filter_map(|row| Some((row, other(row)?))).collect()
    }

    /// The table for people: throughput of both and their ratio, and whatever else differs.
    pub fn render(&self) -> String {
        let Self { new, old } = self;
        let mut text = String::new();
        for reason in self.unlike() {
            // Writing to a string can not fail.
            let _ = writeln!(text, "not compared: {reason}");
        }
        if new.machine != old.machine {
            let _ = writeln!(text, "note: the machines differ, so ratios are not of the program alone");
            let _ = writeln!(text, "  here: {}\n  there: {}", new.machine, old.machine);
        }
        if new.versions != old.versions {
            let name = |timing: &Timing| {
                let versions = &timing.versions;
                format!("{} ({})", versions.laps_zoo, versions.commit.as_deref().unwrap_or("no commit known"))
            };
            let _ = writeln!(text, "versions: {} here, {} there", name(new), name(old));
        }
        let pairs = self.pairs();
        if !pairs.is_empty() {
            let _ = writeln!(text, "{}", table(&pairs));
        }
        let left = [new.rows.len() - pairs.len(), old.rows.len() - pairs.len()];
        if left != [0; 2] {
            let _ = writeln!(text, "without a counterpart: {} rows here, {} rows there", left[0], left[1]);
        }
        text
    }
}

fn table(pairs: &[(&Row, &Row)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["part", "engine", "device", "precision", "batch", "a second, here", "there", "ratio", "p90"]);
    for (new, old) in pairs {
        let version = if new.version == old.version {
            new.way()
        } else {
            format!("{} {} / {}", new.way(), new.version, old.version)
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
