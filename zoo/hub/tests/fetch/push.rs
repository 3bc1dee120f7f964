//! Uploads, against a server that behaves like the Hugging Face hub and checks every hash.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use insta::assert_snapshot;
use laps_files::sha256_hex;
use laps_hub::{
    fetch::{Endpoint, FetchSettings, Network},
    push::{PushError, PushFile, PushRequest, Pushed, Pusher, folder_files, read_token},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    server::{End, Reply, Request, TestServer},
    support::{random_bytes, settings},
};

const REPOSITORY: &str = "someone/laps";

/// Objects above this size are uploaded in parts.
const PART_BYTES: usize = 40_000;

/// Simulated fault of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The connection is closed within every upload to the storage of an object above this size.
    CutUploads(usize),
    /// Somebody else commits before the next commit.
    OtherCommit,
    /// The response to the next commit is lost.
    LostCommit,
    /// Upload URLs are on another host, without TLS.
    PlainStorage,
}

struct HubState {
    fault: Fault,
    base: String,
    head: String,
    /// Contents by path.
    files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Contents by SHA-256.
    objects: BTreeMap<String, Arc<Vec<u8>>>,
    parts: BTreeMap<(String, usize), Arc<Vec<u8>>>,
    commits: usize,
}

/// A hub with one repository. `hf_write` may write, `hf_read` may read.
struct Hub {
    server: TestServer,
    state: Arc<Mutex<HubState>>,
    folder: TempDir,
    settings: FetchSettings,
}

fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

impl HubState {
    fn reply(&mut self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap().to_owned();
        let token = request.header("authorization").map(|value| value.trim_start_matches("Bearer ").to_owned());
        if let Some(oid) = path.strip_prefix("/storage/") {
            assert_eq!(token, None, "the storage got the token");
            return self.store(oid, request);
        }
        match token.as_deref() {
            Some("hf_write") => {}
            Some("hf_read") if request.method == "GET" => {}
            Some("hf_read") => return error(403, "hf_read lacks the scope repo.write"),
            _ => return error(401, "Invalid credentials in Authorization header"),
        }
        let api = format!("/api/models/{REPOSITORY}");
        match (request.method.as_str(), path.strip_prefix(&api)) {
            ("GET", Some("/revision/main")) => ok(&json!({ "sha": self.head })),
            ("POST", Some("/preupload/main")) => self.preupload(request),
            ("POST", Some("/commit/main")) => self.commit(request),
            ("POST", None) if path == format!("/{REPOSITORY}.git/info/lfs/objects/batch") => self.batch(request),
            ("POST", None) if path == "/verify" => self.verify(request),
            _ => error(404, "Repository not found").with("X-Error-Code", "RepoNotFound"),
        }
    }

    fn preupload(&self, request: &Request) -> Reply {
        let asked = json_of(request);
        let files = asked["files"].as_array().unwrap().iter().map(|file| {
            let path = file["path"].as_str().unwrap();
            let known = self.files.get(path);
            let mode = if is_large(path) { "lfs" } else { "regular" };
            let oid = known.map(|bytes| if is_large(path) { sha256_hex(bytes) } else { git_blob(bytes) });
            json!({ "path": path, "uploadMode": mode, "shouldIgnore": path.ends_with(".tmp"), "oid": oid })
        });
        ok(&json!({ "files": files.collect::<Vec<_>>() }))
    }

