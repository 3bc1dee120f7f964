//! The Hugging Face hub: revisions, stated hashes, tokens, and the cache of its own libraries.

use std::sync::Arc;

use insta::assert_snapshot;
use laps_files::{Expected, Verified, digest_file};
use laps_hub::{
    fetch::{FetchError, Fetcher, HubError, Network},
    store::{Pins, Source},
};

use crate::{
    server::{Reply, Request, Server},
    support::{One, known, random_bytes, sha256},
};

const COMMIT: &str = "86b5e0934494bd15c9632b12f734a8a67f723594";

/// The hub's answer for a large file: what it is, and where its bytes are.
fn linked(request: &Request, bytes: &Arc<Vec<u8>>, sha256: &str) -> Reply {
    if request.path.starts_with("/storage/") {
        return Reply::file(request, bytes, "\"storage\"");
    }
    Reply::redirect("/storage/blob?signature=secret")
        .with("X-Repo-Commit", COMMIT)
        .with("X-Linked-Etag", &format!("\"{sha256}\""))
        .with("X-Linked-Size", &bytes.len().to_string())
}

fn hub(revision: &str, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> One {
    let mut one = One::new(Server::start(handler), Expected::default());
    one.item.source = Source::Hub {
        repository: "google/vit".to_owned(),
        revision: revision.to_owned(),
        file: "model.safetensors".to_owned(),
    };
    one
}

#[test]
fn a_large_file_is_held_against_the_hash_that_the_hub_states() {
    let bytes = random_bytes(30, 300_000);
    let (served, hash) = (Arc::clone(&bytes), sha256(&bytes));
    let one = hub(COMMIT, move |request| linked(request, &served, &hash));
    let fetched = one.fetch().unwrap();
    one.assert_complete(&bytes);
    assert_eq!((fetched.pin.verified, fetched.pin.revision.as_deref()), (Verified::Hub, Some(COMMIT)));
    let url = format!("{}/google/vit/resolve/{COMMIT}/model.safetensors", one.server.url());
    assert_eq!(fetched.pin.url, url, "without the signature");

    let served = Arc::clone(&bytes);
    let one = hub(COMMIT, move |request| linked(request, &served, &"0".repeat(64)));
    let text = one.refused();
    assert!(text.contains("is another file than expected\n  expected: sha256 0000"), "{text}");
    assert!(!one.is_here());

    // The manifest contradicts the hub: nothing is fetched.
    let (served, hash) = (Arc::clone(&bytes), sha256(&bytes));
    let mut one = hub(COMMIT, move |request| linked(request, &served, &hash));
    one.item.expected = known(b"other");
    assert!(matches!(one.fetch(), Err(FetchError::Digest { .. })));
}

#[test]
fn a_small_file_has_the_blob_id_of_git() {
    let bytes = Arc::new(b"laps\n".to_vec());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs_err::write(&path, bytes.as_slice()).unwrap();
    let asked = Expected { git_blob: Some(String::new()), ..Expected::default() };
    let id = digest_file(&path, &asked).unwrap().git_blob.unwrap();
    let wrong = format!("{}{}", if id.starts_with('0') { "1" } else { "0" }, &id[1..]);
    for (id, good) in [(id, true), (wrong, false)] {
        let served = Arc::clone(&bytes);
        let one = hub(COMMIT, move |request| {
            Reply::file(request, &served, &format!("\"{id}\"")).with("X-Repo-Commit", COMMIT)
        });
        let outcome = one.fetch();
        assert_eq!(outcome.is_ok(), good, "{outcome:?}");
    }
}

#[test]
fn a_branch_is_pinned_as_the_commit_that_it_stands_for() {
    let bytes = random_bytes(31, 1000);
    let (served, hash) = (Arc::clone(&bytes), sha256(&bytes));
    let one = hub("main", move |request| linked(request, &served, &hash));
    one.fetch().unwrap();
    fs_err::remove_file(&one.item.path).unwrap();
    one.fetch().unwrap();
    let asked: Vec<_> = one.server.log().iter().map(|request| request.path.clone()).collect();
    assert_eq!(asked[0], "/google/vit/resolve/main/model.safetensors");
    assert_eq!(asked[2], format!("/google/vit/resolve/{COMMIT}/model.safetensors"));
    let pins = Pins::open(&one.settings.store.pins).unwrap();
    assert_eq!(pins.get(&one.item.key).unwrap().revision.as_deref(), Some(COMMIT));
    // A server that answers for another commit than the one that was asked for.
    let served = Arc::clone(&bytes);
    let one = hub(&"1".repeat(40), move |request| linked(request, &served, &sha256(b"")));
    assert!(matches!(one.fetch(), Err(FetchError::Hub(HubError::Revision { .. }))));
}

#[test]
fn a_token_goes_to_the_hub_and_nowhere_else() {
    let bytes = random_bytes(32, 1000);
    let served = Arc::clone(&bytes);
    let storage = Server::start(move |request| Reply::file(request, &served, "\"x\""));
    let elsewhere = format!("{}/blob", storage.url());
    let mut one = hub(COMMIT, move |_| Reply::redirect(&elsewhere).with("X-Repo-Commit", COMMIT));
    one.settings.services.token = Some("hf_secret".to_owned());
    // Another port is another server: the hub sends on to where nothing is fetched from.
    let text = one.refused();
    assert!(text.contains("sends on to where nothing is fetched from"), "{text}");
    assert!(!text.contains("secret"));
    assert_eq!(one.server.log()[0].header("authorization"), Some("Bearer hf_secret"));
    assert!(storage.log().is_empty());
}

#[test]
fn refusals_of_the_hub() {
    let one = hub(COMMIT, |_| Reply::new(401, "").with("X-Error-Code", "GatedRepo"));
    assert_snapshot!(one.refused(), @r"
    `model.safetensors` of `google/vit` is not public
      expected: the file
      found: status 401
    hint: set `HF_TOKEN` to a token of an account that may see it
    ");
    let one = hub(COMMIT, |_| Reply::new(404, "").with("X-Error-Code", "EntryNotFound"));
    assert_snapshot!(one.refused(), @r"
    `model.safetensors` of `google/vit` at `86b5e0934494bd15c9632b12f734a8a67f723594` is not on the hub
      expected: the file
      found: no such file
    hint: it was moved or removed; `HF_ENDPOINT` names another hub that may have it
    ");
}

#[test]
fn the_first_form_that_is_there_is_taken() {
    let bytes = random_bytes(33, 1000);
    let (served, hash) = (Arc::clone(&bytes), sha256(&bytes));
    let one = hub(COMMIT, move |request| {
        if request.path.contains("model.safetensors") {
            return Reply::new(404, "").with("X-Error-Code", "EntryNotFound");
        }
        linked(request, &served, &hash)
    });
    let mut other = one.item.clone();
    other.key += ".bin";
    other.path = one.folder.path().join("pytorch_model.bin");
    if let Source::Hub { file, .. } = &mut other.source {
        *file = "pytorch_model.bin".to_owned();
    }
    let fetched =
        Fetcher::new(one.settings.clone()).fetch_any(&[one.item.clone(), other.clone()], |_| Ok(()), &()).unwrap();
    assert_eq!(fetched.item, other);
}

#[test]
fn the_cache_of_the_hubs_libraries_is_used_and_checked() {
    let bytes = random_bytes(34, 1000);
    let mut one = hub("main", |_| Reply::new(500, ""));
    let cache = one.folder.path().join("cache/hub");
    let model = cache.join("models--google--vit");
    let snapshot = model.join("snapshots").join(COMMIT);
    fs_err::create_dir_all(&snapshot).unwrap();
    fs_err::create_dir_all(model.join("refs")).unwrap();
    fs_err::write(model.join("refs/main"), COMMIT).unwrap();
    fs_err::write(snapshot.join("model.safetensors"), bytes.as_slice()).unwrap();
    one.settings.services.hub_cache = Some(cache);
    one.settings.network = Network::Offline;
    let fetched = one.fetch().unwrap();
    one.assert_complete(&bytes);
    assert_eq!(fetched.pin.revision.as_deref(), Some(COMMIT));
    assert!(one.server.log().is_empty());
    // A file that is not the one of the manifest is not taken.
    fs_err::remove_file(&one.item.path).unwrap();
    fs_err::remove_file(&one.settings.store.pins).unwrap();
    one.item.expected = known(b"other");
    assert!(matches!(one.fetch(), Err(FetchError::Digest { .. })), "{:?}", one.fetch());
}
