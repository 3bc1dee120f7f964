//! Downloads one file from one source: retries, resumes, and checks the result.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
};

use super::{
    FetchError, RetryPolicy,
    html::describe_page,
    partial::{PartialDownload, PartialMetadata},
    retry::MIN_PROGRESS_BYTES,
    source::{ByteSource, OpenedSource, ResumePoint, looks_like_a_page},
    space,
};
use crate::store::{FileStoreError, RemoteFile};
use laps_files::{
    BLOCK, ExpectedDigest, FileDigest, Mismatch, Progress, ProgressUnit, Verified, digest_file, with_suffix,
};

/// Complete downloads with a wrong hash before giving up. One may have been damaged on the way or resumed from an older
/// file; after a second one the source has another file.
const MAX_WRONG_HASHES: u32 = 2;

/// Wrong responses to range requests before the whole file is requested.
const MAX_WRONG_RANGES: u32 = 2;

/// Bytes at the beginning of a file that identify a web page.
const HEAD: u64 = 512;

/// Checks a complete file before it is renamed to its target.
pub(super) type Accept<'a> = &'a dyn Fn(&Path) -> Result<(), FileStoreError>;

/// The parameters of a download.
pub(super) struct Download<'a> {
    pub(super) file: &'a RemoteFile,
    /// Size and hashes of the manifest and the pin.
    pub(super) expected: &'a ExpectedDigest,
    /// The lock file, if `expected` includes a pin.
    pub(super) pins: Option<&'a Path>,
    pub(super) accept: Accept<'a>,
    pub(super) retry: RetryPolicy,
    /// Read timeout in seconds, for messages.
    pub(super) read_timeout: u64,
    pub(super) free_space: fn(&Path) -> io::Result<u64>,
    pub(super) progress: &'a dyn Progress,
}

/// A complete, verified file under its temporary name.
pub(super) struct CompletedDownload {
    pub(super) partial: PartialDownload,
    pub(super) digest: FileDigest,
    pub(super) url: String,
    pub(super) revision: Option<String>,
    pub(super) verified: Verified,
}

