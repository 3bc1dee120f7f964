//! Where the services are: their own addresses, or those that the environment puts in their place.

use std::{
    env,
    path::{Path, PathBuf},
};

use reqwest::Url;

use super::{FetchError, policy::Policy};
use crate::registry::COCO_IMAGES;

/// Hosts of a public Drive folder and of the files in it.
pub(super) const DRIVE_PAGES: &str = "https://drive.google.com";
pub(super) const DRIVE_FILES: &str = "https://drive.usercontent.google.com";

const HUB: &str = "https://huggingface.co";
const GITHUB: &str = "https://raw.githubusercontent.com";

/// Longest token in bytes; those of the hub have 37.
const LONGEST_TOKEN: u64 = 4096;

/// Where something is fetched from: a web server or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// A server, and where it may send on to.
    Web(Url, Policy),
    /// A folder of this machine.
    Folder(PathBuf),
}

/// The addresses of every service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Pages of Drive folders; a folder here holds `<folder id>/<file name>`.
    pub drive_pages: Base,
    /// Files on Drive.
    pub drive_files: Base,
    /// The Hugging Face hub; a folder here holds `<repository>/resolve/<revision>/<file>`.
    pub hub: Base,
    /// Raw files of GitHub; a folder here holds `<repository>/<commit>/<path>`.
    pub github: Base,
    /// Images of COCO.
    pub coco: Base,
    /// Copies of the cache folder, tried in this order before anything else.
    pub mirrors: Vec<Base>,
    /// Sent to the hub, and to no other host.
    pub token: Option<String>,
    /// Cache of the hub's own libraries, where there is one.
    pub hub_cache: Option<PathBuf>,
}

impl Services {
    /// The services themselves, or what the environment names instead: `LAPS_ZOO_GDRIVE_URL`, `HF_ENDPOINT`,
    /// `LAPS_ZOO_GITHUB_URL`, `LAPS_ZOO_COCO_URL`, and `LAPS_ZOO_MIRRORS` with any number of addresses between spaces. Each
    /// is `https://`, `file://`, or `http://` for servers on this machine or files with a known hash. The token is that of
    /// `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN` or the file that the hub's tools leave.
    ///
    /// # Errors
    /// [`FetchError::Address`] with the variable's value.
    pub fn from_environment() -> Result<Self, FetchError> {
        let text = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let drive = text("LAPS_ZOO_GDRIVE_URL");
        let own = |value: &Option<String>, name: &str, hosts: &[&'static str]| match value {
            Some(value) => Base::parse(value, &[]),
            None => Base::parse(name, hosts),
        };
        let google = ["drive.google.com", "docs.google.com", "drive.usercontent.google.com", "*.googleusercontent.com"];
        let hub_hosts = ["huggingface.co", "*.huggingface.co", "*.hf.co"];
        Ok(Self {
            drive_pages: own(&drive, DRIVE_PAGES, &google)?,
            drive_files: own(&drive, DRIVE_FILES, &google)?,
            // A mirror of the hub may send on to the hub's own storage.
            hub: Base::parse(text("HF_ENDPOINT").as_deref().unwrap_or(HUB), &hub_hosts)?,
            github: own(&text("LAPS_ZOO_GITHUB_URL"), GITHUB, &[])?,
            coco: own(&text("LAPS_ZOO_COCO_URL"), COCO_IMAGES, &["*.cocodataset.org"])?,
            mirrors: text("LAPS_ZOO_MIRRORS")
                .map(|list| list.split_whitespace().map(|one| Base::parse(one, &[])).collect())
                .unwrap_or(Ok(Vec::new()))?,
            token: token(),
            hub_cache: hub_cache(),
        })
    }
}

impl Base {
    /// Reads `https://host/...`, `http://host/...` or `file:///folder`. A server may send on to itself and to `hosts`.
    pub fn parse(text: &str, hosts: &[&'static str]) -> Result<Self, FetchError> {
        let refuse = |found: String| FetchError::Address {
            address: text.to_owned(),
            expected: "`https://host`, `file:///folder`, or `http://` for what has a known hash or is on this machine",
            found,
        };
        let url = Url::parse(text.trim().trim_end_matches('/')).map_err(|error| refuse(error.to_string()))?;
        match url.scheme() {
            "file" => url.to_file_path().map(Self::Folder).map_err(|()| refuse("no path of this machine".to_owned())),
            "http" | "https" if url.host_str().is_some() && url.username().is_empty() && url.password().is_none() => {
                if url.query().is_some() || url.fragment().is_some() {
                    return Err(refuse("a query or a fragment".to_owned()));
                }
                let policy = Policy::new(&url, hosts);
                Ok(Self::Web(url, policy))
            }
            "http" | "https" => Err(refuse("a user name, a password, or no host".to_owned())),
            other => Err(refuse(format!("the scheme `{other}`"))),
        }
    }

    /// The address of `path` below this.
    pub(super) fn below(&self, path: &str) -> Result<Place, FetchError> {
        match self {
            Self::Folder(folder) => match laps_files::inside(path) {
                Some(inner) => Ok(Place::File(folder.join(inner))),
                None => Err(FetchError::Address {
                    address: path.to_owned(),
                    expected: "a path inside the folder",
                    found: "another one".to_owned(),
                }),
            },
            Self::Web(base, policy) => {
                let address = format!("{}/{path}", base.as_str().trim_end_matches('/'));
                let url = Url::parse(&address).map_err(|error| FetchError::Address {
                    address,
                    expected: "an address",
                    found: error.to_string(),
                })?;
                Ok(Place::Web(url, policy.clone()))
            }
        }
    }
}

/// One file: at an address or on this machine.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Web(Url, Policy),
    File(PathBuf),
}

fn folder(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The home folder of the hub's tools.
fn hub_home() -> Option<PathBuf> {
    folder("HF_HOME")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/huggingface")))
}

fn hub_cache() -> Option<PathBuf> {
    let cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
    cache.or_else(|| hub_home().map(|home| home.join("hub"))).filter(|path| path.is_dir())
}

fn token() -> Option<String> {
    let given = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].iter().find_map(|name| env::var(name).ok());
    let file = || folder("HF_TOKEN_PATH").or_else(|| hub_home().map(|home| home.join("token")));
    let token = given.or_else(|| read_token(&file()?))?.trim().to_owned();
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then_some(token)
}

fn read_token(path: &Path) -> Option<String> {
    let size = fs_err::metadata(path).ok()?.len();
    (size <= LONGEST_TOKEN).then(|| fs_err::read_to_string(path).ok()).flatten()
}
