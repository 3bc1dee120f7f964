//! Downloads that survive: every way in which a connection, a server or a disk fails.

use std::sync::{
    Arc, Barrier,
    atomic::{AtomicUsize, Ordering},
};

use insta::assert_snapshot;
use laps_files::{Expected, beside};
use laps_hub::{
    fetch::{FetchError, Fetcher, Timeouts},
    store::Pins,
};

use crate::{
    server::{End, Reply, Request, Server},
    support::{IMPATIENT, Notes, One, PATIENT, item, known, random_bytes},
};

/// Larger than what is compared when a download goes on, and than a block.
const LENGTH: usize = 700_000;

/// A server that counts the requests for the file, and lets `change` spoil its answer to each.
fn server(bytes: &Arc<Vec<u8>>, change: impl Fn(usize, &Request, Reply) -> Reply + Send + Sync + 'static) -> Server {
    let (bytes, count) = (Arc::clone(bytes), AtomicUsize::new(0));
    Server::start(move |request| {
        let reply = Reply::file(request, &bytes, "\"one\"");
        change(count.fetch_add(1, Ordering::SeqCst), request, reply)
    })
}

#[test]
fn a_file_comes_whole_and_is_pinned() {
    let bytes = random_bytes(1, LENGTH);
    let one = One::new(server(&bytes, |_, _, reply| reply), Expected::default());
    assert!(!one.fetch().unwrap().was_here);
    one.assert_complete(&bytes);
    assert!(one.fetch().unwrap().was_here);
    assert_eq!(one.server.log().len(), 1);
    let log = one.server.log();
    assert_eq!(log[0].header("accept-encoding"), Some("identity"));
    assert_eq!(log[0].header("range"), None);
}

/// Every length at which something changes: nothing, one byte, around what is compared, around a block, and the end.
#[test]
fn a_connection_cut_at_any_byte_goes_on() {
    let bytes = random_bytes(2, LENGTH);
    for cut in [0, 1, 2, 3, 65_535, 65_536, 65_537, 131_072, 262_143, 262_144, 262_145, LENGTH - 1] {
        let change = move |count, _: &Request, reply: Reply| match count {
            0 => reply.ending(End::Cut(cut as u64)),
            _ => reply,
        };
        let one = One::new(server(&bytes, change), Expected::default());
        one.fetch().unwrap();
        one.assert_complete(&bytes);
        let log = one.server.log();
        assert_eq!(log.len(), 2, "cut at {cut}");
        // What is here is asked for again a little, and compared. A client may see less than was sent before the cut.
        match log[1].from() {
            Some(from) => {
                assert!(from <= cut as u64, "cut at {cut}, on from {from}");
                assert_eq!(log[1].header("if-range"), Some("\"one\""));
            }
            None => assert!(cut < 2, "cut at {cut}: from the start"),
        }
    }
}

#[test]
fn it_goes_on_over_many_cuts_and_over_runs() {
    let bytes = random_bytes(3, 3_000_000);
    // 300 kB at a time: more than counts as progress, so that attempts are counted anew.
    let one = One::new(server(&bytes, |_, _, reply| reply.ending(End::Cut(400_000))), Expected::default());
    one.fetch().unwrap();
    one.assert_complete(&bytes);
    assert!(one.server.log().len() > 6);

    // 100 kB at a time and few attempts: the run gives up, the next one goes on.
    let one = One::new(server(&bytes, |_, _, reply| reply.ending(End::Cut(180_000))), Expected::default());
    let mut runs = 0;
    while let Err(error) = one.fetch() {
        assert!(matches!(error, FetchError::GaveUp { .. }), "{error}");
        assert!(!one.is_here());
        runs += 1;
        assert!(runs < 20);
    }
    assert!(runs > 2, "{runs}");
    one.assert_complete(&bytes);
}

