//! Public folders and files of Google Drive, read from its web pages.
//!
//! Drive has an API only for programs with a key. A folder is listed by its embedded view. A file is requested as a
//! confirmed download; if Drive asks for confirmation anyway, its form is submitted unchanged. Every other response is
//! an error.
//!
//! The pages are those that gdown 6.5.1 expects. They were tested against servers that answer like Drive, not yet
//! against Drive itself.

mod error;
mod page;

use std::collections::BTreeSet;

use reqwest::{
    Url,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE},
};

pub use error::DriveError;
#[cfg(test)]
pub(crate) use page::is_id;
use page::{DrivePage, FolderListing};
pub(crate) use page::{read_listing, read_page};

use super::{
    FetchError,
    client::{HttpClient, HttpRequest, HttpResponse, without_query},
    html::describe_page,
    redirects::RedirectPolicy,
    services::{DRIVE_FILES, DRIVE_PAGES, Endpoint, FileLocation},
    source::{ByteSource, OpenedSource, ResumePoint, interpret},
};

/// Maximum number of forms submitted for one file.
const MAX_FORMS: usize = 5;

/// Maximum number of folders listed for one file. A checkpoint is at the top of its folder, next to its logs.
const MAX_FOLDERS: usize = 20;

/// Maximum depth of these folders.
const MAX_DEPTH: usize = 2;

/// A file in a public folder.
pub(super) struct DriveFile<'a> {
    pub(super) client: &'a HttpClient,
    pub(super) pages: &'a Endpoint,
    pub(super) files: &'a Endpoint,
    pub(super) folder: &'a str,
    pub(super) file: &'a str,
    /// Drive id of the file, once it was looked up.
    pub(super) id: Option<String>,
}

impl ByteSource for DriveFile<'_> {
    fn label(&self) -> String {
        match &self.id {
            Some(id) => format!("{DRIVE_PAGES}/file/d/{id}"),
            None => format!("{DRIVE_PAGES}/drive/folders/{}", self.folder),
        }
    }

    fn identity(&self) -> String {
        format!("drive:{}/{}", self.folder, self.file)
    }

    fn open(&mut self, resume: Option<&ResumePoint>) -> Result<OpenedSource, FetchError> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => self.id.insert(self.find()?).clone(),
        };
        match self.files.join(&format!("download?id={id}&export=download&confirm=t"))? {
            FileLocation::Web(url, policy) => self.download(&id, url, &policy, resume),
            FileLocation::Local(_) => Err(DriveError::Gone { id, kind: "file" }.into()),
        }
    }
}

