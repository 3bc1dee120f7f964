//! One file from one source: attempts that go on where the one before ended, and the verdict on what came.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
};

use super::{
    FetchError, Retry, Watch,
    body::{Opened, Resume, Source, looks_like_a_page},
    part::{Note, Part},
    retry::PROGRESS,
    space,
};
use crate::store::Item;
use laps_files::{BLOCK, Expected, Found, Verified, beside, digest_file};

/// Whole downloads with a wrong hash before giving up. One may have been damaged on its way, or begun with bytes of an
/// older file; a second that is wrong as well is what the source has.
const WRONG: u32 = 2;

/// Wrong answers to a request for the rest before the whole file is asked for.
const RANGES: u32 = 2;

/// Bytes at the beginning that tell a web page from a file.
const HEAD: u64 = 512;

/// Judges a complete file before it gets its name.
pub(super) type Accept<'a> = &'a dyn Fn(&Path) -> Result<(), crate::Error>;

/// What a download needs to know.
pub(super) struct Download<'a> {
    pub(super) item: &'a Item,
    /// What is known, pins included.
    pub(super) expected: &'a Expected,
    /// The file of pins, where a pin is part of `expected`.
    pub(super) pins: Option<&'a Path>,
    pub(super) accept: Accept<'a>,
    pub(super) retry: Retry,
    /// In seconds, for messages.
    pub(super) patience: u64,
    pub(super) free_space: fn(&Path) -> io::Result<u64>,
    pub(super) watch: &'a dyn Watch,
}

/// A complete file that was judged, still under its temporary name.
pub(super) struct Complete {
    pub(super) part: Part,
    pub(super) found: Found,
    pub(super) url: String,
    pub(super) revision: Option<String>,
    pub(super) verified: Verified,
}