    fn batch(&self, request: &Request) -> Reply {
        let asked = json_of(request);
        assert_eq!((asked["operation"].as_str(), asked["hash_algo"].as_str()), (Some("upload"), Some("sha256")));
        let objects = asked["objects"].as_array().unwrap().iter().map(|object| {
            let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap() as usize);
            if self.objects.contains_key(oid) {
                return json!({ "oid": oid, "size": size });
            }
            let host = if self.fault == Fault::PlainStorage { "http://storage.example" } else { &self.base };
            let mut header = serde_json::Map::new();
            if size > PART_BYTES {
                header.insert("chunk_size".to_owned(), json!(PART_BYTES.to_string()));
                for part in 1..=size.div_ceil(PART_BYTES) {
                    header.insert(part.to_string(), json!(format!("{host}/storage/{oid}/{part}?signature=secret")));
                }
            }
            let upload = json!({ "href": format!("{host}/storage/{oid}?signature=secret"), "header": header });
            let verify = json!({ "href": format!("{}/verify", self.base) });
            json!({ "oid": oid, "size": size, "actions": { "upload": upload, "verify": verify } })
        });
        ok(&json!({ "transfer": "basic", "objects": objects.collect::<Vec<_>>() }))
    }

    fn store(&mut self, target: &str, request: &Request) -> Reply {
        let (oid, part) = target.split_once('/').map_or((target, None), |(oid, part)| (oid, Some(part)));
        match (request.method.as_str(), part) {
            ("PUT", Some(part)) => {
                self.parts.insert((oid.to_owned(), part.parse().unwrap()), Arc::clone(&request.body));
                Reply::new(200, "").with("ETag", &format!("\"{}\"", sha256_hex(&request.body)))
            }
            ("PUT", None) => self.store_object(oid, Arc::clone(&request.body)),
            _ => {
                let parts = json_of(request)["parts"].as_array().unwrap().clone();
                let mut whole = Vec::new();
                for part in parts {
                    let bytes = &self.parts[&(oid.to_owned(), part["partNumber"].as_u64().unwrap() as usize)];
                    assert_eq!(part["etag"], format!("\"{}\"", sha256_hex(bytes)));
                    whole.extend_from_slice(bytes);
                }
                self.store_object(oid, Arc::new(whole))
            }
        }
    }

    fn store_object(&mut self, oid: &str, bytes: Arc<Vec<u8>>) -> Reply {
        if sha256_hex(&bytes) != oid {
            return error(400, "the content has another hash");
        }
        self.objects.insert(oid.to_owned(), bytes);
        ok(&json!({}))
    }

    fn verify(&self, request: &Request) -> Reply {
        let asked = json_of(request);
        match self.objects.get(asked["oid"].as_str().unwrap()) {
            Some(bytes) if asked["size"] == bytes.len() => ok(&json!({})),
            _ => error(422, "no such object"),
        }
    }

    fn commit(&mut self, request: &Request) -> Reply {
        assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
        let text = std::str::from_utf8(&request.body).unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let header = lines.next().unwrap();
        assert_eq!(header["key"], "header");
        if self.fault == Fault::OtherCommit {
            self.fault = Fault::None;
            self.head = "f".repeat(40);
        }
        if header["value"]["parentCommit"] != self.head {
            return error(412, "A commit has happened since. Please refresh and try again.");
        }
        for line in lines {
            let value = &line["value"];
            let path = value["path"].as_str().unwrap().to_owned();
            let bytes = match line["key"].as_str().unwrap() {
                "file" => Arc::new(BASE64_STANDARD.decode(value["content"].as_str().unwrap()).unwrap()),
                "lfsFile" => Arc::clone(&self.objects[value["oid"].as_str().unwrap()]),
                other => panic!("{other}"),
            };
            self.files.insert(path, bytes);
        }
        self.commits += 1;
        self.head = format!("{:040x}", self.commits);
        let reply = ok(&json!({ "commitOid": self.head, "commitUrl": "" }));
        match self.fault {
            Fault::LostCommit => {
                self.fault = Fault::None;
                reply.ending(End::Refuse)
            }
            _ => reply,
        }
    }
}

fn ok(value: &Value) -> Reply {
    Reply::new(200, value.to_string()).with("Content-Type", "application/json")
}

fn error(status: u16, message: &str) -> Reply {
    Reply::new(status, json!({ "error": message }).to_string())
}

fn json_of(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

fn git_blob(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("x"), bytes).unwrap();
    folder_files(folder.path()).unwrap().remove(0).git_blob
}

impl Hub {
    fn start(fault: Fault) -> Self {
        let state = HubState {
            fault,
            base: String::new(),
            head: "0".repeat(40),
            files: BTreeMap::new(),
            objects: BTreeMap::new(),
            parts: BTreeMap::new(),
            commits: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let [limiting, replying] = [Arc::clone(&state), Arc::clone(&state)];
        let limit = move |request: &Request| {
            let length = request.header("content-length")?.parse::<usize>().unwrap();
            let is_cut = matches!(limiting.lock().unwrap().fault, Fault::CutUploads(above) if length > above);
            (is_cut && request.method == "PUT").then_some(length as u64 / 2)
        };
        let server = TestServer::start_reading(limit, move |request| replying.lock().unwrap().reply(request));
        state.lock().unwrap().base = server.url();
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(&server, folder.path());
        settings.services.token = Some("hf_write".to_owned());
        Self { server, state, folder, settings }
    }

    fn state(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap()
    }

    fn commits(&self) -> usize {
        self.state().commits
    }

    fn head(&self) -> String {
        self.state().head.clone()
    }

    fn model(&self) -> std::path::PathBuf {
        self.folder.path().join("model")
    }

    /// A model folder with a card, a result, a small and a large object.
    fn write_model(&self) -> Vec<PushFile> {
        write(&self.model(), "README.md", b"# A model\n");
        write(&self.model(), ".eval_results/flickr30k.yaml", b"[]\n");
        write(&self.model(), "empty.safetensors", b"");
        write(&self.model(), "head.safetensors", &random_bytes(1, 20_000));
        write(&self.model(), "model.safetensors", &random_bytes(2, 100_000));
        folder_files(&self.model()).unwrap()
    }

    fn push(&self, files: &[PushFile]) -> Result<Pushed, PushError> {
        let request = PushRequest { repository: REPOSITORY, branch: "main", files, summary: "Upload" };
        Pusher::new(&self.settings)?.push(&request, &())
    }

    /// Error, causes and hint of a push.
    fn push_error(&self, files: &[PushFile]) -> String {
        let error = self.push(files).unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text += &format!("\ncause: {}", error.to_string().replace(&self.server.url(), "HUB"));
            cause = error.source();
        }
        text + &error.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"))
    }

