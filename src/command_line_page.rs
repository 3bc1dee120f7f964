//! Generates `docs/src/reference/command-line.md` from the definition of the command line.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use crate::Arguments;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/reference/command-line.md");

const INTRODUCTION: &str = "\
# Command line

<!-- Generated from the command line by `UPDATE_DOCS=1 cargo test -p laps-zoo command_line_page`. Do not edit. -->

`laps-zoo COMMAND --help` prints the same. [Exit codes](exit-codes.md) are 0 for success, 1 for a failed check and 2 for an
error.
";

#[test]
fn command_line_page_is_up_to_date() {
    let expected = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs_err::write(PAGE, &expected).unwrap();
    }
    let found = fs_err::read_to_string(PAGE).unwrap_or_default();
    let hint = "rewrite it with `UPDATE_DOCS=1 cargo test -p laps-zoo command_line_page`";
    assert!(found == expected, "`{PAGE}` differs from the command line; {hint}");
}

fn page() -> String {
    let mut root = Arguments::command();
    root.build();
    let mut text = INTRODUCTION.to_owned();
    text += "\n| command | |\n|---|---|\n";
    for command in commands(&root) {
        let name = command.get_name();
        writeln!(text, "| [`{name}`](#laps-zoo-{name}) | {} |", about(command)).unwrap();
    }
    for command in commands(&root) {
        section(&mut text, command, &format!("laps-zoo {}", command.get_name()), 2);
    }
    text
}

fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| command.get_name() != "help" && !command.is_hide_set())
}

fn section(text: &mut String, command: &Command, name: &str, level: usize) {
    let usage = command.clone().render_usage().to_string().replace("Usage: ", "");
    write!(text, "\n{} `{name}`\n\n{}.\n\n```text\n{usage}\n```\n", "#".repeat(level), about(command)).unwrap();
    let visible = command.get_arguments().filter(|arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help"));
    let visible: Vec<&Arg> = visible.collect();
    let mut headings: Vec<Option<&str>> = visible.iter().map(|arg| arg.get_help_heading()).collect();
    headings.sort();
    headings.dedup();
    for heading in headings {
        if let Some(heading) = heading {
            write!(text, "\n{heading}:\n").unwrap();
        }
        *text += "\n| argument | |\n|---|---|\n";
        for arg in visible.iter().filter(|arg| arg.get_help_heading() == heading) {
            writeln!(text, "| {} | {} |", syntax(arg), description(arg)).unwrap();
        }
    }
    for inner in commands(command) {
        section(text, inner, &format!("{name} {}", inner.get_name()), level + 1);
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(|about| escaped(&about.to_string())).unwrap_or_default()
}

/// The argument as it is typed: `<ENTRY>`, `-q, --quiet` or `--threads <N>`.
fn syntax(arg: &Arg) -> String {
    let names: Option<Vec<&str>> = arg.get_value_names().map(|names| names.iter().map(|name| name.as_str()).collect());
    let value = names.map_or_else(|| arg.get_id().as_str().to_uppercase(), |names| names.join("> <"));
    let takes_value = arg.get_action().takes_values();
    match (arg.get_short(), arg.get_long()) {
        (_, None) => format!("`<{value}>`"),
        (Some(short), Some(long)) => format!("`-{short}`, `--{long}`"),
        (None, Some(long)) if takes_value => format!("`--{long} <{value}>`"),
        (None, Some(long)) => format!("`--{long}`"),
    }
}

fn description(arg: &Arg) -> String {
    let mut text = arg.get_help().map(|help| escaped(&help.to_string())).unwrap_or_default();
    let possible: Vec<String> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if !possible.is_empty() && arg.get_action().takes_values() {
        text += &format!(" ({})", possible.join(", "));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        text += &format!(" [default: {}]", defaults.join(","));
    }
    text
}

/// Text that Markdown does not take for a table or for HTML.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<").replace('\n', " ")
}
