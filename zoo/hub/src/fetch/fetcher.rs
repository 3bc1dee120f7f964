//! Fetches files, each from the first of its sources that has it.

use std::{
    io,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    FetchError, RetryPolicy, Services, Timeouts,
    client::HttpClient,
    download::{Accept, CompletedDownload, Download},
    drive::DriveFile,
    hub::{self, HubFile},
    local_file::LocalFile,
    services::{Endpoint, FileLocation, is_offline},
    source::ByteSource,
    space::free_space,
    url_file::UrlFile,
};
use crate::store::{FileSource, FileStore, FileStoreError, Pin, Pins, RemoteFile};
use laps_files::{ExpectedDigest, FileDigest, FileLock, Progress, digest_file, utc_now, with_suffix};

/// Concurrent downloads: enough that small files do not wait for each other, few enough for any server.
const CONCURRENT_DOWNLOADS: usize = 4;

/// Whether the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Files are downloaded.
    Online,
    /// A missing file is an error.
    Offline,
}

/// Whether new pins are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// The first fetch of a file pins it.
    OnFirstFetch,
    /// Only files that are pinned, or have a hash in the manifest, are fetched.
    Locked,
}

/// How files are fetched.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Endpoints of the services.
    pub services: Services,
    /// Where files are stored and pinned.
    pub store: FileStore,
    /// Whether the network may be used.
    pub network: Network,
    /// Whether new pins are allowed.
    pub pinning: Pinning,
    /// When failed downloads are retried.
    pub retry: RetryPolicy,
    /// Network timeouts.
    pub timeouts: Timeouts,
    /// Returns the free bytes on the disk of a folder.
    pub free_space: fn(&Path) -> io::Result<u64>,
}

impl FetchSettings {
    /// The services and the store of the environment. `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` disable the network.
    ///
    /// # Errors
    /// [`FetchError::Environment`] and [`FileStoreError::NoCache`].
    pub fn from_environment(network: Network, pinning: Pinning) -> Result<Self, FetchError> {
        Ok(Self {
            services: Services::from_environment()?,
            store: FileStore::from_environment()?,
            network: if is_offline() { Network::Offline } else { network },
            pinning,
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            free_space,
        })
    }
}

/// Fetches files into a [`FileStore`].
#[derive(Debug)]
pub struct Fetcher {
    settings: FetchSettings,
    client: HttpClient,
}

/// A complete and verified local file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFile {
    /// The file.
    pub file: RemoteFile,
    /// Its pin, or the pin it would have.
    pub pin: Pin,
    /// Whether the file was there already.
    pub was_cached: bool,
}

impl Fetcher {
    /// Creates a fetcher. Does not touch the network.
    pub fn new(settings: FetchSettings) -> Self {
        let client = HttpClient::new(settings.timeouts);
        Self { settings, client }
    }

    /// The settings of this fetcher.
    pub fn settings(&self) -> &FetchSettings {
        &self.settings
    }

    /// Fetches `file`, or checks the local copy. Waits for other processes that fetch the same file. `accept` checks
    /// the complete file before it is renamed to its target.
    ///
    /// # Errors
    /// [`FetchError`]. Bytes received are kept for the next attempt unless they are known to be wrong.
    pub fn fetch(
        &self,
        file: &RemoteFile,
        accept: impl Fn(&Path) -> Result<(), FileStoreError>,
        progress: &dyn Progress,
    ) -> Result<FetchedFile, FetchError> {
        let outcome = self.fetch_locked(file, &accept, progress);
        let summary = match &outcome {
            Ok(fetched) if fetched.was_cached => "in the cache".to_owned(),
            Ok(fetched) => format!("{} bytes, verified {}", fetched.pin.bytes, fetched.pin.verified.describe()),
            Err(_) => "not fetched".to_owned(),
        };
        progress.end(&file.key, &summary);
        outcome
    }

    /// Fetches the first of `files` that its source has. The files are the same thing in different formats.
    ///
    /// # Errors
    /// As for [`fetch`](Self::fetch), of the last file.
    pub fn fetch_any(
        &self,
        files: &[RemoteFile],
        accept: impl Fn(&Path) -> Result<(), FileStoreError>,
        progress: &dyn Progress,
    ) -> Result<FetchedFile, FetchError> {
        // A local file is used without asking for those before it.
        let order = files.iter().filter(|file| file.path.is_file()).chain(files);
        let mut last = None;
        for file in order {
            match self.fetch(file, &accept, progress) {
                Err(error) if error.is_absent() => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| FileStoreError::unknown_name("", Vec::new()).into()))
    }

