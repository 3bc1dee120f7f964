//! The backend of the engine `auto` where the library of ONNX Runtime is found.

use std::{cell::RefCell, rc::Rc};

use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::encoder::Encoder;

use crate::{Backend, EngineUsed, Error, OnnxBackend, Result, describe};

/// Computes embeddings with graphs in ONNX Runtime, or with another backend if ONNX Runtime cannot open them.
#[derive(Debug)]
pub(crate) struct AutoBackend {
    onnx: Rc<OnnxBackend>,
    other: Rc<dyn Backend>,
    /// Why the other one computes the embeddings, if it does.
    reason: RefCell<Option<String>>,
}

impl AutoBackend {
    pub(crate) fn new(onnx: Rc<OnnxBackend>, other: Rc<dyn Backend>) -> Self {
        Self { onnx, other, reason: RefCell::default() }
    }
}

impl Backend for AutoBackend {
    fn check(&self) -> Result<()> {
        self.onnx.check()
    }

    fn encoder(
        &self,
        entry: &Entry,
        checkpoint: &Rc<Checkpoint>,
        sha256: &str,
    ) -> Result<(Box<dyn Encoder>, EngineUsed)> {
        self.reason.replace(None);
        match self.onnx.encoder(entry, checkpoint, sha256) {
            // A fault of the checkpoint is the other one's error, too.
            Err(Error::Onnx(error)) => {
                let opened = self.other.encoder(entry, checkpoint, sha256)?;
                let reason = describe(&error, None);
                let reason: Vec<&str> = reason.lines().map(str::trim).collect();
                self.reason.replace(Some(reason.join("; ")));
                Ok(opened)
            }
            opened => opened,
        }
    }

    fn notes(&self) -> Vec<String> {
        match &*self.reason.borrow() {
            Some(reason) => {
                vec![format!("ONNX Runtime cannot open its graphs, so another engine was chosen: {reason}")]
            }
            None => self.onnx.notes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use laps_hub::registry;
    use laps_model::encoder::Device;
    use laps_onnx::{graph::GraphPrecision, runtime::SessionOptions};

    use super::AutoBackend;
    use crate::{Backend, OnnxBackend, RustBackend, open_checkpoint};

    #[test]
    fn other_engine_is_chosen_and_named_if_graphs_cannot_be_opened() {
        let entry = registry::find("shapes_vit").unwrap();
        let checkpoint = Rc::new(open_checkpoint(&entry, None).unwrap().0);
        let sha256 = checkpoint.sha256().unwrap();
        let graphs = Some("/nonexistent".into());
        let onnx = Rc::new(OnnxBackend::new(graphs, GraphPrecision::Fp32, SessionOptions::cpu(1)));
        let auto = AutoBackend::new(onnx, Rc::new(RustBackend::new(Device::Cpu)));
        assert!(auto.notes().is_empty());
        let (_, used) = auto.encoder(&entry, &checkpoint, &sha256).unwrap();
        assert_eq!(used.name, "rust");
        assert_eq!(
            auto.notes(),
            [
                "ONNX Runtime cannot open its graphs, so another engine was chosen: `/nonexistent` cannot be used as a folder \
              of graphs; expected: a file `manifest.json`; found: none"
            ]
        );
    }
}