    /// The uploads to the storage since the request number `from`.
    fn uploads(&self, from: usize) -> usize {
        self.server.log()[from..].iter().filter(|request| request.method == "PUT").count()
    }

    fn assert_complete(&self, files: &[PushFile]) {
        let state = self.state();
        let stored: Vec<_> = state.files.iter().map(|(name, bytes)| (name.as_str(), sha256_hex(bytes))).collect();
        let expected: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.sha256.clone())).collect();
        assert_eq!(stored, expected);
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, bytes).unwrap();
}

fn names(names: &std::collections::BTreeSet<String>) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[test]
fn folder_is_pushed_in_one_commit() {
    let hub = Hub::start(Fault::None);
    let files = hub.write_model();
    let pushed = hub.push(&files).unwrap();
    hub.assert_complete(&files);
    assert_eq!(names(&pushed.uploaded), ["head.safetensors", "model.safetensors"]);
    assert_eq!(pushed.commit, Some(hub.head()));
    // One object whole, the other in three parts.
    assert_eq!((hub.commits(), hub.uploads(0)), (1, 4));

    // Nothing differs: no upload and no commit.
    let before = hub.server.log().len();
    let again = hub.push(&files).unwrap();
    assert_eq!((again.commit, again.unchanged.len()), (None, files.len()));
    assert_eq!((hub.commits(), hub.uploads(before)), (1, 0));

    // One file changes.
    write(&hub.model(), "README.md", b"# Another text\n");
    write(&hub.model(), "notes.tmp", b"ignored by .gitignore");
    let files = folder_files(&hub.model()).unwrap();
    let changed = hub.push(&files).unwrap();
    assert_eq!((names(&changed.ignored), changed.uploaded.len()), (vec!["notes.tmp"], 0));
    assert_eq!(hub.state().files["README.md"].as_slice(), b"# Another text\n");
    assert!(!hub.state().files.contains_key("notes.tmp"));
    assert_eq!((hub.commits(), hub.uploads(before)), (2, 0));
}

#[test]
fn interrupted_upload_continues_with_what_is_missing() {
    let hub = Hub::start(Fault::CutUploads(30_000));
    let files = hub.write_model();
    let text = hub.push_error(&files);
    assert!(text.starts_with("`model.safetensors` could not be uploaded in 4 attempts; the hub keeps"), "{text}");
    assert!(text.contains("hint: check the network"), "{text}");
    assert!(!text.contains("secret"), "the signature of the URL is shown: {text}");
    assert_eq!((hub.commits(), hub.state().objects.len()), (0, 1));
    // Only the object that is missing is uploaded, in its three parts.
    hub.state().fault = Fault::None;
    let before = hub.server.log().len();
    let pushed = hub.push(&files).unwrap();
    assert_eq!((names(&pushed.uploaded), names(&pushed.stored)), (vec!["model.safetensors"], vec!["head.safetensors"]));
    assert_eq!(hub.uploads(before), 3);
    hub.assert_complete(&files);
}

#[test]
fn lost_response_to_the_commit_makes_no_second_commit() {
    let hub = Hub::start(Fault::LostCommit);
    let files = hub.write_model();
    let pushed = hub.push(&files).unwrap();
    hub.assert_complete(&files);
    assert_eq!((pushed.commit, hub.commits()), (Some(hub.head()), 1));
    assert_eq!(hub.uploads(0), 4);
}

