//! Public folders of Google Drive, and the pages that Drive sends instead of files.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use insta::assert_snapshot;
use laps_files::{ExpectedDigest, Verified};
use laps_hub::{
    fetch::{DriveError, FetchError, Fetcher, Network},
    store::{FileSource, FileStore},
};

use crate::{
    server::{End, Reply, Request, TestServer},
    support::{Setup, random_bytes, settings},
};

const FOLDER: &str = "1FolderFolderFolderFolderFolder01";
const FILE: &str = "1FileFileFileFileFileFileFile0001";
const QUOTA: &str = r#"<html><head><title>Google Drive - Quota exceeded</title></head><body><div id="uc-text">
    <p class="uc-error-caption">Sorry, you can&#39;t view or download this file at this time.</p>
    <p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try accessing the
    file again later.</p></div></body></html>"#;

/// The page of a folder in the embedded view.
pub(crate) fn listing(entries: &[(&str, &str, &str)]) -> String {
    let entry = |(kind, id, name): &(&str, &str, &str)| {
        let href = match *kind {
            "folder" => format!("https://drive.google.com/drive/folders/{id}"),
            _ => format!("https://drive.google.com/file/d/{id}/view?usp=drive_web"),
        };
        format!(
            r#"<div class="flip-entry" id="entry-{id}" tabindex="0" role="link"><div class="flip-entry-info">
            <a href="{href}" target="_blank"><div class="flip-entry-visual"><img src="x.png" alt="a > b"/></div>
            <div class="flip-entry-title">{name}</div></a></div><div class="flip-entry-last-modified"><div>1/2/24</div>
            </div></div>"#
        )
    };
    let entries: String = entries.iter().map(entry).collect();
    format!(
        r#"<!DOCTYPE html><html><head><title>LAPS f30k_vit</title><script>if (1 < 2) document.write("<a>")</script></head>
        <body><div class="folder"><div class="flip-entries">{entries}</div></div></body></html>"#
    )
}

/// The form that confirms a download without a virus scan.
pub(crate) fn form(action: &str, id: &str) -> String {
    format!(
        r#"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
        <form id="download-form" action="{action}" method="get"><input type="submit" id="uc-download-link" value="Go"/>
        <input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">
        <input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="0-1&amp;2"></form></body></html>"#
    )
}

pub(crate) fn attachment(reply: Reply) -> Reply {
    reply.with("Content-Disposition", "attachment; filename=\"model_best.pth\"")
}

