//! Server options.

use std::{path::PathBuf, time::Duration};

use crate::{Error, Result};

/// Address, access and limits of a server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Host name or address.
    pub host: String,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Token that requests must carry as `Authorization: Bearer TOKEN`, except for health, the page and the API description.
    pub token: Option<String>,
    /// Folder of the indexed images. Default: the one that the index names.
    pub images: Option<PathBuf>,
    /// Whether each request is logged to standard error, as a line of JSON.
    pub log: bool,
    /// Limits of requests.
    pub limits: Limits,
}

/// Limits of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Texts and images that wait or are encoded. More are refused with status 429.
    pub queue: usize,
    /// Texts and images of one request.
    pub inputs: usize,
    /// Bytes of the body of a request.
    pub body_bytes: usize,
    /// Bytes of the bodies of all requests that are in memory at one time: being read, or waiting to be decoded or encoded. More
    /// are refused with status 429.
    pub total_body_bytes: usize,
    /// Pixels of an image.
    pub pixels: usize,
    /// Open connections. Further ones wait.
    pub connections: usize,
    /// Time in which the headers of a request must arrive, and then its body. A client that takes no part of its answer for as
    /// long is cut off.
    pub read_time: Duration,
    /// Time in which a request must be answered once its body has arrived.
    pub request_time: Duration,
    /// Time in which requests in flight must finish after the stop.
    pub stop_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 256,
            inputs: 64,
            body_bytes: 32 << 20,
            total_body_bytes: 256 << 20,
            pixels: 50_000_000,
            connections: 1024,
            read_time: Duration::from_secs(30),
            request_time: Duration::from_secs(60),
            stop_time: Duration::from_secs(30),
        }
    }
}

impl ServeOptions {
    /// Checks limits and token.
    ///
    /// # Errors
    /// [`Error::Limit`] and [`Error::Token`].
    pub(crate) fn check(&self) -> Result<()> {
        let Limits { queue, inputs, body_bytes, total_body_bytes, .. } = self.limits;
        if inputs > queue {
            return Err(Error::Limit {
                limit: "inputs",
                expected: format!("at most the {queue} of the queue"),
                found: inputs.to_string(),
            });
        }
        if body_bytes > total_body_bytes {
            return Err(Error::Limit {
                limit: "body_bytes",
                expected: format!("at most the {total_body_bytes} bytes of all bodies"),
                found: body_bytes.to_string(),
            });
        }
        match &self.token {
            Some(token) if token.is_empty() => Err(Error::Token { found: "nothing".to_owned() }),
            Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(Error::Token { found: "another character".to_owned() })
            }
            _ => Ok(()),
        }
    }
}
