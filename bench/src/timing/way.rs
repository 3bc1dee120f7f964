//! What an encoder can be had from.

use std::rc::Rc;

use zoo::{
    checkpoint::Checkpoint,
    encoder::{Device, Encoder},
    registry::Entry,
};

use crate::{
    Result,
    engine::{self, EngineChoice, EngineUsed},
};

/// An engine in a precision, with everything that it loads in files already.
pub trait Way {
    /// `fp32` or another.
    fn precision(&self) -> String;

    /// Operators of its graphs, where it has graphs.
    fn flavour(&self) -> Option<String> {
        None
    }

    /// Bytes of the files that it loads.
    fn file_bytes(&self) -> Option<u64>;

    /// Loads the encoder; the time that this takes is what loading takes.
    ///
    /// # Errors
    /// What the engine refuses.
    fn open(&self) -> Result<(Box<dyn Encoder>, EngineUsed)>;
}

/// An engine of this crate, on the checkpoint itself.
pub struct DirectWay {
    /// `torch`, `rust`, or the better of the two.
    pub choice: EngineChoice,
    /// Where.
    pub device: Device,
    /// The entry.
    pub entry: Entry,
    /// Its checkpoint.
    pub checkpoint: Rc<Checkpoint>,
}

impl Way for DirectWay {
    fn precision(&self) -> String {
        "fp32".to_owned()
    }

    fn file_bytes(&self) -> Option<u64> {
        fs_err::metadata(self.checkpoint.path()).ok().map(|metadata| metadata.len())
    }

    fn open(&self) -> Result<(Box<dyn Encoder>, EngineUsed)> {
        engine::open(self.choice, self.device, &self.entry.model, Rc::clone(&self.checkpoint))
    }
}
