//! Mirrors, folders and redirects: where bytes may come from.

use std::sync::Arc;

use insta::assert_snapshot;
use laps_files::Expected;
use laps_hub::{
    fetch::{Base, FetchError, Network},
    store::Source,
};

use crate::{
    server::{Reply, Server},
    support::{One, known, random_bytes},
};

#[test]
fn sources_are_tried_in_order() {
    let bytes = random_bytes(40, 1000);
    let served = Arc::clone(&bytes);
    let server = Server::start(move |request| match request.path.as_str() {
        "/second/files/a.bin" => Reply::file(request, &served, "\"x\""),
        _ => Reply::new(404, ""),
    });
    let mut one = One::new(server, known(&bytes));
    one.settings.services.mirrors =
        ["first", "second"].map(|name| Base::parse(&format!("{}/{name}/", one.server.url()), &[]).unwrap()).to_vec();
    let fetched = one.fetch().unwrap();
    one.assert_complete(&bytes);
    assert!(fetched.pin.url.ends_with("/second/files/a.bin"));
    let asked: Vec<_> = one.server.log().iter().map(|request| request.path.clone()).collect();
    assert_eq!(asked, ["/first/files/a.bin", "/second/files/a.bin"]);
}

#[test]
fn what_went_wrong_at_each_source_is_told() {
    let mut one = One::new(Server::start(|_| Reply::new(404, "")), Expected::default());
    one.item.mirrors = vec![format!("{}/b", one.server.url()), "file:///nowhere/b".to_owned()];
    assert_snapshot!(one.refused(), @r"
    `files/a.bin` could not be fetched from any of 3 sources
      `SERVER/a.bin` answers with an error; expected: status 200 or 206; found: status 404
      `SERVER/b` answers with an error; expected: status 200 or 206; found: status 404
      can not read `/nowhere/b`
    hint: the file was moved or removed: give its path yourself
    ");
}

/// A mirror that has other bytes is no better than a server that has.
#[test]
fn a_mirror_is_not_believed() {
    let bytes = random_bytes(41, 1000);
    let served = Arc::clone(&bytes);
    let server = Server::start(move |request| match request.path.as_str() {
        "/mirror/files/a.bin" => Reply::new(200, "other bytes"),
        _ => Reply::file(request, &served, "\"x\""),
    });
    let mut one = One::new(server, known(&bytes));
    one.settings.services.mirrors = vec![Base::parse(&format!("{}/mirror", one.server.url()), &[]).unwrap()];
    one.fetch().unwrap();
    one.assert_complete(&bytes);
}

#[test]
fn a_folder_serves_without_a_network() {
    let bytes = random_bytes(42, 100_000);
    let mut one = One::new(Server::start(|_| Reply::new(500, "")), known(&bytes));
    let mirror = one.folder.path().join("cache/mirror");
    fs_err::create_dir_all(mirror.join("files")).unwrap();
    fs_err::write(mirror.join("files/a.bin"), bytes.as_slice()).unwrap();
    one.settings.services.mirrors = vec![Base::parse(&format!("file://{}", mirror.display()), &[]).unwrap()];
    one.settings.network = Network::Offline;
    one.fetch().unwrap();
    one.assert_complete(&bytes);
    assert!(one.server.log().is_empty());
}

#[test]
fn a_folder_stands_for_drive() {
    let bytes = random_bytes(43, 1000);
    let mut one = One::new(Server::start(|_| Reply::new(500, "")), Expected::default());
    let drive = one.folder.path().join("cache/drive");
    fs_err::create_dir_all(drive.join("1Folder0001")).unwrap();
    fs_err::write(drive.join("1Folder0001/model_best.pth"), bytes.as_slice()).unwrap();
    let base = Base::parse(&format!("file://{}", drive.display()), &[]).unwrap();
    (one.settings.services.drive_pages, one.settings.services.drive_files) = (base.clone(), base);
    one.item.source = Source::Drive { folder: "1Folder0001".to_owned(), file: "model_best.pth".to_owned() };
    one.fetch().unwrap();
    one.assert_complete(&bytes);
}

#[test]
fn redirects_stay_with_the_server() {
    let bytes = random_bytes(44, 1000);
    let (served, other) = (Arc::clone(&bytes), Server::start(|_| Reply::new(200, "stolen")));
    let port = other.url().rsplit(':').next().unwrap().to_owned();
    let server = Server::start(move |request| match request.path.as_str() {
        "/a.bin" => Reply::redirect("b"),
        "/b" => Reply::redirect("/c?x=1"),
        _ => Reply::file(request, &served, "\"x\""),
    });
    let one = One::new(server, Expected::default());
    one.fetch().unwrap();
    one.assert_complete(&bytes);
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
        let one = One::new(Server::start(move |_| Reply::redirect(&to)), Expected::default());
        assert!(matches!(one.fetch(), Err(FetchError::Redirect { .. })), "{:?}", one.fetch());
        assert!(!one.is_here());
    }
    assert!(other.log().is_empty());
}

#[test]
fn plain_http_carries_only_what_has_a_hash() {
    let mut one = One::new(Server::start(|_| Reply::new(500, "")), Expected::default());
    // No name server is asked: the address is refused before.
    one.item.source = Source::Address("http://mirror.example/a.bin".to_owned());
    assert_snapshot!(one.refused(), @r"
    `http://mirror.example/a.bin` can not be used as an address
      expected: https, for no hash of the file is known
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
        assert!(Base::parse(address, &[]).is_err(), "{address}");
    }
}
