//! Mirrors, local folders and redirects.

use std::sync::Arc;

use insta::assert_snapshot;
use laps_files::ExpectedDigest;
use laps_hub::{
    fetch::{Endpoint, FetchError, Network},
    store::FileSource,
};

use crate::{
    server::{Reply, TestServer},
    support::{Setup, expected_sha256, random_bytes},
};

#[test]
fn sources_are_tried_in_order() {
    let bytes = random_bytes(40, 1000);
    let served = Arc::clone(&bytes);
    let server = TestServer::start(move |request| match request.path.as_str() {
        "/second/files/a.bin" => Reply::file(request, &served, "\"x\""),
        _ => Reply::new(404, ""),
    });
    let mut setup = Setup::new(server, expected_sha256(&bytes));
    setup.settings.services.mirrors = ["first", "second"]
        .map(|name| Endpoint::parse(&format!("{}/{name}/", setup.server.url()), &[]).unwrap())
        .to_vec();
    let fetched = setup.fetch().unwrap();
    setup.assert_complete(&bytes);
    assert!(fetched.pin.url.ends_with("/second/files/a.bin"));
    let asked: Vec<_> = setup.server.log().iter().map(|request| request.path.clone()).collect();
    assert_eq!(asked, ["/first/files/a.bin", "/second/files/a.bin"]);
}

#[test]
fn error_of_each_source_is_reported() {
    let mut setup = Setup::new(TestServer::start(|_| Reply::new(404, "")), ExpectedDigest::default());
    setup.file.mirrors = vec![format!("{}/b", setup.server.url()), "file:///nowhere/b".to_owned()];
    assert_snapshot!(setup.fetch_error(), @r"
    `files/a.bin` could not be fetched from any of 3 sources
      HTTP error from `SERVER/a.bin`; expected: status 200 or 206; found: status 404
      HTTP error from `SERVER/b`; expected: status 200 or 206; found: status 404
      cannot read `/nowhere/b`: failed to open file `/nowhere/b`: No such file or directory (os error 2)
    hint: the file was moved or removed: pass the path of a copy
    ");
}

#[test]
fn mirror_with_wrong_bytes_is_skipped() {
    let bytes = random_bytes(41, 1000);
    let served = Arc::clone(&bytes);
    let server = TestServer::start(move |request| match request.path.as_str() {
        "/mirror/files/a.bin" => Reply::new(200, "other bytes"),
        _ => Reply::file(request, &served, "\"x\""),
    });
    let mut setup = Setup::new(server, expected_sha256(&bytes));
    setup.settings.services.mirrors = vec![Endpoint::parse(&format!("{}/mirror", setup.server.url()), &[]).unwrap()];
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
}

#[test]
fn local_folder_serves_as_a_mirror_offline() {
    let bytes = random_bytes(42, 100_000);
    let mut setup = Setup::new(TestServer::start(|_| Reply::new(500, "")), expected_sha256(&bytes));
    let mirror = setup.folder.path().join("cache/mirror");
    fs_err::create_dir_all(mirror.join("files")).unwrap();
    fs_err::write(mirror.join("files/a.bin"), bytes.as_slice()).unwrap();
    setup.settings.services.mirrors = vec![Endpoint::parse(&format!("file://{}", mirror.display()), &[]).unwrap()];
    setup.settings.network = Network::Offline;
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
    assert!(setup.server.log().is_empty());
}

#[test]
fn local_folder_serves_as_drive() {
    let bytes = random_bytes(43, 1000);
    let mut setup = Setup::new(TestServer::start(|_| Reply::new(500, "")), ExpectedDigest::default());
    let drive = setup.folder.path().join("cache/drive");
    fs_err::create_dir_all(drive.join("1Folder0001")).unwrap();
    fs_err::write(drive.join("1Folder0001/model_best.pth"), bytes.as_slice()).unwrap();
    let base = Endpoint::parse(&format!("file://{}", drive.display()), &[]).unwrap();
    (setup.settings.services.drive_pages, setup.settings.services.drive_files) = (base.clone(), base);
    setup.file.source = FileSource::Drive { folder: "1Folder0001".to_owned(), file: "model_best.pth".to_owned() };
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
}

#[test]
fn redirects_to_other_hosts_are_refused() {
    let bytes = random_bytes(44, 1000);
    let (served, other) = (Arc::clone(&bytes), TestServer::start(|_| Reply::new(200, "stolen")));
    let port = other.url().rsplit(':').next().unwrap().to_owned();
    let server = TestServer::start(move |request| match request.path.as_str() {
        "/a.bin" => Reply::redirect("b"),
        "/b" => Reply::redirect("/c?x=1"),
        _ => Reply::file(request, &served, "\"x\""),
    });
    let setup = Setup::new(server, ExpectedDigest::default());
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
    for to in [
        other.url(),
        format!("http://localhost:{port}/"),
        "http://example.org/".to_owned(),
        "https://user:password@127.0.0.1/".to_owned(),
        "ftp://127.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "//evil.example/".to_owned(),
        "/a.bin".to_owned(),
    ] {
        let to = to.clone();
        let setup = Setup::new(TestServer::start(move |_| Reply::redirect(&to)), ExpectedDigest::default());
        assert!(matches!(setup.fetch(), Err(FetchError::Redirect { .. })), "{:?}", setup.fetch());
        assert!(!setup.exists());
    }
    assert!(other.log().is_empty());
}

#[test]
fn plain_http_needs_a_known_hash() {
    let mut setup = Setup::new(TestServer::start(|_| Reply::new(500, "")), ExpectedDigest::default());
    // Refused before any name lookup.
    setup.file.source = FileSource::Address("http://mirror.example/a.bin".to_owned());
    assert_snapshot!(setup.fetch_error(), @r"
    unusable URL `http://mirror.example/a.bin`
      expected: https, because no hash of the file is known
      found: plain http
    ");
    for address in [
        "mirror.example",
        "ftp://mirror.example",
        "http://",
        "https://user@mirror.example",
        "https://a?b",
        "file://relative",
    ] {
        assert!(Endpoint::parse(address, &[]).is_err(), "{address}");
    }
}
