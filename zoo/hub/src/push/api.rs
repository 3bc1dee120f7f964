//! The calls of the hub, in the order of an upload:
//!
//! 1. `GET /api/models/REPOSITORY/revision/BRANCH`: the commit of the branch.
//! 2. `POST /api/models/REPOSITORY/preupload/BRANCH`: which files become large objects, and which the branch has already.
//! 3. `POST /REPOSITORY.git/info/lfs/objects/batch`, the batch call of Git LFS: which large objects are missing, and where
//!    to upload them.
//! 4. `PUT` of each missing object, whole or in parts, to the storage, which is another host and gets no token.
//! 5. `POST /api/models/REPOSITORY/commit/BRANCH`: one JSON object a line, the header and then the files.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Seek, SeekFrom},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use laps_files::{Progress, ProgressUnit, sha256_hex};
use reqwest::{
    Method, Url,
    blocking::{Body, Response},
    header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{PushError, PushFile, PushRequest, Pusher};
use crate::fetch::{
    FetchError,
    client::{HttpRequest, Upload, without_query},
    redirects::is_loopback,
};

/// First bytes of a file that the hub decides by.
const SAMPLE_BYTES: u64 = 512;

/// Files of one call of `preupload`.
const PREUPLOAD_FILES: usize = 256;

/// Most parts of an object, as in the storage of the hub.
const MAX_PARTS: usize = 10_000;

/// Longest message of a server that is shown, in characters.
const MAX_MESSAGE: usize = 300;

const LFS_JSON: &str = "application/vnd.git-lfs+json";

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Preupload {
    files: Vec<PreuploadFile>,
}

/// The hub's instructions for a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PreuploadFile {
    path: String,
    pub(super) upload_mode: UploadMode,
    #[serde(default)]
    pub(super) should_ignore: bool,
    /// SHA-256 of a large object, otherwise git's blob id, if the branch has the file.
    pub(super) oid: Option<String>,
}

/// How a file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum UploadMode {
    /// As a large object.
    Lfs,
    /// In the commit.
    Regular,
}

#[derive(Deserialize)]
struct LfsBatchResponse {
    objects: Vec<BatchObject>,
}

/// The hub's instructions for a large object. Without actions it has the object.
#[derive(Deserialize)]
pub(super) struct BatchObject {
    oid: String,
    pub(super) actions: Option<Actions>,
    error: Option<ObjectError>,
}

#[derive(Deserialize)]
struct ObjectError {
    message: String,
}

/// How a large object is uploaded.
#[derive(Deserialize)]
pub(super) struct Actions {
    pub(super) upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
pub(super) struct Action {
    href: String,
    /// For an object in parts `chunk_size`, and the URL of each part by its number from 1.
    header: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    commit_oid: String,
}

impl Pusher {
    /// The commit of the branch.
    pub(super) fn head(&self, request: &PushRequest<'_>) -> Result<String, PushError> {
        let (url, label) = self.url(&format!("api/models/{}/revision/{}", request.repository, request.branch))?;
        let get =
            HttpRequest { label: &label, url, policy: &self.policy, resume: None, token: Some(self.token.as_str()) };
        let response = self.client.get(&get)?.response;
        let revision: Revision = self.json(&label, self.checked(request, &label, response)?)?;
        Ok(revision.sha)
    }

    /// The hub's instructions for each file, in their order.
    pub(super) fn preupload(&self, request: &PushRequest<'_>) -> Result<Vec<PreuploadFile>, PushError> {
        let path = format!("api/models/{}/preupload/{}", request.repository, request.branch);
        let mut replies = HashMap::new();
        for files in request.files.chunks(PREUPLOAD_FILES) {
            let files = files.iter().map(|file| {
                let sample = BASE64_STANDARD.encode(read_start(file, SAMPLE_BYTES)?);
                Ok(json!({ "path": file.name, "sample": sample, "size": file.bytes }))
            });
            let body = json!({ "files": files.collect::<Result<Vec<_>, PushError>>()? });
            let reply: Preupload = self.post(request, &path, "application/json", body.to_string())?;
            replies.extend(reply.files.into_iter().map(|file| (file.path.clone(), file)));
        }
        let reply = |file: &PushFile| {
            replies.remove(&file.name).ok_or_else(|| PushError::Response {
                url: path.clone(),
                expected: format!("an answer for `{}`", file.name),
                found: "none".to_owned(),
            })
        };
        request.files.iter().map(reply).collect()
    }