impl Download<'_> {
    /// Downloads the file from `source`. The caller holds the lock of the file.
    pub(super) fn run(&self, source: &mut dyn ByteSource) -> Result<CompletedDownload, FetchError> {
        let mut partial = PartialDownload::open(&self.file.path, self.expected)?;
        let (mut attempts, mut attempts_without_progress, mut wrong_hashes, mut wrong_ranges) = (0, 0, 0, 0);
        loop {
            let before = partial.len();
            let outcome = self.attempt(source, &mut partial).and_then(|()| self.check(source, &mut partial));
            let error = match outcome {
                Ok((digest, verified)) => {
                    let PartialMetadata { url, revision, .. } = partial.metadata.clone().unwrap_or_default();
                    return Ok(CompletedDownload { partial, digest, url, revision, verified });
                }
                Err(error) => error,
            };
            attempts += 1;
            match &error {
                FetchError::Digest { .. } => {
                    partial = partial.emptied(self.expected)?;
                    wrong_hashes += 1;
                    if wrong_hashes >= MAX_WRONG_HASHES {
                        partial.discard();
                        return Err(error);
                    }
                }
                // The file was moved to `<file>.rejected`.
                FetchError::Rejected { .. } => {
                    partial.discard();
                    return Err(error);
                }
                FetchError::Page { .. } if partial.len() == 0 => {
                    partial.discard();
                    return Err(error);
                }
                // The partial file is longer than the file, or the server does not support ranges.
                FetchError::Status { status: 416, .. } => partial = partial.emptied(self.expected)?,
                FetchError::Range { .. } => {
                    wrong_ranges += 1;
                    if wrong_ranges >= MAX_WRONG_RANGES {
                        partial = partial.emptied(self.expected)?;
                    }
                }
                _ if partial.len() >= before + MIN_PROGRESS_BYTES => attempts_without_progress = 0,
                _ => {}
            }
            if !error.is_transient() {
                return Err(error);
            }
            attempts_without_progress += 1;
            if attempts_without_progress >= self.retry.attempts {
                let source = Box::new(error);
                return Err(FetchError::GaveUp { key: self.file.key.clone(), attempts, source });
            }
            let retry_after = match &error {
                FetchError::Status { retry_after, .. } => *retry_after,
                _ => None,
            };
            let delay = self.retry.delay(attempts_without_progress, retry_after);
            let message = format!("{}; retrying in {:.1} s", error.on_one_line(), delay.as_secs_f64());
            self.progress.message(&self.file.key, &message);
            thread::sleep(delay);
        }
    }

    /// Downloads the missing bytes.
    fn attempt(&self, source: &mut dyn ByteSource, partial: &mut PartialDownload) -> Result<(), FetchError> {
        let resume = match &partial.metadata {
            Some(metadata) if metadata.total == Some(partial.len()) && metadata.total != Some(0) => return Ok(()),
            Some(metadata) => self.resume(source, partial, metadata),
            None => None,
        };
        let opened = source.open(resume.as_ref())?;
        let url = source.label();
        let (total, body) = self.begin(source, partial, opened, &url)?;
        self.progress.begin(&self.file.key, partial.len(), total, ProgressUnit::Bytes);
        self.copy(partial, body, total, &url)
    }

    /// Where to resume. Bytes of another source are only resumed if a hash will detect a mix of two files.
    fn resume(
        &self,
        source: &dyn ByteSource,
        partial: &PartialDownload,
        metadata: &PartialMetadata,
    ) -> Option<ResumePoint> {
        let is_same = metadata.source == source.identity();
        let is_usable = partial.len() > 1 && (is_same || self.expected.is_hashed());
        let validator = metadata.validator.clone().filter(|_| is_same);
        is_usable.then(|| ResumePoint { from: partial.resume_offset(), validator })
    }

    /// Checks what the source announces, and prepares the partial file for its body.
    fn begin(
        &self,
        source: &dyn ByteSource,
        partial: &mut PartialDownload,
        opened: OpenedSource,
        url: &str,
    ) -> Result<(Option<u64>, Box<dyn Read>), FetchError> {
        let OpenedSource { start, total, validator, framed, stated, revision, mut body } = opened;
        let known = self.expected.and(&stated).map_err(|mismatch| self.mismatch(url, mismatch))?;
        let wrong_length = |expected, found| FetchError::Length { url: url.to_owned(), expected, found };
        if let (Some(found), Some(expected)) = (total, known.bytes)
            && found != expected
        {
            return Err(wrong_length(format!("{expected} bytes"), found));
        }
        let total = total.or(known.bytes);
        if let Some(found) = total.filter(|&total| total > self.file.max_bytes) {
            return Err(wrong_length(format!("at most {} bytes", self.file.max_bytes), found));
        }
        if total.is_none() && !framed && !known.is_hashed() {
            return Err(FetchError::NoLength { url: url.to_owned() });
        }
        let metadata =
            PartialMetadata { source: source.identity(), validator, total, revision, stated, url: url.to_owned() };
        let is_shorter = total.is_some_and(|total| total < partial.len());
        if start > 0 && is_shorter {
            partial.restart(&known, metadata)?;
            return Err(FetchError::Changed { url: url.to_owned() });
        }
        if start > 0 {
            let local = partial.tail(start)?;
            let mut remote = vec![0; local.len()];
            body.read_exact(&mut remote).map_err(|error| self.broken(url, partial.len(), total, &error))?;
            let is_same_file = partial.metadata.as_ref().is_some_and(|old| {
                let is_same_source = old.revision == metadata.revision && old.url == metadata.url;
                old.total == total && (is_same_source || known.is_hashed())
            });
            if local != remote || !is_same_file {
                partial.restart(&known, metadata)?;
                return Err(FetchError::Changed { url: url.to_owned() });
            }
        } else {
            partial.restart(&known, metadata)?;
        }
        if let Some(total) = total {
            space::check(&self.file.path, total.saturating_sub(partial.len()), self.free_space)?;
        }
        Ok((total, body))
    }

    fn copy(
        &self,
        partial: &mut PartialDownload,
        mut body: impl Read,
        total: Option<u64>,
        url: &str,
    ) -> Result<(), FetchError> {
        let mut block = vec![0; BLOCK];
        let max_bytes = total.unwrap_or(self.file.max_bytes);
        loop {
            let count = match body.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(url, partial.len(), total, &error)),
            };
            let found = partial.len() + count as u64;
            if found > max_bytes {
                let expected = format!("at most {max_bytes} bytes");
                return Err(FetchError::Length { url: url.to_owned(), expected, found });
            }
            partial.append(&block[..count])?;
            self.progress.advance(&self.file.key, count as u64);
        }
        match total {
            Some(total) if partial.len() < total => {
                Err(FetchError::Truncated { url: url.to_owned(), at: partial.len(), of: Some(total) })
            }
            _ => Ok(()),
        }
    }

    /// Checks a complete partial file: not a web page, the right hash, accepted by the caller.
    fn check(
        &self,
        source: &dyn ByteSource,
        partial: &mut PartialDownload,
    ) -> Result<(FileDigest, Verified), FetchError> {
        let url = source.label();
        let unreadable = |source| FetchError::io("read", &self.file.path, source);
        let head = partial.head(HEAD).map_err(unreadable)?;
        if looks_like_a_page(&head) {
            let found = describe_page(&String::from_utf8_lossy(&head));
            // Nothing of it can be reused.
            partial.restart(self.expected, PartialMetadata::default())?;
            return Err(FetchError::Page { url, found });
        }
        let stated = partial.metadata.as_ref().map(|metadata| metadata.stated.clone()).unwrap_or_default();
        let known = self.expected.and(&stated).map_err(|mismatch| self.mismatch(&url, mismatch))?;
        let mut digest = partial.digests().finish();
        if !digest.covers(&known) {
            digest = digest_file(partial.path(), &known).map_err(unreadable)?;
        }
        known.check(&digest).map_err(|mismatch| self.mismatch(&url, mismatch))?;
        if let Err(error) = (self.accept)(partial.path()) {
            let path = with_suffix(&self.file.path, ".rejected");
            fs_err::rename(partial.path(), &path).map_err(|source| FetchError::io("move", &path, source))?;
            return Err(FetchError::Rejected { key: self.file.key.clone(), path, source: Box::new(error) });
        }
        let verified = match self.expected.basis() {
            Verified::FirstFetch if known.is_hashed() => Verified::Hub,
            basis => basis,
        };
        Ok((digest, verified))
    }

    fn mismatch(&self, url: &str, mismatch: Mismatch) -> FetchError {
        FetchError::Digest { url: url.to_owned(), mismatch, pins: self.pins.map(PathBuf::from) }
    }

    /// The error of a body that ends early or stalls.
    fn broken(&self, url: &str, at: u64, of: Option<u64>, error: &io::Error) -> FetchError {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<reqwest::Error>());
        let url = url.to_owned();
        if cause.is_some_and(reqwest::Error::is_timeout) || error.kind() == io::ErrorKind::TimedOut {
            return FetchError::Stalled { url, at, of, seconds: self.read_timeout };
        }
        FetchError::Truncated { url, at, of }
    }
}
