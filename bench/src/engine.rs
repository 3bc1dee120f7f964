//! What computes the embeddings.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::PathBuf, rc::Rc, str::FromStr};

use serde::{Deserialize, Serialize};
use zoo::{
    array::Array,
    checkpoint::Checkpoint,
    encoder::{Device, Encoder, ModelEncoder},
    models::config::ModelConfig,
    params::Parameter,
    registry::Entry,
};

use crate::{Error, Result};

/// An engine as the user names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The fastest that this build has.
    #[default]
    Auto,
    /// libtorch.
    Torch,
    /// The tensor in pure Rust.
    Rust,
    /// ONNX Runtime, which whoever asks for it brings along as [`EncoderSource`].
    Ort,
}

impl FromStr for EngineChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "torch" => Ok(Self::Torch),
            "rust" => Ok(Self::Rust),
            "ort" => Ok(Self::Ort),
            _ => Err(Error::Engine {
                engine: name.to_owned(),
                reason: "there is no such engine",
                hint: "use `auto`, `torch`, `rust` or `ort`",
            }),
        }
    }
}

/// Where encoders come from that this crate does not know.
pub trait EncoderSource: fmt::Debug {
    /// Sees that there is an encoder to be had, before anything is read.
    fn check(&self) -> Result<()>;

    /// An encoder of `entry` with the weights of `checkpoint`, whose file has the hash `sha256`.
    fn open(&self, entry: &Entry, checkpoint: &Rc<Checkpoint>, sha256: &str) -> Result<(Box<dyn Encoder>, EngineUsed)>;
}

/// The engine that was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineUsed {
    /// `torch`, `rust` or `ort`.
    pub name: Cow<'static, str>,
    /// Its version.
    pub version: String,
    /// Where it computed.
    pub device: String,
    /// Threads of one operation.
    pub threads: usize,
    /// The graphs that it ran: flavour, precision, version of the operators. None for an engine without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graphs: Option<String>,
    /// Which execution provider ran how many nodes of each graph in one run of it. None for an engine without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<BTreeMap<String, BTreeMap<String, usize>>>,
}

impl fmt::Display for EngineUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} on {}, {} threads", self.name, self.version, self.device, self.threads)?;
        if let Some(graphs) = &self.graphs {
            write!(f, "; graphs {graphs}")?;
        }
        // On the processor there is nothing else that could have run them.
        for (graph, providers) in self.placement.iter().flatten().filter(|_| self.device != "cpu") {
            let nodes: Vec<String> = providers.iter().map(|(name, nodes)| format!("{nodes} by {name}")).collect();
            write!(f, "; nodes of `{graph}`: {}", nodes.join(", "))?;
        }
        Ok(())
    }
}

/// Builds the model of `config` from a checkpoint, on an engine.
pub fn open(
    choice: EngineChoice,
    device: Device,
    config: &ModelConfig,
    checkpoint: Rc<Checkpoint>,
) -> Result<(Box<dyn Encoder>, EngineUsed)> {
    let read = move |parameter: &Parameter| -> zoo::Result<Array> { Ok(checkpoint.read(&parameter.name)?) };
    match choice {
        #[cfg(feature = "torch")]
        EngineChoice::Auto | EngineChoice::Torch => torch(device, config, read),
        #[cfg(not(feature = "torch"))]
        EngineChoice::Torch => Err(no_libtorch()),
        #[cfg(not(feature = "torch"))]
        EngineChoice::Auto => rust(device, config, read),
        EngineChoice::Rust => rust(device, config, read),
        EngineChoice::Ort => Err(no_source()),
    }
}

/// Sees that the device is there, which costs nothing, before anything is read.
pub fn check(choice: EngineChoice, device: Device) -> Result<()> {
    match (choice, device) {
        (EngineChoice::Rust, Device::Cuda(_)) => Err(no_gpu(device)),
        (EngineChoice::Ort, _) => Err(no_source()),
        #[cfg(not(feature = "torch"))]
        (EngineChoice::Torch, _) => Err(no_libtorch()),
        #[cfg(not(feature = "torch"))]
        (_, Device::Cuda(_)) => Err(no_gpu(device)),
        #[cfg(feature = "torch")]
        (EngineChoice::Auto | EngineChoice::Torch, _) => Ok(zoo::torch::TorchDevice::open(device).map(|_| ())?),
        _ => Ok(()),
    }
}