impl Download<'_> {
    /// Fetches the file from `source`. The caller has the lock of the file.
    pub(super) fn run(&self, source: &mut dyn Source) -> Result<Complete, FetchError> {
        let mut part = Part::open(&self.item.path, self.expected)?;
        let (mut attempts, mut idle, mut wrong, mut ranges) = (0, 0, 0, 0);
        loop {
            let before = part.len();
            let outcome = self.attempt(source, &mut part).and_then(|()| self.judge(source, &mut part));
            let error = match outcome {
                Ok((found, verified)) => {
                    let note = part.note.clone().unwrap_or_default();
                    return Ok(Complete { part, found, url: note.url, revision: note.revision, verified });
                }
                Err(error) => error,
            };
            attempts += 1;
            match &error {
                FetchError::Digest { .. } => {
                    part = part.emptied(self.expected)?;
                    wrong += 1;
                    if wrong >= WRONG {
                        part.discard();
                        return Err(error);
                    }
                }
                // It was put aside.
                FetchError::Rejected { .. } => {
                    part.discard();
                    return Err(error);
                }
                FetchError::Page { .. } if part.len() == 0 => {
                    part.discard();
                    return Err(error);
                }
                // What is here is more than there is, or the server does not know how to send the rest.
                FetchError::Status { status: 416, .. } => part = part.emptied(self.expected)?,
                FetchError::Range { .. } => {
                    ranges += 1;
                    if ranges >= RANGES {
                        part = part.emptied(self.expected)?;
                    }
                }
                _ if part.len() >= before + PROGRESS => idle = 0,
                _ => {}
            }
            if !error.is_passing() {
                return Err(error);
            }
            idle += 1;
            if idle >= self.retry.attempts {
                let source = Box::new(error);
                return Err(FetchError::GaveUp { key: self.item.key.clone(), attempts, source });
            }
            let wish = match &error {
                FetchError::Status { retry_after, .. } => *retry_after,
                _ => None,
            };
            let wait = self.retry.wait(idle, wish);
            let said = error.to_string().replace("\n  ", "; ");
            self.watch.note(&self.item.key, &format!("{said}; again in {:.1} s", wait.as_secs_f64()));
            thread::sleep(wait);
        }
    }

    /// Brings the part to its full length, if the connection holds.
    fn attempt(&self, source: &mut dyn Source, part: &mut Part) -> Result<(), FetchError> {
        let resume = match &part.note {
            Some(note) if note.total == Some(part.len()) && note.total != Some(0) => return Ok(()),
            Some(note) => self.resume(source, part, note),
            None => None,
        };
        let opened = source.open(resume.as_ref())?;
        let url = source.label();
        let (total, body) = self.begin(source, part, opened, &url)?;
        self.watch.begin(&self.item.key, part.len(), total);
        self.copy(part, body, total, &url)
    }

    /// Where to go on: only with bytes of the very same source, or where a hash decides in the end.
    fn resume(&self, source: &dyn Source, part: &Part, note: &Note) -> Option<Resume> {
        let is_same = note.source == source.identity();
        let usable = part.len() > 1 && (is_same || self.expected.is_hashed());
        let validator = note.validator.clone().filter(|_| is_same);
        usable.then(|| Resume { from: part.resume_at(), validator })
    }

    /// Judges what the source announces, and makes the part ready for its body.
    fn begin(
        &self,
        source: &dyn Source,
        part: &mut Part,
        opened: Opened,
        url: &str,
    ) -> Result<(Option<u64>, Box<dyn Read>), FetchError> {
        let Opened { start, total, validator, framed, stated, revision, mut body } = opened;
        let known = self.expected.and(&stated).map_err(|mismatch| self.mismatch(url, mismatch))?;
        let wrong_length = |expected, found| FetchError::Length { url: url.to_owned(), expected, found };
        if let (Some(found), Some(expected)) = (total, known.bytes)
            && found != expected
        {
            return Err(wrong_length(format!("{expected} bytes"), found));
        }
        let total = total.or(known.bytes);
        if let Some(found) = total.filter(|&total| total > self.item.limit) {
            return Err(wrong_length(format!("at most {} bytes", self.item.limit), found));
        }
        if total.is_none() && !framed && !known.is_hashed() {
            return Err(FetchError::NoLength { url: url.to_owned() });
        }
        let note = Note { source: source.identity(), validator, total, revision, stated, url: url.to_owned() };
        let is_shorter = total.is_some_and(|total| total < part.len());
        if start > 0 && is_shorter {
            part.restart(&known, note)?;
            return Err(FetchError::Changed { url: url.to_owned() });
        }
        if start > 0 {
            let here = part.tail(start)?;
            let mut there = vec![0; here.len()];
            body.read_exact(&mut there).map_err(|error| self.broken(url, part.len(), total, &error))?;
            let same_file = part.note.as_ref().is_some_and(|old| {
                let same_source = old.revision == note.revision && old.url == note.url;
                old.total == total && (same_source || known.is_hashed())
            });
            if here != there || !same_file {
                part.restart(&known, note)?;
                return Err(FetchError::Changed { url: url.to_owned() });
            }
        } else {
            part.restart(&known, note)?;
        }
        if let Some(total) = total {
            space::check(&self.item.path, total.saturating_sub(part.len()), self.free_space)?;
        }
        Ok((total, body))
    }

    fn copy(&self, part: &mut Part, mut body: impl Read, total: Option<u64>, url: &str) -> Result<(), FetchError> {
        let mut block = vec![0; BLOCK];
        let most = total.unwrap_or(self.item.limit);
        loop {
            let count = match body.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(url, part.len(), total, &error)),
            };
            if part.len() + count as u64 > most {
                let found = part.len() + count as u64;
                return Err(FetchError::Length {
                    url: url.to_owned(),
                    expected: format!("at most {most} bytes"),
                    found,
                });
            }
            part.add(&block[..count])?;
            self.watch.advance(&self.item.key, count as u64);
        }
        match total {
            Some(total) if part.len() < total => {
                Err(FetchError::Truncated { url: url.to_owned(), at: part.len(), of: Some(total) })
            }
            _ => Ok(()),
        }
    }

    /// The verdict on a complete part; one that is no file of its kind is put aside or removed.
    fn judge(&self, source: &dyn Source, part: &mut Part) -> Result<(Found, Verified), FetchError> {
        let url = source.label();
        let unreadable = |source| FetchError::io("read", &self.item.path, source);
        let head = part.head(HEAD).map_err(unreadable)?;
        if looks_like_a_page(&head) {
            let found = super::body::title(&String::from_utf8_lossy(&head));
            // Nothing of it is of use later.
            part.restart(self.expected, Note::default())?;
            return Err(FetchError::Page { url, found });
        }
        let stated = part.note.as_ref().map(|note| note.stated.clone()).unwrap_or_default();
        let known = self.expected.and(&stated).map_err(|mismatch| self.mismatch(&url, mismatch))?;
        let mut found = part.digests().finish();
        if !found.covers(&known) {
            found = digest_file(part.path(), &known).map_err(unreadable)?;
        }
        known.check(&found).map_err(|mismatch| self.mismatch(&url, mismatch))?;
        if let Err(error) = (self.accept)(part.path()) {
            let path = beside(&self.item.path, ".rejected");
            fs_err::rename(part.path(), &path).map_err(|source| FetchError::io("move", &path, source))?;
            let key = self.item.key.clone();
            return Err(FetchError::Rejected { key, path, source: Box::new(error) });
        }
        let verified = match self.expected.basis() {
            Verified::FirstFetch if known.is_hashed() => Verified::Hub,
            basis => basis,
        };
        Ok((found, verified))
    }

    fn mismatch(&self, url: &str, mismatch: laps_files::Mismatch) -> FetchError {
        FetchError::Digest { url: url.to_owned(), mismatch, pins: self.pins.map(PathBuf::from) }
    }

    /// A body that ends before its time, or in silence.
    fn broken(&self, url: &str, at: u64, of: Option<u64>, error: &io::Error) -> FetchError {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<reqwest::Error>());
        let url = url.to_owned();
        if cause.is_some_and(reqwest::Error::is_timeout) || error.kind() == io::ErrorKind::TimedOut {
            return FetchError::Stalled { url, at, of, seconds: self.patience };
        }
        FetchError::Truncated { url, at, of }
    }
}
