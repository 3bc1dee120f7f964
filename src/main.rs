//! The program `laps-zoo`, without libtorch.

use std::process::ExitCode;

fn main() -> ExitCode {
    laps_zoo::run(laps::Backends::default())
}
