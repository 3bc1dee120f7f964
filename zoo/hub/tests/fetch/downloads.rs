//! Downloads that resume after failures of the connection, the server and the disk.

use std::sync::{
    Arc, Barrier,
    atomic::{AtomicUsize, Ordering},
};

use insta::assert_snapshot;
use laps_files::{ExpectedDigest, with_suffix};
use laps_hub::{
    fetch::{FetchError, Fetcher, Timeouts},
    store::Pins,
};

use crate::{
    server::{End, Reply, Request, TestServer},
    support::{LONG_TIMEOUT, Messages, SHORT_TIMEOUT, Setup, expected_sha256, random_bytes, remote_file},
};

/// Larger than the overlap that is compared on resume, and than a block.
const LENGTH: usize = 700_000;

/// A server that passes its response to each request, with the number of the request, to `change`.
fn server(
    bytes: &Arc<Vec<u8>>,
    change: impl Fn(usize, &Request, Reply) -> Reply + Send + Sync + 'static,
) -> TestServer {
    let (bytes, count) = (Arc::clone(bytes), AtomicUsize::new(0));
    TestServer::start(move |request| {
        let reply = Reply::file(request, &bytes, "\"one\"");
        change(count.fetch_add(1, Ordering::SeqCst), request, reply)
    })
}

#[test]
fn file_is_downloaded_and_pinned() {
    let bytes = random_bytes(1, LENGTH);
    let setup = Setup::new(server(&bytes, |_, _, reply| reply), ExpectedDigest::default());
    assert!(!setup.fetch().unwrap().was_cached);
    setup.assert_complete(&bytes);
    assert!(setup.fetch().unwrap().was_cached);
    assert_eq!(setup.server.log().len(), 1);
    let log = setup.server.log();
    assert_eq!(log[0].header("accept-encoding"), Some("identity"));
    assert_eq!(log[0].header("range"), None);
}

/// Boundary cases: nothing, one byte, around the overlap, around a block, and the end.
#[test]
fn download_resumes_after_a_cut_at_any_byte() {
    let bytes = random_bytes(2, LENGTH);
    for cut in [0, 1, 2, 3, 65_535, 65_536, 65_537, 131_072, 262_143, 262_144, 262_145, LENGTH - 1] {
        let change = move |count, _: &Request, reply: Reply| match count {
            0 => reply.ending(End::Cut(cut as u64)),
            _ => reply,
        };
        let setup = Setup::new(server(&bytes, change), ExpectedDigest::default());
        setup.fetch().unwrap();
        setup.assert_complete(&bytes);
        let log = setup.server.log();
        assert_eq!(log.len(), 2, "cut at {cut}");
        // The overlap is requested again. A client may receive less than was sent before the cut.
        match log[1].from() {
            Some(from) => {
                assert!(from <= cut as u64, "cut at {cut}, resumed at {from}");
                assert_eq!(log[1].header("if-range"), Some("\"one\""));
            }
            None => assert!(cut < 2, "cut at {cut}: from the start"),
        }
    }
}

#[test]
fn download_resumes_over_many_cuts_and_runs() {
    let bytes = random_bytes(3, 3_000_000);
    // 300 kB at a time are enough progress to reset the attempt counter.
    let setup = Setup::new(server(&bytes, |_, _, reply| reply.ending(End::Cut(400_000))), ExpectedDigest::default());
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
    assert!(setup.server.log().len() > 6);

    // 100 kB at a time are not: the run gives up, and the next one resumes.
    let setup = Setup::new(server(&bytes, |_, _, reply| reply.ending(End::Cut(180_000))), ExpectedDigest::default());
    let mut runs = 0;
    while let Err(error) = setup.fetch() {
        assert!(matches!(error, FetchError::GaveUp { .. }), "{error}");
        assert!(!setup.exists());
        runs += 1;
        assert!(runs < 20);
    }
    assert!(runs > 2, "{runs}");
    setup.assert_complete(&bytes);
}

