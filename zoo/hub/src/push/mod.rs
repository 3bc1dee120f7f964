//! Uploads of a folder to a repository of the Hugging Face hub.
//!
//! [`Pusher::push`] asks the hub which files it stores as large objects and which it has already, uploads the large objects
//! that are missing, and then makes one commit. The commit names its parent, so that a change by somebody else in between
//! is an error and not overwritten. After an interruption the same call uploads only what is still missing. The calls are
//! those of `huggingface_hub` 2.4 with the transfers `basic` and `multipart`. They were tested against a local
//! server that behaves like the hub, not yet against the hub.

mod api;
mod error;
mod folder;

pub use error::PushError;
pub use folder::{PushFile, folder_files};

use std::{collections::BTreeSet, path::Path, thread};

use laps_files::Progress;
use reqwest::Url;

use crate::fetch::{
    Endpoint, FetchError, FetchSettings, Network, RetryPolicy,
    client::HttpClient,
    redirects::{RedirectPolicy, is_loopback},
    services::token_of_file,
};
use api::{BatchObject, UploadMode};

/// Uploads to repositories of one hub.
pub struct Pusher {
    client: HttpClient,
    hub: Url,
    policy: RedirectPolicy,
    token: String,
    retry: RetryPolicy,
}

/// A push: files and their destination.
#[derive(Clone, Copy, Debug)]
pub struct PushRequest<'a> {
    /// `owner/name`.
    pub repository: &'a str,
    /// The branch, which must exist.
    pub branch: &'a str,
    /// The files.
    pub files: &'a [PushFile],
    /// First line of the commit message.
    pub summary: &'a str,
}

/// The outcome of [`Pusher::push`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// The commit; `None` if the repository had every file already.
    pub commit: Option<String>,
    /// Large objects that were uploaded.
    pub uploaded: BTreeSet<String>,
    /// Large objects that the hub had, although the branch did not have the file.
    pub stored: BTreeSet<String>,
    /// Files that the branch had already.
    pub unchanged: BTreeSet<String>,
    /// Files that the `.gitignore` of the repository leaves out.
    pub ignored: BTreeSet<String>,
}

impl Pusher {
    /// Uses the hub, the token, the retries and the timeouts of `settings`.
    ///
    /// # Errors
    /// Without a token, without network, and for an endpoint that a token must not be sent to.
    pub fn new(settings: &FetchSettings) -> Result<Self, PushError> {
        if settings.network == Network::Offline {
            return Err(PushError::Offline);
        }
        let refuse = |address: String, found: &str| FetchError::Address {
            address,
            expected: "a hub at `https://host`, or at `http://` on this machine",
            found: found.to_owned(),
        };
        let (hub, policy) = match &settings.services.hub {
            Endpoint::Web(url, policy) if url.scheme() == "https" || is_loopback(url) => (url.clone(), policy.clone()),
            Endpoint::Web(url, _) => {
                return Err(refuse(url.to_string(), "plain http, which would reveal the token").into());
            }
            Endpoint::Folder(folder) => return Err(refuse(folder.display().to_string(), "a folder").into()),
        };
        let token = settings.services.token.clone().ok_or(PushError::NoToken)?;
        Ok(Self { client: HttpClient::new(settings.timeouts), hub, policy, token, retry: settings.retry })
    }

    /// Uploads what the branch lacks, in one commit.
    ///
    /// # Errors
    /// [`PushError`]. What was uploaded before is kept by the hub and not uploaded again.
    pub fn push(&self, request: &PushRequest<'_>, progress: &dyn Progress) -> Result<Pushed, PushError> {
        check_name("repository", request.repository, 2)?;
        check_name("branch", request.branch, 1)?;
        let mut pushed = Pushed::default();
        self.retrying(request.repository, progress, || self.push_once(request, &mut pushed, progress))?;
        Ok(pushed)
    }

    /// One round. A round after an interrupted one finds what that one has done.
    fn push_once(
        &self,
        request: &PushRequest<'_>,
        pushed: &mut Pushed,
        progress: &dyn Progress,
    ) -> Result<(), PushError> {
        let parent = self.head(request)?;
        let replies = self.preupload(request)?;
        let (mut large, mut regular) = (Vec::new(), Vec::new());
        for (file, reply) in request.files.iter().zip(replies) {
            // The storage of large objects refuses empty ones.
            let is_large = reply.upload_mode == UploadMode::Lfs && file.bytes > 0;
            if reply.should_ignore {
                pushed.ignored.insert(file.name.clone());
            } else if reply.oid.is_some_and(|oid| oid == file.sha256 || oid == file.git_blob) {
                pushed.unchanged.insert(file.name.clone());
            } else if is_large {
                large.push(file);
            } else {
                regular.push(file);
            }
        }
        if large.is_empty() && regular.is_empty() {
            // A commit whose response was lost.
            pushed.commit = (!pushed.uploaded.is_empty()).then_some(parent);
            return Ok(());
        }
        let objects = if large.is_empty() { Vec::new() } else { self.batch(request, &large)? };
        for (file, object) in large.iter().zip(objects) {
            match object {
                BatchObject { actions: Some(actions), .. } if actions.upload.is_some() => {
                    self.upload_object(request, file, &actions, progress)?;
                    pushed.uploaded.insert(file.name.clone());
                }
                _ if pushed.uploaded.contains(&file.name) => {}
                _ => {
                    pushed.stored.insert(file.name.clone());
                }
            }
        }
        pushed.commit = Some(self.commit(request, &parent, &large, &regular)?);
        Ok(())
    }

    /// Repeats `attempt` while it fails with an error that may pass.
    fn retrying<T>(
        &self,
        task: &str,
        progress: &dyn Progress,
        mut attempt: impl FnMut() -> Result<T, PushError>,
    ) -> Result<T, PushError> {
        let mut attempts = 0;
        loop {
            let error = match attempt() {
                Err(error) if error.is_transient() => error,
                outcome => return outcome,
            };
            attempts += 1;
            if attempts >= self.retry.attempts {
                return Err(PushError::GaveUp { task: task.to_owned(), attempts, source: Box::new(error) });
            }
            progress.message(task, &error.on_one_line());
            thread::sleep(self.retry.delay(attempts, error.retry_after()));
        }
    }
}

/// Reads a token from the file at `path`.
///
/// # Errors
/// [`PushError::TokenFile`].
pub fn read_token(path: &Path) -> Result<String, PushError> {
    token_of_file(path).ok_or_else(|| PushError::TokenFile { path: path.to_owned() })
}

/// Checks the name of a repository or branch, which becomes a part of URLs.
fn check_name(what: &'static str, name: &str, components: usize) -> Result<(), PushError> {
    let is_plain = |part: &str| {
        let letters = part.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter));
        letters && !part.is_empty() && !part.starts_with('.')
    };
    if name.split('/').count() == components && name.split('/').all(is_plain) {
        return Ok(());
    }
    let expected = if components == 2 { "`owner/name`" } else { "a name without `/`" };
    Err(PushError::Name { what, expected, found: name.escape_debug().to_string() })
}
