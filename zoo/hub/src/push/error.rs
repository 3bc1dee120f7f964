//! Errors of uploads.

use std::{io, path::PathBuf};

use crate::fetch::FetchError;

/// An error of this module.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// There is no token.
    #[error("an upload needs a token\n  expected: a token that may write to the repository\n  found: none")]
    NoToken,
    /// The network is disabled.
    #[error("an upload needs the network\n  expected: network access\n  found: it is disabled")]
    Offline,
    /// A token file cannot be used.
    #[error("`{}` is not a token file\n  expected: one line with a token\n  found: no file, or another content", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
    },
    /// The name of a repository or branch.
    #[error("unusable name of a {what}\n  expected: {expected}\n  found: `{found}`")]
    Name {
        /// `repository` or `branch`.
        what: &'static str,
        /// The allowed names.
        expected: &'static str,
        /// The name.
        found: String,
    },
    /// A link, a device, or a name that a repository must not have.
    #[error("`{}` cannot be pushed\n  expected: files and folders with plain names\n  found: a link, a device or another name", path.display())]
    Irregular {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A file was changed after it was hashed.
    #[error("`{}` was changed during the upload\n  expected: sha256 {expected}\n  found: sha256 {found}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its hash at the start.
        expected: String,
        /// Its hash now.
        found: String,
    },
    /// The hub does not accept the token.
    #[error("the hub does not accept the token\n  expected: a valid token\n  found: status 401{}", said(message))]
    Unauthorized {
        /// The message of the hub.
        message: String,
    },
    /// The token may not write to the repository.
    #[error(
        "the token may not write to `{repository}`\n  expected: a token with write access\n  found: status 403{}",
        said(message)
    )]
    Forbidden {
        /// `owner/name`.
        repository: String,
        /// The message of the hub.
        message: String,
    },
    /// There is no such repository or branch, or the token may not see it.
    #[error(
        "there is no branch `{branch}` of `{repository}`\n  expected: an existing repository\n  found: status 404{}",
        said(message)
    )]
    Absent {
        /// `owner/name`.
        repository: String,
        /// The branch.
        branch: String,
        /// The message of the hub.
        message: String,
    },
    /// The branch has changed since the upload began.
    #[error(
        "`{branch}` of `{repository}` has changed during the upload\n  expected: the commit {parent}\n  found: another one{}",
        said(message)
    )]
    Conflict {
        /// `owner/name`.
        repository: String,
        /// The branch.
        branch: String,
        /// The commit that the upload was based on.
        parent: String,
        /// The message of the hub.
        message: String,
    },
    /// Another HTTP error.
    #[error("HTTP error from `{url}`\n  expected: status 200\n  found: status {status}{}", said(message))]
    Status {
        /// The URL.
        url: String,
        /// HTTP status.
        status: u16,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
        /// The message of the server.
        message: String,
    },
    /// The hub refuses a large object.
    #[error("the hub refuses `{name}`\n  expected: an upload URL\n  found: {message}")]
    Object {
        /// The file.
        name: String,
        /// The message of the hub.
        message: String,
    },
    /// A response that is not as documented.
    #[error("`{url}` sends an unexpected response\n  expected: {expected}\n  found: {found}")]
    Response {
        /// The URL.
        url: String,
        /// The documented response.
        expected: String,
        /// The received response.
        found: String,
    },
    /// See [`FetchError`].
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// All attempts failed.
    #[error("`{task}` could not be uploaded in {attempts} attempts; the hub keeps the large objects that are complete")]
    GaveUp {
        /// The repository or the file.
        task: String,
        /// Number of attempts.
        attempts: u32,
        /// The error of the last attempt.
        #[source]
        source: Box<PushError>,
    },
}

impl PushError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoToken => "set `HF_TOKEN`, or name a file with the token".to_owned(),
            Self::Offline => "unset `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE`".to_owned(),
            Self::Unauthorized { .. } => "create a token with write access in the settings of your account".to_owned(),
            Self::Forbidden { .. } => "use a token with write access to this repository".to_owned(),
            Self::Absent { .. } => {
                "create the repository on the hub first; a token without access to a private one gets the same response"
                    .to_owned()
            }
            Self::Conflict { .. } => {
                "look at the new commit, then run the same command again: it uploads only what is missing".to_owned()
            }
            Self::Changed { .. } => "run the same command again when nothing writes the file any more".to_owned(),
            Self::Status { .. } => "run the same command later: it uploads only what is missing".to_owned(),
            Self::Fetch(error) => return error.hint(),
            Self::GaveUp { source, .. } => return source.hint(),
            Self::TokenFile { .. }
            | Self::Name { .. }
            | Self::Irregular { .. }
            | Self::Read { .. }
            | Self::Object { .. }
            | Self::Response { .. } => return None,
        })
    }

    /// Whether another attempt may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Fetch(error) => error.is_transient(),
            _ => false,
        }
    }

    /// The delay that the server asks for, in seconds.
    pub(super) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(super) fn on_one_line(&self) -> String {
        match self {
            Self::Fetch(error) => error.on_one_line(),
            other => other.to_string().replace("\n  ", "; "),
        }
    }
}

/// The message of a server in parentheses, unless it is empty.
fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
