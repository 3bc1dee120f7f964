//! Random faults in downloads of several files: the result is the right bytes or a clear error, never a wrong file.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use laps_files::{ExpectedDigest, digest_file};
use laps_hub::fetch::{FetchError, Fetcher, RetryPolicy, Timeouts};
use laps_model::random::SplitMix64;

use crate::{
    server::{Body, End, Reply, Request, TestServer},
    support::{LONG_TIMEOUT, SHORT_TIMEOUT, random_bytes, remote_file, settings, sha256},
};

/// Number of faults of a run; after them the server responds correctly.
const FAULTS: usize = 60;

const LENGTHS: [usize; 6] = [1, 70_000, 300_000, 1_000_000, 2_500_000, 5_000_000];

/// SHA-256, MD5 or git blob id of a file, in turn by `index`.
fn expected_digest(index: usize, bytes: &[u8]) -> ExpectedDigest {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs_err::write(&path, bytes).unwrap();
    let all = ExpectedDigest { md5: Some(String::new()), git_blob: Some(String::new()), ..ExpectedDigest::default() };
    let found = digest_file(&path, &all).unwrap();
    match index % 3 {
        0 => ExpectedDigest { sha256: Some(found.sha256), ..ExpectedDigest::default() },
        1 => ExpectedDigest { md5: found.md5, ..ExpectedDigest::default() },
        _ => ExpectedDigest { git_blob: found.git_blob, ..ExpectedDigest::default() },
    }
}

fn inject_fault(random: &mut SplitMix64, request: &Request, reply: Reply) -> (&'static str, Reply) {
    let Body::Bytes(bytes) = reply.body.clone() else { return ("none", reply) };
    let somewhere = |random: &mut SplitMix64| random.below(bytes.len() + 1) as u64;
    match random.below(12) {
        0..=3 => ("cut", reply.ending(End::Cut(somewhere(random)))),
        4 if random.below(3) == 0 => ("stall", reply.ending(End::Stall(somewhere(random)))),
        4 => ("refused", reply.ending(End::Refuse)),
        5 => ("restart", reply.ending(End::Restart)),
        6 => ("429", Reply::new(429, "").with("Retry-After", "0")),
        7 => ("500", Reply::page(500, "<title>oops</title>")),
        8 => ("503", Reply::new(503, "")),
        9 if reply.status == 206 => {
            let from = request.from().unwrap_or(0) + random.below(3) as u64;
            let range = format!("bytes {from}-{}/{}", from + 5, from + 6 + random.below(2) as u64);
            ("wrong range", reply.without("Content-Range").with("Content-Range", &range))
        }
        9 => ("web page", Reply::page(503, "<html>")),
        10 if !bytes.is_empty() => {
            let mut changed = bytes.to_vec();
            let place = random.below(changed.len());
            changed[place] ^= 1 << random.below(8);
            ("corrupted byte", Reply { body: Body::Bytes(Arc::new(changed)), ..reply })
        }
        _ => {
            let length = somewhere(random);
            ("wrong length", reply.without("Content-Length").with("Content-Length", &length.to_string()))
        }
    }
}

#[test]
fn random_faults_never_yield_a_wrong_file() {
    let given = std::env::var("LAPS_ZOO_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in given.map_or_else(|| vec![1_u64, 2, 3], |seed: u64| vec![seed]) {
        println!("seed {seed}");
        run(seed);
    }
}

fn run(seed: u64) {
    let files: Vec<Arc<Vec<u8>>> =
        LENGTHS.iter().enumerate().map(|(index, &length)| random_bytes(seed * 100 + index as u64, length)).collect();
    let served = files.clone();
    let random = Mutex::new(SplitMix64::named(seed, "faults"));
    let faults = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&faults);
    let kinds = Arc::new(Mutex::new(std::collections::BTreeMap::<&str, usize>::new()));
    let seen = Arc::clone(&kinds);
    let server = TestServer::start(move |request| {
        let index: usize = request.path.trim_start_matches('/').parse().unwrap();
        let reply = Reply::file(request, &served[index], &format!("\"{index}\""));
        let mut random = random.lock().unwrap();
        if counter.load(Ordering::SeqCst) >= FAULTS || random.below(10) == 0 {
            return reply;
        }
        counter.fetch_add(1, Ordering::SeqCst);
        let (kind, reply) = inject_fault(&mut random, request, reply);
        *seen.lock().unwrap().entry(kind).or_default() += 1;
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&server, folder.path());
    settings.retry = RetryPolicy { attempts: 6, ..settings.retry };
    settings.timeouts = Timeouts { connect: LONG_TIMEOUT, read: SHORT_TIMEOUT };
    let remote_files: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(index, bytes)| remote_file(&server, folder.path(), &index.to_string(), expected_digest(index, bytes)))
        .collect();

    let mut rounds = 0;
    while faults.load(Ordering::SeqCst) < FAULTS {
        let outcomes = Fetcher::new(settings.clone()).fetch_all(&remote_files, &());
        for ((file, bytes), outcome) in remote_files.iter().zip(&files).zip(outcomes) {
            match outcome {
                Ok(fetched) => assert_eq!(fetched.pin.sha256, sha256(bytes), "seed {seed}, {}", file.key),
                Err(error) => assert!(is_clear(&error), "seed {seed}, {}: {error}", file.key),
            }
            if file.path.exists() {
                assert!(fs_err::read(&file.path).unwrap() == **bytes, "seed {seed}: a wrong file, {}", file.key);
                // Download it again until all faults have occurred.
                fs_err::remove_file(&file.path).unwrap();
            }
        }
        rounds += 1;
        assert!(rounds < 100, "seed {seed}");
    }
    settings.timeouts.read = LONG_TIMEOUT;
    for outcome in Fetcher::new(settings).fetch_all(&remote_files, &()) {
        outcome.unwrap();
    }
    for (file, bytes) in remote_files.iter().zip(&files) {
        assert!(fs_err::read(&file.path).unwrap() == **bytes, "seed {seed}: {}", file.key);
    }
    println!("{} faults in {rounds} rounds: {:?}", faults.load(Ordering::SeqCst), kinds.lock().unwrap());
}

/// Whether the error describes the fault, and not a failure of the file system or of pins.
fn is_clear(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::GaveUp { .. }
            | FetchError::Digest { .. }
            | FetchError::Length { .. }
            | FetchError::Page { .. }
            | FetchError::Status { .. }
    )
}
