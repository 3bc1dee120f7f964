//! Public folders and files of Google Drive, which has no interface for programs without a key: pages are read.
//!
//! A folder is listed by its embedded view. A file is asked for as a confirmed download; where Drive asks to confirm it all
//! the same, the form is filled in as it stands. Each other answer is an error of its own. The pages are those that gdown
//! 6.5.1 expects; they were tested against servers that answer like Drive, and not yet against Drive.

mod error;
mod html;
mod page;

use std::collections::BTreeSet;

use reqwest::{
    Url,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE},
};

pub use error::DriveError;
pub use page::{Entry, Listing, Notice, is_id, read_listing, read_notice, title};

use super::{
    FetchError,
    body::{self, Opened, Resume, Source, interpret},
    client::{Answer, Ask, Client},
    policy::Policy,
    services::{Base, DRIVE_FILES, DRIVE_PAGES, Place},
};

/// Most forms that are filled in for one file.
const MOST_STEPS: usize = 5;

/// Most folders that are looked into for one file, and how deep they may lie: a checkpoint lies at the top, beside its logs.
const MOST_FOLDERS: usize = 20;
const DEEPEST: usize = 2;

/// A file in a public folder.
pub(super) struct DriveFile<'a> {
    pub(super) client: &'a Client,
    pub(super) pages: &'a Base,
    pub(super) files: &'a Base,
    pub(super) folder: &'a str,
    pub(super) file: &'a str,
    /// Once it is known.
    pub(super) id: Option<String>,
}

impl Source for DriveFile<'_> {
    fn label(&self) -> String {
        match &self.id {
            Some(id) => format!("{DRIVE_PAGES}/file/d/{id}"),
            None => format!("{DRIVE_PAGES}/drive/folders/{}", self.folder),
        }
    }

    fn identity(&self) -> String {
        format!("drive:{}/{}", self.folder, self.file)
    }

    fn open(&mut self, resume: Option<&Resume>) -> Result<Opened, FetchError> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => self.id.insert(self.find()?).clone(),
        };
        match self.files.below(&format!("download?id={id}&export=download&confirm=t"))? {
            Place::Web(url, policy) => self.download(&id, url, &policy, resume),
            Place::File(_) => Err(DriveError::Gone { id, kind: "file" }.into()),
        }
    }
}

