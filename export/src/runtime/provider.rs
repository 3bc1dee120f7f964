//! Execution providers: the backends of ONNX Runtime that run the nodes of a graph.

use std::{fmt, path::PathBuf};

use ort::ep::{self, ExecutionProviderDispatch};

use super::{Library, RuntimeError};
use crate::{
    Error, Result,
    graph::{Flavour, GraphPrecision},
};

/// Execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// CPU.
    Cpu,
    /// NVIDIA GPUs with the kernels of ONNX Runtime.
    Cuda,
    /// NVIDIA GPUs with engines that TensorRT builds; CUDA runs the nodes that TensorRT does not support.
    TensorRt,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        })
    }
}

impl Provider {
    /// Name in ONNX Runtime and its profiles.
    pub fn runtime_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::TensorRt => "TensorrtExecutionProvider",
        }
    }

    /// The faster flavour among those that [`check`](Self::check) allows. On a CPU these are the standard operators, as
    /// measured with `bench/python_baseline.py`. With CUDA they are the fused operators of ONNX Runtime, which are faster by
    /// a quarter or more in fp16, as measured with `laps-zoo bench --flavour portable,ort`.
    pub fn flavour(self, windowed: bool) -> Flavour {
        match self {
            Self::Cuda if !windowed => Flavour::Ort,
            _ => Flavour::Portable,
        }
    }

    /// File of the provider next to the library of ONNX Runtime; None for the CPU.
    pub fn file(self) -> Option<&'static str> {
        match self {
            Self::Cpu => None,
            Self::Cuda => Some("libonnxruntime_providers_cuda.so"),
            Self::TensorRt => Some("libonnxruntime_providers_tensorrt.so"),
        }
    }

    /// Verifies that `library` has the file of the provider. Opening a session shows whether the provider starts.
    ///
    /// # Errors
    /// [`RuntimeError::ProviderFile`] with the missing file.
    pub fn check_installed(self, library: &Library) -> Result<(), RuntimeError> {
        match self.file().map(|file| library.path.with_file_name(file)).filter(|file| !file.exists()) {
            Some(missing) => Err(RuntimeError::ProviderFile { provider: self, missing, library: library.path.clone() }),
            None => Ok(()),
        }
    }

    /// Verifies that the provider can run graphs of a flavour and precision; `windowed` says that the model uses window
    /// attention, as Swin does.
    ///
    /// # Errors
    /// [`Error::Provider`] if it cannot, with a hint about what to export.
    pub fn check(self, flavour: Flavour, precision: GraphPrecision, windowed: bool) -> Result<()> {
        let refused = |expected, found: String, hint| Err(Error::Provider { provider: self, expected, found, hint });
        if self == Self::TensorRt && flavour != Flavour::Portable {
            let hint = "export them with the flavour `portable`, or use the execution provider `cuda`";
            return refused("graphs of the flavour `portable`", format!("the flavour `{flavour}`"), hint);
        }
        if self == Self::Cuda && flavour == Flavour::Ort && windowed {
            // `MultiHeadAttention` of 1.31.1 reads out of bounds for the windows of Swin-B in fp32 and crashes the process.
            let hint = "export them with the flavour `portable`, or use the execution provider `cpu`: fused window attention \
                        crashes with CUDA";
            return refused("graphs of the flavour `portable` for Swin", format!("the flavour `{flavour}`"), hint);
        }
        if self != Self::Cpu && precision == GraphPrecision::Int8 {
            let hint = "export them in fp16, or use the execution provider `cpu`: only the CPU runs these int8 graphs";
            return refused("graphs in fp32 or fp16", "int8".to_owned(), hint);
        }
        Ok(())
    }
}

/// Options of GPU execution providers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderOptions {
    /// Limit in bytes of the CUDA arena or the TensorRT workspace.
    pub memory_limit: Option<usize>,
    /// Folder in which TensorRT caches engines.
    pub engine_cache: Option<PathBuf>,
    /// Shapes of the inputs that TensorRT builds engines for.
    pub profiles: Vec<ShapeProfile>,
}

/// Range of shapes of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeProfile {
    /// Name of the input.
    pub input: String,
    /// Smallest, typical and largest shape.
    pub shapes: [Vec<usize>; 3],
}

impl ProviderOptions {
    /// The smallest (0), typical (1) or largest (2) shapes in TensorRT's syntax: `input:2x3x4,other:2`.
    fn shapes(&self, which: usize) -> String {
        let shape = |profile: &ShapeProfile| {
            let sizes: Vec<String> = profile.shapes[which].iter().map(ToString::to_string).collect();
            format!("{}:{}", profile.input, sizes.join("x"))
        };
        self.profiles.iter().map(shape).collect::<Vec<_>>().join(",")
    }
}

