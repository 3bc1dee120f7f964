//! Errors of downloads.

use std::{error::Error, io, path::PathBuf};

use super::{drive::DriveError, hub::HubError};
use crate::store::FileStoreError;
use laps_files::{IoError, Mismatch};

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file is missing, and the network is disabled.
    #[error("`{key}` is not in the cache\n  expected: the file `{}`\n  found: nothing, and downloads are disabled", path.display())]
    Offline {
        /// Key of the file.
        key: String,
        /// Where the file would be.
        path: PathBuf,
    },
    /// A file has neither a known hash nor a pin, and new pins are not allowed.
    #[error("`{key}` is not pinned\n  expected: its sha256 in `{}`\n  found: none, and new pins are not allowed", pins.display())]
    NotPinned {
        /// Key of the file.
        key: String,
        /// The lock file.
        pins: PathBuf,
    },
    /// A URL is not usable.
    #[error("unusable URL `{address}`\n  expected: {expected}\n  found: {found}")]
    Address {
        /// The URL.
        address: String,
        /// The allowed values.
        expected: &'static str,
        /// The fault.
        found: String,
    },
    /// An environment variable has an unusable value.
    #[error("the environment variable `{variable}` has an unusable value\n  expected: {expected}\n  found: {found}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// The allowed values.
        expected: String,
        /// The fault of the value.
        found: String,
    },
    /// A server redirects to a host that is not allowed.
    #[error("`{from}` redirects to a host that is not allowed\n  expected: {expected}\n  found: `{to}`")]
    Redirect {
        /// The requested URL.
        from: String,
        /// Target of the redirect.
        to: String,
        /// The allowed hosts.
        expected: String,
    },
    /// No connection, or no HTTP response.
    #[error("no response from `{url}`")]
    Connect {
        /// The URL.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The certificate of the server is not trusted.
    #[error("the certificate of `{url}` is not trusted")]
    Certificate {
        /// The URL.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The response is an HTTP error.
    #[error("HTTP error from `{url}`\n  expected: status 200 or 206\n  found: status {status}")]
    Status {
        /// The URL.
        url: String,
        /// HTTP status.
        status: u16,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
    },
    /// No bytes arrived within the read timeout.
    #[error("`{url}` stopped sending\n  expected: more bytes within {seconds} s\n  found: none after {at} of {}", total(*of))]
    Stalled {
        /// The URL.
        url: String,
        /// Bytes received.
        at: u64,
        /// Size of the file.
        of: Option<u64>,
        /// Read timeout in seconds.
        seconds: u64,
    },
    /// The connection ended before the file did.
    #[error("`{url}` is truncated at {at} of {}", total(*of))]
    Truncated {
        /// The URL.
        url: String,
        /// Bytes received.
        at: u64,
        /// Size of the file.
        of: Option<u64>,
    },
    /// The announced or received size is wrong.
    #[error("`{url}` has the wrong size\n  expected: {expected}\n  found: {found} bytes")]
    Length {
        /// The URL.
        url: String,
        /// The known or the maximum size.
        expected: String,
        /// The announced or received size.
        found: u64,
    },
    /// The end of the file cannot be told from a dropped connection.
    #[error("`{url}` does not state the size of the file\n  expected: a size, or a hash to check\n  found: neither")]
    NoLength {
        /// The URL.
        url: String,
    },
    /// The server sends another range than the requested one.
    #[error("`{url}` sends the wrong range\n  expected: {expected}\n  found: {found}")]
    Range {
        /// The URL.
        url: String,
        /// The requested range.
        expected: String,
        /// The received range.
        found: String,
    },
    /// The bytes received earlier belong to another version of the file.
    #[error("`{url}` has changed since the download started")]
    Changed {
        /// The URL.
        url: String,
    },
    /// The server sends a web page instead of the file.
    #[error("`{url}` sends a web page\n  expected: the file\n  found: {found}")]
    Page {
        /// The URL.
        url: String,
        /// Title of the page.
        found: String,
    },
    /// The body is compressed although that was not requested.
    #[error("`{url}` sends an encoded body\n  expected: no `Content-Encoding`\n  found: `{encoding}`")]
    Encoded {
        /// The URL.
        url: String,
        /// `Content-Encoding`.
        encoding: String,
    },
    /// The hash or size is wrong.
    #[error("`{url}` is not the expected file\n  expected: {} {}\n  found: {} {}", .mismatch.kind, .mismatch.expected, .mismatch.kind, .mismatch.found)]
    Digest {
        /// The URL.
        url: String,
        /// The difference.
        mismatch: Mismatch,
        /// The lock file, if the expected value is a pin.
        pins: Option<PathBuf>,
    },
    /// The file was fetched but is not usable. It was moved aside.
    #[error("`{key}` was fetched but is not usable; it was kept as `{}`", path.display())]
    Rejected {
        /// Key of the file.
        key: String,
        /// Where the file is.
        path: PathBuf,
        /// The fault.
        #[source]
        source: Box<FileStoreError>,
    },
    /// The disk is full.
    #[error("not enough disk space for `{}`\n  expected: {needed} bytes free\n  found: {free}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Missing bytes of the file.
        needed: u64,
        /// Free bytes on the disk.
        free: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// See [`DriveError`].
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// See [`HubError`].
    #[error(transparent)]
    Hub(#[from] HubError),
    /// All attempts failed.
    #[error("`{key}` could not be fetched in {attempts} attempts; the bytes received are kept")]
    GaveUp {
        /// Key of the file.
        key: String,
        /// Number of attempts.
        attempts: u32,
        /// The error of the last attempt.
        #[source]
        source: Box<FetchError>,
    },
    /// All sources failed.
    #[error("`{key}` could not be fetched from any of {} sources{}", failures.len(), lines(failures))]
    Sources {
        /// Key of the file.
        key: String,
        /// The error of each source.
        failures: Vec<FetchError>,
    },
    /// See [`FileStoreError`].
    #[error(transparent)]
    Store(#[from] FileStoreError),
    /// The caption files of a data set could not be read.
    #[error(transparent)]
    Data(#[from] laps_data::DataError),
}

impl FetchError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Offline { .. } => {
                "fetch it once with network access; `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` disable downloads too"
                    .to_owned()
            }
            Self::NotPinned { .. } => "allow new pins once, and check the pin".to_owned(),
            Self::Redirect { .. } => {
                "a server may redirect to its own hosts only, and never from https to http; nothing was sent there"
                    .to_owned()
            }
            Self::Connect { .. } => {
                "check the network and `HTTPS_PROXY`, then run the same command again to resume".to_owned()
            }
            Self::Certificate { .. } => {
                "set `REQUESTS_CA_BUNDLE` to a PEM file with the certificate authority of your network".to_owned()
            }
            Self::Environment { variable, .. } => format!("change or unset `{variable}`"),
            Self::Status { status: 401 | 403, .. } => "the file is not public, or no longer".to_owned(),
            Self::Status { status: 404 | 410, .. } => {
                "the file was moved or removed: pass the path of a copy".to_owned()
            }
            Self::Status { .. } => "run the same command later to resume".to_owned(),
            Self::Stalled { .. } | Self::Truncated { .. } => {
                "the bytes received are kept: run the same command again to resume".to_owned()
            }
            Self::Page { .. } => "open the URL in a browser to see what the server says".to_owned(),
            Self::Digest { pins: Some(pins), .. } => format!(
                "the file was damaged, or replaced at its source; to accept it, remove its entry from `{}`",
                pins.display()
            ),
            Self::Digest { .. } | Self::Length { .. } => {
                "the file was damaged or replaced at its source; nothing of it was kept".to_owned()
            }
            Self::Disk { .. } => "free disk space, or set `LAPS_ZOO_CACHE` to a folder on a larger disk".to_owned(),
            Self::Rejected { source, .. } => return source.hint(),
            Self::Drive(error) => error.hint(),
            Self::Hub(error) => return error.hint(),
            Self::GaveUp { source, .. } => return source.hint(),
            Self::Sources { failures, .. } => return failures.iter().rev().find_map(Self::hint),
            Self::Store(error) => return error.hint(),
            Self::Data(error) => return error.hint(),
            Self::Address { .. }
            | Self::NoLength { .. }
            | Self::Range { .. }
            | Self::Changed { .. }
            | Self::Encoded { .. }
            | Self::Io(_) => return None,
        })
    }

    /// Whether another attempt may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::Range { .. }
            // The bytes may have been damaged on the way.
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
        ) || matches!(self, Self::Io(IoError { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    }

    /// The error of a file operation; [`FetchError::Disk`] if the disk is full.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Disk { path, needed: 1, free: "none".to_owned() }
            }
            _ => Self::Io(IoError::new(action, path, source)),
        }
    }

    /// The error and its causes on one line, for progress messages.
    pub(crate) fn on_one_line(&self) -> String {
        let mut text = self.to_string().replace("\n  ", "; ");
        let mut cause = self.source();
        while let Some(error) = cause {
            text += &format!(": {}", error.to_string().replace("\n  ", "; "));
            cause = error.source();
        }
        text
    }
}

fn total(of: Option<u64>) -> String {
    of.map_or_else(|| "an unknown number of bytes".to_owned(), |of| format!("{of} bytes"))
}

fn lines(failures: &[FetchError]) -> String {
    failures.iter().map(|failure| format!("\n  {}", failure.on_one_line())).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::FetchError;

    #[test]
    fn full_disk_is_reported_as_such() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = FetchError::io("write", "a.part", Error::from(kind));
            assert!(matches!(&error, FetchError::Disk { .. }) && !error.is_transient(), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.starts_with("free disk space")));
        }
        assert!(matches!(FetchError::io("write", "a", Error::from(ErrorKind::NotFound)), FetchError::Io(_)));
    }
}