    /// Fetches several files concurrently. The outcomes are in the order of `files`; a failure does not stop the
    /// others.
    pub fn fetch_all(&self, files: &[RemoteFile], progress: &dyn Progress) -> Vec<Result<FetchedFile, FetchError>> {
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..CONCURRENT_DOWNLOADS.min(files.len()) {
                scope.spawn(|| {
                    while let Some((index, file)) = {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        files.get(index).map(|file| (index, file))
                    } {
                        let outcome = self.fetch(file, |_| Ok(()), progress);
                        outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
                    }
                });
            }
        });
        let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by_key(|&(index, _)| index);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn fetch_locked(
        &self,
        file: &RemoteFile,
        accept: Accept<'_>,
        progress: &dyn Progress,
    ) -> Result<FetchedFile, FetchError> {
        let FetchSettings { store, pinning, network, .. } = &self.settings;
        let pins = Pins::open(&store.pins)?;
        let pin = pins.get(&file.key);
        if *pinning == Pinning::Locked && pin.is_none() && !file.expected.is_hashed() {
            return Err(FetchError::NotPinned { key: file.key.clone(), pins: store.pins.clone() });
        }
        let expected = expected_digest(file, pin, &store.pins)?;
        if *network == Network::Offline && !file.path.exists() && !self.has_local_source(file, pin) {
            return Err(FetchError::Offline { key: file.key.clone(), path: file.path.clone() });
        }
        if let Some(folder) = file.path.parent() {
            fs_err::create_dir_all(folder).map_err(|source| FetchError::io("create", folder, source))?;
        }
        let waiting = || progress.message(&file.key, "waiting for another process that fetches it");
        let lock = FileLock::acquire(&file.path, waiting);
        let _lock = lock.map_err(|source| FetchError::io("lock", &file.path, source))?;
        if let Some(fetched) = self.check_local(file, pin, &expected, accept, progress)? {
            return Ok(fetched);
        }
        let download = Download {
            file,
            expected: &expected,
            pins: pin.map(|_| store.pins.as_path()),
            accept,
            retry: self.settings.retry,
            read_timeout: self.settings.timeouts.read.as_secs(),
            free_space: self.settings.free_space,
            progress,
        };
        let CompletedDownload { partial, digest, url, revision, verified } = self.try_sources(file, pin, &download)?;
        let FileDigest { bytes, sha256, .. } = digest;
        let new_pin = Pin { url, bytes, sha256, fetched: utc_now(), verified, revision };
        // Pinned before the rename, so that anyone who sees the file can check it against its pin.
        let pin = self.pin(file, pin, new_pin)?;
        laps_files::persist(partial.path(), &file.path)
            .map_err(|source| FetchError::io("write", &file.path, source))?;
        partial.remove_metadata();
        Ok(FetchedFile { file: file.clone(), pin, was_cached: false })
    }

    /// Returns the local file if it is the right one. A wrong one is moved to `<file>.rejected`.
    fn check_local(
        &self,
        file: &RemoteFile,
        pin: Option<&Pin>,
        expected: &ExpectedDigest,
        accept: Accept<'_>,
        progress: &dyn Progress,
    ) -> Result<Option<FetchedFile>, FetchError> {
        if !file.path.is_file() {
            return Ok(None);
        }
        let digest = digest_file(&file.path, expected).map_err(|error| FetchError::io("read", &file.path, error))?;
        let Err(mismatch) = expected.check(&digest) else {
            // A file with a known hash was accepted when it was fetched.
            if !expected.is_hashed() {
                accept(&file.path).map_err(|source| FetchError::Rejected {
                    key: file.key.clone(),
                    path: file.path.clone(),
                    source: Box::new(source),
                })?;
            }
            let url = format!("file://{}", file.path.display());
            let FileDigest { bytes, sha256, .. } = digest;
            let new_pin = Pin { url, bytes, sha256, fetched: utc_now(), verified: expected.basis(), revision: None };
            let pin = self.pin(file, pin, new_pin)?;
            return Ok(Some(FetchedFile { file: file.clone(), pin, was_cached: true }));
        };
        if self.settings.network == Network::Offline && !self.has_local_source(file, pin) {
            let pins = pin.map(|_| self.settings.store.pins.clone());
            return Err(FileStoreError::Mismatch { key: file.key.clone(), mismatch, pins }.into());
        }
        let rejected = with_suffix(&file.path, ".rejected");
        fs_err::rename(&file.path, &rejected).map_err(|source| FetchError::io("move", &rejected, source))?;
        let message = format!("the local file has the wrong {}: moved to `{}`", mismatch.kind, rejected.display());
        progress.message(&file.key, &message);
        Ok(None)
    }

    /// Records `new_pin` unless the file is pinned already or new pins are not allowed.
    fn pin(&self, file: &RemoteFile, known: Option<&Pin>, new_pin: Pin) -> Result<Pin, FetchError> {
        if let Some(known) = known {
            return Ok(known.clone());
        }
        if self.settings.pinning == Pinning::OnFirstFetch {
            Pins::record(&self.settings.store.pins, &file.key, new_pin.clone())?;
        }
        Ok(new_pin)
    }

    fn try_sources(
        &self,
        file: &RemoteFile,
        pin: Option<&Pin>,
        download: &Download<'_>,
    ) -> Result<CompletedDownload, FetchError> {
        let mut failures = Vec::new();
        for mut source in self.sources(file, pin)? {
            if self.settings.network == Network::Offline && !source.is_local() {
                continue;
            }
            match download.run(source.as_mut()) {
                Ok(complete) => return Ok(complete),
                // These errors do not depend on the source.
                Err(error @ (FetchError::Disk { .. } | FetchError::Environment { .. } | FetchError::Store(_))) => {
                    return Err(error);
                }
                Err(error) => failures.push(error),
            }
        }
        Err(match failures.pop() {
            None => FetchError::Offline { key: file.key.clone(), path: file.path.clone() },
            Some(only) if failures.is_empty() => only,
            Some(last) => {
                failures.push(last);
                FetchError::Sources { key: file.key.clone(), failures }
            }
        })
    }

    fn has_local_source(&self, file: &RemoteFile, pin: Option<&Pin>) -> bool {
        self.sources(file, pin).is_ok_and(|sources| sources.iter().any(|source| source.is_local()))
    }

    /// The sources of `file` in the order of trying: caches, mirrors of the user, the service, mirrors of the manifest.
    fn sources<'a>(
        &'a self,
        file: &'a RemoteFile,
        pin: Option<&Pin>,
    ) -> Result<Vec<Box<dyn ByteSource + 'a>>, FetchError> {
        let services = &self.settings.services;
        let is_hashed = file.expected.is_hashed() || pin.is_some();
        let commit = pin.and_then(|pin| pin.revision.clone());
        let mut sources: Vec<Box<dyn ByteSource>> = Vec::new();
        if let (FileSource::Hub { repository, revision, file }, Some(cache)) = (&file.source, &services.hub_cache)
            && let Some((path, commit)) = hub::cached(cache, repository, commit.as_deref().unwrap_or(revision), file)
        {
            sources.push(Box::new(LocalFile { path, revision: Some(commit) }));
        }
        for mirror in &services.mirrors {
            sources.push(self.at(mirror.join(&file.key)?, is_hashed));
        }
        sources.push(match &file.source {
            FileSource::Drive { folder, file } => match (&services.drive_pages, &services.drive_files) {
                (Endpoint::Folder(_), base) | (base, Endpoint::Folder(_)) => {
                    self.at(base.join(&format!("{folder}/{file}"))?, is_hashed)
                }
                (pages, files) => Box::new(DriveFile { client: &self.client, pages, files, folder, file, id: None }),
            },
            FileSource::Hub { repository, revision, file } => Box::new(HubFile {
                client: &self.client,
                hub: &services.hub,
                token: services.token.as_deref(),
                repository,
                revision: commit.unwrap_or_else(|| revision.clone()),
                file,
            }),
            FileSource::GitHub { repository, commit, path } => {
                self.at(services.github.join(&format!("{repository}/{commit}/{path}"))?, is_hashed)
            }
            FileSource::Coco(path) => self.at(services.coco.join(path)?, is_hashed),
            FileSource::Pypi(path) => self.at(services.pypi.join(path)?, is_hashed),
            FileSource::Address(address) => self.at(parse_location(address)?, is_hashed),
        });
        for mirror in &file.mirrors {
            sources.push(self.at(parse_location(mirror)?, is_hashed));
        }
        Ok(sources)
    }

    fn at<'a>(&'a self, location: FileLocation, is_hashed: bool) -> Box<dyn ByteSource + 'a> {
        match location {
            FileLocation::Local(path) => Box::new(LocalFile { path, revision: None }),
            FileLocation::Web(url, policy) => Box::new(UrlFile { client: &self.client, url, policy, is_hashed }),
        }
    }
}

/// Parses the URL of a file.
fn parse_location(address: &str) -> Result<FileLocation, FetchError> {
    Ok(match Endpoint::parse(address, &[])? {
        Endpoint::Web(url, policy) => FileLocation::Web(url, policy),
        Endpoint::Folder(path) => FileLocation::Local(path),
    })
}

/// Combines the manifest and the pin, which must agree.
fn expected_digest(file: &RemoteFile, pin: Option<&Pin>, pins: &Path) -> Result<ExpectedDigest, FileStoreError> {
    let Some(pin) = pin else { return Ok(file.expected.clone()) };
    file.expected.and(&pin.expected()).map_err(|mismatch| FileStoreError::Mismatch {
        key: file.key.clone(),
        mismatch,
        pins: Some(pins.to_owned()),
    })
}
