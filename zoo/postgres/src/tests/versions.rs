//! Versions of the tables, and databases that cannot be used.

use std::thread;

use super::{PostgresServer, address, description, error, images, index};
use crate::{
    Collection, DatabaseAddress, Metadata,
    connection::Connection,
    import_index,
    schema::{self, MIGRATIONS},
};
use laps_search::{IndexDescription, IndexKind, IndexPrecision, ModelUsed};

fn images_in(precision: IndexPrecision) -> IndexDescription {
    description(IndexKind::Images, precision)
}

#[test]
fn tables_are_updated_once_and_keep_their_items() {
    let Some(server) = PostgresServer::start() else { return };
    // Many clients create the tables of an empty database.
    thread::scope(|scope| {
        for number in 0..8 {
            let address = address(&server, if number % 2 == 0 { "even" } else { "odd" });
            scope.spawn(move || Collection::create_or_open(address, images_in(IndexPrecision::Half)).unwrap());
        }
    });
    assert_eq!(server.psql("postgres", "SELECT count(*), max(version) FROM laps_zoo.tables_version"), "1|1");
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM laps_zoo.collections"), "2");

    let folder = tempfile::tempdir().unwrap();
    let file = index(&folder.path().join("index"), IndexKind::Images, IndexPrecision::Half, &images(5));
    let (collection, _) = import_index(&file, address(&server, "even"), &Metadata::new(), &|_| ()).unwrap();
    // A next version, which would fail if it ran twice.
    let next = [MIGRATIONS[0], "ALTER TABLE laps_zoo.collections ADD COLUMN note text"];
    thread::scope(|scope| {
        for _ in 0..4 {
            let connection = Connection::open(address(&server, "even")).unwrap();
            scope.spawn(move || schema::migrate(&connection, &next).unwrap());
        }
    });
    assert_eq!(collection.count(None).unwrap(), 5);
    // A program of the version before does not write to them, nor read them.
    for result in [
        Collection::open(address(&server, "even")),
        Collection::create_or_open(address(&server, "even"), images_in(IndexPrecision::Half)),
    ] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(error(result), @r"
            the tables of `postgres://postgres@/postgres?host=FOLDER&collection=even` have another version
              expected: version 1
              found: version 2
            hint: use a newer laps-zoo
            ");
        }
    }
    // A migration that fails changes nothing.
    let broken = [next[0], next[1], "CREATE TABLE laps_zoo.half_done (); SELECT 1 / 0"];
    let connection = Connection::open(address(&server, "even")).unwrap();
    let failed = schema::migrate(&connection, &broken).unwrap_err();
    assert!(failed.to_string().contains("division by zero"), "{failed}");
    assert_eq!(server.psql("postgres", "SELECT max(version) FROM laps_zoo.tables_version"), "2");
    assert_eq!(server.psql("postgres", "SELECT to_regclass('laps_zoo.half_done') IS NULL"), "t");
}

#[test]
fn databases_that_cannot_be_used_are_named() {
    let Some(server) = PostgresServer::start() else { return };
    server.psql("postgres", "CREATE ROLE locked LOGIN PASSWORD 'secret'; CREATE ROLE guest LOGIN");
    server.psql("postgres", "CREATE DATABASE empty");
    server.psql("empty", "GRANT CREATE ON DATABASE empty TO guest");
    let open = |user: &str, database: &str, collection: &str| {
        Collection::open(server.address(user, database, collection).parse().unwrap())
    };
    insta::assert_snapshot!(error(open("postgres", "postgres", "a")), @r"
    the tables of `postgres://postgres@/postgres?host=FOLDER&collection=a` have another version
      expected: version 1
      found: no tables
    hint: create a collection with `laps-zoo index`
    ");
    let wrong = open("locked:wrong", "postgres", "a");
    insta::assert_snapshot!(error(wrong), @r#"
    the database `postgres://locked@/postgres?host=FOLDER&collection=a` refuses the connection
      expected: a user, password and database that it accepts
      found: password authentication failed for user "locked" (28P01)
    hint: check the user, password and database of the address; PGPASSWORD is the password if the address has none
    "#);
    let missing = error(open("locked", "postgres", "a"));
    assert!(missing.contains("refuses the connection"), "{missing}");
    let address: DatabaseAddress = server.address("locked", "postgres", "a").parse().unwrap();
    let right = error(Collection::open(address.or_password(Some("secret".to_owned()))));
    assert!(right.contains("found: no tables"), "{right}");
    insta::assert_snapshot!(error(open("postgres", "none", "a")), @r#"
    the database `postgres://postgres@/none?host=FOLDER&collection=a` refuses the connection
      expected: a user, password and database that it accepts
      found: database "none" does not exist (3D000)
    hint: check the user, password and database of the address; PGPASSWORD is the password if the address has none
    "#);
    // The guest may not create the extension.
    let guest = server.address("guest", "empty", "a").parse().unwrap();
    insta::assert_snapshot!(error(Collection::create_or_open(guest, images_in(IndexPrecision::Half))), @r#"
    the database `postgres://guest@/empty?host=FOLDER&collection=a` cannot compare vectors
      expected: the extension `vector` (pgvector), 0.8 or later
      found: permission denied to create extension "vector" (42501)
    hint: install pgvector on the server, and run `CREATE EXTENSION vector` in the database as a superuser
    "#);
    let elsewhere = format!("postgres://postgres:secret@/postgres?host={}&collection=a", "/nonexistent");
    let unreachable = error(Collection::open(elsewhere.parse().unwrap()));
    assert!(unreachable.contains("cannot be reached") && !unreachable.contains("secret"), "{unreachable}");
}

#[test]
fn other_models_kinds_and_settings_are_rejected() {
    let Some(server) = PostgresServer::start() else { return };
    let create = |description| Collection::create_or_open(address(&server, "a"), description);
    let own = images_in(IndexPrecision::Half);
    create(own.clone()).unwrap();
    // Another version of the program may write to it, and one that does not rotate images keeps the setting.
    create(IndexDescription { producer: "laps-zoo 9".to_owned(), ..own.clone() }).unwrap();

    let model = ModelUsed { checkpoint_sha256: "c".repeat(64), ..own.model.clone() };
    insta::assert_snapshot!(error(create(IndexDescription { model, ..own.clone() })), @r"
    the index `postgres://postgres@/postgres?host=FOLDER&collection=a` was written by another checkpoint
      expected: `small`, checkpoint with sha256 cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
      found: `small`, checkpoint with sha256 bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
    hint: use the entry, checkpoint or graphs that wrote it, or create another index
    ");
    insta::assert_snapshot!(error(create(description(IndexKind::Captions, IndexPrecision::Half))), @r"
    `postgres://postgres@/postgres?host=FOLDER&collection=a` is an index of images
      expected: an index of captions
      found: an index of images
    hint: search it by text, or create an index of captions with `laps-zoo index`
    ");
    insta::assert_snapshot!(error(create(images_in(IndexPrecision::Single))), @r#"
    the collection `postgres://postgres@/postgres?host=FOLDER&collection=a` has another `precision`
      expected: "fp32"
      found: "fp16"
    hint: use the settings of the collection, or another collection
    "#);
    let moved = IndexDescription { source: "/elsewhere".to_owned(), ..own.clone() };
    assert!(error(create(moved)).contains("has another `source`"));
    insta::assert_snapshot!(error(Collection::open(address(&server, "b"))), @r"
    the database `postgres://postgres@/postgres?host=FOLDER&collection=b` has no collection `b`
      expected: one of `a`
      found: none
    hint: name it in the address as `collection=NAME`, or create it with `laps-zoo index`
    ");
}