#[test]
fn cut_is_reported_as_truncation_not_as_a_wrong_hash() {
    let bytes = random_bytes(4, LENGTH);
    let setup = Setup::new(server(&bytes, |_, _, reply| reply.ending(End::Cut(1000))), expected_sha256(&bytes));
    assert_snapshot!(setup.fetch_error(), @r"
    `files/a.bin` could not be fetched in 4 attempts; the bytes received are kept
      caused by: `SERVER/a.bin` is truncated at 1875 of 700000 bytes
    hint: the bytes received are kept: run the same command again to resume
    ");
    assert!(!setup.exists() && with_suffix(&setup.file.path, ".part").exists());
}

#[test]
fn server_may_ignore_ranges() {
    let bytes = random_bytes(5, LENGTH);
    let change = |count, request: &Request, reply: Reply| {
        let whole = Request { headers: Default::default(), ..request.clone() };
        match count {
            0 => reply.ending(End::Cut(500_000)),
            _ => Reply::file(&whole, &random_bytes(5, LENGTH), "\"one\"").with("Accept-Ranges", "none"),
        }
    };
    let setup = Setup::new(server(&bytes, change), ExpectedDigest::default());
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
}

#[test]
fn changed_file_is_not_resumed() {
    let (old, new) = (random_bytes(6, LENGTH), random_bytes(7, LENGTH));
    for etag in ["\"two\"", "\"one\"", ""] {
        let (old_bytes, new_bytes, first) = (Arc::clone(&old), Arc::clone(&new), AtomicUsize::new(0));
        let server = TestServer::start(move |request| match first.fetch_add(1, Ordering::SeqCst) {
            0 => {
                Reply::file(request, &old_bytes, if etag.is_empty() { "" } else { "\"one\"" }).ending(End::Cut(400_000))
            }
            // With the same ETag, or none, only the overlap shows that the file has changed.
            _ => Reply::file(request, &new_bytes, etag),
        });
        let setup = Setup::new(server, ExpectedDigest::default());
        setup.fetch().unwrap();
        setup.assert_complete(&new);
    }
}

#[test]
fn file_that_became_shorter_is_downloaded_again() {
    let (old, new) = (random_bytes(18, LENGTH), random_bytes(19, 300_000));
    // Cut before and after the end of the new file: a rest to request, or none.
    for cut in [310_000, 600_000] {
        let (old, served, first) = (Arc::clone(&old), Arc::clone(&new), AtomicUsize::new(0));
        let server = TestServer::start(move |request| match first.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::file(request, &old, "").ending(End::Cut(cut)),
            _ => Reply::file(request, &served, ""),
        });
        let setup = Setup::new(server, ExpectedDigest::default());
        setup.fetch().unwrap();
        setup.assert_complete(&new);
    }
}

#[test]
fn only_the_requested_range_is_accepted() {
    let bytes = random_bytes(8, LENGTH);
    let total = LENGTH;
    let wrong: [fn(u64, usize) -> String; 6] = [
        |from, total| format!("bytes {}-{}/{total}", from + 1, total - 1),
        |from, total| format!("bytes {from}-{}/{total}", total - 2),
        |from, total| format!("bytes {from}-{}/{}", total - 1, total + 1),
        |from, total| format!("bytes {from}-{}/*", total - 1),
        |_, total| format!("bytes */{total}"),
        |_, _| String::new(),
    ];
    for (index, wrong) in wrong.into_iter().enumerate() {
        let change = move |count, request: &Request, reply: Reply| match (count, request.from()) {
            (0, _) => reply.ending(End::Cut(400_000)),
            (1, Some(from)) => reply.without("Content-Range").with("Content-Range", &wrong(from, total)),
            _ => reply,
        };
        let setup = Setup::new(server(&bytes, change), ExpectedDigest::default());
        let messages = Messages::default();
        Fetcher::new(setup.settings.clone()).fetch(&setup.file, |_| Ok(()), &messages).unwrap();
        setup.assert_complete(&bytes);
        let messages = messages.0.lock().unwrap();
        assert!(messages[1].contains("sends the wrong range"), "{index}: {messages:?}");
    }
    // A range that was not requested.
    let change = |_, _: &Request, reply: Reply| {
        Reply { status: 206, ..reply }.with("Content-Range", &format!("bytes 0-{}/{LENGTH}", LENGTH - 1))
    };
    let setup = Setup::new(server(&bytes, change), ExpectedDigest::default());
    assert!(setup.fetch_error().contains("a range that was not requested"));
    assert!(!setup.exists());
}

#[test]
fn stalled_server_is_retried() {
    let bytes = random_bytes(9, LENGTH);
    let change = |count, _: &Request, reply: Reply| match count {
        0 => reply.ending(End::Stall(300_000)),
        _ => reply,
    };
    let mut setup = Setup::new(server(&bytes, change), ExpectedDigest::default());
    setup.settings.timeouts = Timeouts { connect: LONG_TIMEOUT, read: SHORT_TIMEOUT };
    let messages = Messages::default();
    Fetcher::new(setup.settings.clone()).fetch(&setup.file, |_| Ok(()), &messages).unwrap();
    setup.assert_complete(&bytes);
    assert!(messages.0.lock().unwrap()[0].contains("stopped sending"), "{:?}", messages.0.lock().unwrap());
}

