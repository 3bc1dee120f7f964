//! The program `laps-zoo-torch`: the command line of `laps-zoo` with libtorch.

use std::process::ExitCode;

use laps_torch::TorchLibrary;

fn main() -> ExitCode {
    laps_zoo::run(laps::Backends { torch: Some(&TorchLibrary) })
}
