//! Tables of ranked results.

use comfy_table::{CellAlignment, Table, presets};

/// A table with right-aligned numbers and a name in the last column.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header);
    rows.into_iter().for_each(|row| _ = table.add_row(row));
    for column in table.column_iter_mut().take(N - 1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// Replaces control characters, so that a name cannot send escape sequences to the terminal.
pub(crate) fn plain(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
