//! The Hugging Face hub: revisions, stated hashes, tokens, and the cache of `huggingface_hub`.

use std::sync::Arc;

use insta::assert_snapshot;
use laps_files::{ExpectedDigest, Verified, digest_file};
use laps_hub::{
    fetch::{FetchError, Fetcher, HubError, Network},
    store::{FileSource, Pins},
};

use crate::{
    server::{Reply, Request, TestServer},
    support::{Setup, expected_sha256, random_bytes, sha256},
};

const COMMIT: &str = "86b5e0934494bd15c9632b12f734a8a67f723594";

/// The hub's response for a large file: its hash and size, and a redirect to the storage.
fn linked(request: &Request, bytes: &Arc<Vec<u8>>, sha256: &str) -> Reply {
    if request.path.starts_with("/storage/") {
        return Reply::file(request, bytes, "\"storage\"");
    }
    Reply::redirect("/storage/blob?signature=secret")
        .with("X-Repo-Commit", COMMIT)
        .with("X-Linked-Etag", &format!("\"{sha256}\""))
        .with("X-Linked-Size", &bytes.len().to_string())
}

fn hub(revision: &str, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Setup {
    let mut setup = Setup::new(TestServer::start(handler), ExpectedDigest::default());
    setup.file.source = FileSource::Hub {
        repository: "google/vit".to_owned(),
        revision: revision.to_owned(),
        file: "model.safetensors".to_owned(),
    };
    setup
}

#[test]
fn large_file_is_checked_against_the_stated_hash() {
    let bytes = random_bytes(30, 300_000);
    let (served, hash) = (Arc::clone(&bytes), sha256(&bytes));
    let setup = hub(COMMIT, move |request| linked(request, &served, &hash));
    let fetched = setup.fetch().unwrap();
    setup.assert_complete(&bytes);
    assert_eq!((fetched.pin.verified, fetched.pin.revision.as_deref()), (Verified::Hub, Some(COMMIT)));
    let url = format!("{}/google/vit/resolve/{COMMIT}/model.safetensors", setup.server.url());
    assert_eq!(fetched.pin.url, url, "without the signature");

    let served = Arc::clone(&bytes);
    let setup = hub(COMMIT, move |request| linked(request, &served, &"0".repeat(64)));
    let text = setup.fetch_error();
    assert!(text.contains("is not the expected file\n  expected: sha256 0000"), "{text}");
    assert!(!setup.exists());

    // The manifest contradicts the hub.
    let (served, hash) = (Arc::clone(&bytes), sha256(&bytes));
    let mut setup = hub(COMMIT, move |request| linked(request, &served, &hash));
    setup.file.expected = expected_sha256(b"other");
    assert!(matches!(setup.fetch(), Err(FetchError::Digest { .. })));
}

#[test]
fn small_file_is_checked_against_its_git_blob_id() {
    let bytes = Arc::new(b"laps\n".to_vec());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs_err::write(&path, bytes.as_slice()).unwrap();
    let asked = ExpectedDigest { git_blob: Some(String::new()), ..ExpectedDigest::default() };
    let id = digest_file(&path, &asked).unwrap().git_blob.unwrap();
    let wrong = format!("{}{}", if id.starts_with('0') { "1" } else { "0" }, &id[1..]);
    for (id, good) in [(id, true), (wrong, false)] {
        let served = Arc::clone(&bytes);
        let setup = hub(COMMIT, move |request| {
            Reply::file(request, &served, &format!("\"{id}\"")).with("X-Repo-Commit", COMMIT)
        });
        let outcome = setup.fetch();
        assert_eq!(outcome.is_ok(), good, "{outcome:?}");
    }
}

#[test]
fn branch_is_pinned_as_its_commit() {
    let bytes = random_bytes(31, 1000);
    let (served, hash) = (Arc::clone(&bytes), sha256(&bytes));
    let setup = hub("main", move |request| linked(request, &served, &hash));
    setup.fetch().unwrap();
    fs_err::remove_file(&setup.file.path).unwrap();
    setup.fetch().unwrap();
    let asked: Vec<_> = setup.server.log().iter().map(|request| request.path.clone()).collect();
    assert_eq!(asked[0], "/google/vit/resolve/main/model.safetensors");
    assert_eq!(asked[2], format!("/google/vit/resolve/{COMMIT}/model.safetensors"));
    let pins = Pins::open(&setup.settings.store.pins).unwrap();
    assert_eq!(pins.get(&setup.file.key).unwrap().revision.as_deref(), Some(COMMIT));
    // A server that answers for another commit than the requested one.
    let served = Arc::clone(&bytes);
    let setup = hub(&"1".repeat(40), move |request| linked(request, &served, &sha256(b"")));
    assert!(matches!(setup.fetch(), Err(FetchError::Hub(HubError::Revision { .. }))));
}

#[test]
fn token_is_sent_to_the_hub_only() {
    let bytes = random_bytes(32, 1000);
    let served = Arc::clone(&bytes);
    let storage = TestServer::start(move |request| Reply::file(request, &served, "\"x\""));
    let elsewhere = format!("{}/blob", storage.url());
    let mut setup = hub(COMMIT, move |_| Reply::redirect(&elsewhere).with("X-Repo-Commit", COMMIT));
    setup.settings.services.token = Some("hf_secret".to_owned());
    // Another port is another server, and the redirect is refused.
    let text = setup.fetch_error();
    assert!(text.contains("redirects to a host that is not allowed"), "{text}");
    assert!(!text.contains("secret"));
    assert_eq!(setup.server.log()[0].header("authorization"), Some("Bearer hf_secret"));
    assert!(storage.log().is_empty());
}

#[test]
fn errors_of_the_hub_are_reported() {
    let setup = hub(COMMIT, |_| Reply::new(401, "").with("X-Error-Code", "GatedRepo"));
    assert_snapshot!(setup.fetch_error(), @r"
    `model.safetensors` of `google/vit` is not public
      expected: the file
      found: status 401
    hint: set `HF_TOKEN` to a token with access to the repository
    ");
    let setup = hub(COMMIT, |_| Reply::new(404, "").with("X-Error-Code", "EntryNotFound"));
    assert_snapshot!(setup.fetch_error(), @r"
    `model.safetensors` of `google/vit` at `86b5e0934494bd15c9632b12f734a8a67f723594` is not on the hub
      expected: the file
      found: no such file
    hint: the file was moved or removed; set `HF_ENDPOINT` to a mirror of the hub that still has it
    ");
}

#[test]
fn first_available_format_is_fetched() {
    let bytes = random_bytes(33, 1000);
    let (served, hash) = (Arc::clone(&bytes), sha256(&bytes));
    let setup = hub(COMMIT, move |request| {
        if request.path.contains("model.safetensors") {
            return Reply::new(404, "").with("X-Error-Code", "EntryNotFound");
        }
        linked(request, &served, &hash)
    });
    let mut other = setup.file.clone();
    other.key += ".bin";
    other.path = setup.folder.path().join("pytorch_model.bin");
    if let FileSource::Hub { file, .. } = &mut other.source {
        *file = "pytorch_model.bin".to_owned();
    }
    let fetched =
        Fetcher::new(setup.settings.clone()).fetch_any(&[setup.file.clone(), other.clone()], |_| Ok(()), &()).unwrap();
    assert_eq!(fetched.file, other);
}

#[test]
fn cache_of_huggingface_hub_is_used_and_checked() {
    let bytes = random_bytes(34, 1000);
    let mut setup = hub("main", |_| Reply::new(500, ""));
    let cache = setup.folder.path().join("cache/hub");
    let model = cache.join("models--google--vit");
    let snapshot = model.join("snapshots").join(COMMIT);
    fs_err::create_dir_all(&snapshot).unwrap();
    fs_err::create_dir_all(model.join("refs")).unwrap();
    fs_err::write(model.join("refs/main"), COMMIT).unwrap();
    fs_err::write(snapshot.join("model.safetensors"), bytes.as_slice()).unwrap();
    setup.settings.services.hub_cache = Some(cache);
    setup.settings.network = Network::Offline;
    let fetched = setup.fetch().unwrap();
    setup.assert_complete(&bytes);
    assert_eq!(fetched.pin.revision.as_deref(), Some(COMMIT));
    assert!(setup.server.log().is_empty());
    // A file that contradicts the manifest is not used.
    fs_err::remove_file(&setup.file.path).unwrap();
    fs_err::remove_file(&setup.settings.store.pins).unwrap();
    setup.file.expected = expected_sha256(b"other");
    assert!(matches!(setup.fetch(), Err(FetchError::Digest { .. })), "{:?}", setup.fetch());
}

/// `bert-base-uncased` was renamed to `google-bert/bert-base-uncased`; older caches have the old name.
#[test]
fn cache_of_a_renamed_repository_is_used_under_both_names() {
    let bytes = random_bytes(35, 1000);
    let names = ["bert-base-uncased", "google-bert/bert-base-uncased"];
    for (requested, cached) in [(names[0], names[1]), (names[1], names[0])] {
        let mut setup = hub(COMMIT, |_| Reply::new(500, ""));
        if let FileSource::Hub { repository, .. } = &mut setup.file.source {
            requested.clone_into(repository);
        }
        let cache = setup.folder.path().join("cache/hub");
        let model = cache.join(format!("models--{}", cached.replace('/', "--")));
        let snapshot = model.join("snapshots").join(COMMIT);
        fs_err::create_dir_all(&snapshot).unwrap();
        fs_err::write(snapshot.join("model.safetensors"), bytes.as_slice()).unwrap();
        setup.settings.services.hub_cache = Some(cache);
        setup.settings.network = Network::Offline;
        setup.fetch().unwrap();
        setup.assert_complete(&bytes);
    }
}