    /// The hub's instructions for each large object, in their order.
    pub(super) fn batch(&self, request: &PushRequest<'_>, files: &[&PushFile]) -> Result<Vec<BatchObject>, PushError> {
        let path = format!("{}.git/info/lfs/objects/batch", request.repository);
        let objects: Vec<Value> = files.iter().map(|file| json!({ "oid": file.sha256, "size": file.bytes })).collect();
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": { "name": request.branch },
        });
        let reply: LfsBatchResponse = self.post(request, &path, LFS_JSON, body.to_string())?;
        let mut replies = reply.objects;
        let answer = |file: &&PushFile| {
            let index = replies.iter().position(|object| object.oid == file.sha256);
            let Some(index) = index else {
                // Two files with the same content are one object, which the first of them uploads.
                let is_same = |other: &&PushFile| other.sha256 == file.sha256 && other.name != file.name;
                return match files.iter().any(is_same) {
                    true => Ok(BatchObject { oid: file.sha256.clone(), actions: None, error: None }),
                    false => Err(PushError::Response {
                        url: path.clone(),
                        expected: format!("an answer for the object {}", file.sha256),
                        found: "none".to_owned(),
                    }),
                };
            };
            let object = replies.swap_remove(index);
            match object.error {
                Some(error) => {
                    Err(PushError::Object { name: file.name.clone(), message: self.printable(&error.message) })
                }
                None => Ok(object),
            }
        };
        files.iter().map(answer).collect()
    }

    /// Uploads one large object, whole or in parts.
    pub(super) fn upload_object(
        &self,
        request: &PushRequest<'_>,
        file: &PushFile,
        actions: &Actions,
        progress: &dyn Progress,
    ) -> Result<(), PushError> {
        let Some(upload) = &actions.upload else { return Ok(()) };
        progress.begin(&file.name, 0, Some(file.bytes), ProgressUnit::Bytes);
        let url = self.storage(&upload.href)?;
        match part_urls(&url, upload, file)? {
            None => {
                self.put(file, &url, 0, file.bytes, progress)?;
            }
            Some((part_bytes, urls)) => {
                let mut parts = Vec::new();
                for (index, part) in urls.iter().enumerate() {
                    let from = index as u64 * part_bytes;
                    let response =
                        self.put(file, &self.storage(part)?, from, part_bytes.min(file.bytes - from), progress)?;
                    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
                    let etag = etag.ok_or_else(|| PushError::Response {
                        url: label(&url),
                        expected: "an `ETag` of the part".to_owned(),
                        found: "none".to_owned(),
                    })?;
                    parts.push(json!({ "partNumber": index + 1, "etag": etag }));
                }
                // The URL is signed: like `huggingface_hub`, send no token.
                let body = json!({ "oid": file.sha256, "parts": parts }).to_string();
                self.send(request, Method::POST, url, LFS_JSON, body, None)?;
            }
        }
        if let Some(verify) = &actions.verify {
            let url = self.storage(&verify.href)?;
            let token = (url.origin() == self.hub.origin()).then_some(self.token.as_str());
            let body = json!({ "oid": file.sha256, "size": file.bytes }).to_string();
            self.send(request, Method::POST, url, LFS_JSON, body, token)?;
        }
        progress.end(&file.name, "uploaded");
        Ok(())
    }

    /// Makes the commit and returns its id.
    pub(super) fn commit(
        &self,
        request: &PushRequest<'_>,
        parent: &str,
        large: &[&PushFile],
        regular: &[&PushFile],
    ) -> Result<String, PushError> {
        let header = json!({ "summary": request.summary, "description": "", "parentCommit": parent });
        let mut lines = vec![json!({ "key": "header", "value": header })];
        for file in regular {
            let content = read_start(file, u64::MAX)?;
            let found = sha256_hex(&content);
            if found != file.sha256 {
                return Err(PushError::Changed { path: file.path.clone(), expected: file.sha256.clone(), found });
            }
            let content = BASE64_STANDARD.encode(content);
            lines.push(
                json!({ "key": "file", "value": { "path": file.name, "encoding": "base64", "content": content } }),
            );
        }
        lines.extend(large.iter().map(|file| {
            let value = json!({ "path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.bytes });
            json!({ "key": "lfsFile", "value": value })
        }));
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let path = format!("api/models/{}/commit/{}", request.repository, request.branch);
        let commit: Commit = self.post(request, &path, "application/x-ndjson", body).map_err(|error| match error {
            PushError::Status { status: 409 | 412, message, .. } => PushError::Conflict {
                repository: request.repository.to_owned(),
                branch: request.branch.to_owned(),
                parent: parent.to_owned(),
                message,
            },
            other => other,
        })?;
        Ok(commit.commit_oid)
    }

    /// Uploads `bytes` bytes of `file` from `from` on.
    fn put(
        &self,
        file: &PushFile,
        url: &Url,
        from: u64,
        bytes: u64,
        progress: &dyn Progress,
    ) -> Result<Response, PushError> {
        let label = label(url);
        let failed = |source| PushError::Read { path: file.path.clone(), source };
        let response = self.retrying(&file.name, progress, || {
            let mut part = fs_err::File::open(&file.path).map_err(failed)?;
            part.seek(SeekFrom::Start(from)).map_err(failed)?;
            let upload = Upload {
                label: &label,
                method: Method::PUT,
                url: url.clone(),
                headers: HeaderMap::new(),
                token: None,
                body: Body::sized(part.take(bytes), bytes),
                bytes,
            };
            let response = self.client.send(upload)?;
            match response.status().is_success() {
                true => Ok(response),
                false => Err(self.status(&label, response)),
            }
        })?;
        progress.advance(&file.name, bytes);
        Ok(response)
    }

    /// Sends JSON to the hub and reads its response.
    fn post<T: DeserializeOwned>(
        &self,
        request: &PushRequest<'_>,
        path: &str,
        content_type: &'static str,
        body: String,
    ) -> Result<T, PushError> {
        let (url, label) = self.url(path)?;
        let response = self.send(request, Method::POST, url, content_type, body, Some(self.token.as_str()))?;
        self.json(&label, response)
    }

    fn send(
        &self,
        request: &PushRequest<'_>,
        method: Method,
        url: Url,
        content_type: &'static str,
        body: String,
        token: Option<&str>,
    ) -> Result<Response, PushError> {
        let label = label(&url);
        let accept = if content_type == LFS_JSON { LFS_JSON } else { "application/json" };
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (ACCEPT, HeaderValue::from_static(accept)),
        ]);
        let bytes = body.len() as u64;
        let upload = Upload { label: &label, method, url, headers, token, body: Body::from(body), bytes };
        let response = self.client.send(upload)?;
        self.checked(request, &label, response)
    }

    /// The response, unless its status is an error of the hub.
    fn checked(&self, request: &PushRequest<'_>, label: &str, response: Response) -> Result<Response, PushError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let [repository, branch] = [request.repository, request.branch].map(str::to_owned);
        Err(match self.status(label, response) {
            PushError::Status { status: 401, message, .. } => PushError::Unauthorized { message },
            PushError::Status { status: 403, message, .. } => PushError::Forbidden { repository, message },
            PushError::Status { status: 404 | 410, message, .. } => PushError::Absent { repository, branch, message },
            other => other,
        })
    }

    fn status(&self, label: &str, response: Response) -> PushError {
        let status = response.status().as_u16();
        let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.trim().to_owned());
        let retry_after = text(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
        let message = text("x-error-message").or_else(|| {
            let body: Value = serde_json::from_str(&self.client.page(label, response).ok()?).ok()?;
            Some(body.get("error").or(body.get("message"))?.as_str()?.to_owned())
        });
        let message = self.printable(&message.unwrap_or_default());
        PushError::Status { url: label.to_owned(), status, retry_after, message }
    }

    /// A message of a server on one line, without the token.
    fn printable(&self, message: &str) -> String {
        let message = message.replace(&self.token, "[token]");
        message.chars().take(MAX_MESSAGE).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
    }

    fn json<T: DeserializeOwned>(&self, label: &str, response: Response) -> Result<T, PushError> {
        let text = self.client.page(label, response)?;
        serde_json::from_str(&text).map_err(|error| PushError::Response {
            url: label.to_owned(),
            expected: "the JSON of the hub".to_owned(),
            found: error.to_string(),
        })
    }

    /// A URL of the hub, and its name in errors.
    fn url(&self, path: &str) -> Result<(Url, String), PushError> {
        let address = format!("{}/{path}", self.hub.as_str().trim_end_matches('/'));
        let url = Url::parse(&address).map_err(|error| FetchError::Address {
            address: address.clone(),
            expected: "a URL",
            found: error.to_string(),
        })?;
        Ok((url, address))
    }

    /// The URL of the storage that the hub sends. It may be any host: the upload has no token, and the URL is signed.
    fn storage(&self, href: &str) -> Result<Url, PushError> {
        let url = Url::parse(href).ok();
        let is_safe = |url: &Url| url.scheme() == "https" || (is_loopback(url) && is_loopback(&self.hub));
        url.filter(is_safe).ok_or_else(|| PushError::Response {
            url: self.hub.to_string(),
            expected: "upload URLs with https".to_owned(),
            found: "another one".to_owned(),
        })
    }
}

