//! A graph that is ready to run.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::Arc,
};

use laps_model::{array::Array, encoder::Device};
use ort::session::{RunOptions, builder::SessionBuilder};

use super::{
    Place, Placement, Provider, ProviderOptions, RuntimeError, binding::Binding, environment, placement, provider,
};

/// The entry of a session's configuration that names optimisers to leave out, and those that make one operation of several
/// which the processor computes slower: of a sum and a norm, and of a bias and a GELU.
const LEFT_APART: &str = "optimization.disable_specified_optimizers";
const SLOWER: &str = "SkipLayerNormFusion;BiasGeluFusion";

/// How a session computes.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Where: a GPU that is asked for and can not be used is an error.
    pub place: Place,
    /// Threads of one operation.
    pub threads: usize,
    /// What a GPU provider is told.
    pub provider: ProviderOptions,
    /// Where a profile of every run is written, as the beginning of a file name.
    pub profile: Option<PathBuf>,
}

impl SessionOptions {
    /// On the processor, with `threads` threads.
    pub fn cpu(threads: usize) -> Self {
        Self { place: Place::Processor, threads, provider: ProviderOptions::default(), profile: None }
    }
}

/// What a graph is given: sizes and values in row-major order.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Single precision.
    Float(&'a [usize], &'a [f32]),
    /// 64-bit integers.
    Whole(&'a [usize], &'a [i64]),
}

/// A graph with one output, loaded and optimised for a device.
pub struct Session {
    path: PathBuf,
    inner: RefCell<ort::session::Session>,
    /// Of the last inputs, for the next ones of the same shapes.
    binding: RefCell<Option<Binding>>,
    provider: Provider,
    device: Device,
    run_options: Arc<RunOptions>,
}

/// Ends runs of a session from another thread.
#[derive(Clone)]
pub struct Stopper(Arc<RunOptions>);

impl Stopper {
    /// Ends the run that is under way, between two of its nodes, and every later one, with [`RuntimeError::Run`].
    ///
    /// # Errors
    /// [`RuntimeError::Stop`] if ONNX Runtime does not take it.
    pub fn stop(&self) -> Result<(), RuntimeError> {
        self.0.terminate().map_err(RuntimeError::Stop)
    }
}

impl Session {
    /// Loads the graph in the file `path`.
    ///
    /// # Errors
    /// [`RuntimeError::Provider`] and [`RuntimeError::ProviderFile`] if the device that is asked for can not be used,
    /// [`RuntimeError::Graph`] if the file is no graph that can be run.
    pub fn open(path: &Path, options: &SessionOptions) -> Result<Self, RuntimeError> {
        let (inner, provider, device) = match options.place {
            Place::Best if options.place.provider() == Provider::Cuda => {
                match commit(path, options, Some((Provider::Cuda, 0))) {
                    Ok(session) => (session, Provider::Cuda, Device::Cuda(0)),
                    Err(RuntimeError::Provider { .. }) => (commit(path, options, None)?, Provider::Cpu, Device::Cpu),
                    Err(error) => return Err(error),
                }
            }
            Place::Best | Place::Processor => (commit(path, options, None)?, Provider::Cpu, Device::Cpu),
            Place::Gpu(provider, index) => {
                (commit(path, options, Some((provider, index)))?, provider, Device::Cuda(index))
            }
        };
        let run_options = Arc::new(RunOptions::new().map_err(RuntimeError::Stop)?);
        Ok(Self {
            path: path.to_owned(),
            inner: RefCell::new(inner),
            binding: RefCell::default(),
            provider,
            device,
            run_options,
        })
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What computes, if [`Session::placement`] agrees.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// What ends its runs from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.run_options))
    }

    /// Runs the graph once on `inputs` and says which provider executed how many nodes; of a session that was opened with
    /// a profile, which ends with it.
    ///
    /// # Errors
    /// [`RuntimeError::Elsewhere`] if the provider executed none of them; as [`Session::run`] and
    /// [`Session::end_profiling`].
    pub fn placement(&self, inputs: &[Input<'_>]) -> Result<Placement, RuntimeError> {
        self.run(inputs)?;
        let placement = placement::read(&self.end_profiling()?)?;
        placement::check(&placement, self.provider)?;
        Ok(placement)
    }

    /// Runs the graph on inputs in its order, and copies its output. The memory of both is bound to the session and serves
    /// the next run on inputs of the same shapes.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] with what ONNX Runtime says.
    pub fn run(&self, inputs: &[Input<'_>]) -> Result<Array, RuntimeError> {
        let failed =
            |source: ort::Error| RuntimeError::Run { path: self.path.clone(), source: source.to_string().into() };
        // Sizes and values come apart; what copies them relies on their agreement.
        for input in inputs {
            let (shape, values) = match *input {
                Input::Float(shape, data) => (shape, data.len()),
                Input::Whole(shape, data) => (shape, data.len()),
            };
            if shape.iter().product::<usize>() != values {
                return Err(failed(ort::Error::new(format!("an input of the shape {shape:?} with {values} values"))));
            }
        }
        let mut session = self.inner.borrow_mut();
        let mut kept = self.binding.borrow_mut();
        let binding = match kept.take().filter(|binding| binding.fits(inputs)) {
            Some(binding) => binding,
            None => Binding::new(&session, inputs).map_err(failed)?,
        };
        let (shape, values) = kept.insert(binding).run(&mut session, inputs, &self.run_options).map_err(failed)?;
        Array::new(&shape, values).map_err(|error| RuntimeError::Run { path: self.path.clone(), source: error.into() })
    }

    /// What the file says of itself under `key`.
    pub fn metadata(&self, key: &str) -> Option<String> {
        self.inner.borrow().metadata().ok()?.custom(key)
    }

    /// Ends profiling and gives the file of the profile.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] if nothing was profiled.
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
) -> Result<ort::session::Session, RuntimeError> {
    let (environment, library, _) = environment()?;
    let failed = |text: String| RuntimeError::Graph { path: path.to_owned(), source: text.into() };
    let configured = || -> Result<SessionBuilder, String> {
        let builder = ort::session::Session::builder(&environment).map_err(|error| error.to_string())?;
        // Decoding and similarities use the same processors between two runs: threads that wait by spinning take them away.
        let builder = builder.with_intra_op_spinning(false).map_err(|error| error.to_string())?;
        let mut builder = builder.with_intra_threads(options.threads).map_err(|error| error.to_string())?;
        if gpu.is_none() {
            builder = builder.with_config_entry(LEFT_APART, SLOWER).map_err(|error| error.to_string())?;
        }
        match &options.profile {
            Some(profile) => builder.with_profiling(profile).map_err(|error| error.to_string()),
            None => Ok(builder),
        }
    };
    let mut builder = configured().map_err(failed)?;
    if let Some((provider, index)) = gpu {
        let providers = provider::dispatch((provider, index), &options.provider, &library)?;
        builder = builder.with_execution_providers(providers).map_err(|error| RuntimeError::Provider {
            provider,
            device: Device::Cuda(index).to_string(),
            library: library.path.clone(),
            source: error.to_string().into(),
        })?;
    }
    builder.commit_from_file(path).map_err(|error| failed(error.to_string()))
}
