//! The endpoints of the download services, and the environment variables that replace them.

use std::{
    env,
    path::{Path, PathBuf},
};

use reqwest::Url;

use super::{FetchError, redirects::RedirectPolicy};
use crate::registry::{COCO_IMAGES, PYPI_FILES};

/// Host of the pages of public Drive folders.
pub(super) const DRIVE_PAGES: &str = "https://drive.google.com";

/// Host of the files in them.
pub(super) const DRIVE_FILES: &str = "https://drive.usercontent.google.com";

const HUB: &str = "https://huggingface.co";
const GITHUB: &str = "https://raw.githubusercontent.com";

/// Maximum size of a token file in bytes; tokens of the hub have 37.
const MAX_TOKEN_BYTES: u64 = 4096;

/// A web server or a local folder that stands for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The base URL of a server, and where it may redirect to.
    Web(Url, RedirectPolicy),
    /// A local folder.
    Folder(PathBuf),
}

/// The endpoints of all services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Pages of Drive folders. A local folder contains `<folder id>/<file name>`.
    pub drive_pages: Endpoint,
    /// Files on Drive.
    pub drive_files: Endpoint,
    /// The Hugging Face hub. A local folder contains `<repository>/resolve/<revision>/<file>`.
    pub hub: Endpoint,
    /// Raw files of GitHub. A local folder contains `<repository>/<commit>/<path>`.
    pub github: Endpoint,
    /// Images of COCO.
    pub coco: Endpoint,
    /// Files of PyPI.
    pub pypi: Endpoint,
    /// Copies of the cache folder, tried in this order before the services.
    pub mirrors: Vec<Endpoint>,
    /// Hugging Face token, sent to the hub only.
    pub token: Option<String>,
    /// Cache of `huggingface_hub`, if it exists.
    pub hub_cache: Option<PathBuf>,
}

