//! A graph that is ready to run.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use ort::{
    ep,
    session::{SessionInputValue, builder::SessionBuilder},
    value::TensorRef,
};
use zoo::{array::Array, encoder::Device};

use super::{Provider, RuntimeError, environment};

/// How a session computes.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Where: a GPU that is asked for and can not be used is an error; `auto` takes one only if it can.
    pub device: Device,
    /// Threads of one operation.
    pub threads: usize,
    /// Most bytes of a GPU's memory.
    pub memory_limit: Option<usize>,
    /// Where a profile of every run is written, as the beginning of a file name.
    pub profile: Option<PathBuf>,
}

impl SessionOptions {
    /// On the processor, with `threads` threads.
    pub fn cpu(threads: usize) -> Self {
        Self { device: Device::Cpu, threads, memory_limit: None, profile: None }
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
    device: Device,
}

impl Session {
    /// Loads the graph in the file `path`.
    ///
    /// # Errors
    /// [`RuntimeError::Provider`] if the device that is asked for can not be used, [`RuntimeError::Graph`] if the file is
    /// no graph that can be run.
    pub fn open(path: &Path, options: &SessionOptions) -> Result<Self, RuntimeError> {
        let (.., build) = environment()?;
        let has_cuda = build.providers.contains(&Provider::Cuda);
        let (inner, device) = match options.device {
            Device::Auto if has_cuda => match commit(path, options, Some(0)) {
                Ok(session) => (session, Device::Cuda(0)),
                Err(RuntimeError::Provider { .. }) => (commit(path, options, None)?, Device::Cpu),
                Err(error) => return Err(error),
            },
            Device::Auto | Device::Cpu => (commit(path, options, None)?, Device::Cpu),
            Device::Cuda(index) => (commit(path, options, Some(index))?, Device::Cuda(index)),
        };
        Ok(Self { path: path.to_owned(), inner: RefCell::new(inner), device })
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Runs the graph on inputs in its order, and copies its output.
    ///
    /// # Errors
    /// [`RuntimeError::Run`] with what ONNX Runtime says.
    pub fn run(&self, inputs: &[Input<'_>]) -> Result<Array, RuntimeError> {
        let failed =
            |source: ort::Error| RuntimeError::Run { path: self.path.clone(), source: source.to_string().into() };
        let mut values: Vec<SessionInputValue<'_>> = Vec::with_capacity(inputs.len());
        for input in inputs {
            values.push(match *input {
                Input::Float(shape, data) => TensorRef::from_array_view((shape, data)).map_err(failed)?.into(),
                Input::Whole(shape, data) => TensorRef::from_array_view((shape, data)).map_err(failed)?.into(),
            });
        }
        let mut session = self.inner.borrow_mut();
        let outputs = session.run(&values[..]).map_err(failed)?;
        let Some(output) = outputs.values().next() else {
            return Err(RuntimeError::Run { path: self.path.clone(), source: "it has no output".into() });
        };
        let (shape, data) = output.try_extract_tensor::<f32>().map_err(failed)?;
        let shape: Vec<usize> = shape.iter().map(|&size| usize::try_from(size).unwrap_or_default()).collect();
        Array::new(&shape, data.to_vec())
            .map_err(|error| RuntimeError::Run { path: self.path.clone(), source: error.into() })
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

fn commit(path: &Path, options: &SessionOptions, cuda: Option<usize>) -> Result<ort::session::Session, RuntimeError> {
    let (environment, library, _) = environment()?;
    let failed = |text: String| RuntimeError::Graph { path: path.to_owned(), source: text.into() };
    let configured = || -> Result<SessionBuilder, String> {
        let builder = ort::session::Session::builder(&environment).map_err(|error| error.to_string())?;
        // Decoding and similarities use the same processors between two runs: threads that wait by spinning take them away.
        let builder = builder.with_intra_op_spinning(false).map_err(|error| error.to_string())?;
        let builder = builder.with_intra_threads(options.threads).map_err(|error| error.to_string())?;
        match &options.profile {
            Some(profile) => builder.with_profiling(profile).map_err(|error| error.to_string()),
            None => Ok(builder),
        }
    };
    let mut builder = configured().map_err(failed)?;
    if let Some(index) = cuda {
        let mut provider = ep::CUDA::default().with_device_id(i32::try_from(index).unwrap_or(i32::MAX));
        // TF32 would cost three digits that the comparison with the eager model sees.
        provider = provider.with_tf32(false);
        if let Some(limit) = options.memory_limit {
            provider = provider.with_memory_limit(limit);
        }
        // Without this a provider that does not load is replaced by the processor without a word.
        let provider = provider.build().error_on_failure();
        builder = builder.with_execution_providers([provider]).map_err(|error| RuntimeError::Provider {
            device: Device::Cuda(index).to_string(),
            library: library.path.clone(),
            source: error.to_string().into(),
        })?;
    }
    builder.commit_from_file(path).map_err(|error| failed(error.to_string()))
}
