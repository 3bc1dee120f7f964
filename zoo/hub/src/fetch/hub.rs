//! Files of the Hugging Face hub.
//!
//! The first response for a file has its commit (`X-Repo-Commit`) and, for a large file, its size and SHA-256
//! (`X-Linked-Size`, `X-Linked-Etag`), and redirects to the storage. The `ETag` of a small file is its git blob id.

use std::path::{Path, PathBuf};

use reqwest::header::{ETAG, HeaderMap, RETRY_AFTER};

use super::{
    FetchError,
    client::{HttpClient, HttpRequest, HttpResponse},
    local_file,
    services::{Endpoint, FileLocation},
    source::{ByteSource, OpenedSource, ResumePoint, interpret},
};
use laps_files::{ExpectedDigest, is_hex};

/// Maximum size in bytes of a reference in the cache of `huggingface_hub`: a commit and a line end.
const MAX_REFERENCE_BYTES: u64 = 128;

/// Repositories that the hub has renamed, by both names: `huggingface_hub` may have cached a file under either.
const RENAMED: [(&str, &str); 1] = [("bert-base-uncased", "google-bert/bert-base-uncased")];

/// An error response of the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The file is private or gated.
    #[error("`{file}` of `{repository}` is not public\n  expected: the file\n  found: status {status}")]
    Private {
        /// `owner/name`.
        repository: String,
        /// The file in the repository.
        file: String,
        /// HTTP status.
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
        /// The file in the repository.
        file: String,
        /// The report of the hub.
        found: String,
    },
    /// The hub answers for another commit than the requested one.
    #[error("`{file}` of `{repository}` is from another commit\n  expected: {expected}\n  found: {found}")]
    Revision {
        /// `owner/name`.
        repository: String,
        /// The file in the repository.
        file: String,
        /// The requested commit.
        expected: String,
        /// The commit in the response.
        found: String,
    },
}

impl HubError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Private { token: true, .. } => {
                "the token has no access: accept the terms on the page of the repository, or use another token"
                    .to_owned()
            }
            Self::Private { token: false, .. } => "set `HF_TOKEN` to a token with access to the repository".to_owned(),
            Self::Absent { .. } => {
                "the file was moved or removed; set `HF_ENDPOINT` to a mirror of the hub that still has it".to_owned()
            }
            Self::Revision { .. } => return None,
        })
    }
}

/// A file of a repository.
pub(super) struct HubFile<'a> {
    pub(super) client: &'a HttpClient,
    pub(super) hub: &'a Endpoint,
    pub(super) token: Option<&'a str>,
    pub(super) repository: &'a str,
    /// A commit, or a branch that is not pinned yet.
    pub(super) revision: String,
    pub(super) file: &'a str,
}

impl ByteSource for HubFile<'_> {
    fn label(&self) -> String {
        let Self { hub, repository, revision, file, .. } = self;
        let base = match hub {
            Endpoint::Web(url, _) => url.as_str().trim_end_matches('/').to_owned(),
            Endpoint::Folder(folder) => folder.display().to_string(),
        };
        format!("{base}/{repository}/resolve/{revision}/{file}")
    }

    fn is_local(&self) -> bool {
        matches!(self.hub, Endpoint::Folder(_))
    }

    fn open(&mut self, resume: Option<&ResumePoint>) -> Result<OpenedSource, FetchError> {
        let this: &Self = self;
        let Self { repository, revision, file, .. } = this;
        let label = this.label();
        match this.hub.join(&format!("{repository}/resolve/{revision}/{file}"))? {
            FileLocation::Local(path) => local_file::open(&path, resume),
            FileLocation::Web(url, policy) => {
                let request = HttpRequest { label: &label, url, policy: &policy, resume, token: this.token };
                let HttpResponse { response, redirects } = self.client.get(&request)?;
                this.check_status(&label, response.status().as_u16(), response.headers())?;
                let all_headers = redirects.iter().chain([response.headers()]);
                let stated = all_headers.map(stated).fold(StatedFile::default(), StatedFile::or);
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
                Ok(OpenedSource { stated: stated.expected, revision, ..opened })
            }
        }
    }
}

impl HubFile<'_> {
    fn check_status(&self, label: &str, status: u16, headers: &HeaderMap) -> Result<(), FetchError> {
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

/// The headers of the hub about a file.
#[derive(Default)]
struct StatedFile {
    expected: ExpectedDigest,
    commit: Option<String>,
}

impl StatedFile {
    /// The first response counts; later ones are from the storage.
    fn or(self, later: Self) -> Self {
        if self.expected.is_hashed() || self.commit.is_some() { self } else { later }
    }
}

fn stated(headers: &HeaderMap) -> StatedFile {
    let tag = |name: &str| text(headers, name).map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
    let sha256 = tag("x-linked-etag").filter(|tag| is_hex(tag, 64));
    let commit = text(headers, "x-repo-commit");
    // Any server may send an ETag; only the hub sends a commit with it.
    let small = || tag(ETAG.as_str()).filter(|tag| commit.is_some() && is_hex(tag, 40));
    let git_blob = if sha256.is_none() { small() } else { None };
    let bytes = text(headers, "x-linked-size").filter(|_| sha256.is_some()).and_then(|size| size.parse().ok());
    StatedFile { expected: ExpectedDigest { bytes, sha256, git_blob, md5: None }, commit }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The file in the cache of `huggingface_hub`, and its commit, if it is there. A renamed repository is looked up by
/// both of its names.
pub(super) fn cached(cache: &Path, repository: &str, revision: &str, file: &str) -> Option<(PathBuf, String)> {
    let other_name = RENAMED.iter().find_map(|&(old, new)| match repository {
        name if name == old => Some(new),
        name if name == new => Some(old),
        _ => None,
    });
    let mut names = std::iter::once(repository).chain(other_name);
    names.find_map(|name| cached_as(cache, name, revision, file))
}

fn cached_as(cache: &Path, repository: &str, revision: &str, file: &str) -> Option<(PathBuf, String)> {
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    let commit = if is_hex(revision, 40) {
        revision.to_owned()
    } else {
        let reference = folder.join("refs").join(laps_files::safe_relative_path(revision)?);
        let is_small = fs_err::metadata(&reference).ok()?.len() <= MAX_REFERENCE_BYTES;
        is_small.then(|| fs_err::read_to_string(reference).ok()).flatten()?.trim().to_owned()
    };
    let path = folder.join("snapshots").join(&commit).join(file);
    (is_hex(&commit, 40) && path.is_file()).then_some((path, commit))
}
