//! The command `laps-zoo`. Exit codes: 0 success, 1 a check failed, 2 error.

#[cfg(test)]
mod command_line_page;
mod commands;
mod data_source;
mod distributed;
mod fetching;
mod gate;
mod graphs;
mod index_transfer;
mod interrupt;
mod model;
mod open_store;
#[cfg(target_os = "linux")]
mod orphan;
mod progress;
mod ranking;
mod report;
mod torch_program;
mod training;

use std::{process::ExitCode, sync::OnceLock};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use laps::Backends;

/// Reproducible models for LAPS image-text retrieval.
#[derive(Parser)]
#[command(name = "laps-zoo", bin_name = "laps-zoo", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(commands::list::ListArgs),
    Info(commands::info::InfoArgs),
    Doctor(commands::doctor::DoctorArgs),
    Fetch(commands::fetch::FetchArgs),
    Verify(commands::verify::VerifyArgs),
    Convert(commands::convert::ConvertArgs),
    Cache(commands::cache::CacheArgs),
    Data(commands::data::DataArgs),
    Reproduce(Box<commands::reproduce::ReproduceArgs>),
    Evaluate(commands::evaluate::EvaluateArgs),
    Suite(commands::suite::SuiteArgs),
    Table(commands::table::TableArgs),
    Report(commands::report::ReportArgs),
    Card(commands::card::CardArgs),
    Push(commands::push::PushArgs),
    Train(Box<commands::train::TrainArgs>),
    Launch(commands::launch::LaunchArgs),
    Export(Box<commands::export::ExportArgs>),
    Embed(Box<commands::embed::EmbedArgs>),
    Score(Box<commands::score::ScoreArgs>),
    Explain(Box<commands::explain::ExplainArgs>),
    Index(Box<commands::index::IndexArgs>),
    Search(Box<commands::search::SearchArgs>),
    Serve(Box<commands::serve::ServeArgs>),
    Bench(Box<commands::bench::BenchArgs>),
    Completions(commands::completions::CompletionsArgs),
    Man(commands::man::ManArgs),
}

impl Command {
    /// Whether the request can only be met with libtorch.
    fn needs_libtorch(&self) -> bool {
        match self {
            Self::Train(_) => true,
            Self::Reproduce(reproduce) => reproduce.needs_libtorch(),
            Self::Suite(suite) => suite.needs_libtorch(),
            Self::Embed(embed) => embed.needs_libtorch(),
            Self::Score(score) => score.needs_libtorch(),
            Self::Explain(explain) => explain.needs_libtorch(),
            Self::Index(index) => index.needs_libtorch(),
            Self::Search(search) => search.needs_libtorch(),
            Self::Serve(serve) => serve.needs_libtorch(),
            Self::Bench(bench) => bench.needs_libtorch(),
            _ => false,
        }
    }
}

/// Version, commit, and what differs between builds.
fn version(backends: Backends) -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let commit = laps_bench::commit().unwrap_or("unknown");
        let torch = if backends.torch.is_some() { ", torch" } else { "" };
        let simd = if cfg!(feature = "require-simd") { "; JPEG with SIMD" } else { "" };
        format!("{} (commit {commit}; engines rust, ort{torch}{simd})", env!("CARGO_PKG_VERSION"))
    })
}

/// The command line. Options of `serve` are also read from the environment, as containers are configured: `--max-body` from
/// `LAPS_ZOO_SERVE_MAX_BODY`.
fn command_line() -> clap::Command {
    Arguments::command().mut_subcommand("serve", |serve| {
        serve.mut_args(|argument| {
            let name = argument.get_id().as_str().to_uppercase();
            argument.env(format!("LAPS_ZOO_SERVE_{name}")).hide_env_values(true).hide_env(true)
        })
    })
}

/// Runs the command line of this process with the backends of the program.
///
/// A request that needs libtorch is handed to the program `laps-zoo-torch` if this one does not link it.
pub fn run(backends: Backends) -> ExitCode {
    let matches = command_line().version(version(backends)).get_matches();
    let command = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command;
    if backends.torch.is_none() && command.needs_libtorch() {
        return match torch_program::execute(std::env::args_os().skip(1)) {
            Ok(code) => code,
            Err(error) => report::exit_code(Err(error)),
        };
    }
    if let Err(error) = interrupt::watch() {
        return report::exit_code(Err(error.into()));
    }
    let result = match command {
        Command::List(list) => list.run(),
        Command::Info(info) => info.run(),
        Command::Doctor(doctor) => doctor.run(backends),
        Command::Fetch(fetch) => fetch.run(),
        Command::Verify(verify) => verify.run(),
        Command::Convert(convert) => convert.run(),
        Command::Cache(cache) => cache.run(),
        Command::Data(data) => data.run(),
        Command::Reproduce(reproduce) => reproduce.run(backends),
        Command::Evaluate(evaluate) => evaluate.run(),
        Command::Suite(suite) => suite.run(backends),
        Command::Table(table) => table.run(),
        Command::Card(card) => card.run(),
        Command::Push(push) => push.run(),
        Command::Report(report) => report.run(backends),
        Command::Train(train) => train.run(backends),
        Command::Launch(launch) => return launch.run(),
        Command::Export(export) => export.run(backends),
        Command::Embed(embed) => embed.run(backends),
        Command::Score(score) => score.run(backends),
        Command::Explain(explain) => explain.run(backends),
        Command::Index(index) => index.run(backends),
        Command::Search(search) => search.run(backends),
        Command::Serve(serve) => serve.run(backends),
        Command::Bench(bench) => bench.run(backends),
        Command::Completions(completions) => completions.run(command_line()),
        Command::Man(manual) => manual.run(command_line()),
    };
    report::exit_code(result)
}

#[cfg(test)]
#[path = "../tests/command/documents.rs"]
mod documents;

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Arguments, documents::documents};

    /// Every documented command parses.
    #[test]
    fn documented_commands_parse() {
        let pages = documents(std::path::Path::new(env!("CARGO_MANIFEST_DIR")));
        let texts: Vec<String> = pages.iter().map(|page| fs_err::read_to_string(page).unwrap()).collect();
        let lines = texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("$ laps-zoo "));
        let mut count = 0;
        for line in lines {
            let line = line.split(" #").next().unwrap_or_default();
            // Quoted text is one argument.
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
        assert!(count > 60, "only {count} commands were found");
    }

    #[test]
    fn command_line_definition_is_valid() {
        Arguments::command().debug_assert();
    }
}
