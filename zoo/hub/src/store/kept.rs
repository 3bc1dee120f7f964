//! What is here of the files that can be fetched.

use std::path::PathBuf;

use serde::Serialize;

use super::{Item, Pin, Pins, Store, StoreError, ready_key};
use crate::registry::Entry;
use laps_files::beside;
use laps_model::{models, params::Parameter};

/// Bytes of an f32.
const F32: u64 = 4;

/// A file that can be fetched, and what is here of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// What it is pinned under.
    pub key: String,
    /// Whether it is here.
    pub state: State,
    /// Its size in bytes, where it is known.
    pub bytes: Option<u64>,
    /// What `bytes` has to be about by the parameters of the model, where it is not known.
    pub about_bytes: Option<u64>,
    /// Its pin.
    pub pin: Option<Pin>,
    /// Whether a hash of it is part of this program.
    pub known_hash: bool,
    /// Its licence, where one is stated.
    pub licence: Option<String>,
    /// Where it lies, or would.
    pub path: PathBuf,
}

/// Whether a file is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is ready to be used.
    Ready,
    /// It was fetched and has not become ready.
    Fetched,
    /// So many bytes of it are here.
    Partial(u64),
    /// It has to be fetched.
    Absent,
}

impl State {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Fetched => "fetched",
            Self::Partial(_) => "in part",
            Self::Absent => "to fetch",
        }
    }
}

impl Store {
    /// What is here of the published checkpoint of `entry`. Looks at names and sizes only.
    ///
    /// # Errors
    /// As for [`Store::checkpoint`] and [`Pins::open`].
    pub fn kept_checkpoint(&self, entry: &Entry) -> Result<Kept, crate::Error> {
        let item = self.checkpoint(entry)?;
        let pins = Pins::open(&self.pins)?;
        let ready = ready_key(&item);
        let path = self.root.join(&ready);
        let mut kept = self.kept(&item, &pins)?;
        if let Some(pin) = pins.get(&ready)
            && size(&path) == Some(pin.bytes)
        {
            kept = Kept { state: State::Ready, bytes: Some(pin.bytes), pin: Some(pin.clone()), path, ..kept };
        } else if kept.state == State::Ready {
            kept.state = State::Fetched;
        }
        if kept.bytes.is_none() {
            let elements: usize = models::parameters(&entry.model)?.iter().map(Parameter::elements).sum();
            kept.about_bytes = Some(elements as u64 * F32);
        }
        Ok(kept)
    }

    /// What is here of `item`, of which `pins` may know something. Looks at names and sizes only.
    ///
    /// # Errors
    /// None so far.
    pub fn kept(&self, item: &Item, pins: &Pins) -> Result<Kept, StoreError> {
        let pin = pins.get(&item.key);
        let bytes = pin.map(|pin| pin.bytes).or(item.expected.bytes);
        let state = match (size(&item.path), size(&beside(&item.path, ".part"))) {
            (Some(found), _) if bytes.is_none_or(|bytes| bytes == found) => State::Ready,
            (_, Some(part @ 1..)) => State::Partial(part),
            _ => State::Absent,
        };
        Ok(Kept {
            key: item.key.clone(),
            state,
            bytes,
            about_bytes: None,
            pin: pin.cloned(),
            known_hash: item.expected.is_hashed(),
            licence: item.licence.clone(),
            path: item.path.clone(),
        })
    }
}

fn size(path: &std::path::Path) -> Option<u64> {
    fs_err::metadata(path).ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
}
