//! `laps-zoo serve`

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use laps::{Backends, Workload};
use laps_files::strip_mark;
use laps_hub::registry;
use laps_serve::{Limits, ServeOptions, Server};

use crate::{
    interrupt,
    model::{ModelOptions, summary_line},
    open_store::open_store,
    report::{CommandStatus, print},
};

/// Serve search, embeddings, scores and explanations over HTTP, with a page for the browser
#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Index written by `laps-zoo index`: a file, or `postgres://USER@HOST/DATABASE?collection=NAME`
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Host name or address to listen on; other machines reach the server only under an address of this one
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value = "8080")]
    port: u16,
    /// Token that requests must carry as `Authorization: Bearer TOKEN`
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File whose first line is the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Folder of the indexed images [default: the one in the index]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Texts and images that wait or are encoded; more are refused with status 429
    #[arg(long, value_name = "N", default_value = "256")]
    queue: NonZeroUsize,
    /// Texts and images of one request
    #[arg(long, value_name = "N", default_value = "64")]
    max_inputs: NonZeroUsize,
    /// Size of the body of a request, in bytes
    #[arg(long, value_name = "N", default_value = "33554432")]
    max_body: NonZeroUsize,
    /// Pixels of an image
    #[arg(long, value_name = "N", default_value = "50000000")]
    max_pixels: NonZeroUsize,
    /// Open connections; further ones wait
    #[arg(long, value_name = "N", default_value = "1024")]
    max_connections: NonZeroUsize,
    /// Seconds in which the headers of a request must arrive, and then its body; a client that takes no part of its answer
    /// for as long is cut off
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    read_timeout: NonZeroUsize,
    /// Seconds in which a request must be answered
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    request_timeout: NonZeroUsize,
    /// Seconds in which requests in flight must finish after SIGTERM or Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    stop_timeout: NonZeroUsize,
    #[command(flatten)]
    model: ModelOptions,
}

impl ServeArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.model.needs_libtorch()
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let token = match &self.token_file {
            Some(path) => {
                let text = fs_err::read_to_string(path)?;
                Some(strip_mark(&text).lines().next().unwrap_or_default().to_owned())
            }
            None => self.token,
        };
        let seconds = |seconds: NonZeroUsize| Duration::from_secs(seconds.get() as u64);
        let limits = Limits {
            queue: self.queue.get(),
            inputs: self.max_inputs.min(self.queue).get(),
            body_bytes: self.max_body.get(),
            total_body_bytes: Limits::default().total_body_bytes.max(self.max_body.get()),
            pixels: self.max_pixels.get(),
            connections: self.max_connections.get(),
            read_time: seconds(self.read_timeout),
            request_time: seconds(self.request_timeout),
            stop_time: seconds(self.stop_timeout),
        };
        let log = !self.model.quiet;
        let options = ServeOptions { host: self.host, port: self.port, token, images: self.images, log, limits };
        let index = open_store(&self.index)?;
        let description = index.description();
        let mut model = self.model;
        if model.entry.is_none() && model.graphs.is_none() && registry::names().contains(&&*description.model.entry) {
            model.entry = Some(description.model.entry.clone());
        }
        // The same engine as `search`, so that answers are the same.
        let (model, _) = model.open(backends, Workload::Few)?;
        description.check_model(index.location(), model.used()).map_err(laps::Error::from)?;
        let server = Server::bind(options)?;
        // The first signal stops the server, and not the work of the model, which answers what is in flight.
        let stop = interrupt::flag(interrupt::Deadline::StateSaved);
        let items = format!("{} {}", index.item_count(None)?, description.kind);
        print(&format!("{}\n{items}\nlistening on http://{}\n", summary_line(&model), server.address()))?;
        if server.is_open_to_others() {
            eprintln!("warning: other machines can use this server without a token; `--token-file` sets one");
        }
        let summary = server.run(&model, index, stop)?;
        Ok(if summary.finished { CommandStatus::Success } else { CommandStatus::CheckFailed })
    }
}
