//! Tables as GitHub reads them.

use super::{FIGURES, Group, RowKind, Tables};

/// A table a protocol, then the notes as a list.
pub(super) fn render(tables: &Tables) -> String {
    let mut text = String::new();
    for recalls in &tables.tables {
        text += &format!("{}\n", table(recalls.protocol.name(), &recalls.groups));
    }
    for note in tables.notes() {
        text += &format!("- {}\n", escape(&note));
    }
    text
}

/// One table; ends with the end of a line.
pub(crate) fn table(title: &str, groups: &[Group]) -> String {
    let mut text = line(&[title], &FIGURES.map(str::to_owned));
    text += &format!("|---|{}\n", "---:|".repeat(FIGURES.len()));
    for group in groups {
        text += &line(&[&format!("**{}**", escape(&group.name))], &[const { String::new() }; 7]);
        for row in &group.rows {
            let label = escape(row.label().trim_start());
            let label = if row.kind == RowKind::Difference { format!("&nbsp;&nbsp;{label}") } else { label };
            text += &line(&[&label], &row.texts());
        }
    }
    text
}

fn line(first: &[&str], rest: &[String]) -> String {
    let cells = first.iter().copied().chain(rest.iter().map(String::as_str));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// What a reader of Markdown would take for markup is taken for itself.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '#' => escaped.extend(['\\', letter]),
            '\n' | '\r' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
