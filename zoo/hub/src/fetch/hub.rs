//! Files of the Hugging Face hub.
//!
//! The first answer for a file names its commit (`X-Repo-Commit`) and, for a large file, its size and SHA-256
//! (`X-Linked-Size`, `X-Linked-Etag`), before it sends on to where the bytes are. A small file has git's blob id as `ETag`.

use std::path::{Path, PathBuf};

use reqwest::header::{ETAG, HeaderMap, RETRY_AFTER};

use super::{
    FetchError,
    body::{Opened, Resume, Source, interpret},
    client::{Answer, Ask, Client},
    folder,
    services::{Base, Place},
};
use laps_files::{Expected, is_hex};

/// Longest text of a reference in the hub's cache: a commit and a line end.
const LONGEST_REFERENCE: u64 = 128;

/// An answer that is no file.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Only some accounts may have it.
    #[error("`{file}` of `{repository}` is not public\n  expected: the file\n  found: status {status}")]
    Private {
        /// `owner/name`.
        repository: String,
        /// The file.
        file: String,
        /// The status.
        status: u16,
        /// Whether a token was sent.
        token: bool,
    },
    /// There is no such repository, revision or file.
    #[error("`{file}` of `{repository}` at `{revision}` is not on the hub\n  expected: the file\n  found: {found}")]
    Absent {
        /// `owner/name`.
        repository: String,
        /// The revision.
        revision: String,
        /// The file.
        file: String,
        /// What the hub says.
        found: String,
    },
    /// The branch stands for another commit than when it was pinned.
    #[error("`{file}` of `{repository}` comes from another commit\n  expected: {expected}\n  found: {found}")]
    Revision {
        /// `owner/name`.
        repository: String,
        /// The file.
        file: String,
        /// The commit that was asked for.
        expected: String,
        /// The commit that answers.
        found: String,
    },
}

impl HubError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Private { token: true, .. } => {
                "the account of the token may not see it: accept its terms on its page, or use another token".to_owned()
            }
            Self::Private { token: false, .. } => "set `HF_TOKEN` to a token of an account that may see it".to_owned(),
            Self::Absent { .. } => {
                "it was moved or removed; `HF_ENDPOINT` names another hub that may have it".to_owned()
            }
            Self::Revision { .. } => return None,
        })
    }
}

/// A file of a repository.
pub(super) struct HubFile<'a> {
    pub(super) client: &'a Client,
    pub(super) hub: &'a Base,
    pub(super) token: Option<&'a str>,
    pub(super) repository: &'a str,
    /// A commit, or a branch that has not been pinned yet.
    pub(super) revision: String,
    pub(super) file: &'a str,
}

impl Source for HubFile<'_> {
    fn label(&self) -> String {
        let Self { hub, repository, revision, file, .. } = self;
        let base = match hub {
            Base::Web(url, _) => url.as_str().trim_end_matches('/').to_owned(),
            Base::Folder(folder) => folder.display().to_string(),
        };
        format!("{base}/{repository}/resolve/{revision}/{file}")
    }

    fn is_local(&self) -> bool {
        matches!(self.hub, Base::Folder(_))
    }

    fn open(&mut self, resume: Option<&Resume>) -> Result<Opened, FetchError> {
        let this: &Self = self;
        let Self { repository, revision, file, .. } = this;
        let label = this.label();
        match this.hub.below(&format!("{repository}/resolve/{revision}/{file}"))? {
            Place::File(path) => folder::open(&path, resume),
            Place::Web(url, policy) => {
                let ask = Ask { label: &label, url, policy: &policy, resume, token: this.token };
                let Answer { response, hops } = self.client.get(&ask)?;
                this.refuse(&label, response.status().as_u16(), response.headers())?;
                let stated = hops.iter().chain([response.headers()]).map(stated).fold(Stated::default(), Stated::or);
                let commit = stated.commit.filter(|commit| is_hex(commit, 40));
                if let Some(found) = &commit
                    && is_hex(revision, 40)
                    && found != revision
                {
                    let [repository, file] = [*repository, *file].map(str::to_owned);
                    let (expected, found) = (revision.clone(), found.clone());
                    return Err(HubError::Revision { repository, file, expected, found }.into());
                }
                let opened = interpret(&label, response, resume)?;
                let revision = commit.or_else(|| is_hex(revision, 40).then(|| revision.clone()));
                Ok(Opened { stated: stated.expected, revision, ..opened })
            }
        }
    }
}

impl HubFile<'_> {
    fn refuse(&self, label: &str, status: u16, headers: &HeaderMap) -> Result<(), FetchError> {
        let [repository, file] = [self.repository, self.file].map(str::to_owned);
        let code = text(headers, "x-error-code");
        Err(match (status, code.as_deref()) {
            (200..=299, _) | (416, _) => return Ok(()),
            (401 | 403, _) => HubError::Private { repository, file, status, token: self.token.is_some() }.into(),
            (404 | 410, code) => {
                let found = match code {
                    Some("RepoNotFound") => "no such repository, or a private one".to_owned(),
                    Some("RevisionNotFound") => "no such revision".to_owned(),
                    Some("EntryNotFound") => "no such file".to_owned(),
                    _ => format!("status {status}"),
                };
                HubError::Absent { repository, revision: self.revision.clone(), file, found }.into()
            }
            (status, _) => {
                let retry_after =
                    headers.get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok());
                FetchError::Status { url: label.to_owned(), status, retry_after }
            }
        })
    }
}

/// What the hub says of a file beside its bytes.
#[derive(Default)]
struct Stated {
    expected: Expected,
    commit: Option<String>,
}

impl Stated {
    /// The first of several answers counts; those after it come from where the bytes are.
    fn or(self, later: Self) -> Self {
        if self.expected.is_hashed() || self.commit.is_some() { self } else { later }
    }
}

fn stated(headers: &HeaderMap) -> Stated {
    let tag = |name: &str| text(headers, name).map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
    let sha256 = tag("x-linked-etag").filter(|tag| is_hex(tag, 64));
    let commit = text(headers, "x-repo-commit");
    // Any server has ETags; only beside a commit they are the hub's.
    let small = || tag(ETAG.as_str()).filter(|tag| commit.is_some() && is_hex(tag, 40));
    let git_blob = if sha256.is_none() { small() } else { None };
    let bytes = text(headers, "x-linked-size").filter(|_| sha256.is_some()).and_then(|size| size.parse().ok());
    Stated { expected: Expected { bytes, sha256, git_blob, md5: None }, commit }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The file in the cache of the hub's own libraries, and its commit, where it is there.
pub(super) fn cached(cache: &Path, repository: &str, revision: &str, file: &str) -> Option<(PathBuf, String)> {
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    let commit = if is_hex(revision, 40) {
        revision.to_owned()
    } else {
        let reference = folder.join("refs").join(laps_files::inside(revision)?);
        let short = fs_err::metadata(&reference).ok()?.len() <= LONGEST_REFERENCE;
        short.then(|| fs_err::read_to_string(reference).ok()).flatten()?.trim().to_owned()
    };
    let path = folder.join("snapshots").join(&commit).join(file);
    (is_hex(&commit, 40) && path.is_file()).then_some((path, commit))
}
