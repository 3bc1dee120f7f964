//! `laps-zoo doctor`

use std::fmt::Write;

use anyhow::Result;
use clap::Args;
use laps::Backends;
use laps_bench::machine::Machine;

use crate::{
    report::{CommandStatus, print},
    torch_program,
};

/// Show the libraries, devices and threads of this machine, and report what is missing
#[derive(Args)]
pub(crate) struct DoctorArgs {}

impl DoctorArgs {
    /// Returns a failed check if something that this build needs is missing.
    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let machine = Machine::here();
        let mut report = DoctorReport::default();
        report.line("laps-zoo", &laps_bench::version());
        report.line("system", &machine.system);
        report.line("cpu", &format!("{}, {} threads", machine.processor, machine.processors));
        machine.gpus.iter().for_each(|gpu| report.line("gpu", gpu));
        report.line("similarities", laps_align::similarity::instruction_set());
        libtorch(&mut report, backends);
        onnxruntime(&mut report);
        match laps_files::cache::path() {
            Some(path) => report.line("cache", &path.display().to_string()),
            None => report.missing("cache", "no folder", "set LAPS_ZOO_CACHE"),
        }
        print(&report.text)?;
        Ok(if report.complete { CommandStatus::Success } else { CommandStatus::CheckFailed })
    }
}

fn libtorch(report: &mut DoctorReport, backends: Backends) {
    match backends.torch.map(|torch| torch.info()) {
        None => match torch_program::find() {
            Some(path) => {
                report.line("libtorch", &format!("in `{}`, which runs requests that need it", path.display()))
            }
            None => report.line(
                "libtorch",
                &format!(
                    "not available: `{}` is not installed, so training is not possible; {}",
                    torch_program::NAME,
                    torch_program::HOW_TO_GET
                ),
            ),
        },
        Some(library) => {
            let path =
                library.path.map_or_else(|| "linked into the program".to_owned(), |path| path.display().to_string());
            report.line("libtorch", &format!("{} ({path})", library.version));
            let gpus = match library.gpus {
                0 if library.cuda => {
                    "no GPU found: no driver (`libcuda.so.1`) or no device; see `nvidia-smi`".to_owned()
                }
                0 => "no GPU: this libtorch has no CUDA; `make setup CUDA=1` installs one that has".to_owned(),
                gpus => format!("cuda:0 to cuda:{}", gpus - 1),
            };
            report.line("devices", &format!("cpu; {gpus}"));
            report.line("threads", &library.threads.to_string());
        }
    }
}

fn onnxruntime(report: &mut DoctorReport) {
    let found = laps_onnx::runtime::library::find().and_then(|library| Ok((library.load()?, library)));
    match found {
        Ok((build, library)) => {
            let providers: Vec<String> = build.providers.iter().map(ToString::to_string).collect();
            let version = library.version.as_deref().unwrap_or("of unknown version");
            let text = format!(
                "{version} ({}; {}); providers {}",
                library.path.display(),
                library.origin,
                providers.join(", ")
            );
            report.line("onnxruntime", &text);
        }
        Err(error) => {
            let hint = error.hint().unwrap_or_default();
            report.missing("onnxruntime", &error.to_string().replace('\n', ";"), &hint);
        }
    }
}

struct DoctorReport {
    text: String,
    complete: bool,
}

impl Default for DoctorReport {
    fn default() -> Self {
        Self { text: String::new(), complete: true }
    }
}

impl DoctorReport {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{name:14}{value}");
    }

    fn missing(&mut self, name: &str, value: &str, hint: &str) {
        self.complete = false;
        self.line(name, &format!("missing: {value}; hint: {hint}"));
    }
}