/// A server with one listing; `file` responds to the requests for the file.
fn drive(page: String, file: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Setup {
    let count = AtomicUsize::new(0);
    let server = TestServer::start(move |request| match request.path.split('?').next().unwrap() {
        "/embeddedfolderview" => Reply::page(200, &page),
        "/download" => file(count.fetch_add(1, Ordering::SeqCst), request),
        _ => Reply::page(404, "<title>Not found</title>"),
    });
    let mut setup = Setup::new(server, ExpectedDigest::default());
    setup.file.source = FileSource::Drive { folder: FOLDER.to_owned(), file: "model_best.pth".to_owned() };
    setup
}

fn usual_listing() -> String {
    listing(&[("file", "1LogLogLogLogLogLogLogLogLog00001", "train.log"), ("file", FILE, "model_best.pth")])
}

#[test]
fn file_is_found_by_name_and_downloaded_after_the_form() {
    let bytes = random_bytes(20, 900_000);
    let served = Arc::clone(&bytes);
    // The form has the host of Drive, which is replaced by the test server; all its fields must be sent.
    let setup = drive(usual_listing(), move |count, request| {
        if !request.path.contains("uuid=0-1%262") {
            assert!(request.path.starts_with(&format!("/download?id={FILE}&export=download&confirm=t")));
            return Reply::page(200, &form("https://drive.usercontent.google.com/download", FILE));
        }
        let reply = attachment(Reply::file(request, &served, ""));
        if count == 1 { reply.ending(End::Cut(400_000)) } else { reply }
    });
    let fetched = setup.fetch().unwrap();
    setup.assert_complete(&bytes);
    assert_eq!(fetched.pin.url, format!("https://drive.google.com/file/d/{FILE}"));
    let paths: Vec<_> =
        setup.server.log().iter().map(|request| request.path.split('?').next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["/embeddedfolderview", "/download", "/download", "/download", "/download"]);
    assert!(setup.server.log()[4].from().is_some(), "resumed");
}

#[test]
fn subfolders_are_searched() {
    let bytes = random_bytes(21, 1000);
    let served = Arc::clone(&bytes);
    let inner = "1InnerInnerInnerInnerInnerInner01";
    let server = TestServer::start(move |request| match request.path.as_str() {
        path if path.contains(inner) => Reply::page(200, &usual_listing()),
        path if path.starts_with("/embeddedfolderview") => {
            Reply::page(200, &listing(&[("folder", inner, "runs"), ("folder", FOLDER, "round in a circle")]))
        }
        _ => attachment(Reply::file(request, &served, "")),
    });
    let mut setup = Setup::new(server, ExpectedDigest::default());
    setup.file.source = FileSource::Drive { folder: FOLDER.to_owned(), file: "model_best.pth".to_owned() };
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
}

#[test]
fn quota_is_reported_in_the_words_of_drive() {
    let setup = drive(usual_listing(), |_, _| Reply::page(200, QUOTA));
    assert_snapshot!(setup.fetch_error(), @r"
    Google Drive refuses to send `1FileFileFileFileFileFileFile0001`
      expected: the file
      found: Too many users have viewed or downloaded this file recently. Please try accessing the file again later.
    hint: Drive limits downloads of a file for up to 24 hours: try again later, or download the file in a browser and pass its path
    ");
    assert_eq!(setup.server.log().len(), 2, "requested once");
}

#[test]
fn private_file_and_folder_are_reported() {
    let sign_in = "https://accounts.google.com/ServiceLogin?continue=x";
    let setup = drive(usual_listing(), |_, _| Reply::redirect(sign_in));
    assert_snapshot!(setup.fetch_error(), @r"
    `1FileFileFileFileFileFileFile0001` on Google Drive is not public
      expected: a public file
      found: a sign-in page or a refusal
    hint: ask the owner to share it with anyone who has the link, or pass the path of a copy
    ");
    let setup = drive(usual_listing(), |_, _| Reply::page(403, "<title>Access denied</title>"));
    assert!(matches!(setup.fetch(), Err(FetchError::Drive(DriveError::Private { kind: "file", .. }))));
    let mut setup = Setup::new(TestServer::start(|_| Reply::redirect(sign_in)), ExpectedDigest::default());
    setup.file.source = FileSource::Drive { folder: FOLDER.to_owned(), file: "model_best.pth".to_owned() };
    assert!(matches!(setup.fetch(), Err(FetchError::Drive(DriveError::Private { kind: "folder", .. }))));
}

#[test]
fn deleted_file_and_folder_are_reported() {
    let setup = drive(usual_listing(), |_, _| Reply::page(404, "<title>Not found</title>"));
    assert_snapshot!(setup.fetch_error(), @r"
    `1FileFileFileFileFileFileFile0001` is not on Google Drive
      expected: a public file
      found: no such file
    hint: the owner has removed or moved it: find its new location, and pass the path of a copy
    ");
    let mut setup = Setup::new(TestServer::start(|_| Reply::page(404, "<title>x</title>")), ExpectedDigest::default());
    setup.file.source = FileSource::Drive { folder: FOLDER.to_owned(), file: "model_best.pth".to_owned() };
    assert!(matches!(setup.fetch(), Err(FetchError::Drive(DriveError::Gone { kind: "folder", .. }))));
}

#[test]
fn unknown_layouts_are_reported() {
    let setup =
        drive("<html><title>Drive, new</title><div class='entries'></div></html>".to_owned(), |_, _| unreachable!());
    assert_snapshot!(setup.fetch_error(), @r"
    unknown response of Google Drive for `1FolderFolderFolderFolderFolder01`
      expected: the listing of a folder
      found: a page with the title `Drive, new`
    hint: Drive may have changed its pages: download the file in a browser, pass its path, and report this error
    ");
    let setup =
        drive(usual_listing(), |_, _| Reply::page(200, "<title>Something else</title><form id='other'></form>"));
    assert!(
        setup.fetch_error().contains("expected: the file, or a form to confirm its download"),
        "{}",
        setup.fetch_error()
    );
    // Neither a page nor an attachment.
    let setup = drive(usual_listing(), |_, _| Reply::new(200, "{}").with("Content-Type", "application/json"));
    assert!(setup.fetch_error().contains("found: a response of type `application/json`"), "{}", setup.fetch_error());
}

#[test]
fn forms_with_other_targets_are_not_followed() {
    let bytes = random_bytes(22, 100);
    for (action, id, found) in [
        ("https://evil.example/download", FILE, "`https://evil.example/download`"),
        ("http://127.0.0.1:1/download", FILE, "`http://127.0.0.1:1/download`"),
        ("/download", "1OtherOtherOtherOtherOtherOther01", "1OtherOther"),
        ("/download?id=a&id=b", "", "[\""),
    ] {
        let served = Arc::clone(&bytes);
        let setup = drive(usual_listing(), move |count, request| match count {
            0 => Reply::page(200, &form(action, id)),
            _ => attachment(Reply::file(request, &served, "")),
        });
        let text = setup.fetch_error();
        assert!(text.contains("is not followed") && text.contains(found), "{action}: {text}");
        assert!(!setup.exists());
    }
    // Endless forms.
    let setup = drive(usual_listing(), |_, _| Reply::page(200, &form("/download", FILE)));
    assert!(setup.fetch_error().contains("expected: at most 5 forms"), "{}", setup.fetch_error());
    assert_eq!(setup.server.log().len(), 7);
}

#[test]
fn folder_without_the_file_lists_its_contents() {
    let entries = [
        ("file", "1LogLogLogLogLogLogLogLogLog00001", "train.log"),
        ("file", "1BadBadBadBadBadBadBadBadBad00001", "../../model_best.pth"),
        ("file", "1BadBadBadBadBadBadBadBadBad00002", "a/model_best.pth"),
        ("file", "1Esc", "too short an id"),
    ];
    let setup = drive(listing(&entries), |_, _| unreachable!());
    assert_snapshot!(setup.fetch_error(), @r"
    the Google Drive folder `1FolderFolderFolderFolderFolder01` does not contain `model_best.pth`
      expected: `model_best.pth`
      found: `train.log`, `../../model_best.pth` (unsafe name), `a/model_best.pth` (unsafe name)
    hint: the owner has changed the folder: open it in a browser, and pass the path of the file
    ");
    let twice = [("file", FILE, "model_best.pth"), ("file", "1FileFileFileFileFileFileFile0002", "model_best.pth")];
    let setup = drive(listing(&twice), |_, _| unreachable!());
    assert!(matches!(setup.fetch(), Err(FetchError::Drive(DriveError::Ambiguous { count: 2, .. }))));
}

#[test]
fn transient_errors_of_drive_are_retried() {
    let bytes = random_bytes(23, 5000);
    let served = Arc::clone(&bytes);
    let setup = drive(usual_listing(), move |count, request| match count {
        0 => Reply::page(500, "<title>oops</title>"),
        1 => Reply::page(429, "<title>slow down</title>"),
        _ => attachment(Reply::file(request, &served, "")),
    });
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
}

#[test]
fn plausible_matches_are_pinned_whether_fetched_or_copied_into_the_cache() {
    const IDS: [&str; 2] = ["1PlausiblePlausiblePlausible00001", "1PlausiblePlausiblePlausible00002"];
    let bytes = [random_bytes(24, 3000), random_bytes(25, 4000)];
    let page = listing(&[("file", IDS[0], "pm_caption_to_image.json"), ("file", IDS[1], "pm_image_to_caption.json")]);
    let served = bytes.clone();
    let server = TestServer::start(move |request| match request.path.split('?').next().unwrap() {
        "/embeddedfolderview" => Reply::page(200, &page),
        "/download" => {
            let index = usize::from(request.path.contains(IDS[1]));
            attachment(Reply::file(request, &served[index], ""))
        }
        _ => Reply::page(404, "<title>Not found</title>"),
    });
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&server, folder.path());
    let files = settings.store.plausible_matches().unwrap();
    let keys: Vec<&str> = files.iter().map(|file| file.key.as_str()).collect();
    assert_eq!(
        keys,
        ["judgements/eccv_caption/pm_caption_to_image.json", "judgements/eccv_caption/pm_image_to_caption.json"]
    );
    for (outcome, bytes) in Fetcher::new(settings.clone()).fetch_all(&files, &()).into_iter().zip(&bytes) {
        let fetched = outcome.unwrap();
        assert_eq!((fetched.was_cached, fetched.pin.verified), (false, Verified::FirstFetch));
        assert_eq!(fetched.file.path.parent(), Some(settings.store.judgement_folder().as_path()));
        assert!(fs_err::read(&fetched.file.path).unwrap() == **bytes);
    }

    settings.store = FileStore::at(folder.path().join("other"));
    settings.network = Network::Offline;
    let copied = settings.store.judgement_folder();
    fs_err::create_dir_all(&copied).unwrap();
    for (name, bytes) in ["pm_caption_to_image.json", "pm_image_to_caption.json"].into_iter().zip(&bytes) {
        fs_err::write(copied.join(name), bytes.as_slice()).unwrap();
    }
    let files = settings.store.plausible_matches().unwrap();
    let fetched = Fetcher::new(settings.clone()).fetch_all(&files, &());
    assert!(fetched.iter().all(|outcome| outcome.as_ref().is_ok_and(|fetched| fetched.was_cached)), "{fetched:?}");
}
