//! What can go wrong on the way from a server.

use std::{io, path::PathBuf};

use super::{drive::DriveError, hub::HubError};
use crate::store::StoreError;
use laps_files::Mismatch;

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Something has to be fetched, and must not.
    #[error("`{key}` is not here\n  expected: the file in `{}`\n  found: nothing, and `--offline` forbids to fetch it", path.display())]
    Offline {
        /// The file, by its key.
        key: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// Neither a hash nor a pin of the file is known, and there has to be one.
    #[error("`{key}` is not pinned\n  expected: its sha256 in `{}`\n  found: none, and `--locked` forbids to add it", pins.display())]
    NotPinned {
        /// The file, by its key.
        key: String,
        /// The file of pins.
        pins: PathBuf,
    },
    /// An address that can not be used.
    #[error("`{address}` can not be used as an address\n  expected: {expected}\n  found: {found}")]
    Address {
        /// The address.
        address: String,
        /// What is allowed.
        expected: &'static str,
        /// What is wrong with it.
        found: String,
    },
    /// A server sends on to where nothing is fetched from.
    #[error("`{from}` sends on to where nothing is fetched from\n  expected: {expected}\n  found: `{to}`")]
    Redirect {
        /// The address that was asked.
        from: String,
        /// Where it sends to.
        to: String,
        /// Where it may send to.
        expected: String,
    },
    /// Nobody answers, or not as HTTP.
    #[error("no answer from `{url}`")]
    Connect {
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answers with an error.
    #[error("`{url}` answers with an error\n  expected: status 200 or 206\n  found: status {status}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// How long the server asks to wait, in seconds.
        retry_after: Option<u64>,
    },
    /// The server sends nothing any more.
    #[error("`{url}` stopped sending\n  expected: more bytes within {seconds} s\n  found: none after {at} of {}", total(*of))]
    Stalled {
        /// The address.
        url: String,
        /// Bytes that are here.
        at: u64,
        /// Bytes that there are.
        of: Option<u64>,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The connection ended before the file did.
    #[error("`{url}` is truncated at {at} of {}", total(*of))]
    Truncated {
        /// The address.
        url: String,
        /// Bytes that are here.
        at: u64,
        /// Bytes that there are.
        of: Option<u64>,
    },
    /// The server announces or sends a file of another size.
    #[error("`{url}` is of another size\n  expected: {expected}\n  found: {found} bytes")]
    Length {
        /// The address.
        url: String,
        /// The known or the largest size.
        expected: String,
        /// The announced or received size.
        found: u64,
    },
    /// The end of the file can not be told from a broken connection.
    #[error("`{url}` does not say how long the file is\n  expected: a length, or a hash to check\n  found: neither")]
    NoLength {
        /// The address.
        url: String,
    },
    /// The server sends another part than it was asked for.
    #[error("`{url}` sends another part of the file\n  expected: {expected}\n  found: {found}")]
    Range {
        /// The address.
        url: String,
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
    },
    /// The bytes that are here are not those of the file that is there now.
    #[error("`{url}` has changed since the first part of it was fetched")]
    Changed {
        /// The address.
        url: String,
    },
    /// A web page where a file was expected.
    #[error("`{url}` sends a web page\n  expected: the file\n  found: {found}")]
    Page {
        /// The address.
        url: String,
        /// The title of the page.
        found: String,
    },
    /// The body is compressed though that was not asked for.
    #[error("`{url}` sends the file in an encoding\n  expected: none\n  found: `{encoding}`")]
    Encoded {
        /// The address.
        url: String,
        /// The encoding.
        encoding: String,
    },
    /// The bytes are not those that are known.
    #[error("`{url}` is another file than expected\n  expected: {} {}\n  found: {} {}", .mismatch.kind, .mismatch.expected, .mismatch.kind, .mismatch.found)]
    Digest {
        /// The address.
        url: String,
        /// The difference.
        mismatch: Mismatch,
        /// The file of pins, where it is a pin that says so.
        pins: Option<PathBuf>,
    },
    /// The file can not be what it is fetched as. It was put aside.
    #[error("`{key}` was fetched and can not be used; it lies in `{}`", path.display())]
    Rejected {
        /// The file, by its key.
        key: String,
        /// Where it was put.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<crate::Error>,
    },
    /// The disk has no room.
    #[error("there is no room for `{}`\n  expected: {needed} bytes free\n  found: {free}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that are free.
        free: String,
    },
    /// A file could not be read or written.
    #[error("can not {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// See [`DriveError`].
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// See [`HubError`].
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The same went wrong again and again.
    #[error("`{key}` could not be fetched in {attempts} attempts; what is here of it is kept")]
    GaveUp {
        /// The file, by its key.
        key: String,
        /// How often it was tried.
        attempts: u32,
        /// What went wrong the last time.
        #[source]
        source: Box<FetchError>,
    },
    /// None of several sources has the file.
    #[error("`{key}` could not be fetched from any of {} sources{}", failures.len(), lines(failures))]
    Sources {
        /// The file, by its key.
        key: String,
        /// What went wrong at each.
        failures: Vec<FetchError>,
    },
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FetchError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Offline { .. } => {
                "run `laps-zoo fetch` where there is a network, or leave `--offline` out".to_owned()
            }
            Self::NotPinned { .. } => "fetch it once without `--locked`, and look at the pin".to_owned(),
            Self::Redirect { .. } => {
                "a server may send on to its own hosts only, and from https never to http; nothing was sent there"
                    .to_owned()
            }
            Self::Connect { .. } => {
                "look at the network and at `HTTPS_PROXY`; what is here is kept, and the same command goes on"
                    .to_owned()
            }
            Self::Status { status: 401 | 403, .. } => "the file is not public, or no longer".to_owned(),
            Self::Status { status: 404 | 410, .. } => {
                "the file was moved or removed: give its path yourself".to_owned()
            }
            Self::Status { .. } => "the same command goes on where it was broken off; try later".to_owned(),
            Self::Stalled { .. } | Self::Truncated { .. } => {
                "what is here is kept: the same command goes on where it was broken off".to_owned()
            }
            Self::Page { .. } => "open the address in a browser to see what the server says".to_owned(),
            Self::Digest { pins: Some(pins), .. } => format!(
                "the file was replaced at its source, or damaged; to accept it, remove its entry from `{}`",
                pins.display()
            ),
            Self::Digest { .. } | Self::Length { .. } => {
                "the file was replaced or damaged at its source; nothing of it was kept".to_owned()
            }
            Self::Disk { .. } => "make room, or set `LAPS_ZOO_CACHE` to a folder on a larger disk".to_owned(),
            Self::Rejected { source, .. } => return source.hint(),
            Self::Drive(error) => error.hint(),
            Self::Hub(error) => return error.hint(),
            Self::GaveUp { source, .. } => return source.hint(),
            Self::Sources { failures, .. } => return failures.iter().rev().find_map(Self::hint),
            Self::Store(error) => return error.hint(),
            Self::Address { .. }
            | Self::NoLength { .. }
            | Self::Range { .. }
            | Self::Changed { .. }
            | Self::Encoded { .. }
            | Self::Io { .. } => return None,
        })
    }

    /// Whether another attempt can go better.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::Range { .. }
            // Bytes that were damaged on their way come whole the next time.
            | Self::Digest { .. }
            | Self::Changed { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 416 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether the source does not have the file, so that another one may.
    pub(super) fn is_absent(&self) -> bool {
        matches!(
            self,
            Self::Status { status: 404 | 410, .. }
                | Self::Hub(HubError::Absent { .. })
                | Self::Drive(DriveError::Gone { .. } | DriveError::NotInFolder { .. })
        ) || matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The error of a file operation; a full disk by its own name.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Disk { path, needed: 1, free: "none".to_owned() }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

fn total(of: Option<u64>) -> String {
    of.map_or_else(|| "an unknown number of bytes".to_owned(), |of| format!("{of} bytes"))
}

fn lines(failures: &[FetchError]) -> String {
    failures.iter().map(|failure| format!("\n  {}", failure.to_string().replace("\n  ", "; "))).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::FetchError;

    #[test]
    fn a_disk_that_fills_up_on_the_way_is_called_by_its_name() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = FetchError::io("write", "a.part", Error::from(kind));
            assert!(matches!(&error, FetchError::Disk { .. }) && !error.is_passing(), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.starts_with("make room")));
        }
        assert!(matches!(FetchError::io("write", "a", Error::from(ErrorKind::NotFound)), FetchError::Io { .. }));
    }
}
