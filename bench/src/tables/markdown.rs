//! Tables as GitHub-flavoured Markdown.

use super::{COLUMNS, CellStyle, JUDGED_COLUMNS, JudgedRow, RecallTables, RowGroup, RowKind};

/// One table per protocol, one of metrics by human judgements, then the notes as a list.
pub(super) fn render(tables: &RecallTables) -> String {
    let mut text = String::new();
    for recalls in &tables.tables {
        text += &format!("{}\n", table(recalls.protocol.name(), &recalls.groups, tables.style()));
    }
    if !tables.judged.is_empty() {
        text += &line(&["judgements"], &JUDGED_COLUMNS.map(str::to_owned));
        text += &format!("|---|{}\n", "---:|".repeat(JUDGED_COLUMNS.len()));
        for (label, cells) in tables.judged.iter().flat_map(JudgedRow::lines) {
            text += &line(&[&escape(&label)], &cells);
        }
        text += "\n";
    }
    for note in tables.notes() {
        text += &format!("- {}\n", escape(&note));
    }
    text
}

/// One table, ending with a newline.
pub(crate) fn table(title: &str, groups: &[RowGroup], style: CellStyle) -> String {
    let mut text = line(&[title], &COLUMNS.map(str::to_owned));
    text += &format!("|---|{}\n", "---:|".repeat(COLUMNS.len()));
    for group in groups {
        text += &line(&[&format!("**{}**", escape(&group.name))], &[const { String::new() }; 7]);
        for row in &group.rows {
            let label = escape(row.label().trim_start());
            let label = if matches!(row.kind, RowKind::Difference | RowKind::NotMeasured) {
                format!("&nbsp;&nbsp;{label}")
            } else {
                label
            };
            text += &line(&[&label], &row.texts(style).map(|text| escape(&text)));
        }
    }
    text
}

fn line(first: &[&str], rest: &[String]) -> String {
    let cells = first.iter().copied().chain(rest.iter().map(String::as_str));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// Escapes Markdown markup.
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
