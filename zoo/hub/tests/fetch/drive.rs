//! Public folders of Google Drive: the pages that it shows in place of files, one by one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use insta::assert_snapshot;
use laps_files::Expected;
use laps_hub::{
    fetch::{
        DriveError, FetchError,
        drive::{Notice, read_listing, read_notice},
    },
    store::Source,
};

use crate::{
    server::{End, Reply, Request, Server},
    support::{One, random_bytes},
};

const FOLDER: &str = "1FolderFolderFolderFolderFolder01";
const FILE: &str = "1FileFileFileFileFileFileFile0001";
const QUOTA: &str = r#"<html><head><title>Google Drive - Quota exceeded</title></head><body><div id="uc-text">
    <p class="uc-error-caption">Sorry, you can&#39;t view or download this file at this time.</p>
    <p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try accessing the
    file again later.</p></div></body></html>"#;

/// The page of a folder as the embedded view shows it.
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

/// The form to confirm a download without a virus scan.
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

/// A server with one listing, and `file` for what is asked of the file.
fn drive(page: String, file: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> One {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.path.split('?').next().unwrap() {
        "/embeddedfolderview" => Reply::page(200, &page),
        "/download" => file(count.fetch_add(1, Ordering::SeqCst), request),
        _ => Reply::page(404, "<title>Not found</title>"),
    });
    let mut one = One::new(server, Expected::default());
    one.item.source = Source::Drive { folder: FOLDER.to_owned(), file: "model_best.pth".to_owned() };
    one
}

fn usual() -> String {
    listing(&[("file", "1LogLogLogLogLogLogLogLogLog00001", "train.log"), ("file", FILE, "model_best.pth")])
}

#[test]
fn a_file_is_found_by_its_name_and_comes_after_the_form() {
    let bytes = random_bytes(20, 900_000);
    let served = Arc::clone(&bytes);
    // Drive's own address stands in the form; it leads to the server all the same, and has to carry every field.
    let one = drive(usual(), move |count, request| {
        if !request.path.contains("uuid=0-1%262") {
            assert!(request.path.starts_with(&format!("/download?id={FILE}&export=download&confirm=t")));
            return Reply::page(200, &form("https://drive.usercontent.google.com/download", FILE));
        }
        let reply = attachment(Reply::file(request, &served, ""));
        if count == 1 { reply.ending(End::Cut(400_000)) } else { reply }
    });
    let fetched = one.fetch().unwrap();
    one.assert_complete(&bytes);
    assert_eq!(fetched.pin.url, format!("https://drive.google.com/file/d/{FILE}"));
    let paths: Vec<_> =
        one.server.log().iter().map(|request| request.path.split('?').next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["/embeddedfolderview", "/download", "/download", "/download", "/download"]);
    assert!(one.server.log()[4].from().is_some(), "goes on");
}

#[test]
fn a_folder_inside_the_folder_is_looked_into() {
    let bytes = random_bytes(21, 1000);
    let served = Arc::clone(&bytes);
    let inner = "1InnerInnerInnerInnerInnerInner01";
    let server = Server::start(move |request| match request.path.as_str() {
        path if path.contains(inner) => Reply::page(200, &usual()),
        path if path.starts_with("/embeddedfolderview") => {
            Reply::page(200, &listing(&[("folder", inner, "runs"), ("folder", FOLDER, "round in a circle")]))
        }
        _ => attachment(Reply::file(request, &served, "")),
    });
    let mut one = One::new(server, Expected::default());
    one.item.source = Source::Drive { folder: FOLDER.to_owned(), file: "model_best.pth".to_owned() };
    one.fetch().unwrap();
    one.assert_complete(&bytes);
}

