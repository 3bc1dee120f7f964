//! What the tests of fetching share.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use laps_files::{Digests, Expected};
use laps_hub::{
    fetch::{Base, FetchError, Fetched, Fetcher, Network, Pinning, Retry, Services, Settings, Timeouts, Watch},
    store::{Item, Pins, Source, Store},
};
use laps_model::random::SplitMix64;
use tempfile::TempDir;

use crate::server::Server;

/// Longer than a busy machine is silent, shorter than a test may take.
pub(crate) const PATIENT: Duration = Duration::from_secs(60);

/// For servers that stall on purpose: every other answer here takes microseconds.
pub(crate) const IMPATIENT: Duration = Duration::from_secs(1);

pub(crate) fn services(url: &str) -> Services {
    let base = || Base::parse(url, &[]).unwrap();
    Services {
        drive_pages: base(),
        drive_files: base(),
        hub: base(),
        github: base(),
        coco: base(),
        mirrors: Vec::new(),
        token: None,
        hub_cache: None,
    }
}

/// Waits of milliseconds, so that the attempts are what takes time.
pub(crate) fn settings(server: &Server, folder: &Path) -> Settings {
    Settings {
        services: services(&server.url()),
        store: Store::at(folder.join("cache")),
        network: Network::Online,
        pinning: Pinning::OnFirstFetch,
        retry: Retry { attempts: 4, first: Duration::from_millis(1), longest: Duration::from_millis(4) },
        timeouts: Timeouts { connect: PATIENT, read: PATIENT },
        free_space: |_| Ok(u64::MAX),
    }
}

/// A file at `path` of the server, of which `expected` is known.
pub(crate) fn item(server: &Server, folder: &Path, path: &str, expected: Expected) -> Item {
    Item {
        key: format!("files/{path}"),
        path: folder.join(path),
        expected,
        source: Source::Address(format!("{}/{path}", server.url())),
        mirrors: Vec::new(),
        licence: None,
        limit: 1 << 30,
    }
}

pub(crate) fn random_bytes(seed: u64, length: usize) -> Arc<Vec<u8>> {
    let mut random = SplitMix64::new(seed);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes()).collect();
    bytes.truncate(length);
    Arc::new(bytes)
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut digests = Digests::new(&Expected::default(), None);
    digests.update(bytes);
    digests.finish().sha256
}

/// What is known of `bytes`.
pub(crate) fn known(bytes: &[u8]) -> Expected {
    Expected { sha256: Some(sha256(bytes)), ..Expected::default() }
}

/// Collects the notes of a fetch.
#[derive(Default)]
pub(crate) struct Notes(pub(crate) Mutex<Vec<String>>);

impl Watch for Notes {
    fn note(&self, file: &str, note: &str) {
        self.0.lock().unwrap().push(format!("{file}: {note}"));
    }
}

/// A server, a folder and a fetcher for one file `a.bin`.
pub(crate) struct One {
    pub(crate) folder: TempDir,
    pub(crate) server: Server,
    pub(crate) settings: Settings,
    pub(crate) item: Item,
}

impl One {
    pub(crate) fn new(server: Server, expected: Expected) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&server, folder.path());
        let item = item(&server, folder.path(), "a.bin", expected);
        Self { folder, server, settings, item }
    }

    pub(crate) fn fetch(&self) -> Result<Fetched, FetchError> {
        Fetcher::new(self.settings.clone()).fetch(&self.item, |_| Ok(()), &())
    }

    /// The message of a fetch that fails, with its causes and its hint; places and ports of this run are taken out.
    pub(crate) fn refused(&self) -> String {
        let error = self.fetch().unwrap_err();
        self.words(&error)
    }

    pub(crate) fn words(&self, error: &FetchError) -> String {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text += &format!("\n  caused by: {error}");
            cause = error.source();
        }
        if let Some(hint) = error.hint() {
            text += &format!("\nhint: {hint}");
        }
        text.replace(&self.server.url(), "SERVER").replace(&self.folder.path().display().to_string(), "DIR")
    }

    pub(crate) fn is_here(&self) -> bool {
        self.item.path.exists()
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        fs_err::read(&self.item.path).unwrap()
    }

    /// The file is there with these bytes, pinned, and nothing else is beside it.
    pub(crate) fn assert_complete(&self, bytes: &[u8]) {
        assert!(self.read() == bytes, "other bytes");
        let pins = Pins::open(&self.settings.store.pins).unwrap();
        let pin = pins.get(&self.item.key).unwrap();
        assert_eq!((pin.bytes, pin.sha256.clone()), (bytes.len() as u64, sha256(bytes)));
        self.assert_nothing_left();
    }

    pub(crate) fn assert_nothing_left(&self) {
        let names = fs_err::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = names.filter(|name| name != "cache" && name != "a.bin").collect();
        left.sort();
        assert!(left.is_empty(), "{left:?}");
    }
}