#[test]
fn change_by_somebody_else_is_not_overwritten() {
    let hub = Hub::start(Fault::OtherCommit);
    let files = hub.write_model();
    assert_snapshot!(hub.push_error(&files), @"
    `main` of `someone/laps` has changed during the upload
      expected: the commit 0000000000000000000000000000000000000000
      found: another one (A commit has happened since. Please refresh and try again.)
    hint: look at the new commit, then run the same command again: it uploads only what is missing
    ");
    let before = hub.server.log().len();
    hub.push(&files).unwrap();
    hub.assert_complete(&files);
    assert_eq!(hub.uploads(before), 0);
}

#[test]
fn tokens_that_do_not_suffice_are_explained_and_not_shown() {
    let mut hub = Hub::start(Fault::None);
    let files = hub.write_model();
    hub.settings.services.token = Some("hf_wrong".to_owned());
    assert_snapshot!(hub.push_error(&files), @"
    the hub does not accept the token
      expected: a valid token
      found: status 401 (Invalid credentials in Authorization header)
    hint: create a token with write access in the settings of your account
    ");
    hub.settings.services.token = Some("hf_read".to_owned());
    assert_snapshot!(hub.push_error(&files), @"
    the token may not write to `someone/laps`
      expected: a token with write access
      found: status 403 ([token] lacks the scope repo.write)
    hint: use a token with write access to this repository
    ");
    hub.settings.services.token = None;
    assert_snapshot!(hub.push_error(&files), @"
    an upload needs a token
      expected: a token that may write to the repository
      found: none
    hint: set `HF_TOKEN`, or name a file with the token
    ");
    assert_eq!(hub.commits(), 0);
}

#[test]
fn unusable_targets_are_refused() {
    let mut hub = Hub::start(Fault::PlainStorage);
    let files = hub.write_model();
    let text = hub.push_error(&files);
    assert!(text.contains("expected: upload URLs with https"), "{text}");

    let pusher = Pusher::new(&hub.settings).unwrap();
    let push = |repository, branch| {
        let request = PushRequest { repository, branch, files: &files, summary: "Upload" };
        pusher.push(&request, &()).unwrap_err().to_string()
    };
    assert!(push("someone/none", "main").starts_with("there is no branch `main` of `someone/none`\n"));
    assert!(push("../laps", "main").starts_with("unusable name of a repository\n"));
    assert!(push(REPOSITORY, "refs/pr/1").starts_with("unusable name of a branch\n"));

    let refused = |settings: &FetchSettings| Pusher::new(settings).err().unwrap().to_string();
    hub.settings.services.hub = Endpoint::parse("http://hub.example", &[]).unwrap();
    assert!(refused(&hub.settings).contains("found: plain http, which would reveal the token"));
    hub.settings.services.hub = Endpoint::parse("file:///tmp", &[]).unwrap();
    assert!(refused(&hub.settings).contains("found: a folder"));
    hub.settings.network = Network::Offline;
    assert!(matches!(Pusher::new(&hub.settings).err().unwrap(), PushError::Offline));
}

#[test]
fn redirects_of_an_upload_are_not_followed() {
    let elsewhere = TestServer::start(|_| Reply::new(200, "{}"));
    let target = format!("{}/elsewhere", elsewhere.url());
    let server = TestServer::start(move |request| match request.method.as_str() {
        "GET" => ok(&json!({ "sha": "0".repeat(40) })),
        _ => Reply::redirect(&target),
    });
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "README.md", b"x");
    let files = folder_files(folder.path()).unwrap();
    let mut settings = settings(&server, folder.path());
    settings.services.token = Some("hf_write".to_owned());
    let request = PushRequest { repository: REPOSITORY, branch: "main", files: &files, summary: "Upload" };
    let error = Pusher::new(&settings).unwrap().push(&request, &()).unwrap_err();
    assert!(error.to_string().contains("expected: no redirect of an upload"), "{error}");
    assert!(elsewhere.log().is_empty());
}

#[test]
fn changed_files_and_links_are_refused() {
    let hub = Hub::start(Fault::None);
    let files = hub.write_model();
    write(&hub.model(), "README.md", b"changed!!\n");
    assert!(matches!(hub.push(&files), Err(PushError::Changed { .. })));
    std::os::unix::fs::symlink("/etc/passwd", hub.model().join("passwd")).unwrap();
    assert!(matches!(folder_files(&hub.model()), Err(PushError::Irregular { .. })));
}

#[test]
fn token_file_has_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write(folder.path(), "token", b"hf_write\n");
    assert_eq!(read_token(&path).unwrap(), "hf_write");
    for bytes in [&b""[..], b"two words\n", b"hf_\xff\n", &[b'x'; 5000]] {
        write(folder.path(), "token", bytes);
        let text = read_token(&path).unwrap_err().to_string();
        assert!(text.contains("expected: one line with a token") && !text.contains("words"), "{text}");
    }
}
