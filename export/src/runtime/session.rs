//! A loaded graph.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use laps_files::with_suffix;
use laps_model::{array::Array, encoder::Device};
use ort::{
    logging::LogLevel,
    session::builder::{GraphOptimizationLevel, SessionBuilder},
};

use super::{
    ExecutionDevice, Placement, Provider, ProviderOptions, RuntimeError, binding::Binding, environment, placement,
    provider,
};

/// Session configuration entry with the names of disabled graph optimisers.
const DISABLE_OPTIMIZERS: &str = "optimization.disable_specified_optimizers";
/// Fusions that are slower on a CPU than the separate operators: of an addition and a norm, and of a bias and a GELU.
pub(crate) const DISABLED_OPTIMIZERS: &str = "SkipLayerNormFusion;BiasGeluFusion";
/// Session configuration entries with the file of the weights of an optimised graph, and the bytes from which a weight goes
/// there. A session maps the file instead of reading it.
const WEIGHTS_FILE: &str = "session.optimized_model_external_initializers_file_name";
const WEIGHTS_FROM: &str = "session.optimized_model_external_initializers_min_size_in_bytes";
/// Smaller weights stay in the graph: shapes and biases of a few values, which ONNX Runtime reads while it loads.
const WEIGHTS_FROM_BYTES: &str = "1024";

/// The file of the weights of the optimised graph at `path`.
pub(crate) fn weights_file(path: &Path) -> PathBuf {
    with_suffix(path, ".weights")
}

/// How a session optimises its graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Optimization {
    /// Optimises the graph while loading it.
    #[default]
    OnLoad,
    /// The same, and writes the optimised graph to this file, with its weights beside it. On a CPU only.
    SaveTo(PathBuf),
    /// Loads a graph that was optimised and saved before, as it is.
    Saved,
}

/// Options of a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Device; an explicit GPU that cannot be used is an error.
    pub device: ExecutionDevice,
    /// Number of threads per operator.
    pub threads: usize,
    /// Options of GPU execution providers.
    pub provider: ProviderOptions,
    /// Prefix of the file to which a profile of all runs is written.
    pub profile: Option<PathBuf>,
    /// How the graph is optimised.
    pub optimization: Optimization,
}

impl SessionOptions {
    /// Options for the CPU with `threads` threads.
    pub fn cpu(threads: usize) -> Self {
        Self {
            device: ExecutionDevice::Cpu,
            threads,
            provider: ProviderOptions::default(),
            profile: None,
            optimization: Optimization::OnLoad,
        }
    }
}

/// An input of a graph: shape, and values in row-major order.
#[derive(Clone, Copy, Debug)]
pub enum InputTensor<'a> {
    /// Single precision.
    F32(&'a [usize], &'a [f32]),
    /// 64-bit integers.
    I64(&'a [usize], &'a [i64]),
}

/// A graph with one output, loaded and optimised for a device.
pub struct Session {
    path: PathBuf,
    inner: RefCell<ort::session::Session>,
    /// Buffers of the last run, reused for inputs of the same shapes.
    binding: RefCell<Option<Binding>>,
    provider: Provider,
    device: Device,
}

impl Session {
    /// Loads the graph in the file `path`.
    ///
    /// # Errors
    /// [`RuntimeError::Provider`] and [`RuntimeError::ProviderFile`] if the requested device cannot be used,
    /// [`RuntimeError::Graph`] if the file is not a graph that can be run.
    pub fn open(path: &Path, options: &SessionOptions) -> Result<Self, RuntimeError> {
        Self::load(path, options, |builder| builder.commit_from_file(path))
    }

