//! Many writers, interruptions and deletion.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
};

use super::{PostgresServer, address, description, images, index, item, name};
use crate::{Collection, DatabaseAddress, Metadata, import_index, writer::Writer};
use laps_model::array::Array;
use laps_search::{IndexKind, IndexPrecision, Store};

const WRITERS: usize = 8;

/// Environment variable with the address that the process of a writer writes to.
const WRITER_ADDRESS: &str = "LAPS_POSTGRES_TEST_WRITER";

/// Items of the tests of interruptions: four chunks.
const ITEMS: usize = 2000;

/// Checks that a collection has each of `items` once, with its embeddings.
pub(super) fn assert_complete(address: DatabaseAddress, items: &[Array]) {
    let collection = Collection::open(address).unwrap();
    assert_eq!(collection.count(None).unwrap(), items.len());
    let mut nearest = collection.nearest(&[0.25; 16], usize::MAX, None).unwrap();
    nearest.sort_by_key(|near| near.item);
    let numbers: Vec<usize> = nearest.iter().map(|near| near.item).collect();
    let mut names = collection.names(&numbers).unwrap();
    let embeddings = collection.embeddings(&numbers).unwrap();
    for (name, found) in names.iter().zip(&embeddings) {
        let number: usize = name.strip_prefix("item ").unwrap().parse().unwrap();
        assert_eq!(found.values(), items[number].values(), "{name}");
    }
    names.sort();
    assert_eq!(names, (0..items.len()).map(name).collect::<Vec<_>>());
}

/// Writes items in the order of `numbers`.
pub(super) fn write(address: DatabaseAddress, items: &[Array], numbers: impl Iterator<Item = usize>) {
    let description = description(IndexKind::Images, IndexPrecision::Single);
    let collection = Collection::create_or_open(address, description.clone()).unwrap();
    let metadata = Metadata::new();
    let mut writer = Writer::new(&collection, &metadata);
    for number in numbers {
        let stored = description.encode_item(&name(number), items[number].values()).unwrap();
        writer.push(item(number), Some([number as u8; 32]), stored).unwrap();
    }
    writer.commit().unwrap();
}

#[test]
fn eight_writers_at_once_store_each_item_once() {
    let Some(server) = PostgresServer::start() else { return };
    let items = images(600);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (items, address) = (&items, address(&server, "many"));
            // Half of them in the opposite order: their transactions deadlock.
            scope.spawn(move || match writer % 2 {
                0 => write(address, items, 0..items.len()),
                _ => write(address, items, (0..items.len()).rev()),
            });
        }
    });
    assert_complete(address(&server, "many"), &items);
}

/// The process of a writer that is killed. It says so when it has committed a chunk.
#[test]
#[ignore = "a part of killed_writers_and_servers_lose_and_double_nothing"]
fn process_of_a_writer() {
    let Ok(address) = std::env::var(WRITER_ADDRESS) else { return };
    let items = images(ITEMS);
    for first in (0..ITEMS).step_by(100) {
        write(address.parse().unwrap(), &items, first..first + 100);
        println!("\ncommitted {first}");
    }
}

#[test]
fn killed_writers_and_servers_lose_and_double_nothing() {
    let Some(mut server) = PostgresServer::start() else { return };
    let items = images(ITEMS);
    let name = "killed";
    let committed = |server: &PostgresServer| Collection::open(address(server, name)).unwrap().count(None).unwrap();
    for kill_server in [false, true] {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::loading::process_of_a_writer", "--ignored", "--nocapture"])
            .env(WRITER_ADDRESS, server.address("postgres", "postgres", name))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        // The first chunks are committed, and the next one is being written.
        let last = if kill_server { "committed 1200" } else { "committed 500" };
        assert!(lines.map_while(Result::ok).any(|line| line == last));
        if kill_server {
            server.kill();
            // The writer fails by itself.
            assert!(!writer.wait().unwrap().success());
            server.restart();
        } else {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        let count = committed(&server);
        let least = if kill_server { 1300 } else { 600 };
        assert!((least..ITEMS).contains(&count), "{count}");
    }
    // The same work again writes the rest.
    let folder = tempfile::tempdir().unwrap();
    let file = index(&folder.path().join("index"), IndexKind::Images, IndexPrecision::Single, &items);
    let (_, summary) = import_index(&file, address(&server, name), &Metadata::new(), &|_| ()).unwrap();
    assert_eq!(summary.index.items, ITEMS);
    assert_complete(address(&server, name), &items);
}

#[test]
fn changed_content_replaces_an_item_and_deleted_items_are_gone() {
    let Some(server) = PostgresServer::start() else { return };
    let items = images(30);
    write(address(&server, "a"), &items[..20], 0..20);
    let collection = Collection::open(address(&server, "a")).unwrap();
    let number = collection.nearest(&[1.0; 16], 20, None).unwrap()[0].item;

    // The same name with another content and stamp.
    let metadata = Metadata::new();
    let mut writer = Writer::new(&collection, &metadata);
    let name = collection.names(&[number]).unwrap().remove(0);
    let stored = collection.description().encode_item(&name, items[25].values()).unwrap();
    writer.push(laps_search::IndexItem { name: name.clone(), ..item(25) }, Some([77; 32]), stored).unwrap();
    writer.commit().unwrap();
    assert_eq!(collection.embeddings(&[number]).unwrap()[0].values(), items[25].values());

    // A content that is stored is not encoded again under another name.
    let other = item(29);
    assert!(collection.copy_content(&other, &[77; 32], &metadata).unwrap());
    assert!(!collection.copy_content(&other, &[78; 32], &metadata).unwrap());
    let known = collection.known_items().unwrap();
    assert_eq!((known.len(), known[&other.name].content, known[&other.name].stamp), (21, Some([77; 32]), other.stamp));

    assert_eq!(collection.delete(&[&name, "none"]).unwrap(), 1);
    assert_eq!(collection.count(None).unwrap(), 20);
    assert!(collection.names(&[number]).is_err());
    assert!(collection.nearest(&[1.0; 16], 20, None).unwrap().iter().all(|near| near.item != number));
}