#[test]
fn a_cut_is_told_as_one_and_not_as_a_wrong_hash() {
    let bytes = random_bytes(4, LENGTH);
    let one = One::new(server(&bytes, |_, _, reply| reply.ending(End::Cut(1000))), known(&bytes));
    assert_snapshot!(one.refused(), @r"
    `files/a.bin` could not be fetched in 4 attempts; what is here of it is kept
      caused by: `SERVER/a.bin` is truncated at 1875 of 700000 bytes
    hint: what is here is kept: the same command goes on where it was broken off
    ");
    assert!(!one.is_here() && beside(&one.item.path, ".part").exists());
}

#[test]
fn a_server_that_ignores_ranges() {
    let bytes = random_bytes(5, LENGTH);
    let change = |count, request: &Request, reply: Reply| {
        let whole = Request { headers: Default::default(), ..request.clone() };
        match count {
            0 => reply.ending(End::Cut(500_000)),
            _ => Reply::file(&whole, &random_bytes(5, LENGTH), "\"one\"").with("Accept-Ranges", "none"),
        }
    };
    let one = One::new(server(&bytes, change), Expected::default());
    one.fetch().unwrap();
    one.assert_complete(&bytes);
}

#[test]
fn a_part_of_another_file_is_not_continued() {
    let (old, new) = (random_bytes(6, LENGTH), random_bytes(7, LENGTH));
    for etag in ["\"two\"", "\"one\"", ""] {
        let (old_bytes, new_bytes, first) = (Arc::clone(&old), Arc::clone(&new), AtomicUsize::new(0));
        let server = Server::start(move |request| match first.fetch_add(1, Ordering::SeqCst) {
            0 => {
                Reply::file(request, &old_bytes, if etag.is_empty() { "" } else { "\"one\"" }).ending(End::Cut(400_000))
            }
            // With the same tag, or none, only the bytes themselves show that the file has changed.
            _ => Reply::file(request, &new_bytes, etag),
        });
        let one = One::new(server, Expected::default());
        one.fetch().unwrap();
        one.assert_complete(&new);
    }
}

#[test]
fn a_file_that_has_become_shorter_is_fetched_anew() {
    let (old, new) = (random_bytes(18, LENGTH), random_bytes(19, 300_000));
    // Cut before and after where the new file ends: the rest of it, or nothing at all, is there to be had.
    for cut in [310_000, 600_000] {
        let (old, served, first) = (Arc::clone(&old), Arc::clone(&new), AtomicUsize::new(0));
        let server = Server::start(move |request| match first.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::file(request, &old, "").ending(End::Cut(cut)),
            _ => Reply::file(request, &served, ""),
        });
        let one = One::new(server, Expected::default());
        one.fetch().unwrap();
        one.assert_complete(&new);
    }
}

#[test]
fn a_range_is_taken_only_if_it_is_exactly_the_rest() {
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
        let one = One::new(server(&bytes, change), Expected::default());
        let notes = Notes::default();
        Fetcher::new(one.settings.clone()).fetch(&one.item, |_| Ok(()), &notes).unwrap();
        one.assert_complete(&bytes);
        let notes = notes.0.lock().unwrap();
        assert!(notes[1].contains("sends another part of the file"), "{index}: {notes:?}");
    }
    // A part that nobody asked for.
    let change = |_, _: &Request, reply: Reply| {
        Reply { status: 206, ..reply }.with("Content-Range", &format!("bytes 0-{}/{LENGTH}", LENGTH - 1))
    };
    let one = One::new(server(&bytes, change), Expected::default());
    assert!(one.refused().contains("a part of it, unasked"));
    assert!(!one.is_here());
}

#[test]
fn a_server_that_falls_silent() {
    let bytes = random_bytes(9, LENGTH);
    let change = |count, _: &Request, reply: Reply| match count {
        0 => reply.ending(End::Stall(300_000)),
        _ => reply,
    };
    let mut one = One::new(server(&bytes, change), Expected::default());
    one.settings.timeouts = Timeouts { connect: PATIENT, read: IMPATIENT };
    let notes = Notes::default();
    Fetcher::new(one.settings.clone()).fetch(&one.item, |_| Ok(()), &notes).unwrap();
    one.assert_complete(&bytes);
    assert!(notes.0.lock().unwrap()[0].contains("stopped sending"), "{:?}", notes.0.lock().unwrap());
}