fn label(url: &Url) -> String {
    without_query(url)
}

/// Size of a part and the URL of each; `None` for an object that is uploaded whole.
fn part_urls(url: &Url, upload: &Action, file: &PushFile) -> Result<Option<(u64, Vec<String>)>, PushError> {
    let Some(header) = &upload.header else { return Ok(None) };
    let Some(size) = header.get("chunk_size") else { return Ok(None) };
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let size = number(size).filter(|&size| size > 0);
    let count = size.map(|size| file.bytes.div_ceil(size)).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|&count| count <= MAX_PARTS);
    let part_url = |part: usize| Some(header.get(&part.to_string())?.as_str()?.to_owned());
    let urls = count.and_then(|count| (1..=count).map(part_url).collect::<Option<Vec<_>>>());
    match (size, urls) {
        (Some(size), Some(urls)) => Ok(Some((size, urls))),
        _ => Err(PushError::Response {
            url: label(url),
            expected: format!("the URL of each part of `{}`, {} bytes", file.name, file.bytes),
            found: "another number of parts".to_owned(),
        }),
    }
}

/// The first bytes of `file`, at most `bytes`.
fn read_start(file: &PushFile, bytes: u64) -> Result<Vec<u8>, PushError> {
    let mut start = Vec::new();
    let read = fs_err::File::open(&file.path).and_then(|content| content.take(bytes).read_to_end(&mut start));
    read.map_err(|source| PushError::Read { path: file.path.clone(), source })?;
    Ok(start)
}
