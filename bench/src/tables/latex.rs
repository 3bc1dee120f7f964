//! Tables as LaTeX that needs no packages.

use super::{JUDGED_COLUMNS, JudgedRow, RecallTables};

/// One `tabular` environment per protocol, one of metrics by human judgements, then the notes as text.
pub(super) fn render(tables: &RecallTables) -> String {
    let mut text = String::new();
    for table in &tables.tables {
        text += "\\begin{tabular}{l|rrr|rrr|r}\n\\hline\n";
        text += &format!(
            "{} & \\multicolumn{{3}}{{c|}}{{image to text}} & \\multicolumn{{3}}{{c|}}{{text to image}} & \\\\\n",
            escape(table.protocol.name())
        );
        text += " & R@1 & R@5 & R@10 & R@1 & R@5 & R@10 & rSum \\\\\n";
        for group in &table.groups {
            text += &format!("\\hline\n\\multicolumn{{8}}{{l}}{{\\textbf{{{}}}}} \\\\\n", escape(&group.name));
            for row in &group.rows {
                let label = row.label();
                let indent = if label.starts_with(' ') { "\\quad " } else { "" };
                let cells = row.texts(tables.style()).map(|text| format!(" & {}", number(&text))).concat();
                text += &format!("{indent}{}{cells} \\\\\n", escape(label.trim_start()));
            }
        }
        text += "\\hline\n\\end{tabular}\n\n";
    }
    if !tables.judged.is_empty() {
        text += "\\begin{tabular}{l|rrrrr}\n\\hline\n";
        text += &format!("judgements & {} \\\\\n\\hline\n", JUDGED_COLUMNS.join(" & "));
        for (label, cells) in tables.judged.iter().flat_map(JudgedRow::lines) {
            text += &format!("{} & {} \\\\\n", escape(&label), cells.join(" & "));
        }
        text += "\\hline\n\\end{tabular}\n\n";
    }
    for note in tables.notes() {
        text += &format!("\\noindent {}\\\\\n", escape(&note));
    }
    text
}

/// A number; its minus sign must be set in math mode.
fn number(text: &str) -> String {
    match text.strip_prefix('-') {
        Some(digits) if !digits.is_empty() => format!("$-${}", escape(digits)),
        _ => escape(text),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', letter]),
            '\\' => escaped += "\\textbackslash{}",
            '~' => escaped += "\\textasciitilde{}",
            '^' => escaped += "\\textasciicircum{}",
            // At the start of a row, `[` would be read as an option of the preceding line break.
            '[' => escaped += "{[}",
            ']' => escaped += "{]}",
            '\u{2020}' => escaped += "$^\\dagger$",
            '\u{2021}' => escaped += "$^\\ddagger$",
            '\u{a7}' => escaped += "\\S{}",
            '\n' | '\r' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