#[test]
fn answers_that_pass_are_waited_out() {
    let bytes = random_bytes(10, 1000);
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let change = move |count, _: &Request, reply: Reply| match count {
            0 => Reply::page(status, "<title>busy</title>"),
            1 => reply.ending(End::Refuse),
            2 => reply.ending(End::Restart),
            _ => reply,
        };
        let mut one = One::new(server(&bytes, change), Expected::default());
        // A server that restarts drops those who wait in its queue, once more.
        one.settings.retry.attempts = 8;
        one.fetch().unwrap();
        one.assert_complete(&bytes);
    }
}

#[test]
fn answers_that_do_not_pass_end_it() {
    for (status, hint) in
        [(401, "not public"), (403, "not public"), (404, "moved or removed"), (410, "moved or removed")]
    {
        let one = One::new(Server::start(move |_| Reply::new(status, "no")), Expected::default());
        let text = one.refused();
        assert!(text.contains(&format!("found: status {status}")) && text.contains(hint), "{text}");
        assert_eq!(one.server.log().len(), 1);
    }
    let one = One::new(Server::start(|_| Reply::new(500, "no")), Expected::default());
    assert_snapshot!(one.refused(), @r"
    `files/a.bin` could not be fetched in 4 attempts; what is here of it is kept
      caused by: `SERVER/a.bin` answers with an error
      expected: status 200 or 206
      found: status 500
    hint: the same command goes on where it was broken off; try later
    ");
    assert_eq!(one.server.log().len(), 4);
}

#[test]
fn a_wrong_length_is_refused_before_the_first_byte() {
    let bytes = random_bytes(11, LENGTH);
    let expected = Expected { bytes: Some(LENGTH as u64 + 1), ..Expected::default() };
    let one = One::new(server(&bytes, |_, _, reply| reply), expected);
    assert_snapshot!(one.refused(), @r"
    `SERVER/a.bin` is of another size
      expected: 700001 bytes
      found: 700000 bytes
    hint: the file was replaced or damaged at its source; nothing of it was kept
    ");
    let mut one = One::new(server(&bytes, |_, _, reply| reply), Expected::default());
    one.item.limit = 1000;
    assert!(one.refused().contains("expected: at most 1000 bytes"));
}

#[test]
fn a_body_without_a_length() {
    let bytes = random_bytes(12, 5000);
    let change = |_, _: &Request, reply: Reply| reply.without("Content-Length");
    // Nothing says where it ends.
    let one = One::new(server(&bytes, change), Expected::default());
    assert!(matches!(one.fetch(), Err(FetchError::NoLength { .. })));
    // A hash says it.
    let one = One::new(server(&bytes, change), known(&bytes));
    one.fetch().unwrap();
    one.assert_complete(&bytes);
    // So does a size; one byte more, and it is another file.
    let sized = |bytes| Expected { bytes: Some(bytes), ..known(&random_bytes(12, 5000)) };
    let one = One::new(server(&bytes, change), sized(5000));
    one.fetch().unwrap();
    let one = One::new(server(&bytes, change), sized(4999));
    assert!(one.refused().contains("expected: at most 4999 bytes\n"), "{}", one.refused());
    let one = One::new(server(&bytes, change), sized(5001));
    // The first answer ends early; the second one, to the request for the rest, says how long the file is.
    assert!(one.refused().contains("expected: 5001 bytes\n  found: 5000 bytes"), "{}", one.refused());
}

#[test]
fn a_web_page_is_no_file() {
    let page = "<!DOCTYPE html><html><head><title>Sign in &amp; wait</title></head></html>";
    let one = One::new(Server::start(move |_| Reply::page(200, page)), Expected::default());
    assert_snapshot!(one.refused(), @r"
    `SERVER/a.bin` sends a web page
      expected: the file
      found: a page with the title `Sign in & wait`
    hint: open the address in a browser to see what the server says
    ");
    // Under another type it shows by its first bytes.
    for page in [page, "\u{feff}  \n<HTML>", "<head><title>x</title>"] {
        let one = One::new(Server::start(move |_| Reply::new(200, page)), Expected::default());
        assert!(one.refused().contains("sends a web page"), "{page}");
        assert!(!one.is_here());
    }
}

#[test]
fn nothing_is_decompressed() {
    let one = One::new(Server::start(|_| Reply::new(200, "xx").with("Content-Encoding", "gzip")), Expected::default());
    assert!(one.refused().contains("found: `gzip`"), "{}", one.refused());
}

#[test]
fn a_full_disk_is_said_before_it_is_full() {
    let bytes = random_bytes(13, LENGTH);
    let mut one = One::new(server(&bytes, |_, _, reply| reply), Expected::default());
    one.settings.free_space = |_| Ok(1_000_000);
    assert_snapshot!(one.refused(), @r"
    there is no room for `DIR/a.bin`
      expected: 700000 bytes free
      found: 1000000 bytes
    hint: make room, or set `LAPS_ZOO_CACHE` to a folder on a larger disk
    ");
    assert!(!one.is_here());
    one.settings.free_space = |_| Ok(u64::MAX);
    one.fetch().unwrap();
    one.assert_complete(&bytes);
    assert!(laps_hub::fetch::free_space(one.folder.path()).unwrap() > 0);
}

#[test]
fn many_at_a_time_fetch_one_file_once() {
    const FETCHERS: usize = 8;
    let bytes = random_bytes(15, 2_000_000);
    let one = One::new(server(&bytes, |_, _, reply| reply), Expected::default());
    let barrier = Barrier::new(FETCHERS);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let run = || {
            barrier.wait();
            one.fetch().unwrap().was_here
        };
        let threads: Vec<_> = (0..FETCHERS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|&&was_here| !was_here).count(), 1);
    assert_eq!(one.server.log().len(), 1);
    one.assert_complete(&bytes);
}

/// What a process leaves that was killed at each step between the last byte and the name.
#[test]
fn a_part_that_is_complete_needs_no_network() {
    let bytes = random_bytes(16, LENGTH);
    let one =
        One::new(
            server(&bytes, |count, _, reply| {
                if count == 0 { reply.ending(End::Cut(LENGTH as u64 - 10)) } else { reply.ending(End::Refuse) }
            }),
            known(&bytes),
        );
    one.fetch().unwrap_err();
    let part = beside(&one.item.path, ".part");
    fs_err::write(&part, bytes.as_slice()).unwrap();
    let asked = one.server.log().len();
    one.fetch().unwrap();
    assert_eq!(one.server.log().len(), asked);
    one.assert_complete(&bytes);
}

#[test]
fn a_part_without_its_note_or_with_another_is_not_believed() {
    let bytes = random_bytes(17, LENGTH);
    for note in [None, Some("{}"), Some("[")] {
        let one = One::new(server(&bytes, |_, _, reply| reply), Expected::default());
        fs_err::write(beside(&one.item.path, ".part"), b"other bytes of the same length or not").unwrap();
        if let Some(note) = note {
            fs_err::write(beside(&one.item.path, ".part.json"), note).unwrap();
        }
        one.fetch().unwrap();
        one.assert_complete(&bytes);
        assert_eq!(one.server.log()[0].from(), None);
    }
}

#[test]
fn several_files_come_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let barrier = Arc::new(Barrier::new(3));
    let server = Server::start(move |request| {
        // Answers only when three have asked: one after the other would never end.
        barrier.wait();
        Reply::file(request, &random_bytes(request.path.len() as u64, 10_000), "\"x\"")
    });
    let settings = crate::support::settings(&server, folder.path());
    let items = ["a", "bb", "ccc"].map(|name| item(&server, folder.path(), name, Expected::default()));
    let outcomes = Fetcher::new(settings.clone()).fetch_all(&items, &());
    for (outcome, item) in outcomes.iter().zip(&items) {
        assert_eq!(&outcome.as_ref().unwrap().item, item);
        let length = item.path.file_name().unwrap().len() as u64 + 1;
        assert!(fs_err::read(&item.path).unwrap() == *random_bytes(length, 10_000));
    }
    assert_eq!(Pins::open(&settings.store.pins).unwrap().iter().count(), 3);
}
