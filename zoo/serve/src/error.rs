//! The error of this crate.

use std::io;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of starting a server. Errors of requests are answers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// Host and port.
        address: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The threads of the server cannot be started.
    #[error("the server cannot be started")]
    Start {
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A limit that no request could meet.
    #[error("the limit `{limit}` cannot be used\n  expected: {expected}\n  found: {found}")]
    Limit {
        /// The limit.
        limit: &'static str,
        /// Valid values.
        expected: String,
        /// Its value.
        found: String,
    },
    /// A token that no client can send.
    #[error(
        "the token cannot be used\n  expected: 1 or more printable ASCII characters without spaces\n  found: {found}"
    )]
    Token {
        /// The actual content.
        found: String,
    },
}

impl Error {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program listens there: choose another port, or port 0 for any free one".to_owned())
            }
            Self::Bind { .. } | Self::Start { .. } | Self::Limit { .. } | Self::Token { .. } => None,
        }
    }
}
