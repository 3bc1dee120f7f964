//! Results as one HTML page: recall tables, charts, hardest failures, ties, times and provenance.
//!
//! The page has everything in itself and no script, and its policy forbids a browser to fetch anything.

mod chart;
#[cfg(test)]
mod tests;
mod thumbnails;
mod view;

use askama::Template;

use crate::{
    Error, Result,
    reproduce::Reproduction,
    tables::{FIGURES, Tables},
};

pub use thumbnails::Thumbnails;
use view::{ResultView, TableView, tables};

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: String,
    figures: [&'a str; 7],
    tables: Vec<TableView>,
    notes: Vec<String>,
    results: Vec<ResultView<'a>>,
}

/// The page of some results, in the order of [`Tables`]; images of failed queries are taken from `thumbnails`, and where they
/// are not found their names stand in their place.
///
/// # Errors
/// If the published tables can not be read, which are part of the program.
pub fn page(results: Vec<Reproduction>, thumbnails: &Thumbnails) -> Result<String> {
    let (folded, results) = Tables::sorted(results)?;
    let mut entries: Vec<&str> = results.iter().map(|result| result.entry.as_str()).collect();
    entries.dedup();
    let page = Page {
        title: format!("LAPS: {}", entries.join(", ")),
        figures: FIGURES,
        tables: tables(&folded),
        notes: folded.notes(),
        results: (1..).zip(&results).map(|(number, result)| ResultView::new(number, result, thumbnails)).collect(),
    };
    page.render().map_err(|source| Error::Page { source: source.into() })
}
