//! Execution providers: what computes the nodes of a graph, and where.

use std::{fmt, path::PathBuf, str::FromStr};

use laps_model::encoder::Device;
use ort::ep::{self, ExecutionProviderDispatch};

use super::{Library, RuntimeError};
use crate::{Error, Result, graph::Flavour, package::Precision};

/// What a graph can be executed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    Cpu,
    /// NVIDIA GPUs, by the kernels of ONNX Runtime.
    Cuda,
    /// NVIDIA GPUs, by engines that TensorRT builds; CUDA takes what it does not know.
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
    /// Its name in ONNX Runtime, as a profile has it.
    pub fn runtime_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::TensorRt => "TensorrtExecutionProvider",
        }
    }

    /// The operators that it is faster with, of those that [`check`](Self::check) takes: on the processor the plain ones, by
    /// `bench/python_baseline.py`; by CUDA the fused ones of ONNX Runtime, in fp16 by a quarter and more, by `laps-zoo bench
    /// --flavour portable,ort`.
    pub fn flavour(self, windowed: bool) -> Flavour {
        match self {
            Self::Cuda if !windowed => Flavour::Ort,
            _ => Flavour::Portable,
        }
    }

    /// The file beside the library of ONNX Runtime that it is in; the processor needs none.
    pub fn file(self) -> Option<&'static str> {
        match self {
            Self::Cpu => None,
            Self::Cuda => Some("libonnxruntime_providers_cuda.so"),
            Self::TensorRt => Some("libonnxruntime_providers_tensorrt.so"),
        }
    }

    /// Sees that `library` comes with it. Whether it starts is known when a session is opened.
    ///
    /// # Errors
    /// [`RuntimeError::ProviderFile`] with the file that is missing.
    pub fn find(self, library: &Library) -> Result<(), RuntimeError> {
        match self.file().map(|file| library.path.with_file_name(file)).filter(|file| !file.exists()) {
            Some(missing) => Err(RuntimeError::ProviderFile { provider: self, missing, library: library.path.clone() }),
            None => Ok(()),
        }
    }

    /// Sees that graphs with the operators of `flavour` and the numbers of `precision` are for it. `windowed` are those of a
    /// model that attends to images in windows.
    ///
    /// # Errors
    /// [`Error::Provider`] where they are not, with what to export.
    pub fn check(self, flavour: Flavour, precision: Precision, windowed: bool) -> Result<()> {
        let refused = |expected, found: String, hint| Err(Error::Provider { provider: self, expected, found, hint });
        if self == Self::TensorRt && flavour != Flavour::Portable {
            let hint = "export them with `--flavour portable`, or use `--ep cuda`";
            return refused("graphs of the flavour `portable`", format!("the flavour `{flavour}`"), hint);
        }
        if self == Self::Cuda && flavour == Flavour::Ort && windowed {
            // `MultiHeadAttention` of 1.31.1 reads what is not there, for all windows of Swin-B in fp32, and ends the program.
            let hint = "export them with `--flavour portable`, or use `--ep cpu`: attention in windows fails there";
            return refused("graphs of the flavour `portable` for Swin", format!("the flavour `{flavour}`"), hint);
        }
        if self != Self::Cpu && precision == Precision::Int8 {
            let hint = "export them with `--precision fp16`, or use `--ep cpu`: int8 here is that of the processor";
            return refused("graphs in fp32 or fp16", "int8".to_owned(), hint);
        }
        Ok(())
    }
}

/// A provider as the user names it: `auto`, or one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderChoice {
    /// CUDA where it can be used, else the processor; TensorRT, which builds for minutes, only when it is named.
    #[default]
    Auto,
    /// This one, or an error.
    Only(Provider),
}

impl FromStr for ProviderChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Only(Provider::Cpu)),
            "cuda" => Ok(Self::Only(Provider::Cuda)),
            "tensorrt" => Ok(Self::Only(Provider::TensorRt)),
            _ => Err(Error::option("--ep", "`auto`, `cpu`, `cuda` or `tensorrt`", text)),
        }
    }
}

/// Where a session computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first GPU by CUDA if that can be used, else the processor.
    Best,
    /// The processor.
    Processor,
    /// A GPU by number, by CUDA or TensorRT.
    Gpu(Provider, usize),
}

impl Place {
    /// What computes there, as far as it is known before a session is opened: the first GPU counts if the library that is
    /// found comes with CUDA.
    pub fn provider(self) -> Provider {
        match self {
            Self::Gpu(provider, _) => provider,
            Self::Processor => Provider::Cpu,
            Self::Best => match super::environment() {
                Ok((_, library, build))
                    if build.providers.contains(&Provider::Cuda) && Provider::Cuda.find(&library).is_ok() =>
                {
                    Provider::Cuda
                }
                _ => Provider::Cpu,
            },
        }
    }

    /// What `--ep` and `--device` say together.
    ///
    /// # Errors
    /// [`Error::Option`] if they contradict each other.
    pub fn of(choice: ProviderChoice, device: Device) -> Result<Self> {
        let refused = |expected: &str| Err(Error::option("--device", expected, &device.to_string()));
        match (choice, device) {
            (ProviderChoice::Auto, Device::Auto) => Ok(Self::Best),
            (ProviderChoice::Auto, Device::Cpu) => Ok(Self::Processor),
            (ProviderChoice::Auto, Device::Cuda(index)) => Ok(Self::Gpu(Provider::Cuda, index)),
            (ProviderChoice::Only(Provider::Cpu), Device::Auto | Device::Cpu) => Ok(Self::Processor),
            (ProviderChoice::Only(Provider::Cpu), Device::Cuda(_)) => refused("`cpu` or `auto` with `--ep cpu`"),
            (ProviderChoice::Only(provider), Device::Auto) => Ok(Self::Gpu(provider, 0)),
            (ProviderChoice::Only(provider), Device::Cuda(index)) => Ok(Self::Gpu(provider, index)),
            (ProviderChoice::Only(provider), Device::Cpu) => {
                refused(&format!("`cuda:N` or `auto` with `--ep {provider}`"))
            }
        }
    }
}

