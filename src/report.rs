//! How a command ends.

use std::{
    io::{self, Write},
    process::ExitCode,
};

/// What a command found.
pub(crate) enum Finding {
    /// It did what it was asked for.
    Done,
    /// A check failed.
    Failed,
}

/// 0 done, 1 a check failed, 2 an error, which is printed.
pub(crate) fn exit_code(result: anyhow::Result<Finding>) -> ExitCode {
    match result {
        Ok(Finding::Done) => ExitCode::SUCCESS,
        Ok(Finding::Failed) => ExitCode::from(1),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed too, the exit status has to say it.
            let _ = io::stderr().write_all(describe(&error).as_bytes());
            ExitCode::from(2)
        }
    }
}

/// Prints to standard output; a reader that has gone away is an error that ends the command silently.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// The error, its causes and the hint, each on lines of its own.
fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Transparent wrappers repeat what they wrap.
        if !last.ends_with(&cause) {
            text += &format!("  caused by: {cause}\n");
        }
        last = cause;
    }
    if let Some(hint) = hint(error) {
        text += &format!("hint: {hint}\n");
    }
    text
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let of_bench = cause.downcast_ref::<bench::Error>().and_then(bench::Error::hint);
        let of_zoo = cause.downcast_ref::<zoo::Error>().and_then(zoo::Error::hint);
        let of_checkpoint = cause.downcast_ref::<zoo::checkpoint::CheckpointError>().and_then(|error| error.hint());
        let of_registry = cause.downcast_ref::<zoo::registry::RegistryError>().and_then(|error| error.hint());
        let of_runtime = cause.downcast_ref::<export::runtime::RuntimeError>().and_then(|error| error.hint());
        let of_export = cause.downcast_ref::<export::Error>().and_then(export::Error::hint);
        of_bench.or(of_zoo).or(of_registry).or(of_checkpoint).or(of_runtime).or(of_export)
    })
}
