//! The error of this module.

use std::path::PathBuf;

use super::Provider;

/// What can be wrong with ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No place that is looked at has a library.
    #[error("ONNX Runtime was not found\n  expected: `{}`\n  found: nothing there", join(.searched))]
    Missing {
        /// The files that were looked for, in order.
        searched: Vec<PathBuf>,
    },
    /// The environment names a library that is not there.
    #[error("`ORT_DYLIB_PATH` names no file\n  expected: the path of libonnxruntime.so\n  found: `{}`", path.display())]
    Named {
        /// The value of the variable.
        path: PathBuf,
    },
    /// The file is there and can not be used.
    #[error("`{}` can not be used as ONNX Runtime", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader says: not a library, a missing dependency, too old.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library was loaded and does not answer.
    #[error("ONNX Runtime does not say which execution providers it has")]
    Providers(#[source] ort::Error),
    /// The library comes without a provider that was asked for.
    #[error(
        "the execution provider `{provider}` is not there\n  expected: `{}`\n  found: nothing there, beside `{}`",
        missing.display(), library.display()
    )]
    ProviderFile {
        /// The provider.
        provider: Provider,
        /// The file that it would be in.
        missing: PathBuf,
        /// The library that was asked.
        library: PathBuf,
    },
    /// The provider that was asked for executed nothing.
    #[error("the execution provider `{provider}` executed no node of the graph\n  found: {used}")]
    Elsewhere {
        /// The provider.
        provider: Provider,
        /// Those that did.
        used: String,
    },
    /// A profile that does not say what ran where.
    #[error("ONNX Runtime does not say which execution provider ran the nodes")]
    Profile {
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Runs can not be made to end.
    #[error("ONNX Runtime does not take a request to end a run")]
    Stop(#[source] ort::Error),
    /// A device that was asked for and can not be used.
    #[error("device `{device}` can not be used by the execution provider `{provider}` of ONNX Runtime")]
    Provider {
        /// The provider.
        provider: Provider,
        /// As the user named it.
        device: String,
        /// The library that was asked.
        library: PathBuf,
        /// What it says: which library is missing, or that it was built without.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that is no graph, or one that this library can not run.
    #[error("`{}` can not be loaded by ONNX Runtime", path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// What ONNX Runtime says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A graph that did not run.
    #[error("`{}` did not run", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// What ONNX Runtime says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RuntimeError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => "make setup".to_owned(),
            Self::Named { .. } => "unset ORT_DYLIB_PATH to use the one of `make setup`".to_owned(),
            Self::Load { .. } | Self::Providers(_) => {
                format!("ONNX Runtime 1.{} or newer is needed: `make setup` fetches it", ort::MINOR_VERSION)
            }
            Self::Provider { library, .. } | Self::ProviderFile { library, .. } => {
                format!(
                    "`make setup CUDA=1` brings a library with CUDA (this one is `{}`), or use `--device cpu`",
                    library.display()
                )
            }
            Self::Elsewhere { .. } => {
                "use `--ep cpu`, or look for what ONNX Runtime printed about the provider".to_owned()
            }
            Self::Graph { .. } | Self::Run { .. } | Self::Profile { .. } | Self::Stop(_) => return None,
        })
    }
}

fn join(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("` or `")
}
