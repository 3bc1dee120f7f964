//! Shared helpers of the download tests.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use laps_files::{DigestWriter, ExpectedDigest, Progress};
use laps_hub::{
    fetch::{
        Endpoint, FetchError, FetchSettings, FetchedFile, Fetcher, Network, Pinning, RetryPolicy, Services, Timeouts,
    },
    store::{FileSource, FileStore, Pins, RemoteFile},
};
use tempfile::TempDir;

use crate::{contents, server::TestServer};

/// Read timeout that a busy machine does not exceed.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(60);

/// Read timeout for servers that stall on purpose; other responses take microseconds.
pub(crate) const SHORT_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) fn services(url: &str) -> Services {
    let base = || Endpoint::parse(url, &[]).unwrap();
    Services {
        drive_pages: base(),
        drive_files: base(),
        hub: base(),
        github: base(),
        coco: base(),
        pypi: base(),
        mirrors: Vec::new(),
        token: None,
        hub_cache: None,
    }
}

/// Settings with retry delays of milliseconds.
pub(crate) fn settings(server: &TestServer, folder: &Path) -> FetchSettings {
    FetchSettings {
        services: services(&server.url()),
        store: FileStore::at(folder.join("cache")),
        network: Network::Online,
        pinning: Pinning::OnFirstFetch,
        retry: RetryPolicy { attempts: 4, first_delay: Duration::from_millis(1), max_delay: Duration::from_millis(4) },
        timeouts: Timeouts { connect: LONG_TIMEOUT, read: LONG_TIMEOUT },
        free_space: |_| Ok(u64::MAX),
    }
}

/// The file at `path` of the server.
pub(crate) fn remote_file(server: &TestServer, folder: &Path, path: &str, expected: ExpectedDigest) -> RemoteFile {
    RemoteFile {
        key: format!("files/{path}"),
        path: folder.join(path),
        expected,
        source: FileSource::Address(format!("{}/{path}", server.url())),
        mirrors: Vec::new(),
        licence: None,
        max_bytes: 1 << 30,
    }
}

pub(crate) fn random_bytes(seed: u64, length: usize) -> Arc<Vec<u8>> {
    Arc::new(contents::random_bytes(seed, length))
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut digests = DigestWriter::new(&ExpectedDigest::default(), None);
    digests.update(bytes);
    digests.finish().sha256
}

/// The SHA-256 of `bytes`.
pub(crate) fn expected_sha256(bytes: &[u8]) -> ExpectedDigest {
    ExpectedDigest { sha256: Some(sha256(bytes)), ..ExpectedDigest::default() }
}

/// Collects the messages of a download.
#[derive(Default)]
pub(crate) struct Messages(pub(crate) Mutex<Vec<String>>);

impl Progress for Messages {
    fn message(&self, task: &str, message: &str) {
        self.0.lock().unwrap().push(format!("{task}: {message}"));
    }
}

/// A server, a folder and the settings to fetch one file `a.bin`.
pub(crate) struct Setup {
    pub(crate) folder: TempDir,
    pub(crate) server: TestServer,
    pub(crate) settings: FetchSettings,
    pub(crate) file: RemoteFile,
}

impl Setup {
    pub(crate) fn new(server: TestServer, expected: ExpectedDigest) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&server, folder.path());
        let file = remote_file(&server, folder.path(), "a.bin", expected);
        Self { folder, server, settings, file }
    }

    pub(crate) fn fetch(&self) -> Result<FetchedFile, FetchError> {
        Fetcher::new(self.settings.clone()).fetch(&self.file, |_| Ok(()), &())
    }

    /// The error of a failing fetch with causes and hint, without paths and ports of this run.
    pub(crate) fn fetch_error(&self) -> String {
        let error = self.fetch().unwrap_err();
        self.describe(&error)
    }

    pub(crate) fn describe(&self, error: &FetchError) -> String {
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

    pub(crate) fn exists(&self) -> bool {
        self.file.path.exists()
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        fs_err::read(&self.file.path).unwrap()
    }

    /// Asserts that the file has these bytes, is pinned, and left no temporary files.
    pub(crate) fn assert_complete(&self, bytes: &[u8]) {
        assert!(self.read() == bytes, "wrong bytes");
        let pins = Pins::open(&self.settings.store.pins).unwrap();
        let pin = pins.get(&self.file.key).unwrap();
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
