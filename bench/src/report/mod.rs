//! Results as one HTML page: recall tables, charts, hardest failures, ties, times and provenance.
//!
//! The page is self-contained and has no scripts; its content security policy forbids loading anything.

mod chart;
mod contrast;
#[cfg(test)]
mod tests;
mod thumbnails;
mod view;

use askama::Template;

use crate::{
    Error, Result,
    reproduce::Reproduction,
    tables::{COLUMNS, PrintedTable, RecallTables},
};

pub use contrast::Explainer;
pub use thumbnails::Thumbnails;
pub(crate) use thumbnails::data_url;
use view::{ResultView, TableView, tables};

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage<'a> {
    title: String,
    columns: [&'a str; 7],
    tables: Vec<TableView>,
    notes: Vec<String>,
    results: Vec<ResultView<'a>>,
}

/// The page of `results`, in the order of [`RecallTables`]. Images of failed queries come from `thumbnails`; an image
/// that is not found is replaced by its name. `explainer` shows why the first answers of failed queries are first, for the
/// results whose models it has.
///
/// # Errors
/// If the published tables, which are part of the program, cannot be read.
pub fn page(results: Vec<Reproduction>, thumbnails: &Thumbnails, explainer: &Explainer) -> Result<String> {
    let (recalls, results) = RecallTables::sorted(results)?;
    let mut titles: Vec<String> = results.iter().map(Reproduction::title).collect();
    titles.dedup();
    let has_laps = results.iter().any(|result| result.provenance.foreign().is_none());
    let mut views = tables(&recalls, "");
    let mut notes = recalls.notes();
    for (_, table) in PrintedTable::ALL {
        // The order of the results, and so their numbers, are the same.
        let printed = RecallTables::printed(table, results.clone())?;
        if printed.has_measured() {
            views.extend(tables(&printed, &format!("{}: ", table.title())));
            let known: Vec<String> = notes.clone();
            notes.extend(printed.notes().into_iter().filter(|note| !known.contains(note)));
        }
    }
    let page = ReportPage {
        title: format!("{}: {}", if has_laps { "LAPS" } else { "Retrieval" }, titles.join(", ")),
        columns: COLUMNS,
        tables: views,
        notes,
        results: (1..)
            .zip(&results)
            .map(|(number, result)| ResultView::new(number, result, thumbnails, explainer))
            .collect::<Result<_>>()?,
    };
    page.render().map_err(|source| Error::Template { source: source.into() })
}
