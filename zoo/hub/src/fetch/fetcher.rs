//! Many files, each from the first of its sources that has it.

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
    FetchError, Retry, Services, Timeouts, Watch,
    address::AddressFile,
    body::Source,
    client::Client,
    download::{Accept, Complete, Download},
    drive::DriveFile,
    folder::FolderFile,
    free_space, hub,
    hub::HubFile,
    services::{Base, Place},
};
use crate::store::{self, Item, Pin, Pins, Store, StoreError, now};
use laps_files::{Expected, FileLock, beside, digest_file};

/// Files that are fetched at a time: enough that small ones do not wait for each other, few enough that no server minds.
const PARALLEL: usize = 4;

/// Whether the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It may.
    Online,
    /// It is not touched; what is missing is an error.
    Offline,
}

/// Whether a file may be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// The first fetch of a file pins it.
    OnFirstFetch,
    /// Only what is pinned, or has a hash in the manifest, is fetched.
    Locked,
}

/// How to fetch.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the services are.
    pub services: Services,
    /// Where files are kept and pinned.
    pub store: Store,
    /// Whether the network may be used.
    pub network: Network,
    /// Whether a file may be pinned.
    pub pinning: Pinning,
    /// When to try again.
    pub retry: Retry,
    /// How long to wait for a server.
    pub timeouts: Timeouts,
    /// Bytes that are free on the disk of a folder.
    pub free_space: fn(&Path) -> io::Result<u64>,
}

impl Settings {
    /// Services and store as the environment names them.
    ///
    /// # Errors
    /// [`FetchError::Address`] and [`StoreError::NoCache`].
    pub fn from_environment(network: Network, pinning: Pinning) -> Result<Self, FetchError> {
        Ok(Self {
            services: Services::from_environment()?,
            store: Store::from_environment()?,
            network,
            pinning,
            retry: Retry::default(),
            timeouts: Timeouts::default(),
            free_space,
        })
    }
}

/// Fetches files.
#[derive(Debug)]
pub struct Fetcher {
    settings: Settings,
    client: Client,
}

/// A file that is here, complete and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The file.
    pub item: Item,
    /// What it is pinned as, or would be.
    pub pin: Pin,
    /// Whether it had been here before.
    pub was_here: bool,
}

impl Fetcher {
    /// A fetcher; nothing is asked yet.
    pub fn new(settings: Settings) -> Self {
        let client = Client::new(settings.timeouts);
        Self { settings, client }
    }

    /// How it fetches.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Fetches `item`, or sees that the file that is here is the right one. Another process that fetches the same file is
    /// waited for. `accept` judges the complete file before it gets its name.
    ///
    /// # Errors
    /// [`FetchError`]. What is here of the file is kept for the next time, except for bytes that are known to be wrong.
    pub fn fetch(
        &self,
        item: &Item,
        accept: impl Fn(&Path) -> Result<(), crate::Error>,
        watch: &dyn Watch,
    ) -> Result<Fetched, FetchError> {
        let outcome = self.fetch_locked(item, &accept, watch);
        let summary = match &outcome {
            Ok(fetched) if fetched.was_here => "is here".to_owned(),
            Ok(fetched) => format!("{} bytes, verified {}", fetched.pin.bytes, fetched.pin.verified.describe()),
            Err(_) => "not fetched".to_owned(),
        };
        watch.end(&item.key, &summary);
        outcome
    }

    /// The first of `items` that its source has: they are the same thing in different forms.
    ///
    /// # Errors
    /// As for [`fetch`](Self::fetch), of the last one.
    pub fn fetch_any(
        &self,
        items: &[Item],
        accept: impl Fn(&Path) -> Result<(), crate::Error>,
        watch: &dyn Watch,
    ) -> Result<Fetched, FetchError> {
        // One that is here needs no look at those before it.
        let order = items.iter().filter(|item| item.path.is_file()).chain(items);
        let mut last = None;
        for item in order {
            match self.fetch(item, &accept, watch) {
                Err(error) if error.is_absent() => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| store::unknown("", Vec::new()).into()))
    }