#[test]
fn a_quota_is_told_with_drives_own_words() {
    let one = drive(usual(), |_, _| Reply::page(200, QUOTA));
    assert_snapshot!(one.refused(), @r"
    Google Drive does not give `1FileFileFileFileFileFileFile0001` at present
      expected: the file
      found: Too many users have viewed or downloaded this file recently. Please try accessing the file again later.
    hint: Drive limits how often a file is fetched, for up to 24 hours: run the same command later, or fetch the file in a browser and pass its path
    ");
    assert_eq!(one.server.log().len(), 2, "asked once");
}

#[test]
fn a_private_file_and_a_private_folder() {
    let sign_in = "https://accounts.google.com/ServiceLogin?continue=x";
    let one = drive(usual(), |_, _| Reply::redirect(sign_in));
    assert_snapshot!(one.refused(), @r"
    `1FileFileFileFileFileFileFile0001` on Google Drive is not public
      expected: the file itself
      found: a page to sign in, or a refusal
    hint: ask its owner to share it with anyone who has the link, or pass the path of a copy
    ");
    let one = drive(usual(), |_, _| Reply::page(403, "<title>Access denied</title>"));
    assert!(matches!(one.fetch(), Err(FetchError::Drive(DriveError::Private { kind: "file", .. }))));
    let mut one = One::new(Server::start(|_| Reply::redirect(sign_in)), Expected::default());
    one.item.source = Source::Drive { folder: FOLDER.to_owned(), file: "model_best.pth".to_owned() };
    assert!(matches!(one.fetch(), Err(FetchError::Drive(DriveError::Private { kind: "folder", .. }))));
}

#[test]
fn a_file_and_a_folder_that_are_gone() {
    let one = drive(usual(), |_, _| Reply::page(404, "<title>Not found</title>"));
    assert_snapshot!(one.refused(), @r"
    `1FileFileFileFileFileFileFile0001` is not on Google Drive
      expected: a public file
      found: none of that identifier
    hint: its owner has removed or moved it: look for its new place, and pass the path of a copy
    ");
    let mut one = One::new(Server::start(|_| Reply::page(404, "<title>x</title>")), Expected::default());
    one.item.source = Source::Drive { folder: FOLDER.to_owned(), file: "model_best.pth".to_owned() };
    assert!(matches!(one.fetch(), Err(FetchError::Drive(DriveError::Gone { kind: "folder", .. }))));
}

#[test]
fn pages_of_another_layout() {
    let one =
        drive("<html><title>Drive, new</title><div class='entries'></div></html>".to_owned(), |_, _| unreachable!());
    assert_snapshot!(one.refused(), @r"
    the answer of Google Drive for `1FolderFolderFolderFolderFolder01` is not understood
      expected: the listing of a folder
      found: a page with the title `Drive, new`
    hint: Drive may have changed its pages: fetch the file in a browser, pass its path, and report this
    ");
    let one = drive(usual(), |_, _| Reply::page(200, "<title>Something else</title><form id='other'></form>"));
    assert!(one.refused().contains("expected: the file, or a form to confirm its download"), "{}", one.refused());
    // Neither a page nor an attachment.
    let one = drive(usual(), |_, _| Reply::new(200, "{}").with("Content-Type", "application/json"));
    assert!(one.refused().contains("found: an answer of the type `application/json`"), "{}", one.refused());
}

#[test]
fn forms_that_lead_elsewhere_are_not_followed() {
    let bytes = random_bytes(22, 100);
    for (action, id, found) in [
        ("https://evil.example/download", FILE, "`https://evil.example/download`"),
        ("http://127.0.0.1:1/download", FILE, "`http://127.0.0.1:1/download`"),
        ("/download", "1OtherOtherOtherOtherOtherOther01", "1OtherOther"),
        ("/download?id=a&id=b", "", "[\""),
    ] {
        let served = Arc::clone(&bytes);
        let one = drive(usual(), move |count, request| match count {
            0 => Reply::page(200, &form(action, id)),
            _ => attachment(Reply::file(request, &served, "")),
        });
        let text = one.refused();
        assert!(text.contains("in a way that is not followed") && text.contains(found), "{action}: {text}");
        assert!(!one.is_here());
    }
    // Forms without end.
    let one = drive(usual(), |_, _| Reply::page(200, &form("/download", FILE)));
    assert!(one.refused().contains("expected: at most 5 forms"), "{}", one.refused());
    assert_eq!(one.server.log().len(), 7);
}

#[test]
fn a_folder_without_the_file_says_what_is_in_it() {
    let entries = [
        ("file", "1LogLogLogLogLogLogLogLogLog00001", "train.log"),
        ("file", "1BadBadBadBadBadBadBadBadBad00001", "../../model_best.pth"),
        ("file", "1BadBadBadBadBadBadBadBadBad00002", "a/model_best.pth"),
        ("file", "1Esc", "too short an identifier"),
    ];
    let one = drive(listing(&entries), |_, _| unreachable!());
    assert_snapshot!(one.refused(), @r"
    the folder `1FolderFolderFolderFolderFolder01` on Google Drive has no file `model_best.pth`
      expected: `model_best.pth`
      found: `train.log`, `../../model_best.pth` (no file name), `a/model_best.pth` (no file name)
    hint: its owner has changed the folder: look into it in a browser, and pass the path of the file
    ");
    let twice = [("file", FILE, "model_best.pth"), ("file", "1FileFileFileFileFileFileFile0002", "model_best.pth")];
    let one = drive(listing(&twice), |_, _| unreachable!());
    assert!(matches!(one.fetch(), Err(FetchError::Drive(DriveError::Ambiguous { count: 2, .. }))));
}

#[test]
fn what_passes_on_the_pages_is_waited_out() {
    let bytes = random_bytes(23, 5000);
    let served = Arc::clone(&bytes);
    let one = drive(usual(), move |count, request| match count {
        0 => Reply::page(500, "<title>oops</title>"),
        1 => Reply::page(429, "<title>slow down</title>"),
        _ => attachment(Reply::file(request, &served, "")),
    });
    one.fetch().unwrap();
    one.assert_complete(&bytes);
}

#[test]
fn the_pages_are_read_as_they_stand() {
    let listing = read_listing(&usual().replace("model_best.pth", "a &lt;b&gt; &#39;c&#39;")).unwrap();
    assert_eq!(listing.title, "LAPS f30k_vit");
    assert_eq!((listing.entries[1].id.as_str(), listing.entries[1].name.as_str()), (FILE, "a <b> 'c'"));
    assert!(read_listing("<a href='/file/d/1FileFileFileFileFileFileFile0001/view'></a>").is_none());
    assert!(matches!(read_notice(QUOTA), Notice::Refused(_)));
    assert_eq!(read_notice("<p>"), Notice::Unknown);
    let Notice::Confirm { action, inputs } = read_notice(&form("/x?a=1&amp;b=2", FILE)) else { panic!("no form") };
    assert_eq!((action.as_str(), inputs.len()), ("/x?a=1&b=2", 4));
    assert_eq!(inputs[3], ("uuid".to_owned(), "0-1&2".to_owned()));
}
