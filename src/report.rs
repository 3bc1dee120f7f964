//! Command output, errors and exit codes.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// The result of a command that did not fail with an error.
pub(crate) enum CommandStatus {
    /// The command succeeded.
    Success,
    /// A check failed.
    CheckFailed,
}

/// Converts to the exit code: 0 success, 1 a check failed, 2 an error, which is printed to standard error.
pub(crate) fn exit_code(result: anyhow::Result<CommandStatus>) -> ExitCode {
    match result {
        Ok(CommandStatus::Success) => ExitCode::SUCCESS,
        Ok(CommandStatus::CheckFailed) => ExitCode::from(1),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("{}error: {}", rank_prefix(), laps::describe(error.as_ref(), hint(&error)));
            // If standard error is closed too, only the exit code reports the error.
            let _ = io::stderr().write_all(text.as_bytes());
            ExitCode::from(2)
        }
    }
}

/// Prints to standard output. A closed pipe is an error that ends the command silently with exit code 0.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

/// Prints a summary of work that wrote `outputs`: to standard output, or to standard error if one of them is standard output,
/// which then holds nothing else.
pub(crate) fn print_summary<'a>(outputs: impl IntoIterator<Item = &'a PathBuf>, text: &str) -> anyhow::Result<()> {
    match outputs.into_iter().any(|path| laps_files::is_stdout(path)) {
        true => Ok(io::stderr().write_all(text.as_bytes())?),
        false => print(text),
    }
}

/// `[rank N] ` in the processes of a distributed run other than rank 0, which share its standard error.
pub(crate) fn rank_prefix() -> String {
    match laps::ProcessGroup::from_environment() {
        Ok(Some(group)) if group.rank > 0 => format!("[rank {}] ", group.rank),
        _ => String::new(),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let of_bench = cause.downcast_ref::<laps_bench::Error>().and_then(laps_bench::Error::hint);
        let of_serve = || cause.downcast_ref::<laps_serve::Error>().and_then(laps_serve::Error::hint);
        of_bench.or_else(of_serve).or_else(|| laps::hint(cause))
    })
}