/// What a GPU provider is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderOptions {
    /// Most bytes of the GPU's memory that the arena of CUDA, or the workspace of TensorRT, takes.
    pub memory_limit: Option<usize>,
    /// Folder in which TensorRT keeps the engines that it has built.
    pub engine_cache: Option<PathBuf>,
    /// For each input its smallest, usual and largest shape, which TensorRT builds engines for.
    pub profiles: Vec<ShapeProfile>,
}

/// Shapes of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeProfile {
    /// Name of the input.
    pub input: String,
    /// Smallest, usual and largest.
    pub shapes: [Vec<usize>; 3],
}

impl ProviderOptions {
    /// `input:2x3x4,other:2`, of the smallest (0), usual (1) or largest (2) shapes.
    fn shapes(&self, which: usize) -> String {
        let shape = |profile: &ShapeProfile| {
            let sizes: Vec<String> = profile.shapes[which].iter().map(ToString::to_string).collect();
            format!("{}:{}", profile.input, sizes.join("x"))
        };
        self.profiles.iter().map(shape).collect::<Vec<_>>().join(",")
    }
}

/// The providers to register for a GPU, each of which has to load.
///
/// # Errors
/// [`RuntimeError::ProviderFile`] where the library of ONNX Runtime comes without a provider.
pub(super) fn dispatch(
    (provider, index): (Provider, usize),
    options: &ProviderOptions,
    library: &Library,
) -> Result<Vec<ExecutionProviderDispatch>, RuntimeError> {
    provider.find(library)?;
    let number = i32::try_from(index).unwrap_or(i32::MAX);
    // TF32 would cost three digits that the comparison with the eager model sees.
    let mut cuda = ep::CUDA::default().with_device_id(number).with_tf32(false);
    if let Some(limit) = options.memory_limit {
        cuda = cuda.with_memory_limit(limit);
    }
    // Without `error_on_failure` a provider that does not load is replaced by the processor without a word.
    let cuda = cuda.build().error_on_failure();
    if provider != Provider::TensorRt {
        return Ok(vec![cuda]);
    }
    // Graphs in half precision say so themselves: TensorRT is not to round others.
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
    use laps_model::encoder::Device;

    use super::{Place, Provider, ProviderChoice, ProviderOptions, ShapeProfile, dispatch};
    use crate::{
        graph::Flavour,
        package::Precision,
        runtime::{Library, Origin, RuntimeError},
    };

    #[test]
    fn provider_and_device_together_say_where() {
        let place = |ep: &str, device: &str| {
            Place::of(ep.parse::<ProviderChoice>().unwrap(), device.parse::<Device>().unwrap())
        };
        assert_eq!(place("auto", "auto").unwrap(), Place::Best);
        assert_eq!(place("auto", "cuda:2").unwrap(), Place::Gpu(Provider::Cuda, 2));
        assert_eq!(place("cpu", "auto").unwrap(), Place::Processor);
        assert_eq!(place("tensorrt", "auto").unwrap(), Place::Gpu(Provider::TensorRt, 0));
        assert_eq!(place("tensorrt", "cuda:1").unwrap(), Place::Gpu(Provider::TensorRt, 1));
        assert!(place("cpu", "cuda").is_err() && place("cuda", "cpu").is_err());
        assert!("gpu".parse::<ProviderChoice>().is_err());
    }

    #[test]
    fn shapes_are_written_as_tensorrt_reads_them() {
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
    fn graphs_that_are_not_for_a_provider_are_refused() {
        for flavour in [Flavour::Portable, Flavour::Ort] {
            for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
                for windowed in [false, true] {
                    let fits = |provider: Provider| provider.check(flavour, precision, windowed).is_ok();
                    let (float, portable) = (precision != Precision::Int8, flavour == Flavour::Portable);
                    assert!(fits(Provider::Cpu));
                    assert_eq!(fits(Provider::Cuda), float && (portable || !windowed));
                    assert_eq!(fits(Provider::TensorRt), float && portable);
                }
            }
        }
        for provider in [Provider::Cpu, Provider::Cuda, Provider::TensorRt] {
            for windowed in [false, true] {
                provider.check(provider.flavour(windowed), Precision::Fp32, windowed).unwrap();
            }
        }
    }

    /// The library that is not there is named, before ONNX Runtime is asked.
    #[test]
    fn a_provider_that_the_library_comes_without_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        let library = Library { path, version: None, origin: Origin::Setup };
        for provider in [Provider::Cuda, Provider::TensorRt] {
            let error = dispatch((provider, 0), &ProviderOptions::default(), &library).err().unwrap();
            let RuntimeError::ProviderFile { missing, .. } = &error else { panic!("{error}") };
            assert_eq!(missing.file_name(), provider.file().map(AsRef::as_ref));
            fs_err::write(missing, b"").unwrap();
            assert!(dispatch((provider, 0), &ProviderOptions::default(), &library).is_ok());
        }
    }
}