#[test]
fn retry_says_why_and_when() {
    let bytes = random_bytes(14, LENGTH);
    let change = |count, _: &Request, reply: Reply| match count {
        0 => Reply::new(503, "busy"),
        1 => reply.ending(End::Cut(400_000)),
        _ => reply,
    };
    let setup = Setup::new(server(&bytes, change), ExpectedDigest::default());
    let messages = Messages::default();
    Fetcher::new(setup.settings.clone()).fetch(&setup.file, |_| Ok(()), &messages).unwrap();
    let messages = messages.0.lock().unwrap().join("\n").replace(&setup.server.url(), "SERVER");
    // The delays of the tests are milliseconds.
    let lines: Vec<&str> = messages.lines().filter(|line| line.contains("retrying")).collect();
    assert_eq!(
        lines[0],
        "files/a.bin: HTTP error from `SERVER/a.bin`; expected: status 200 or 206; found: status 503; retrying in 0.0 s"
    );
    assert!(lines[1].starts_with("files/a.bin: ") && lines[1].ends_with("; retrying in 0.0 s"), "{}", lines[1]);
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn transient_errors_are_retried() {
    let bytes = random_bytes(10, 1000);
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let change = move |count, _: &Request, reply: Reply| match count {
            0 => Reply::page(status, "<title>busy</title>"),
            1 => reply.ending(End::Refuse),
            2 => reply.ending(End::Restart),
            _ => reply,
        };
        let mut setup = Setup::new(server(&bytes, change), ExpectedDigest::default());
        // A restarting server drops the queued connections once more.
        setup.settings.retry.attempts = 8;
        setup.fetch().unwrap();
        setup.assert_complete(&bytes);
    }
}

