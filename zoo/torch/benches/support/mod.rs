//! Peak memory of a piece of work in a process of its own.

use std::{
    env,
    process::{Command, Stdio},
};

/// Environment variable that tells a child process which peak to measure.
const FIGURE: &str = "LAPS_ZOO_BENCH_MEMORY";

/// What this process has to measure, if it is such a child.
pub fn figure() -> Option<String> {
    env::var(FIGURE).ok()
}

/// MiB that this program prints in another process, in which [`figure`] is `figure`.
pub fn peak(figure: &str) -> f64 {
    let program = env::current_exe().expect("path of this program");
    let output = Command::new(program).env(FIGURE, figure).stderr(Stdio::inherit()).output().expect("child process");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("{figure}: {text}"))
}

/// MiB of a number of bytes; NaN if the system does not report it.
pub fn mebibytes(bytes: Option<u64>) -> f64 {
    bytes.map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 20))
}
