//! An HTTP server for one model and one index: search, embeddings, scores and explanations, and a page that uses them.
//!
//! [`Server::bind`] opens the port, and [`Server::run`] serves until a flag is set. Two parts work together:
//!
//! - **HTTP.** A tokio runtime on threads of its own reads requests, checks them against the [`Limits`], decodes images and
//!   writes answers.
//! - **The model.** The thread that calls [`Server::run`] owns it. Requests wait in a bounded queue; all that wait
//!   are encoded together. What does not fit into the queue is refused with status 429.
//!
//! A request that is encoded alone has the same bits as `laps-zoo search`, `score`, `embed` and `explain`. In a batch with
//! others the last bits may differ, as with another batch size there.
//!
//! No part of a request is used as a path. Images of the index are addressed by item number, and what is sent is a JPEG
//! file that was made from the decoded pixels.

mod api;
mod app;
mod body;
mod error;
mod failure;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod guard;
mod handlers;
mod metrics;
mod options;
mod server;
mod stream;
mod worker;

pub use error::{Error, Result};
#[cfg(fuzzing)]
pub use fuzzing::body_status;
pub use options::{Limits, ServeOptions};
pub use server::{ServeSummary, Server};
