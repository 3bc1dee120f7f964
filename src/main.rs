//! The command `laps-zoo`. Exit status: 0 done, 1 a check failed, 2 an error.

mod commands;
#[cfg(feature = "fetch")]
mod fetching;
mod gate;
mod graphs;
mod interrupt;
mod model;
mod progress;
mod ranking;
mod report;
#[cfg(feature = "torch")]
mod training;
mod vocabulary;
mod ways;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Reproducible models for LAPS image-text retrieval.
#[derive(Parser)]
#[command(name = "laps-zoo", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(commands::list::List),
    Info(commands::info::Info),
    Doctor(commands::doctor::Doctor),
    #[cfg(feature = "fetch")]
    Fetch(commands::fetch::Fetch),
    Verify(commands::verify::Verify),
    Convert(commands::convert::Convert),
    Cache(commands::cache::Cache),
    Data(commands::data::Data),
    Reproduce(Box<commands::reproduce::Reproduce>),
    Table(commands::table::Table),
    Report(commands::report::Report),
    Card(commands::card::Card),
    Train(Box<commands::train::Train>),
    Export(Box<commands::export::Export>),
    Embed(Box<commands::embed::Embed>),
    Score(Box<commands::score::Score>),
    Index(Box<commands::index::Index>),
    Search(Box<commands::search::Search>),
    Bench(Box<commands::bench::Bench>),
    Completions(commands::completions::Completions),
    Man(commands::man::Manual),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::List(list) => list.run(),
        Command::Info(info) => info.run(),
        Command::Doctor(doctor) => doctor.run(),
        #[cfg(feature = "fetch")]
        Command::Fetch(fetch) => fetch.run(),
        Command::Verify(verify) => verify.run(),
        Command::Convert(convert) => convert.run(),
        Command::Cache(cache) => cache.run(),
        Command::Data(data) => data.run(),
        Command::Reproduce(reproduce) => reproduce.run(),
        Command::Table(table) => table.run(),
        Command::Card(card) => card.run(),
        Command::Report(report) => report.run(),
        Command::Train(train) => train.run(),
        Command::Export(export) => export.run(),
        Command::Embed(embed) => embed.run(),
        Command::Score(score) => score.run(),
        Command::Index(index) => index.run(),
        Command::Search(search) => search.run(),
        Command::Bench(bench) => bench.run(),
        Command::Completions(completions) => completions.run(Arguments::command()),
        Command::Man(manual) => manual.run(Arguments::command()),
    };
    report::exit_code(result)
}

#[cfg(all(test, feature = "fetch"))]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Arguments;

    /// Commands that the documentation names exist, with the options that it gives them.
    #[test]
    fn commands_of_the_documentation_can_be_understood() {
        let texts = [include_str!("../README.md"), include_str!("../bench/docs/numbers.md")];
        let lines = texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("$ laps-zoo "));
        let mut count = 0;
        for line in lines {
            let line = line.split(" #").next().unwrap_or_default();
            // What stands between quotation marks is one word.
            let pieces = line.split('"').enumerate();
            let words = pieces.flat_map(|(place, piece)| match place % 2 {
                0 => piece.split_whitespace().collect(),
                _ => vec![piece],
            });
            if let Err(error) = Arguments::try_parse_from(std::iter::once("laps-zoo").chain(words)) {
                panic!("{line}: {error}");
            }
            count += 1;
        }
        assert!(count > 10, "only {count} commands were found");
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
