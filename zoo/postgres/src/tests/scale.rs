//! Many writers of a large collection, one of which is killed during the load, and then the server.
//!
//! `LAPS_ZOO_TEST_ITEMS=100000` is the number of items, 10,000 by default.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use super::{
    PostgresServer, address,
    synthetic::{Items, RARE},
};
use crate::{Collection, DatabaseAddress, import_index, writer::CHUNK_ITEMS};
use laps_model::random::SplitMix64;
use laps_search::{Filter, Index};

const WRITERS: usize = 8;
const COLLECTION: &str = "scale";
/// Seed of the moments of the kills.
const SEED: u64 = 20;
/// Items between two messages of a writer; it divides a chunk.
const MESSAGE_ITEMS: usize = 64;

/// Environment variables of the process of a writer: the address, the index file, and the number of items of all writers.
const WRITER: [&str; 3] = ["ADDRESS", "FILE", "ITEMS"];

fn variable(name: &str) -> String {
    format!("LAPS_POSTGRES_TEST_SCALE_{name}")
}

/// The process of a writer. It says how many items it has passed on; those of full chunks are committed.
#[test]
#[ignore = "a part of load_survives_kills_of_a_writer_and_of_the_server"]
fn process_of_a_writer_of_many() {
    let [Ok(address), Ok(file), Ok(count)] = WRITER.map(|name| std::env::var(variable(name))) else { return };
    let items = Items { count: count.parse().unwrap() };
    let passed_on = AtomicUsize::new(0);
    let progress = |count: usize| {
        let before = passed_on.fetch_add(count, Ordering::Relaxed);
        if before / MESSAGE_ITEMS < (before + count) / MESSAGE_ITEMS {
            println!("\npassed on {}", before + count);
        }
    };
    let index = Index::open(file.as_ref()).unwrap();
    import_index(&index, address.parse().unwrap(), &items.rare(), &progress).unwrap();
}

/// Starts a writer of each index file.
fn start_writers(server: &PostgresServer, files: &[PathBuf], items: Items, stderr: fn() -> Stdio) -> Vec<Child> {
    let start = |file: &PathBuf| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::scale::process_of_a_writer_of_many", "--ignored", "--nocapture"])
            .env(variable("ADDRESS"), server.address("postgres", "postgres", COLLECTION))
            .env(variable("FILE"), file)
            .env(variable("ITEMS"), items.count.to_string())
            .stdout(Stdio::piped())
            .stderr(stderr())
            .spawn()
            .unwrap()
    };
    files.iter().map(start).collect()
}

/// Sends the number of a writer and how many items it has passed on, until it ends.
fn forward_messages(number: usize, writer: &mut Child, messages: mpsc::Sender<(usize, usize)>) {
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(count) = line.strip_prefix("passed on ") {
                messages.send((number, count.parse().unwrap())).unwrap();
            }
        }
    });
}

#[test]
fn load_survives_kills_of_a_writer_and_of_the_server() {
    let Some(mut server) = PostgresServer::start() else { return };
    let count: usize = std::env::var("LAPS_ZOO_TEST_ITEMS").map_or(10_000, |text| text.parse().expect("a number"));
    // Each writer has several chunks, and the collection an index of vectors.
    assert!(count >= 10_000, "{count}");
    let items = Items { count };
    let folder = tempfile::tempdir().unwrap();
    let part = count.div_ceil(WRITERS);
    let file = |writer: usize| {
        let path = folder.path().join(format!("{writer}.index"));
        items.write(&path, writer * part..((writer + 1) * part).min(count)).unwrap();
        path
    };
    let files: Vec<PathBuf> = (0..WRITERS).map(file).collect();

    let mut random = SplitMix64::new(SEED);
    let victim = random.below(WRITERS);
    let victim_ends_at = part / 8 + random.below(part / 4);
    let server_ends_at = count / 2 + random.below(count / 8);
    println!("kills writer {victim} at {victim_ends_at} items, and the server at {server_ends_at} of {count}");
    let mut writers = start_writers(&server, &files, items, Stdio::null);
    let (sender, messages) = mpsc::channel();
    for (number, writer) in writers.iter_mut().enumerate() {
        forward_messages(number, writer, sender.clone());
    }
    drop(sender);
    let mut passed_on = [0; WRITERS];
    let (mut writer_is_killed, mut server_is_killed) = (false, false);
    // Until all writers have ended: after the server, they fail by themselves.
    for (number, items_of_writer) in messages {
        passed_on[number] = items_of_writer;
        if !writer_is_killed && passed_on[victim] >= victim_ends_at {
            writers[victim].kill().unwrap();
            writer_is_killed = true;
        }
        if writer_is_killed && !server_is_killed && passed_on.iter().sum::<usize>() >= server_ends_at {
            server.kill();
            server_is_killed = true;
        }
    }
    assert!(writer_is_killed && server_is_killed, "{passed_on:?}");
    let ends: Vec<ExitStatus> = writers.iter_mut().map(|writer| writer.wait().unwrap()).collect();
    let failed = ends.iter().filter(|end| !end.success()).count();
    assert!(failed >= 2, "only the killed writer has failed: the load was over when the server was killed");

    server.restart();
    let committed: usize = passed_on.iter().map(|items| items / CHUNK_ITEMS * CHUNK_ITEMS).sum();
    let stored = Collection::open(address(&server, COLLECTION)).unwrap().count(None).unwrap();
    println!("{stored} items are stored, of which {committed} were known to be committed");
    assert!(committed > 0 && (committed..count).contains(&stored), "{committed} {stored}");

    // The same work again writes the rest, and the last writer creates the index of vectors.
    let started = Instant::now();
    for writer in start_writers(&server, &files, items, Stdio::inherit) {
        let output = writer.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    println!("the rest, with the index of vectors, took {:.1} s", started.elapsed().as_secs_f64());
    let collection = Collection::open(address(&server, COLLECTION)).unwrap();
    items.check(&collection).unwrap();

    // Of a small collection the planner would rather compare all vectors.
    let index = format!("items_{}_pooled", collection.id);
    let query = items.pooled(0).iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    let plan = format!(
        "SET enable_seqscan = off; EXPLAIN SELECT id FROM {} ORDER BY pooled <#> '[{query}]' LIMIT 200",
        collection.table()
    );
    let plan = server.psql("postgres", &plan);
    assert!(plan.contains(&index), "{plan}");
    let indexed = server.address("postgres", "postgres", COLLECTION) + "&options=-c%20enable_seqscan%3Doff";
    let indexed = Collection::open(indexed.parse::<DatabaseAddress>().unwrap()).unwrap();
    let all = items.measure(&indexed, None).unwrap();
    let rare = items.measure(&indexed, Some(&Filter::parse(&["rare = true"]).unwrap())).unwrap();
    println!("all, {all}\nwith `rare = true`, {rare}");
    // Measured with 100,000 items: 95.8 %.
    assert!(10 * all.found >= 9 * all.wanted, "{all}");
    assert_eq!((rare.found, rare.wanted % RARE), (rare.wanted, 0), "{rare}");
    assert!(rare.wanted >= RARE);
}
