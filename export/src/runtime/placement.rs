//! What ran where: read from a profile.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::{Provider, RuntimeError};

/// Nodes that were executed, by the provider that did it, as ONNX Runtime names it.
pub type Placement = BTreeMap<String, usize>;

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    provider: String,
}

/// Counts the nodes in the profile `path`, each as often as it ran.
///
/// # Errors
/// [`RuntimeError::Profile`] for a file that is no profile, or one in which no node ran.
pub(super) fn read(path: &Path) -> Result<Placement, RuntimeError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Profile { source };
    let text = fs_err::read(path).map_err(|error| failed(error.into()))?;
    let events: Vec<Event> = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    let mut placement = Placement::new();
    for event in events {
        if event.cat == "Node" && event.name.ends_with("_kernel_time") && !event.args.provider.is_empty() {
            *placement.entry(event.args.provider).or_default() += 1;
        }
    }
    if placement.is_empty() { Err(failed("no node ran".into())) } else { Ok(placement) }
}

/// Sees that `wanted` executed a node.
///
/// # Errors
/// [`RuntimeError::Elsewhere`] if others did everything.
pub(super) fn check(placement: &Placement, wanted: Provider) -> Result<(), RuntimeError> {
    if placement.contains_key(wanted.runtime_name()) {
        return Ok(());
    }
    let used = placement.iter().map(|(name, nodes)| format!("`{name}` ({nodes} nodes)")).collect::<Vec<_>>();
    Err(RuntimeError::Elsewhere { provider: wanted, used: used.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::{check, read};
    use crate::runtime::{Provider, RuntimeError};

    #[test]
    fn nodes_are_counted_by_provider_and_a_fallback_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.json");
        let node = |provider: &str| {
            format!(
                r#"{{"cat":"Node","name":"a_kernel_time","dur":3,"args":{{"op_name":"Add","provider":"{provider}"}}}}"#
            )
        };
        let events = [
            r#"{"cat":"Session","name":"model_run","args":{}}"#.to_owned(),
            r#"{"cat":"Node","name":"a_fence_before","args":{"op_name":"Add"}}"#.to_owned(),
            node("CUDAExecutionProvider"),
            node("CUDAExecutionProvider"),
            node("CPUExecutionProvider"),
        ];
        fs_err::write(&path, format!("[{}]", events.join(","))).unwrap();
        let placement = read(&path).unwrap();
        assert_eq!((placement["CUDAExecutionProvider"], placement["CPUExecutionProvider"]), (2, 1));
        check(&placement, Provider::Cuda).unwrap();
        assert!(matches!(check(&placement, Provider::TensorRt), Err(RuntimeError::Elsewhere { .. })));
        fs_err::write(&path, "[]").unwrap();
        assert!(matches!(read(&path), Err(RuntimeError::Profile { .. })));
    }
}
