//! The choice of engine and the options of ONNX Runtime, as the command line has them.

use std::path::PathBuf;

use laps::{BackendRequest, EngineChoice};
use laps_model::encoder::Device;
use laps_onnx::runtime::{ExecutionDevice, ProviderOptions, SessionOptions};

/// Options of ONNX Runtime execution providers.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Providers {
    /// ONNX Runtime execution provider: auto, cpu, cuda or tensorrt; an unavailable one is an error
    #[arg(long, value_name = "PROVIDER")]
    ep: Option<String>,
    /// Memory limit in MiB of the CUDA arena or the TensorRT workspace
    #[arg(long, value_name = "MIB")]
    ep_memory: Option<std::num::NonZeroUsize>,
    /// Folder in which TensorRT caches the engines that it builds
    #[arg(long, value_name = "DIR")]
    ep_cache: Option<PathBuf>,
}

impl Providers {
    /// Whether any of these options is given, which selects the engine `ort`.
    pub(crate) fn given(&self) -> bool {
        self.ep.is_some() || self.ep_memory.is_some() || self.ep_cache.is_some()
    }

    /// Session options; `default` is the provider if none is given.
    ///
    /// # Errors
    /// [`laps_onnx::Error::Option`] for an unknown provider, or one that contradicts `device`.
    pub(crate) fn options(&self, default: &str, device: Device, threads: usize) -> laps_onnx::Result<SessionOptions> {
        Ok(SessionOptions {
            device: ExecutionDevice::new(self.ep.as_deref().unwrap_or(default).parse()?, device)?,
            provider: ProviderOptions {
                memory_limit: self.ep_memory.map(|mib| mib.get().saturating_mul(1 << 20)),
                engine_cache: self.ep_cache.clone(),
                ..ProviderOptions::default()
            },
            ..SessionOptions::cpu(threads)
        })
    }

    /// The same, or None if no option is given.
    ///
    /// # Errors
    /// As [`options`](Self::options).
    pub(crate) fn session(
        &self,
        default: &str,
        device: Device,
        threads: usize,
    ) -> laps_onnx::Result<Option<SessionOptions>> {
        if self.given() { self.options(default, device, threads).map(Some) } else { Ok(None) }
    }
}

/// Refuses graphs and provider options with an engine that runs no graphs.
pub(crate) fn check(request: &BackendRequest) -> anyhow::Result<()> {
    let option = match (&request.graphs, &request.session) {
        (Some(_), _) => "--graphs",
        (None, Some(_)) => "--ep",
        (None, None) => return Ok(()),
    };
    match request.engine {
        EngineChoice::Auto | EngineChoice::Ort => Ok(()),
        EngineChoice::Torch | EngineChoice::Rust => Err(laps_bench::Error::Argument {
            argument: option,
            expected: "the engine `ort` or `auto`".to_owned(),
            found: format!("the engine `{}`", format!("{:?}", request.engine).to_lowercase()),
        }
        .into()),
    }
}

/// Whether the options can only be met with libtorch: the engine `torch`, or a GPU without ONNX Runtime.
pub(crate) fn needs_libtorch(engine: &str, device: &str, has_graphs: bool) -> bool {
    match engine {
        "torch" => !has_graphs,
        "auto" => device.starts_with("cuda") && !has_graphs,
        _ => false,
    }
}