    /// Several files at a time. The outcomes are in the order of `items`; one that fails does not stop the others.
    pub fn fetch_all(&self, items: &[Item], watch: &dyn Watch) -> Vec<Result<Fetched, FetchError>> {
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..PARALLEL.min(items.len()) {
                scope.spawn(|| {
                    while let Some((index, item)) = {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        items.get(index).map(|item| (index, item))
                    } {
                        let outcome = self.fetch(item, |_| Ok(()), watch);
                        outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
                    }
                });
            }
        });
        let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by_key(|&(index, _)| index);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn fetch_locked(&self, item: &Item, accept: Accept<'_>, watch: &dyn Watch) -> Result<Fetched, FetchError> {
        let Settings { store, pinning, network, .. } = &self.settings;
        let pins = Pins::open(&store.pins)?;
        let pin = pins.get(&item.key);
        if *pinning == Pinning::Locked && pin.is_none() && !item.expected.is_hashed() {
            return Err(FetchError::NotPinned { key: item.key.clone(), pins: store.pins.clone() });
        }
        let expected = known(item, pin, &store.pins)?;
        if *network == Network::Offline && !item.path.exists() && !self.has_local_source(item, pin) {
            return Err(FetchError::Offline { key: item.key.clone(), path: item.path.clone() });
        }
        if let Some(folder) = item.path.parent() {
            fs_err::create_dir_all(folder).map_err(|source| FetchError::io("make", folder, source))?;
        }
        let lock = FileLock::acquire(&item.path, || watch.note(&item.key, "another process fetches it: waiting"));
        let _lock = lock.map_err(|source| FetchError::io("lock", &item.path, source))?;
        if let Some(fetched) = self.look(item, pin, &expected, accept, watch)? {
            return Ok(fetched);
        }
        let download = Download {
            item,
            expected: &expected,
            pins: pin.map(|_| store.pins.as_path()),
            accept,
            retry: self.settings.retry,
            patience: self.settings.timeouts.read.as_secs(),
            free_space: self.settings.free_space,
            watch,
        };
        let complete = self.try_sources(item, pin, &download)?;
        let Complete { part, found, url, revision, verified } = complete;
        let fresh = Pin { url, bytes: found.bytes, sha256: found.sha256, fetched: now(), verified, revision };
        // Pinned before it has its name: whoever sees the file can hold it against the pin.
        let pin = self.pin(item, pin, fresh)?;
        laps_files::put(part.path(), &item.path).map_err(|source| FetchError::io("write", &item.path, source))?;
        part.finished();
        Ok(Fetched { item: item.clone(), pin, was_here: false })
    }

    /// The file that is here, if it is the right one. A wrong one is put aside.
    fn look(
        &self,
        item: &Item,
        pin: Option<&Pin>,
        expected: &Expected,
        accept: Accept<'_>,
        watch: &dyn Watch,
    ) -> Result<Option<Fetched>, FetchError> {
        if !item.path.is_file() {
            return Ok(None);
        }
        let found = digest_file(&item.path, expected).map_err(|error| FetchError::io("read", &item.path, error))?;
        let Err(mismatch) = expected.check(&found) else {
            // Bytes that a hash vouches for were judged when they came.
            if !expected.is_hashed() {
                accept(&item.path).map_err(|source| FetchError::Rejected {
                    key: item.key.clone(),
                    path: item.path.clone(),
                    source: Box::new(source),
                })?;
            }
            let url = format!("file://{}", item.path.display());
            let verified = expected.basis();
            let fresh = Pin { url, bytes: found.bytes, sha256: found.sha256, fetched: now(), verified, revision: None };
            let pin = self.pin(item, pin, fresh)?;
            return Ok(Some(Fetched { item: item.clone(), pin, was_here: true }));
        };
        if self.settings.network == Network::Offline && !self.has_local_source(item, pin) {
            let pins = pin.map(|_| self.settings.store.pins.clone());
            return Err(StoreError::Mismatch { key: item.key.clone(), mismatch, pins }.into());
        }
        let aside = beside(&item.path, ".rejected");
        fs_err::rename(&item.path, &aside).map_err(|source| FetchError::io("move", &aside, source))?;
        let note = format!("the file that is here has the wrong {}: moved to `{}`", mismatch.kind, aside.display());
        watch.note(&item.key, &note);
        Ok(None)
    }

    fn pin(&self, item: &Item, known: Option<&Pin>, fresh: Pin) -> Result<Pin, FetchError> {
        if let Some(known) = known {
            return Ok(known.clone());
        }
        if self.settings.pinning == Pinning::OnFirstFetch {
            Pins::record(&self.settings.store.pins, &item.key, fresh.clone())?;
        }
        Ok(fresh)
    }

    fn try_sources(&self, item: &Item, pin: Option<&Pin>, download: &Download<'_>) -> Result<Complete, FetchError> {
        let mut failures = Vec::new();
        for mut source in self.sources(item, pin)? {
            if self.settings.network == Network::Offline && !source.is_local() {
                continue;
            }
            match download.run(source.as_mut()) {
                Ok(complete) => return Ok(complete),
                // These are no fault of the source.
                Err(error @ (FetchError::Disk { .. } | FetchError::Store(_))) => return Err(error),
                Err(error) => failures.push(error),
            }
        }
        Err(match failures.pop() {
            None => FetchError::Offline { key: item.key.clone(), path: item.path.clone() },
            Some(only) if failures.is_empty() => only,
            Some(last) => {
                failures.push(last);
                FetchError::Sources { key: item.key.clone(), failures }
            }
        })
    }

    fn has_local_source(&self, item: &Item, pin: Option<&Pin>) -> bool {
        self.sources(item, pin).is_ok_and(|sources| sources.iter().any(|source| source.is_local()))
    }

    /// The sources of `item` in the order of trying: caches and mirrors before the service itself.
    fn sources<'a>(&'a self, item: &'a Item, pin: Option<&Pin>) -> Result<Vec<Box<dyn Source + 'a>>, FetchError> {
        let services = &self.settings.services;
        let is_hashed = item.expected.is_hashed() || pin.is_some();
        let revision = pin.and_then(|pin| pin.revision.clone());
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        if let (store::Source::Hub { repository, revision: branch, file }, Some(cache)) =
            (&item.source, &services.hub_cache)
            && let Some((path, commit)) = hub::cached(cache, repository, revision.as_deref().unwrap_or(branch), file)
        {
            sources.push(Box::new(FolderFile { path, revision: Some(commit) }));
        }
        for mirror in &services.mirrors {
            sources.push(self.at(mirror.below(&item.key)?, is_hashed));
        }
        sources.push(match &item.source {
            store::Source::Drive { folder, file } => match (&services.drive_pages, &services.drive_files) {
                (Base::Folder(_), base) | (base, Base::Folder(_)) => {
                    self.at(base.below(&format!("{folder}/{file}"))?, is_hashed)
                }
                (pages, files) => Box::new(DriveFile { client: &self.client, pages, files, folder, file, id: None }),
            },
            store::Source::Hub { repository, revision: branch, file } => Box::new(HubFile {
                client: &self.client,
                hub: &services.hub,
                token: services.token.as_deref(),
                repository,
                revision: revision.unwrap_or_else(|| branch.clone()),
                file,
            }),
            store::Source::GitHub { repository, commit, path } => {
                self.at(services.github.below(&format!("{repository}/{commit}/{path}"))?, is_hashed)
            }
            store::Source::Coco(path) => self.at(services.coco.below(path)?, is_hashed),
            store::Source::Address(address) => self.at(whole(address)?, is_hashed),
        });
        for mirror in &item.mirrors {
            sources.push(self.at(whole(mirror)?, is_hashed));
        }
        Ok(sources)
    }

    fn at<'a>(&'a self, place: Place, is_hashed: bool) -> Box<dyn Source + 'a> {
        match place {
            Place::File(path) => Box::new(FolderFile { path, revision: None }),
            Place::Web(url, policy) => Box::new(AddressFile { client: &self.client, url, policy, is_hashed }),
        }
    }
}

/// The file at a whole address.
fn whole(address: &str) -> Result<Place, FetchError> {
    Ok(match Base::parse(address, &[])? {
        Base::Web(url, policy) => Place::Web(url, policy),
        Base::Folder(path) => Place::File(path),
    })
}

/// What the manifest and the pin say, if they agree.
fn known(item: &Item, pin: Option<&Pin>, pins: &Path) -> Result<Expected, StoreError> {
    let Some(pin) = pin else { return Ok(item.expected.clone()) };
    item.expected.and(&pin.expected()).map_err(|mismatch| StoreError::Mismatch {
        key: item.key.clone(),
        mismatch,
        pins: Some(pins.to_owned()),
    })
}
