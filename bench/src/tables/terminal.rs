//! Tables with borders.

use comfy_table::{CellAlignment, Table, presets};

use super::{COLUMNS, JUDGED_COLUMNS, JudgedRow, RecallTables};

/// One table per protocol, one of metrics by human judgements, then the notes.
pub(super) fn render(tables: &RecallTables) -> String {
    let mut text = String::new();
    for recalls in &tables.tables {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header([recalls.protocol.name()].iter().chain(&COLUMNS));
        for group in &recalls.groups {
            table.add_row([&group.name]);
            for row in &group.rows {
                table.add_row([format!("  {}", row.label())].into_iter().chain(row.texts(tables.style())));
            }
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        text += &format!("{table}\n");
    }
    if !tables.judged.is_empty() {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["judgements"].iter().chain(&JUDGED_COLUMNS));
        for (label, cells) in tables.judged.iter().flat_map(JudgedRow::lines) {
            table.add_row([label].into_iter().chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        text += &format!("{table}\n");
    }
    for note in tables.notes() {
        text += &format!("{note}\n");
    }
    text
}