impl DriveFile<'_> {
    /// Looks up the id of the file in the folder, then level by level in its subfolders. The name must be unique on its
    /// level.
    fn find(&self) -> Result<String, FetchError> {
        let mut level = vec![self.folder.to_owned()];
        let mut seen = BTreeSet::from([self.folder.to_owned()]);
        let mut names = Vec::new();
        for _ in 0..=MAX_DEPTH {
            let mut ids = Vec::new();
            let mut next_level = Vec::new();
            for folder in &level {
                for entry in self.list(folder)?.entries {
                    if entry.is_folder {
                        if seen.len() < MAX_FOLDERS && seen.insert(entry.id.clone()) {
                            next_level.push(entry.id);
                        }
                    } else if entry.name == self.file {
                        ids.push(entry.id);
                    } else {
                        names.push(entry.name);
                    }
                }
            }
            ids.sort();
            ids.dedup();
            match (ids.pop(), ids.len()) {
                (Some(id), 0) => return Ok(id),
                (Some(_), more) => {
                    let (folder, file) = (self.folder.to_owned(), self.file.to_owned());
                    return Err(DriveError::Ambiguous { folder, file, count: more + 1 }.into());
                }
                (None, _) => level = next_level,
            }
        }
        Err(DriveError::NotInFolder { folder: self.folder.to_owned(), file: self.file.to_owned(), names }.into())
    }

    fn list(&self, folder: &str) -> Result<FolderListing, FetchError> {
        let id = || folder.to_owned();
        let label = format!("{DRIVE_PAGES}/drive/folders/{folder}");
        let FileLocation::Web(url, policy) = self.pages.join(&format!("embeddedfolderview?id={folder}"))? else {
            return Err(DriveError::Gone { id: id(), kind: "folder" }.into());
        };
        let request = HttpRequest { label: &label, url, policy: &policy, resume: None, token: None };
        let response = self.client.get(&request).map_err(|error| sign_in_as_private(error, folder, "folder"))?;
        check_status(&response, &label, folder, "folder")?;
        let page = self.client.page(&label, response.response)?;
        read_listing(&page).ok_or_else(|| {
            DriveError::Layout { id: id(), expected: "the listing of a folder", found: describe_page(&page) }.into()
        })
    }

    fn download(
        &self,
        id: &str,
        mut url: Url,
        policy: &RedirectPolicy,
        resume: Option<&ResumePoint>,
    ) -> Result<OpenedSource, FetchError> {
        let label = self.label();
        for _ in 0..=MAX_FORMS {
            let request = HttpRequest { label: &label, url: url.clone(), policy, resume, token: None };
            let response = self.client.get(&request).map_err(|error| sign_in_as_private(error, id, "file"))?;
            let headers = response.response.headers();
            let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let is_page = content_type.trim().to_ascii_lowercase().starts_with("text/html");
            // A file that is itself a web page would be an attachment, but none of those fetched here is one.
            if headers.contains_key(CONTENT_DISPOSITION) && !is_page {
                return interpret(&label, response.response, resume);
            }
            if !is_page {
                check_status(&response, &label, id, "file")?;
                let found = format!("a response of type `{}`", content_type.escape_debug());
                return Err(unknown_layout(id, found));
            }
            let status = response.response.status();
            if matches!(status.as_u16(), 404 | 410 | 416 | 429 | 500..) {
                check_status(&response, &label, id, "file")?;
            }
            let page = self.client.page(&label, response.response)?;
            match read_page(&page) {
                DrivePage::Refused(words) => return Err(DriveError::Quota { id: id.to_owned(), words }.into()),
                DrivePage::Confirm { action, inputs } => url = self.form_url(id, &url, policy, (&action, &inputs))?,
                DrivePage::Unknown if matches!(status.as_u16(), 401 | 403) => {
                    return Err(DriveError::Private { id: id.to_owned(), kind: "file" }.into());
                }
                DrivePage::Unknown => return Err(unknown_layout(id, describe_page(&page))),
            }
        }
        let expected = format!("at most {MAX_FORMS} forms");
        Err(DriveError::Form { id: id.to_owned(), expected, found: "one more".to_owned() }.into())
    }

    /// The URL that submitting a form leads to.
    fn form_url(
        &self,
        id: &str,
        from: &Url,
        policy: &RedirectPolicy,
        (action, inputs): (&str, &[(String, String)]),
    ) -> Result<Url, FetchError> {
        let refuse = |expected: String, found: String| DriveError::Form { id: id.to_owned(), expected, found };
        let action = self.replace_host(action);
        let mut url = from.join(&action).map_err(|error| refuse("a URL".to_owned(), error.to_string()))?;
        if !policy.allows(from, &url) {
            return Err(refuse(policy.describe(), format!("`{}`", without_query(&url))).into());
        }
        if !inputs.is_empty() {
            url.query_pairs_mut().clear().extend_pairs(inputs);
        }
        let ids: Vec<String> =
            url.query_pairs().filter(|(name, _)| name == "id").map(|(_, value)| value.into_owned()).collect();
        if ids != [id] {
            return Err(refuse(format!("the file `{id}`"), format!("{ids:?}")).into());
        }
        Ok(url)
    }

    /// Replaces the hosts of Drive in a form by the configured endpoint.
    fn replace_host(&self, action: &str) -> String {
        let Endpoint::Web(base, _) = self.files else { return action.to_owned() };
        let base = base.as_str().trim_end_matches('/');
        for host in [DRIVE_FILES, DRIVE_PAGES] {
            if base != host
                && let Some(path) = action.strip_prefix(host)
                && path.starts_with('/')
            {
                return format!("{base}{path}");
            }
        }
        action.to_owned()
    }
}

fn unknown_layout(id: &str, found: String) -> FetchError {
    DriveError::Layout { id: id.to_owned(), expected: "the file, or a form to confirm its download", found }.into()
}

/// Drive redirects requests for a private file to the sign-in page of another host.
fn sign_in_as_private(error: FetchError, id: &str, kind: &'static str) -> FetchError {
    match error {
        FetchError::Redirect { to, .. } if to.starts_with("https://accounts.google.com/") => {
            DriveError::Private { id: id.to_owned(), kind }.into()
        }
        other => other,
    }
}

fn check_status(response: &HttpResponse, label: &str, id: &str, kind: &'static str) -> Result<(), FetchError> {
    let id = id.to_owned();
    match response.response.status().as_u16() {
        200 => Ok(()),
        401 | 403 => Err(DriveError::Private { id, kind }.into()),
        404 | 410 => Err(DriveError::Gone { id, kind }.into()),
        status => Err(FetchError::Status { url: label.to_owned(), status, retry_after: None }),
    }
}
