//! `index`, `search` and `serve` with a collection in Postgres.

use std::path::Path;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::{
    files::scenes,
    postgres_server::PostgresServer,
    running_server::{MODEL, RunningServer},
    serve::data_url,
    support::{expect_error, laps_zoo},
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(arguments: &[&str], model: &[&str]) -> Value {
    let run = laps_zoo(arguments.iter().chain(model).chain(&["--json"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

/// The results of a search without the number of the item, which a file and a database count differently.
fn results(answer: &Value) -> Vec<Value> {
    let mut results = answer["results"].as_array().unwrap().clone();
    results.iter_mut().for_each(|row| {
        row.as_object_mut().unwrap().remove("item");
    });
    results
}

#[test]
fn collection_gives_the_results_of_the_index_file() {
    let Some(mut server) = PostgresServer::start() else { return };
    let data = scenes(8);
    let [images, file, copy, metadata] =
        ["images", "photos.index", "copy.index", "metadata.jsonl"].map(|name| data.path().join(name));
    let store = server.address("postgres", "postgres", "photos");
    let moved = server.address("postgres", "postgres", "moved");
    run(&["index", text(&images), "--out", text(&file)], &MODEL);
    let made = run(&["index", text(&images), "--store", &store], &MODEL);
    assert_eq!((&made["items"], &made["encoded"], &made["removed"]), (&json!(8), &json!(8), &json!(0)));
    assert_eq!(made["index"], store.as_str());

    // From the file into the database and back, without a model.
    assert_eq!(run(&["index", text(&file), "--store", &moved], &[])["items"], 8);
    assert_eq!(run(&["index", &moved, "--out", text(&copy)], &[])["items"], 8);
    assert!(fs_err::read(&copy).unwrap() == fs_err::read(&file).unwrap());
    let shards = data.path().join("shards");
    let from_shards = server.address("postgres", "postgres", "from_shards");
    run(&["index", text(&images), "--out", text(&shards), "--shard-size", "3"], &MODEL);
    assert_eq!(run(&["index", text(&shards), "--store", &from_shards], &[])["items"], 8);

    let image = images.join("test_00003.png");
    let queries: [&[&str]; 4] = [
        &["a red circle"],
        &["a red circle", "--exact"],
        &["a red circle", "--candidates", "3", "--top", "2"],
        &["--image", text(&image)],
    ];
    for query in queries {
        let [expected, found, found_moved, found_from_shards] =
            [text(&file), &store, &moved, &from_shards].map(|index| run(&[&["search", index], query].concat(), &MODEL));
        assert_eq!(results(&found), results(&expected), "{query:?}");
        assert_eq!(results(&found_moved), results(&expected), "{query:?}");
        assert_eq!(results(&found_from_shards), results(&expected), "{query:?}");
        assert_eq!((&found["items"], &found["compared"]), (&expected["items"], &expected["compared"]));
    }
    let captions = data.path().join("captions/test_caps.txt");
    let evaluate = ["--evaluate", "--queries", text(&captions)];
    let evaluation =
        |target: &[&str]| run(&[&["index", text(&images)], target, &evaluate].concat(), &MODEL)["evaluation"].clone();
    assert_eq!(evaluation(&["--store", &store]), evaluation(&["--out", text(&file)]));

    // A renamed image is not encoded again, and --prune deletes its former name.
    fs_err::rename(images.join("test_00000.png"), images.join("renamed.png")).unwrap();
    let lines = [json!({"name": "renamed.png", "year": 2021}), json!({"name": "test_00001.png", "year": 2019})];
    fs_err::write(&metadata, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let again = ["index", text(&images), "--store", &store, "--metadata", text(&metadata)];
    let updated = run(&again, &MODEL);
    assert_eq!((&updated["items"], &updated["encoded"], &updated["kept"]), (&json!(9), &json!(0), &json!(8)));
    let pruned = run(&[&again[..], &["--prune"]].concat(), &MODEL);
    assert_eq!((&pruned["items"], &pruned["encoded"], &pruned["removed"]), (&json!(8), &json!(0), &json!(1)));

    let filtered = run(&["search", &store, "a red circle", "--where", "year >= 2020"], &MODEL);
    assert_eq!((&filtered["items"], &filtered["compared"]), (&json!(1), &json!(1)));
    assert_eq!(filtered["results"][0]["name"], "renamed.png");
    let alike = run(&["search", &store, "--image", text(&image), "--where", "year = 2019"], &MODEL);
    assert_eq!((&alike["items"], &alike["results"][0]["name"]), (&json!(1), &json!("test_00001.png")));
    let other = ["search", &store, "a", "--entry", "shapes_swin", "--engine", "rust", "--quiet"];
    let other = expect_error(data.path(), other);
    assert!(other.contains("was written by another"), "{other}");

    // Two servers in front of one database.
    let servers = [(); 2].map(|()| RunningServer::start(Path::new(&store), &["--images", text(&images)]));
    let item = json!({"item": filtered_item(&servers[0])});
    for (path, body) in [
        ("/v1/search", json!({"query": "a red circle"})),
        ("/v1/search", json!({"query": "a red circle", "filter": ["year >= 2020"]})),
        ("/v1/search", json!({"query": item, "top": 3})),
        ("/v1/search", json!({"query": item, "filter": ["year = 2019"]})),
        ("/v1/embeddings", json!({"input": ["a red circle", item]})),
        ("/v1/score", json!({"images": [item], "texts": ["a red circle", "a square"]})),
        ("/v1/rerank", json!({"query": item, "documents": ["a red circle", "a square"]})),
        ("/v1/explain", json!({"image": item, "caption": "a red circle"})),
    ] {
        let [first, second] = [&servers[0], &servers[1]].map(|server| server.ok(path, &body));
        assert_eq!(first, second, "{path} {body}");
        if body["filter"][0] == "year = 2019" {
            assert_eq!((&first["items"], &first["results"][0]["name"]), (&json!(1), &json!("test_00001.png")));
        }
    }
    let answer = servers[0].ok("/v1/search", &json!({"query": "a red circle", "filter": ["year >= 2020"]}));
    assert_eq!(results(&answer), results(&filtered));
    let address = format!("/v1/items/{}/image", item["item"]);
    assert_eq!(servers[0].get(&address).status, 200);
    assert_eq!(servers[0].get("/v1/items/123456/image").status, 404);
    assert_snapshot!(servers[0].post("/v1/search", &json!({"query": "a", "filter": ["year"]})).error(), @r#"
    422 `filter` cannot be used
      expected: `KEY OPERATOR VALUE`, such as `year >= 2020` or `camera.maker = "Leica"`
      found: `year`
    "#);
    let missing = servers[0].post("/v1/search", &json!({"query": {"item": 123456}}));
    assert!(missing.error().starts_with("422 there is no item 123456"), "{}", missing.error());
    let ready = |server: &RunningServer| {
        let answer = server.get("/readyz");
        (answer.status, answer.json()["status"].clone())
    };
    assert_eq!(ready(&servers[1]), (200, json!("ok")));
    server.kill();
    assert_eq!(servers[1].post("/v1/search", &json!({"query": "a"})).error(), "503 the database does not answer");
    assert_eq!(servers[1].get(&address).error(), "503 the database does not answer");
    assert_eq!(ready(&servers[1]), (503, json!("index unavailable")));
    // What needs no database is answered, and everything again once there is one.
    assert_eq!(servers[1].get("/healthz").status, 200);
    servers[1].ok("/v1/score", &json!({"images": [data_url(&image)], "texts": ["a"]}));
    server.restart();
    assert_eq!(ready(&servers[1]), (200, json!("ok")));
    let asked = json!({"query": "a red circle", "filter": ["year >= 2020"]});
    assert_eq!(servers[1].ok("/v1/search", &asked), answer);
}

/// The number of the only item of the year 2021.
fn filtered_item(server: &RunningServer) -> u64 {
    let answer = server.ok("/v1/search", &json!({"query": "a red circle", "filter": ["year = 2021"]}));
    answer["results"][0]["item"].as_u64().unwrap()
}

#[test]
fn stores_that_cannot_be_used_are_named() {
    let data = scenes(1);
    let [images, file, copy] = ["images", "photos.index", "copy.index"].map(|name| data.path().join(name));
    run(&["index", text(&images), "--out", text(&file)], &MODEL);
    let in_data = |arguments: &[&str]| expect_error(data.path(), arguments);
    assert_snapshot!(in_data(&["search", text(&file), "a", "--where", "year = 1", "--entry", "shapes_vit", "--engine", "rust"]), @r"
    error: the items of `DIR/photos.index` have no metadata to filter by
      expected: a database with metadata
      found: an index file
    hint: move the index into a Postgres database with `laps-zoo index`
    ");
    assert_snapshot!(in_data(&["index", text(&images), "--store", "photos.index", "--entry", "shapes_vit"]), @r"
    error: `--store` cannot be used
      expected: postgres://USER@HOST/DATABASE?collection=NAME
      found: `photos.index`
    ");
    // Nothing listens on this port. The password is in no message.
    for arguments in [
        &["search", "postgres://me:secret@127.0.0.1:1/d", "a"][..],
        &["serve", "postgres://me:secret@127.0.0.1:1/d"],
        &["index", "postgres://me:secret@127.0.0.1:1/d", "--out", text(&copy)],
        &["index", text(&file), "--store", "postgres://me:secret@127.0.0.1:1/d"],
        &["index", text(&images), "--store", "postgres://me:secret@127.0.0.1:1/d", "--entry", "shapes_vit", "--quiet"],
    ] {
        let error = in_data(arguments);
        assert!(error.contains("the database `postgres://me@127.0.0.1:1/d` cannot be reached"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