    /// Loads the graph whose file has the contents `bytes`. `name` names it in messages.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn from_memory(name: &str, bytes: &[u8], options: &SessionOptions) -> Result<Self, RuntimeError> {
        Self::load(Path::new(name), options, |builder| builder.commit_from_memory(bytes))
    }

    fn load(
        path: &Path,
        options: &SessionOptions,
        read: impl Fn(&mut SessionBuilder) -> ort::Result<ort::session::Session>,
    ) -> Result<Self, RuntimeError> {
        let commit = |gpu| commit(path, options, gpu, &read);
        let (inner, provider, device) = match options.device {
            ExecutionDevice::Auto if options.device.provider() == Provider::Cuda => {
                match commit(Some((Provider::Cuda, 0))) {
                    Ok(session) => (session, Provider::Cuda, Device::Cuda(0)),
                    Err(RuntimeError::Provider { .. }) => (commit(None)?, Provider::Cpu, Device::Cpu),
                    Err(error) => return Err(error),
                }
            }
            ExecutionDevice::Auto | ExecutionDevice::Cpu => (commit(None)?, Provider::Cpu, Device::Cpu),
            ExecutionDevice::Gpu(provider, index) => (commit(Some((provider, index)))?, provider, Device::Cuda(index)),
        };
        Ok(Self { path: path.to_owned(), inner: RefCell::new(inner), binding: RefCell::default(), provider, device })
    }

    /// Device that runs the graph.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Execution provider that runs the graph; [`Session::placement`] verifies it.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Runs the graph once on `inputs` and counts the nodes that each execution provider ran. The session must have been
    /// opened with a profile, and profiling ends.
    ///
    /// # Errors
    /// [`RuntimeError::UnusedProvider`] if the session's provider ran no node; as [`Session::run`] and
    /// [`Session::end_profiling`].
    pub fn placement(&self, inputs: &[InputTensor<'_>]) -> Result<Placement, RuntimeError> {
        self.run(inputs)?;
        let placement = placement::read(&self.end_profiling()?)?;
        placement::check(&placement, self.provider)?;
        Ok(placement)
    }

    /// Runs the graph on inputs in the order of the graph, and returns its output. Buffers are reused for inputs of the same
    /// shapes.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] with the message of ONNX Runtime.
    pub fn run(&self, inputs: &[InputTensor<'_>]) -> Result<Array, RuntimeError> {
        let failed =
            |source: ort::Error| RuntimeError::Run { path: self.path.clone(), source: source.to_string().into() };
        // The copy into the buffers relies on shape and values having the same length.
        for input in inputs {
            let (shape, values) = match *input {
                InputTensor::F32(shape, data) => (shape, data.len()),
                InputTensor::I64(shape, data) => (shape, data.len()),
            };
            if shape.iter().product::<usize>() != values {
                return Err(failed(ort::Error::new(format!("an input of shape {shape:?} has {values} values"))));
            }
        }
        let mut session = self.inner.borrow_mut();
        let mut cached = self.binding.borrow_mut();
        let binding = match cached.take().filter(|binding| binding.fits(inputs)) {
            Some(binding) => binding,
            None => Binding::new(&session, inputs).map_err(failed)?,
        };
        let (shape, values) = cached.insert(binding).run(&mut session, inputs).map_err(failed)?;
        Array::new(&shape, values).map_err(|error| RuntimeError::Run { path: self.path.clone(), source: error.into() })
    }

    /// Ends profiling and returns the path of the profile.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] if the session has no profile.
    pub fn end_profiling(&self) -> Result<PathBuf, RuntimeError> {
        let profile = self.inner.borrow_mut().end_profiling();
        profile
            .map(PathBuf::from)
            .map_err(|error| RuntimeError::Run { path: self.path.clone(), source: error.to_string().into() })
    }
}

fn commit(
    path: &Path,
    options: &SessionOptions,
    gpu: Option<(Provider, usize)>,
    read: impl Fn(&mut SessionBuilder) -> ort::Result<ort::session::Session>,
) -> Result<ort::session::Session, RuntimeError> {
    let (environment, library, _) = environment()?;
    let failed = |text: String| RuntimeError::Graph { path: path.to_owned(), source: text.into() };
    let configured = || -> ort::Result<SessionBuilder> {
        let builder = ort::session::Session::builder(&environment)?;
        // Decoding and similarities use the same CPU cores between two runs; spinning threads would occupy them.
        let builder = builder.with_intra_op_spinning(false)?;
        let mut builder = builder.with_intra_threads(options.threads)?;
        if gpu.is_none() {
            builder = builder.with_config_entry(DISABLE_OPTIMIZERS, DISABLED_OPTIMIZERS)?;
        }
        builder = match &options.optimization {
            Optimization::OnLoad => builder,
            Optimization::SaveTo(path) => {
                let weights = weights_file(path);
                let weights = weights.file_name().unwrap_or_default().to_string_lossy();
                let builder = builder.with_optimized_model_path(path)?.with_config_entry(WEIGHTS_FILE, weights)?;
                // It warns that the file fits only this machine, which the key of the cache says.
                builder.with_config_entry(WEIGHTS_FROM, WEIGHTS_FROM_BYTES)?.with_log_level(LogLevel::Error)?
            }
            Optimization::Saved => builder.with_optimization_level(GraphOptimizationLevel::Disable)?,
        };
        match &options.profile {
            Some(profile) => Ok(builder.with_profiling(profile)?),
            None => Ok(builder),
        }
    };
    let mut builder = configured().map_err(|error| failed(error.to_string()))?;
    if let Some((provider, index)) = gpu {
        let providers = provider::dispatch((provider, index), &options.provider, &library)?;
        builder = builder.with_execution_providers(providers).map_err(|error| RuntimeError::Provider {
            provider,
            device: Device::Cuda(index).to_string(),
            library: library.path.clone(),
            source: error.to_string().into(),
        })?;
    }
    read(&mut builder).map_err(|error| failed(error.to_string()))
}