impl DriveFile<'_> {
    /// The identifier of the file: the only one of its name, at the least depth that has one.
    fn find(&self) -> Result<String, FetchError> {
        let mut level = vec![self.folder.to_owned()];
        let mut seen = BTreeSet::from([self.folder.to_owned()]);
        let mut names = Vec::new();
        for _ in 0..=DEEPEST {
            let mut found = Vec::new();
            let mut below = Vec::new();
            for folder in &level {
                for entry in self.list(folder)?.entries {
                    if entry.is_folder {
                        if seen.len() < MOST_FOLDERS && seen.insert(entry.id.clone()) {
                            below.push(entry.id);
                        }
                    } else if entry.name == self.file {
                        found.push(entry.id);
                    } else {
                        names.push(entry.name);
                    }
                }
            }
            found.sort();
            found.dedup();
            match (found.pop(), found.len()) {
                (Some(id), 0) => return Ok(id),
                (Some(_), more) => {
                    let (folder, file) = (self.folder.to_owned(), self.file.to_owned());
                    return Err(DriveError::Ambiguous { folder, file, count: more + 1 }.into());
                }
                (None, _) => level = below,
            }
        }
        Err(DriveError::NotInFolder { folder: self.folder.to_owned(), file: self.file.to_owned(), names }.into())
    }

    fn list(&self, folder: &str) -> Result<Listing, FetchError> {
        let id = || folder.to_owned();
        let label = format!("{DRIVE_PAGES}/drive/folders/{folder}");
        let Place::Web(url, policy) = self.pages.below(&format!("embeddedfolderview?id={folder}"))? else {
            return Err(DriveError::Gone { id: id(), kind: "folder" }.into());
        };
        let ask = Ask { label: &label, url, policy: &policy, resume: None, token: None };
        let answer = self.client.get(&ask).map_err(|error| private(error, folder, "folder"))?;
        refuse_status(&answer, &label, folder, "folder")?;
        let page = self.client.page(&label, answer.response)?;
        read_listing(&page).ok_or_else(|| {
            DriveError::Layout { id: id(), expected: "the listing of a folder", found: body::title(&page) }.into()
        })
    }

    fn download(&self, id: &str, mut url: Url, policy: &Policy, resume: Option<&Resume>) -> Result<Opened, FetchError> {
        let label = self.label();
        for _ in 0..=MOST_STEPS {
            let ask = Ask { label: &label, url: url.clone(), policy, resume, token: None };
            let answer = self.client.get(&ask).map_err(|error| private(error, id, "file"))?;
            let headers = answer.response.headers();
            let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let is_page = kind.trim().to_ascii_lowercase().starts_with("text/html");
            // A file that is a web page itself comes as an attachment, but none of those fetched here is.
            if headers.contains_key(CONTENT_DISPOSITION) && !is_page {
                return interpret(&label, answer.response, resume);
            }
            if !is_page {
                refuse_status(&answer, &label, id, "file")?;
                let found = format!("an answer of the type `{}`", kind.escape_debug());
                return Err(layout(id, found));
            }
            let status = answer.response.status();
            if matches!(status.as_u16(), 404 | 410 | 416 | 429 | 500..) {
                refuse_status(&answer, &label, id, "file")?;
            }
            let page = self.client.page(&label, answer.response)?;
            match read_notice(&page) {
                Notice::Refused(words) => return Err(DriveError::Quota { id: id.to_owned(), words }.into()),
                Notice::Confirm { action, inputs } => url = self.confirm(id, &url, policy, (&action, &inputs))?,
                Notice::Unknown if matches!(status.as_u16(), 401 | 403) => {
                    return Err(DriveError::Private { id: id.to_owned(), kind: "file" }.into());
                }
                Notice::Unknown => return Err(layout(id, body::title(&page))),
            }
        }
        let expected = format!("at most {MOST_STEPS} forms");
        Err(DriveError::Form { id: id.to_owned(), expected, found: "one more".to_owned() }.into())
    }

    /// The address that the form leads to, with its fields.
    fn confirm(
        &self,
        id: &str,
        from: &Url,
        policy: &Policy,
        (action, inputs): (&str, &[(String, String)]),
    ) -> Result<Url, FetchError> {
        let refuse = |expected: String, found: String| DriveError::Form { id: id.to_owned(), expected, found };
        let own = self.own_address(action);
        let mut url = from.join(&own).map_err(|error| refuse("an address".to_owned(), error.to_string()))?;
        if !policy.allows(from, &url) {
            return Err(refuse(policy.describe(), format!("`{}`", super::client::bare(&url))).into());
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

    /// Where another address stands for both hosts of Drive, it does so in forms too.
    fn own_address(&self, action: &str) -> String {
        let Base::Web(base, _) = self.files else { return action.to_owned() };
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

fn layout(id: &str, found: String) -> FetchError {
    DriveError::Layout { id: id.to_owned(), expected: "the file, or a form to confirm its download", found }.into()
}

/// A private file sends to the page to sign in, which is on no host of Drive.
fn private(error: FetchError, id: &str, kind: &'static str) -> FetchError {
    match error {
        FetchError::Redirect { to, .. } if to.starts_with("https://accounts.google.com/") => {
            DriveError::Private { id: id.to_owned(), kind }.into()
        }
        other => other,
    }
}

fn refuse_status(answer: &Answer, label: &str, id: &str, kind: &'static str) -> Result<(), FetchError> {
    let id = id.to_owned();
    match answer.response.status().as_u16() {
        200 => Ok(()),
        401 | 403 => Err(DriveError::Private { id, kind }.into()),
        404 | 410 => Err(DriveError::Gone { id, kind }.into()),
        status => Err(FetchError::Status { url: label.to_owned(), status, retry_after: None }),
    }
}
