//! The machine that something was measured on.

use serde::{Deserialize, Serialize};

/// What a figure of time or memory depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and architecture.
    pub system: String,
    /// The processor, in its maker's words.
    pub processor: String,
    /// Processors that this process may use.
    pub processors: usize,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let info = fs_err::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            processors: processors(),
        }
    }
}

/// Processors that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Load of the machine in the minute before, in processes; `None` where the system does not tell.
pub fn load() -> Option<f64> {
    fs_err::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// The most memory that this process has had so far, in bytes; `None` where the system does not tell.
pub fn peak_memory() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