impl Services {
    /// The public services, or those set in the environment: `LAPS_ZOO_GDRIVE_URL`, `HF_ENDPOINT`,
    /// `LAPS_ZOO_GITHUB_URL`, `LAPS_ZOO_COCO_URL`, `LAPS_ZOO_PYPI_URL`, and `LAPS_ZOO_MIRRORS` with any number of URLs
    /// separated by spaces. Each is `https://`, `file://`, or `http://` for servers on this machine and files with a known hash.
    ///
    /// The token is that of `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN` or the token file of `huggingface_hub`.
    ///
    /// # Errors
    /// [`FetchError::Environment`] for a variable whose value is not a usable URL.
    pub fn from_environment() -> Result<Self, FetchError> {
        let google = ["drive.google.com", "docs.google.com", "drive.usercontent.google.com", "*.googleusercontent.com"];
        let hub_hosts = ["huggingface.co", "*.huggingface.co", "*.hf.co"];
        let public = |url: &str, hosts: &[&'static str]| Endpoint::parse(url, hosts);
        let replaced = |variable, hosts: &[&'static str]| -> Result<Option<Endpoint>, FetchError> {
            variable_text(variable).map(|value| in_variable(variable, Endpoint::parse(&value, hosts))).transpose()
        };
        let or_public = |endpoint: Option<Endpoint>, url, hosts| endpoint.map_or_else(|| public(url, hosts), Ok);
        let drive = replaced("LAPS_ZOO_GDRIVE_URL", &[])?;
        let mirrors = variable_text("LAPS_ZOO_MIRRORS").unwrap_or_default();
        let mirrors = mirrors.split_whitespace().map(|url| Endpoint::parse(url, &[])).collect();
        Ok(Self {
            drive_pages: or_public(drive.clone(), DRIVE_PAGES, &google)?,
            drive_files: or_public(drive, DRIVE_FILES, &google)?,
            // A mirror of the hub may redirect to the hub's own storage.
            hub: or_public(replaced("HF_ENDPOINT", &hub_hosts)?, HUB, &hub_hosts)?,
            github: or_public(replaced("LAPS_ZOO_GITHUB_URL", &[])?, GITHUB, &[])?,
            coco: or_public(replaced("LAPS_ZOO_COCO_URL", &[])?, COCO_IMAGES, &["*.cocodataset.org"])?,
            pypi: or_public(replaced("LAPS_ZOO_PYPI_URL", &[])?, PYPI_FILES, &[])?,
            mirrors: in_variable("LAPS_ZOO_MIRRORS", mirrors)?,
            token: token(),
            hub_cache: hub_cache(),
        })
    }
}

/// Whether `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` disables downloads, with the values that `huggingface_hub` takes
/// for true.
pub(super) fn is_offline() -> bool {
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().any(|name| {
        variable_text(name)
            .is_some_and(|value| matches!(value.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
    })
}

/// The value of an environment variable, unless it is blank.
fn variable_text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Names the environment variable in the error of an invalid URL.
fn in_variable<T>(variable: &'static str, outcome: Result<T, FetchError>) -> Result<T, FetchError> {
    outcome.map_err(|error| match error {
        FetchError::Address { address, expected, found } => FetchError::Environment {
            variable,
            expected: expected.to_owned(),
            found: format!("`{}`: {found}", address.escape_debug()),
        },
        other => other,
    })
}

impl Endpoint {
    /// Parses `https://host/...`, `http://host/...` or `file:///folder`. A server may redirect to itself and to
    /// `hosts`.
    ///
    /// # Errors
    /// [`FetchError::Address`].
    pub fn parse(text: &str, hosts: &[&'static str]) -> Result<Self, FetchError> {
        let refuse = |found: String| FetchError::Address {
            address: text.to_owned(),
            expected: "`https://host`, `file:///folder`, or `http://host` for a local server or files with a known hash",
            found,
        };
        let url = Url::parse(text.trim().trim_end_matches('/')).map_err(|error| refuse(error.to_string()))?;
        match url.scheme() {
            "file" => url.to_file_path().map(Self::Folder).map_err(|()| refuse("not a local path".to_owned())),
            "http" | "https" if url.host_str().is_some() && url.username().is_empty() && url.password().is_none() => {
                if url.query().is_some() || url.fragment().is_some() {
                    return Err(refuse("a query or a fragment".to_owned()));
                }
                let policy = RedirectPolicy::new(&url, hosts);
                Ok(Self::Web(url, policy))
            }
            "http" | "https" => Err(refuse("a user name, a password, or no host".to_owned())),
            other => Err(refuse(format!("the scheme `{other}`"))),
        }
    }

    /// The location of `path` below this endpoint.
    pub(super) fn join(&self, path: &str) -> Result<FileLocation, FetchError> {
        match self {
            Self::Folder(folder) => match laps_files::safe_relative_path(path) {
                Some(relative) => Ok(FileLocation::Local(folder.join(relative))),
                None => Err(FetchError::Address {
                    address: path.to_owned(),
                    expected: "a path inside the folder",
                    found: "a path that leaves it, or an unsafe name".to_owned(),
                }),
            },
            Self::Web(base, policy) => {
                let address = format!("{}/{path}", base.as_str().trim_end_matches('/'));
                let url = Url::parse(&address).map_err(|error| FetchError::Address {
                    address,
                    expected: "a URL",
                    found: error.to_string(),
                })?;
                Ok(FileLocation::Web(url, policy.clone()))
            }
        }
    }
}

/// The location of one file.
#[derive(Clone, Debug)]
pub(super) enum FileLocation {
    Web(Url, RedirectPolicy),
    Local(PathBuf),
}

/// The path in an environment variable, unless it is empty.
fn variable_path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The home folder of `huggingface_hub`.
fn hub_home() -> Option<PathBuf> {
    variable_path("HF_HOME")
        .or_else(|| variable_path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| variable_path("HOME").map(|home| home.join(".cache/huggingface")))
}

fn hub_cache() -> Option<PathBuf> {
    let cache = variable_path("HF_HUB_CACHE").or_else(|| variable_path("HUGGINGFACE_HUB_CACHE"));
    cache.or_else(|| hub_home().map(|home| home.join("hub"))).filter(|path| path.is_dir())
}

fn token() -> Option<String> {
    let from_variable = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].iter().find_map(|name| env::var(name).ok());
    let file = || variable_path("HF_TOKEN_PATH").or_else(|| hub_home().map(|home| home.join("token")));
    plain_token(&from_variable.or_else(|| read_token(&file()?))?)
}

/// The token in `text`, if a header can hold it.
fn plain_token(text: &str) -> Option<String> {
    let token = text.trim();
    let is_plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then(|| token.to_owned())
}

fn read_token(path: &Path) -> Option<String> {
    let size = fs_err::metadata(path).ok()?.len();
    (size <= MAX_TOKEN_BYTES).then(|| laps_files::read_text(path).ok()).flatten()
}

/// The token in the file at `path`; `None` for a file that is not one line of plain text.
pub(crate) fn token_of_file(path: &Path) -> Option<String> {
    plain_token(&read_token(path)?)
}
