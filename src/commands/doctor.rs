//! `laps-zoo doctor`

use std::fmt::Write;

use anyhow::Result;
use bench::{engine, machine::Machine};
use clap::Args;

use crate::report::{Finding, print};

/// Show what this machine has: libraries, devices, threads, and what is missing
#[derive(Args)]
pub(crate) struct Doctor {}

impl Doctor {
    /// Fails if something that this build wants is missing.
    pub(crate) fn run(self) -> Result<Finding> {
        let machine = Machine::here();
        let mut report = Report::default();
        report.line(
            "laps-zoo",
            &format!("{} ({})", env!("CARGO_PKG_VERSION"), engine::commit().unwrap_or("no commit known")),
        );
        report.line("system", &machine.system);
        report.line("processor", &format!("{}, {} threads", machine.processor, machine.processors));
        machine.gpus.iter().for_each(|gpu| report.line("gpu", gpu));
        report.line("similarities", zoo::retrieval::similarity::instruction_set());
        libtorch(&mut report);
        onnxruntime(&mut report);
        match zoo::cache::place() {
            Some(path) => report.line("cache", &path.display().to_string()),
            None => report.missing("cache", "no folder", "set LAPS_ZOO_CACHE"),
        }
        print(&report.text)?;
        Ok(if report.complete { Finding::Done } else { Finding::Failed })
    }
}

fn libtorch(report: &mut Report) {
    match engine::libtorch() {
        None => report.line("libtorch", "not in this build; the engine `rust` serves"),
        Some(library) => {
            let path =
                library.path.map_or_else(|| "linked into the program".to_owned(), |path| path.display().to_string());
            report.line("libtorch", &format!("{} ({path})", library.version));
            let gpus = match library.gpus {
                0 if library.cuda => {
                    "no GPU found: no driver (`libcuda.so.1`) or no device; see `nvidia-smi`".to_owned()
                }
                0 => "no GPU: libtorch without CUDA; `make setup CUDA=1` brings one with it".to_owned(),
                gpus => format!("cuda:0 to cuda:{}", gpus - 1),
            };
            report.line("devices", &format!("cpu; {gpus}"));
            report.line("threads", &library.threads.to_string());
        }
    }
}

fn onnxruntime(report: &mut Report) {
    let found = export::runtime::library::find().and_then(|library| Ok((library.load()?, library)));
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

struct Report {
    text: String,
    complete: bool,
}

impl Default for Report {
    fn default() -> Self {
        Self { text: String::new(), complete: true }
    }
}

impl Report {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a string can not fail.
        let _ = writeln!(self.text, "{name:14}{value}");
    }

    fn missing(&mut self, name: &str, value: &str, hint: &str) {
        self.complete = false;
        self.line(name, &format!("missing: {value}; hint: {hint}"));
    }
}
