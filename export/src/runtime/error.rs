//! Errors of ONNX Runtime.

use std::path::PathBuf;

use super::Provider;

/// Errors of ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The library was not found in any searched folder.
    #[error(
        "ONNX Runtime was not found\n  expected: libonnxruntime.so in {}\n  found: none of these files",
        searched.join(", ")
    )]
    Missing {
        /// The searched folders in order, as text.
        searched: Vec<String>,
    },
    /// `ORT_DYLIB_PATH` names a file that does not exist.
    #[error("`ORT_DYLIB_PATH` names no file\n  expected: the path of libonnxruntime.so\n  found: `{}`", path.display())]
    Named {
        /// The value of the variable.
        path: PathBuf,
    },
    /// The library cannot be loaded.
    #[error("`{}` cannot be used as ONNX Runtime", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// Message of the loader: not a library, a missing dependency, too old.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library does not list its execution providers.
    #[error("ONNX Runtime does not list its execution providers")]
    Providers(#[source] ort::Error),
    /// The library has no file for the requested execution provider.
    #[error(
        "the execution provider `{provider}` is not installed\n  expected: `{}`\n  found: no such file next to `{}`",
        missing.display(), library.display()
    )]
    ProviderFile {
        /// The provider.
        provider: Provider,
        /// The missing file of the provider.
        missing: PathBuf,
        /// The library of ONNX Runtime.
        library: PathBuf,
    },
    /// The requested execution provider ran no node.
    #[error("the execution provider `{provider}` ran no node of the graph\n  found: {used}")]
    UnusedProvider {
        /// The provider.
        provider: Provider,
        /// The providers that ran nodes.
        used: String,
    },
    /// A profile cannot be read, or lists no nodes.
    #[error("the profile of ONNX Runtime does not say which execution provider ran the nodes")]
    Profile {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The requested device cannot be used.
    #[error("device `{device}` cannot be used by the execution provider `{provider}` of ONNX Runtime")]
    Provider {
        /// The provider.
        provider: Provider,
        /// The device, such as `cuda:0`.
        device: String,
        /// The library of ONNX Runtime.
        library: PathBuf,
        /// Message of ONNX Runtime, such as the name of a missing library.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file is not a graph, or this library cannot run it.
    #[error("`{}` cannot be loaded by ONNX Runtime", path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// The message of ONNX Runtime.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Running a graph failed.
    #[error("running `{}` failed", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// The message of ONNX Runtime.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RuntimeError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => {
                "`pip install onnxruntime` into the environment of the program, run `make setup` in a checkout, or set \
                 ORT_DYLIB_PATH"
                    .to_owned()
            }
            Self::Named { .. } => "unset ORT_DYLIB_PATH to search the usual folders".to_owned(),
            Self::Load { .. } | Self::Providers(_) => {
                format!("ONNX Runtime 1.{} or newer is required; `make setup` installs it", ort::MINOR_VERSION)
            }
            Self::Provider { library, .. } | Self::ProviderFile { library, .. } => {
                format!(
                    "`make setup CUDA=1` installs a library with CUDA (this one is `{}`); otherwise use the device `cpu`",
                    library.display()
                )
            }
            Self::UnusedProvider { .. } => {
                "use the execution provider `cpu`, or see what ONNX Runtime printed about the provider".to_owned()
            }
            Self::Graph { .. } | Self::Run { .. } | Self::Profile { .. } => return None,
        })
    }
}
