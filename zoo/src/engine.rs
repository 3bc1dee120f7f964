//! Engines by name, and what a result records of the one that was used.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Error;

/// An engine, as the user names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The fastest available engine for the amount of work.
    #[default]
    Auto,
    /// libtorch.
    Torch,
    /// The pure-Rust tensor.
    Rust,
    /// ONNX Runtime.
    Ort,
}

impl FromStr for EngineChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "auto" => Ok(Self::Auto),
            "torch" => Ok(Self::Torch),
            "rust" => Ok(Self::Rust),
            "ort" => Ok(Self::Ort),
            _ => Err(Error::Engine {
                engine: name.to_owned(),
                reason: "there is no such engine".to_owned(),
                hint: "use `auto`, `torch`, `rust` or `ort`".to_owned(),
            }),
        }
    }
}

/// The engine that computed the embeddings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineUsed {
    /// `torch`, `rust` or `ort`.
    pub name: Cow<'static, str>,
    /// Its version.
    pub version: String,
    /// Device that it computed on.
    pub device: String,
    /// Threads of one operation.
    pub threads: usize,
    /// The graphs that it ran: flavour, precision, opset. None for an engine without graphs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graphs: Option<String>,
    /// Number of nodes per execution provider in one run of each graph. None for an engine without graphs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<BTreeMap<String, BTreeMap<String, usize>>>,
}

impl fmt::Display for EngineUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} on {}, {} threads", self.name, self.version, self.device, self.threads)?;
        if let Some(graphs) = &self.graphs {
            write!(f, "; graphs {graphs}")?;
        }
        // On a CPU no other provider could have run them.
        for (graph, providers) in self.placement.iter().flatten().filter(|_| self.device != "cpu") {
            let nodes: Vec<String> = providers.iter().map(|(name, nodes)| format!("{nodes} by {name}")).collect();
            write!(f, "; nodes of `{graph}`: {}", nodes.join(", "))?;
        }
        Ok(())
    }
}