/// The libtorch of this build.
#[derive(Clone, Debug)]
pub struct Libtorch {
    /// Version of the headers it was built with, which it checks when it is loaded.
    pub version: &'static str,
    /// The library that this process has loaded; `None` where the system does not tell.
    pub path: Option<PathBuf>,
    /// Whether it was built for CUDA.
    pub cuda: bool,
    /// GPUs that it can use.
    pub gpus: usize,
    /// Threads of one operation.
    pub threads: usize,
}

/// The libtorch of this build; `None` in a build without.
pub fn libtorch() -> Option<Libtorch> {
    #[cfg(feature = "torch")]
    return Some(Libtorch {
        version: zoo::torch::version(),
        path: loaded("libtorch_cpu.so"),
        cuda: zoo::torch::has_cuda(),
        gpus: zoo::torch::cuda_devices(),
        threads: zoo::torch::threads(),
    });
    #[cfg(not(feature = "torch"))]
    None
}

/// The commit that this was built from.
pub fn commit() -> Option<&'static str> {
    option_env!("LAPS_ZOO_COMMIT")
}

/// Sets the threads of every engine. Once in a process, before anything is computed.
pub fn set_threads(threads: usize) -> Result<()> {
    #[cfg(feature = "torch")]
    zoo::torch::set_threads(threads);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|error| Error::Option {
        option: "--threads",
        expected: "threads that can be started".to_owned(),
        found: format!("{threads}: {error}"),
    })
}

#[cfg(feature = "torch")]
fn loaded(name: &str) -> Option<PathBuf> {
    let maps = fs_err::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(name))?;
    Some(line[line.find('/')?..].into())
}

#[cfg(feature = "torch")]
fn torch(
    device: Device,
    config: &ModelConfig,
    read: impl Fn(&Parameter) -> zoo::Result<Array> + 'static,
) -> Result<(Box<dyn Encoder>, EngineUsed)> {
    use zoo::torch::{self, Torch, TorchDevice, Unrecorded};

    let device = TorchDevice::open(device)?;
    let used = EngineUsed {
        name: "torch".into(),
        version: torch::version().to_owned(),
        device: device.to_string(),
        threads: torch::threads(),
        graphs: None,
        placement: None,
    };
    Ok((Box::new(Unrecorded(ModelEncoder::<Torch>::new(config, device, read)?)), used))
}

fn rust(
    device: Device,
    config: &ModelConfig,
    read: impl Fn(&Parameter) -> zoo::Result<Array> + 'static,
) -> Result<(Box<dyn Encoder>, EngineUsed)> {
    if let Device::Cuda(_) = device {
        return Err(no_gpu(device));
    }
    let used = EngineUsed {
        name: "rust".into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: "cpu".to_owned(),
        threads: rayon::current_num_threads(),
        graphs: None,
        placement: None,
    };
    Ok((Box::new(ModelEncoder::<Array>::new(config, (), read)?), used))
}

#[cfg(not(feature = "torch"))]
fn no_libtorch() -> Error {
    Error::Engine {
        engine: "torch".to_owned(),
        reason: "this build has no libtorch",
        hint: "build with the feature `torch`, or use `--engine rust`",
    }
}

fn no_source() -> Error {
    Error::Engine {
        engine: "ort".to_owned(),
        reason: "nobody brought its graphs along",
        hint: "use the engine `ort` where encoders come from graphs",
    }
}

fn no_gpu(device: Device) -> Error {
    Error::Zoo(zoo::Error::Device {
        device: device.to_string(),
        reason: "the engine `rust` computes on the processor only".to_owned(),
        hint: "use `--device cpu`, or an engine `torch` with CUDA".to_owned(),
    })
}
