//! Verification: known hashes, pins, and checks of the contents.

use std::sync::Arc;

use insta::assert_snapshot;
use laps_files::{ExpectedDigest, Verified, digest_file, with_suffix};
use laps_hub::{
    checkpoint::Checkpoint,
    fetch::{FetchError, Fetcher, Network, Pinning},
    store::{FileStoreError, Pins},
};

use crate::{
    server::{Reply, TestServer},
    support::{Messages, Setup, expected_sha256, random_bytes, sha256},
};

fn serving(bytes: &Arc<Vec<u8>>) -> TestServer {
    let bytes = Arc::clone(bytes);
    TestServer::start(move |request| Reply::file(request, &bytes, "\"x\""))
}

#[test]
fn each_kind_of_hash_is_checked() {
    let bytes = random_bytes(50, 200_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs_err::write(&path, bytes.as_slice()).unwrap();
    let all = ExpectedDigest { md5: Some(String::new()), git_blob: Some(String::new()), ..ExpectedDigest::default() };
    let found = digest_file(&path, &all).unwrap();
    let none = ExpectedDigest::default;
    for (kind, good, basis) in [
        ("sha256", ExpectedDigest { sha256: Some(found.sha256.clone()), ..none() }, Verified::Sha256),
        ("md5", ExpectedDigest { md5: found.md5.clone(), ..none() }, Verified::Md5),
        ("git blob id", ExpectedDigest { git_blob: found.git_blob.clone(), ..none() }, Verified::GitBlob),
    ] {
        let setup = Setup::new(serving(&bytes), good.clone());
        assert_eq!(setup.fetch().unwrap().pin.verified, basis);
        setup.assert_complete(&bytes);
        let change = |hash: Option<String>| hash.map(|hash| hash.replace(|letter: char| letter.is_ascii_digit(), "e"));
        let bad = ExpectedDigest {
            bytes: None,
            sha256: change(good.sha256),
            md5: change(good.md5),
            git_blob: change(good.git_blob),
        };
        let setup = Setup::new(serving(&bytes), bad);
        let text = setup.fetch_error();
        assert!(text.contains(&format!("found: {kind} ")), "{text}");
        assert!(!setup.exists());
        setup.assert_nothing_left();
        assert_eq!(setup.server.log().len(), 2, "a second time, because it may have been damaged on the way");
    }
}

#[test]
fn first_fetch_pins_and_later_fetches_check_the_pin() {
    let (first, second) = (random_bytes(51, 1000), random_bytes(52, 1000));
    let setup = Setup::new(serving(&first), ExpectedDigest::default());
    assert_eq!(setup.fetch().unwrap().pin.verified, Verified::FirstFetch);
    // A damaged local file is moved aside and fetched again.
    fs_err::write(&setup.file.path, b"damaged").unwrap();
    let messages = Messages::default();
    Fetcher::new(setup.settings.clone()).fetch(&setup.file, |_| Ok(()), &messages).unwrap();
    assert!(messages.0.lock().unwrap()[0].contains("wrong size: moved to"), "{:?}", messages.0.lock().unwrap());
    assert_eq!(fs_err::read(with_suffix(&setup.file.path, ".rejected")).unwrap(), b"damaged");
    assert!(setup.read() == *first);
    // The source now has another file.
    fs_err::remove_file(&setup.file.path).unwrap();
    let changed = Setup { server: serving(&second), ..setup };
    let mut changed = changed;
    changed.file.source = laps_hub::store::FileSource::Address(format!("{}/a.bin", changed.server.url()));
    let (old, new) = (sha256(&first), sha256(&second));
    assert_eq!(
        changed.fetch_error(),
        format!(
            "`SERVER/a.bin` is not the expected file\n  expected: sha256 {old}\n  found: sha256 {new}\nhint: the \
             file was damaged, or replaced at its source; to accept it, remove its entry from `DIR/cache/laps-zoo.lock`"
        )
    );
    assert!(!changed.exists());
}

#[test]
fn locked_and_offline_settings_are_enforced() {
    let bytes = random_bytes(53, 1000);
    let mut setup = Setup::new(serving(&bytes), ExpectedDigest::default());
    setup.settings.pinning = Pinning::Locked;
    assert_snapshot!(setup.fetch_error(), @r"
    `files/a.bin` is not pinned
      expected: its sha256 in `DIR/cache/laps-zoo.lock`
      found: none, and new pins are not allowed
    hint: allow new pins once, and check the pin
    ");
    setup.settings.network = Network::Offline;
    setup.settings.pinning = Pinning::OnFirstFetch;
    assert_snapshot!(setup.fetch_error(), @r"
    `files/a.bin` is not in the cache
      expected: the file `DIR/a.bin`
      found: nothing, and downloads are disabled
    hint: fetch it once with network access; `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` disable downloads too
    ");
    assert!(setup.server.log().is_empty());
    // A hash in the manifest replaces a pin, and no pin is added.
    setup.settings.network = Network::Online;
    setup.settings.pinning = Pinning::Locked;
    setup.file.expected = expected_sha256(&bytes);
    setup.fetch().unwrap();
    assert!(Pins::open(&setup.settings.store.pins).unwrap().get(&setup.file.key).is_none());
    setup.settings.network = Network::Offline;
    assert!(setup.fetch().unwrap().was_cached);
    fs_err::write(&setup.file.path, b"damaged").unwrap();
    assert!(matches!(setup.fetch(), Err(FetchError::Store(FileStoreError::Mismatch { .. }))));
    assert_eq!(setup.read(), b"damaged", "nothing is moved offline");
}

#[test]
fn contradiction_of_pin_and_manifest_is_an_error() {
    let bytes = random_bytes(54, 1000);
    let mut setup = Setup::new(serving(&bytes), ExpectedDigest::default());
    setup.fetch().unwrap();
    setup.file.expected = expected_sha256(b"other");
    assert!(matches!(setup.fetch(), Err(FetchError::Store(FileStoreError::Mismatch { .. }))));
}

/// It is kept under another name.
#[test]
fn unusable_file_never_gets_its_name() {
    let setup = Setup::new(serving(&Arc::new(b"PK\x03\x04 no archive".to_vec())), ExpectedDigest::default());
    let open = |path: &std::path::Path| Ok(Checkpoint::open(path).map(drop)?);
    let error = Fetcher::new(setup.settings.clone()).fetch(&setup.file, open, &()).unwrap_err();
    let text = setup.describe(&error);
    assert!(
        text.starts_with("`files/a.bin` was fetched but is not usable; it was kept as `DIR/a.bin.rejected`"),
        "{text}"
    );
    assert!(text.contains("caused by: `DIR/a.bin.part` is damaged"), "{text}");
    assert!(!setup.exists() && with_suffix(&setup.file.path, ".rejected").exists());
    assert!(Pins::open(&setup.settings.store.pins).unwrap().get(&setup.file.key).is_none(), "not pinned");
}