/// The providers to register for a GPU; each of them must load.
///
/// # Errors
/// [`RuntimeError::ProviderFile`] if the library of ONNX Runtime has no file for the provider.
pub(super) fn dispatch(
    (provider, index): (Provider, usize),
    options: &ProviderOptions,
    library: &Library,
) -> Result<Vec<ExecutionProviderDispatch>, RuntimeError> {
    provider.check_installed(library)?;
    let number = i32::try_from(index).unwrap_or(i32::MAX);
    // TF32 would lose three digits, which the comparison with the model detects.
    let mut cuda = ep::CUDA::default().with_device_id(number).with_tf32(false);
    if let Some(limit) = options.memory_limit {
        cuda = cuda.with_memory_limit(limit);
    }
    // Without `error_on_failure`, ONNX Runtime silently falls back to the CPU if the provider does not load.
    let cuda = cuda.build().error_on_failure();
    if provider != Provider::TensorRt {
        return Ok(vec![cuda]);
    }
    // fp16 graphs declare their types; TensorRT must not round others.
    let mut tensorrt = ep::TensorRT::default().with_device_id(number).with_fp16(false);
    if let Some(limit) = options.memory_limit {
        tensorrt = tensorrt.with_max_workspace_size(limit);
    }
    if let Some(folder) = &options.engine_cache {
        tensorrt = tensorrt.with_engine_cache(true).with_engine_cache_path(folder.display()).with_timing_cache(true);
    }
    if !options.profiles.is_empty() {
        tensorrt = tensorrt
            .with_profile_min_shapes(options.shapes(0))
            .with_profile_opt_shapes(options.shapes(1))
            .with_profile_max_shapes(options.shapes(2));
    }
    Ok(vec![tensorrt.build().error_on_failure(), cuda])
}

#[cfg(test)]
mod tests {
    use super::{Provider, ProviderOptions, ShapeProfile, dispatch};
    use crate::{
        graph::{Flavour, GraphPrecision},
        runtime::{Library, LibraryOrigin, RuntimeError},
    };

    #[test]
    fn shape_profiles_use_the_syntax_of_tensorrt() {
        let profile = |input: &str, shapes| ShapeProfile { input: input.to_owned(), shapes };
        let profiles = vec![
            profile("input_ids", [vec![1, 4], vec![16, 16], vec![16, 512]]),
            profile("attention_mask", [vec![1, 4], vec![16, 16], vec![16, 512]]),
        ];
        let options = ProviderOptions { profiles, ..ProviderOptions::default() };
        assert_eq!(options.shapes(0), "input_ids:1x4,attention_mask:1x4");
        assert_eq!(options.shapes(2), "input_ids:16x512,attention_mask:16x512");
    }

    #[test]
    fn graphs_unsupported_by_a_provider_are_rejected() {
        for flavour in [Flavour::Portable, Flavour::Ort] {
            for precision in GraphPrecision::ALL {
                for windowed in [false, true] {
                    let fits = |provider: Provider| provider.check(flavour, precision, windowed).is_ok();
                    let (float, portable) = (precision != GraphPrecision::Int8, flavour == Flavour::Portable);
                    assert!(fits(Provider::Cpu));
                    assert_eq!(fits(Provider::Cuda), float && (portable || !windowed));
                    assert_eq!(fits(Provider::TensorRt), float && portable);
                }
            }
        }
        for provider in [Provider::Cpu, Provider::Cuda, Provider::TensorRt] {
            for windowed in [false, true] {
                provider.check(provider.flavour(windowed), GraphPrecision::Fp32, windowed).unwrap();
            }
        }
    }

    /// The check runs before ONNX Runtime is asked.
    #[test]
    fn missing_provider_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        let library = Library { path, version: None, origin: LibraryOrigin::Setup };
        for provider in [Provider::Cuda, Provider::TensorRt] {
            let error = dispatch((provider, 0), &ProviderOptions::default(), &library).err().unwrap();
            let RuntimeError::ProviderFile { missing, .. } = &error else { panic!("{error}") };
            assert_eq!(missing.file_name(), provider.file().map(AsRef::as_ref));
            fs_err::write(missing, b"").unwrap();
            assert!(dispatch((provider, 0), &ProviderOptions::default(), &library).is_ok());
        }
    }
}