#[test]
fn permanent_errors_are_not_retried() {
    for (status, hint) in
        [(401, "not public"), (403, "not public"), (404, "moved or removed"), (410, "moved or removed")]
    {
        let setup = Setup::new(TestServer::start(move |_| Reply::new(status, "no")), ExpectedDigest::default());
        let text = setup.fetch_error();
        assert!(text.contains(&format!("found: status {status}")) && text.contains(hint), "{text}");
        assert_eq!(setup.server.log().len(), 1);
    }
    let setup = Setup::new(TestServer::start(|_| Reply::new(500, "no")), ExpectedDigest::default());
    assert_snapshot!(setup.fetch_error(), @r"
    `files/a.bin` could not be fetched in 4 attempts; the bytes received are kept
      caused by: HTTP error from `SERVER/a.bin`
      expected: status 200 or 206
      found: status 500
    hint: run the same command later to resume
    ");
    assert_eq!(setup.server.log().len(), 4);
}

#[test]
fn wrong_size_is_rejected_before_the_first_byte() {
    let bytes = random_bytes(11, LENGTH);
    let expected = ExpectedDigest { bytes: Some(LENGTH as u64 + 1), ..ExpectedDigest::default() };
    let setup = Setup::new(server(&bytes, |_, _, reply| reply), expected);
    assert_snapshot!(setup.fetch_error(), @r"
    `SERVER/a.bin` has the wrong size
      expected: 700001 bytes
      found: 700000 bytes
    hint: the file was damaged or replaced at its source; nothing of it was kept
    ");
    let mut setup = Setup::new(server(&bytes, |_, _, reply| reply), ExpectedDigest::default());
    setup.file.max_bytes = 1000;
    assert!(setup.fetch_error().contains("expected: at most 1000 bytes"));
}

#[test]
fn body_without_length_needs_a_known_hash() {
    let bytes = random_bytes(12, 5000);
    let change = |_, _: &Request, reply: Reply| reply.without("Content-Length");
    // The end of the body is unknown.
    let setup = Setup::new(server(&bytes, change), ExpectedDigest::default());
    assert!(matches!(setup.fetch(), Err(FetchError::NoLength { .. })));
    // A known hash detects a truncated body.
    let setup = Setup::new(server(&bytes, change), expected_sha256(&bytes));
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
    // So does a known size.
    let sized = |bytes| ExpectedDigest { bytes: Some(bytes), ..expected_sha256(&random_bytes(12, 5000)) };
    let setup = Setup::new(server(&bytes, change), sized(5000));
    setup.fetch().unwrap();
    let setup = Setup::new(server(&bytes, change), sized(4999));
    assert!(setup.fetch_error().contains("expected: at most 4999 bytes\n"), "{}", setup.fetch_error());
    let setup = Setup::new(server(&bytes, change), sized(5001));
    // The first response ends early; the response to the range request states the size.
    assert!(setup.fetch_error().contains("expected: 5001 bytes\n  found: 5000 bytes"), "{}", setup.fetch_error());
}

#[test]
fn web_page_is_rejected() {
    let page = "<!DOCTYPE html><html><head><title>Sign in &amp; wait</title></head></html>";
    let setup = Setup::new(TestServer::start(move |_| Reply::page(200, page)), ExpectedDigest::default());
    assert_snapshot!(setup.fetch_error(), @r"
    `SERVER/a.bin` sends a web page
      expected: the file
      found: a page with the title `Sign in & wait`
    hint: open the URL in a browser to see what the server says
    ");
    // A page with another content type is recognized by its first bytes.
    for page in [page, "\u{feff}  \n<HTML>", "<head><title>x</title>"] {
        let setup = Setup::new(TestServer::start(move |_| Reply::new(200, page)), ExpectedDigest::default());
        assert!(setup.fetch_error().contains("sends a web page"), "{page}");
        assert!(!setup.exists());
    }
}

#[test]
fn compressed_body_is_rejected() {
    let setup = Setup::new(
        TestServer::start(|_| Reply::new(200, "xx").with("Content-Encoding", "gzip")),
        ExpectedDigest::default(),
    );
    assert!(setup.fetch_error().contains("found: `gzip`"), "{}", setup.fetch_error());
}

#[test]
fn missing_disk_space_is_reported_before_the_download() {
    let bytes = random_bytes(13, LENGTH);
    let mut setup = Setup::new(server(&bytes, |_, _, reply| reply), ExpectedDigest::default());
    setup.settings.free_space = |_| Ok(1_000_000);
    assert_snapshot!(setup.fetch_error(), @r"
    not enough disk space for `DIR/a.bin`
      expected: 700000 bytes free
      found: 1000000 bytes
    hint: free disk space, or set `LAPS_ZOO_CACHE` to a folder on a larger disk
    ");
    assert!(!setup.exists());
    setup.settings.free_space = |_| Ok(u64::MAX);
    setup.fetch().unwrap();
    setup.assert_complete(&bytes);
}

#[test]
fn concurrent_fetches_download_a_file_once() {
    const FETCHERS: usize = 8;
    let bytes = random_bytes(15, 2_000_000);
    let setup = Setup::new(server(&bytes, |_, _, reply| reply), ExpectedDigest::default());
    let barrier = Barrier::new(FETCHERS);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let run = || {
            barrier.wait();
            setup.fetch().unwrap().was_cached
        };
        let threads: Vec<_> = (0..FETCHERS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|&&was_cached| !was_cached).count(), 1);
    assert_eq!(setup.server.log().len(), 1);
    setup.assert_complete(&bytes);
}

/// State after a process was killed between the last byte and the rename.
#[test]
fn complete_partial_file_needs_no_network() {
    let bytes = random_bytes(16, LENGTH);
    let setup =
        Setup::new(
            server(&bytes, |count, _, reply| {
                if count == 0 { reply.ending(End::Cut(LENGTH as u64 - 10)) } else { reply.ending(End::Refuse) }
            }),
            expected_sha256(&bytes),
        );
    setup.fetch().unwrap_err();
    let part = with_suffix(&setup.file.path, ".part");
    fs_err::write(&part, bytes.as_slice()).unwrap();
    let requests = setup.server.log().len();
    setup.fetch().unwrap();
    assert_eq!(setup.server.log().len(), requests);
    setup.assert_complete(&bytes);
}

#[test]
fn partial_file_without_valid_metadata_is_discarded() {
    let bytes = random_bytes(17, LENGTH);
    for metadata in [None, Some("{}"), Some("[")] {
        let setup = Setup::new(server(&bytes, |_, _, reply| reply), ExpectedDigest::default());
        fs_err::write(with_suffix(&setup.file.path, ".part"), b"other bytes of the same length or not").unwrap();
        if let Some(metadata) = metadata {
            fs_err::write(with_suffix(&setup.file.path, ".part.json"), metadata).unwrap();
        }
        setup.fetch().unwrap();
        setup.assert_complete(&bytes);
        assert_eq!(setup.server.log()[0].from(), None);
    }
}

#[test]
fn several_files_are_downloaded_concurrently() {
    let folder = tempfile::tempdir().unwrap();
    let barrier = Arc::new(Barrier::new(3));
    let server = TestServer::start(move |request| {
        // Responds only after three requests have arrived.
        barrier.wait();
        Reply::file(request, &random_bytes(request.path.len() as u64, 10_000), "\"x\"")
    });
    let settings = crate::support::settings(&server, folder.path());
    let files = ["a", "bb", "ccc"].map(|name| remote_file(&server, folder.path(), name, ExpectedDigest::default()));
    let outcomes = Fetcher::new(settings.clone()).fetch_all(&files, &());
    for (outcome, file) in outcomes.iter().zip(&files) {
        assert_eq!(&outcome.as_ref().unwrap().file, file);
        let length = file.path.file_name().unwrap().len() as u64 + 1;
        assert!(fs_err::read(&file.path).unwrap() == *random_bytes(length, 10_000));
    }
    assert_eq!(Pins::open(&settings.store.pins).unwrap().iter().count(), 3);
}
