//! The machine that a result was measured on.

use std::{
    io::{Read, Seek, SeekFrom},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};

/// The hardware and system that times and memory depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and architecture.
    pub system: String,
    /// Model name of the CPU, as the system reports it.
    pub processor: String,
    /// Number of CPUs that this process may use.
    pub processors: usize,
    /// NVIDIA GPUs with memory and driver version, as `nvidia-smi` names them; empty if it cannot run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { system, processor, processors, .. } = self;
        write!(f, "{processor}, {processors} CPUs, {system}{}", self.gpu_names())
    }
}

impl Machine {
    /// The machine that this process runs on.
    pub fn here() -> Self {
        let info = fs_err::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            processors: processors(),
            gpus: gpus(),
        }
    }

    /// `, GPU NAME` for each GPU.
    pub fn gpu_names(&self) -> String {
        self.gpus.iter().map(|gpu| format!(", GPU {gpu}")).collect()
    }
}

/// The GPUs that `nvidia-smi` lists. It runs once per process because it can be slow. Calls into the driver's library
/// would need that library, which machines without a GPU do not have.
fn gpus() -> Vec<String> {
    static GPUS: OnceLock<Vec<String>> = OnceLock::new();
    GPUS.get_or_init(query_nvidia_smi).clone()
}

fn query_nvidia_smi() -> Vec<String> {
    let arguments = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"];
    let output = Command::new("nvidia-smi").args(arguments).stderr(Stdio::null()).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else { return Vec::new() };
    gpu_descriptions(&String::from_utf8_lossy(&output.stdout))
}

/// Converts each line `NVIDIA X, 1 MiB, 2` to `NVIDIA X (1 MiB, driver 2)`.
fn gpu_descriptions(output: &str) -> Vec<String> {
    let name = |line: &str| match line.split(", ").collect::<Vec<_>>()[..] {
        [name, memory, driver] => format!("{name} ({memory}, driver {driver})"),
        _ => line.to_owned(),
    };
    output.lines().map(str::trim).filter(|line| !line.is_empty()).map(name).collect()
}

/// Number of CPUs that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Load average of the last minute, in processes; `None` if the system does not report it.
pub fn load() -> Option<f64> {
    fs_err::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Peak resident memory of this process so far, in bytes; `None` if the system does not report it.
pub fn peak_memory() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// Resident pages of files that are mapped now, such as the program, in bytes; `None` if the system does not report it.
pub(crate) fn mapped_files() -> Option<u64> {
    status_bytes("RssFile:")
}

/// Makes every page of the files that are mapped now resident, so that [`mapped_files`] does not grow with the parts of the
/// program that run later. Does nothing where the system does not allow it.
pub(crate) fn load_mapped_files() {
    const PAGE: usize = 4096;
    let (Ok(maps), Ok(mut memory)) = (fs_err::read_to_string("/proc/self/maps"), fs_err::File::open("/proc/self/mem"))
    else {
        return;
    };
    for line in maps.lines() {
        // proc(5): address range, permissions, offset, device, inode.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[range, permissions, _, _, inode, ..] = &fields[..] else { continue };
        let address = |text: &str| u64::from_str_radix(text, 16).ok();
        let range = range.split_once('-').and_then(|(start, end)| Some(address(start)?..address(end)?));
        if let Some(range) = range.filter(|_| inode != "0" && permissions.starts_with('r')) {
            // Reading one byte makes a page resident. Pages beyond the end of the file cannot be read.
            for address in range.step_by(PAGE) {
                let _ = memory.seek(SeekFrom::Start(address)).and_then(|_| memory.read(&mut [0]));
            }
        }
    }
}

fn status_bytes(key: &str) -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::{Machine, gpu_descriptions};

    #[test]
    fn gpu_description_has_memory_and_driver() {
        let gpus = gpu_descriptions("NVIDIA One, 143771 MiB, 580.159.04\nNVIDIA Two, 16384 MiB, 580.159.04\n");
        assert_eq!(gpus, ["NVIDIA One (143771 MiB, driver 580.159.04)", "NVIDIA Two (16384 MiB, driver 580.159.04)"]);
        let [system, processor] = ["linux x86_64", "A Processor"].map(str::to_owned);
        let machine = Machine { system, processor, processors: 2, gpus };
        assert_eq!(
            machine.to_string(),
            "A Processor, 2 CPUs, linux x86_64, GPU NVIDIA One (143771 MiB, driver 580.159.04), \
             GPU NVIDIA Two (16384 MiB, driver 580.159.04)"
        );
    }

    #[test]
    fn machine_without_gpus_has_no_gpus_field() {
        let text = r#"{"system":"linux x86_64","processor":"A Processor","processors":2}"#;
        let machine: Machine = serde_json::from_str(text).unwrap();
        assert!(machine.gpus.is_empty());
        assert_eq!(serde_json::to_string(&machine).unwrap(), text);
    }
}
