//! What is believed: known hashes, pins, and a look at what came.

use std::sync::Arc;

use insta::assert_snapshot;
use laps_files::{Expected, Verified, beside, digest_file};
use laps_hub::{
    checkpoint::Checkpoint,
    fetch::{FetchError, Fetcher, Network, Pinning},
    store::{Pins, StoreError},
};

use crate::{
    server::{Reply, Server},
    support::{Notes, One, known, random_bytes, sha256},
};

fn serving(bytes: &Arc<Vec<u8>>) -> Server {
    let bytes = Arc::clone(bytes);
    Server::start(move |request| Reply::file(request, &bytes, "\"x\""))
}

#[test]
fn each_kind_of_hash_is_checked() {
    let bytes = random_bytes(50, 200_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs_err::write(&path, bytes.as_slice()).unwrap();
    let all = Expected { md5: Some(String::new()), git_blob: Some(String::new()), ..Expected::default() };
    let found = digest_file(&path, &all).unwrap();
    let none = Expected::default;
    for (kind, good, basis) in [
        ("sha256", Expected { sha256: Some(found.sha256.clone()), ..none() }, Verified::Sha256),
        ("md5", Expected { md5: found.md5.clone(), ..none() }, Verified::Md5),
        ("git blob id", Expected { git_blob: found.git_blob.clone(), ..none() }, Verified::GitBlob),
    ] {
        let one = One::new(serving(&bytes), good.clone());
        assert_eq!(one.fetch().unwrap().pin.verified, basis);
        one.assert_complete(&bytes);
        let spoil = |hash: Option<String>| hash.map(|hash| hash.replace(|letter: char| letter.is_ascii_digit(), "e"));
        let bad =
            Expected { bytes: None, sha256: spoil(good.sha256), md5: spoil(good.md5), git_blob: spoil(good.git_blob) };
        let one = One::new(serving(&bytes), bad);
        let text = one.refused();
        assert!(text.contains(&format!("found: {kind} ")), "{text}");
        assert!(!one.is_here());
        one.assert_nothing_left();
        assert_eq!(one.server.log().len(), 2, "a second time, for it may have been damaged on its way");
    }
}

#[test]
fn the_first_fetch_pins_and_every_later_one_obeys() {
    let (first, second) = (random_bytes(51, 1000), random_bytes(52, 1000));
    let one = One::new(serving(&first), Expected::default());
    assert_eq!(one.fetch().unwrap().pin.verified, Verified::FirstFetch);
    // The file is damaged on the disk: put aside, and fetched again.
    fs_err::write(&one.item.path, b"damaged").unwrap();
    let notes = Notes::default();
    Fetcher::new(one.settings.clone()).fetch(&one.item, |_| Ok(()), &notes).unwrap();
    assert!(notes.0.lock().unwrap()[0].contains("wrong size: moved to"), "{:?}", notes.0.lock().unwrap());
    assert_eq!(fs_err::read(beside(&one.item.path, ".rejected")).unwrap(), b"damaged");
    assert!(one.read() == *first);
    // The source has another file now.
    fs_err::remove_file(&one.item.path).unwrap();
    let changed = One { server: serving(&second), ..one };
    let mut changed = changed;
    changed.item.source = laps_hub::store::Source::Address(format!("{}/a.bin", changed.server.url()));
    let (old, new) = (sha256(&first), sha256(&second));
    assert_eq!(
        changed.refused(),
        format!(
            "`SERVER/a.bin` is another file than expected\n  expected: sha256 {old}\n  found: sha256 {new}\nhint: the \
             file was replaced at its source, or damaged; to accept it, remove its entry from `DIR/cache/laps-zoo.lock`"
        )
    );
    assert!(!changed.is_here());
}

#[test]
fn locked_and_offline() {
    let bytes = random_bytes(53, 1000);
    let mut one = One::new(serving(&bytes), Expected::default());
    one.settings.pinning = Pinning::Locked;
    assert_snapshot!(one.refused(), @r"
    `files/a.bin` is not pinned
      expected: its sha256 in `DIR/cache/laps-zoo.lock`
      found: none, and `--locked` forbids to add it
    hint: fetch it once without `--locked`, and look at the pin
    ");
    one.settings.network = Network::Offline;
    one.settings.pinning = Pinning::OnFirstFetch;
    assert_snapshot!(one.refused(), @r"
    `files/a.bin` is not here
      expected: the file in `DIR/a.bin`
      found: nothing, and `--offline` forbids to fetch it
    hint: run `laps-zoo fetch` where there is a network, or leave `--offline` out
    ");
    assert!(one.server.log().is_empty());
    // A hash of the manifest is as good as a pin, and the file of pins stays as it is.
    one.settings.network = Network::Online;
    one.settings.pinning = Pinning::Locked;
    one.item.expected = known(&bytes);
    one.fetch().unwrap();
    assert!(Pins::open(&one.settings.store.pins).unwrap().get(&one.item.key).is_none());
    one.settings.network = Network::Offline;
    assert!(one.fetch().unwrap().was_here);
    fs_err::write(&one.item.path, b"damaged").unwrap();
    assert!(matches!(one.fetch(), Err(FetchError::Store(StoreError::Mismatch { .. }))));
    assert_eq!(one.read(), b"damaged", "offline, nothing is moved");
}

#[test]
fn a_pin_and_the_manifest_that_contradict_each_other() {
    let bytes = random_bytes(54, 1000);
    let mut one = One::new(serving(&bytes), Expected::default());
    one.fetch().unwrap();
    one.item.expected = known(b"other");
    assert!(matches!(one.fetch(), Err(FetchError::Store(StoreError::Mismatch { .. }))));
}

/// What can not be used is put aside under another name, with the reason.
#[test]
fn a_file_that_can_not_be_used_never_gets_its_name() {
    let one = One::new(serving(&Arc::new(b"PK\x03\x04 no archive".to_vec())), Expected::default());
    let open = |path: &std::path::Path| Ok(Checkpoint::open(path).map(drop)?);
    let error = Fetcher::new(one.settings.clone()).fetch(&one.item, open, &()).unwrap_err();
    let text = one.words(&error);
    assert!(
        text.starts_with("`files/a.bin` was fetched and can not be used; it lies in `DIR/a.bin.rejected`"),
        "{text}"
    );
    assert!(text.contains("caused by: `DIR/a.bin.part` can not be read to the end"), "{text}");
    assert!(!one.is_here() && beside(&one.item.path, ".rejected").exists());
    assert!(Pins::open(&one.settings.store.pins).unwrap().get(&one.item.key).is_none(), "not pinned");
}
