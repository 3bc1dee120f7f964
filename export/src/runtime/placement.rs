//! Which execution provider ran how many nodes, read from a profile.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::{Provider, RuntimeError};

/// Number of executed nodes by the name of the execution provider in ONNX Runtime.
pub type Placement = BTreeMap<String, usize>;

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: EventArguments,
}

#[derive(Default, Deserialize)]
struct EventArguments {
    #[serde(default)]
    provider: String,
}

/// Counts the nodes in the profile `path`; a node counts once per run.
///
/// # Errors
/// [`RuntimeError::Profile`] for a file that is not a profile, or a profile without nodes.
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

/// Verifies that the provider `expected` ran at least one node.
///
/// # Errors
/// [`RuntimeError::UnusedProvider`] if other providers ran all nodes.
pub(super) fn check(placement: &Placement, expected: Provider) -> Result<(), RuntimeError> {
    if placement.contains_key(expected.runtime_name()) {
        return Ok(());
    }
    let used = placement.iter().map(|(name, nodes)| format!("`{name}` ({nodes} nodes)")).collect::<Vec<_>>();
    Err(RuntimeError::UnusedProvider { provider: expected, used: used.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::{check, read};
    use crate::runtime::{Provider, RuntimeError};

    #[test]
    fn nodes_are_counted_by_provider_and_an_unused_provider_is_an_error() {
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
        assert!(matches!(check(&placement, Provider::TensorRt), Err(RuntimeError::UnusedProvider { .. })));
        fs_err::write(&path, "[]").unwrap();
        assert!(matches!(read(&path), Err(RuntimeError::Profile { .. })));
    }
}
