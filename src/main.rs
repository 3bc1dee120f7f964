//! The command `laps-zoo`. Exit status: 0 done, 1 a check failed, 2 an error.

mod commands;
#[cfg(feature = "fetch")]
mod fetching;
mod graphs;
mod interrupt;
mod model;
mod progress;
mod ranking;
mod report;
#[cfg(feature = "torch")]
mod training;
mod vocabulary;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Train(Box<commands::train::Train>),
    Export(Box<commands::export::Export>),
    Embed(Box<commands::embed::Embed>),
    Score(Box<commands::score::Score>),
    Index(Box<commands::index::Index>),
    Search(Box<commands::search::Search>),
    Bench(commands::bench::Bench),
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
        Command::Train(train) => train.run(),
        Command::Export(export) => export.run(),
        Command::Embed(embed) => embed.run(),
        Command::Score(score) => score.run(),
        Command::Index(index) => index.run(),
        Command::Search(search) => search.run(),
        Command::Bench(bench) => bench.run(),
    };
    report::exit_code(result)
}
