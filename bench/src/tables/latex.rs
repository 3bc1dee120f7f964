//! Tables as LaTeX, without packages.

use super::Tables;

/// A tabular environment a protocol, each in a group of its own; the notes as comments and as text.
pub(super) fn render(tables: &Tables) -> String {
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
                let figures = row.texts().map(|figure| format!(" & {}", figure_text(&figure))).concat();
                text += &format!("{indent}{}{figures} \\\\\n", escape(label.trim_start()));
            }
        }
        text += "\\hline\n\\end{tabular}\n\n";
    }
    for note in tables.notes() {
        text += &format!("\\noindent {}\\\\\n", escape(&note));
    }
    text
}

/// A minus sign is one in mathematics only.
fn figure_text(figure: &str) -> String {
    match figure.strip_prefix('-') {
        Some(number) if !number.is_empty() => format!("$-${}", escape(number)),
        _ => escape(figure),
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
            // At the beginning of a row it would be an option of the line break before.
            '[' => escaped += "{[}",
            ']' => escaped += "{]}",
            '\u{2020}' => escaped += "$^\\dagger$",
            '\u{2021}' => escaped += "$^\\ddagger$",
            '\n' | '\r' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
