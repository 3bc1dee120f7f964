//! `serve`: a real process, asked over loopback.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    files::scenes,
    running_server::{Answer, MODEL, RunningServer},
    support::{expect_error, laps_zoo},
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An index of `images` drawn scenes.
pub(crate) fn index(images: usize) -> (TempDir, PathBuf) {
    let data = scenes(images);
    let [folder, out] = ["images", "photos.index"].map(|name| data.path().join(name));
    let run = laps_zoo(["index", text(&folder), "--out", text(&out)].iter().chain(&MODEL));
    assert_eq!(run.status, 0, "{}", run.stderr);
    (data, out)
}

fn image(data: &TempDir, number: usize) -> PathBuf {
    data.path().join(format!("images/test_{number:05}.png"))
}

pub(crate) fn data_url(path: &Path) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(fs_err::read(path).unwrap()))
}

/// The JSON output of the command.
fn command(arguments: &[&str]) -> Value {
    let run = laps_zoo(arguments.iter().chain(&MODEL).chain(&["--json"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

/// Removes what only one side has.
fn without(mut value: Value, field: &str) -> Value {
    value.as_array_mut().unwrap().iter_mut().for_each(|row| {
        row.as_object_mut().unwrap().remove(field);
    });
    value
}

#[test]
fn answers_equal_those_of_the_command_bit_for_bit() {
    let (data, path) = index(6);
    let server = RunningServer::start(&path, &[]);
    let [first, second] = [image(&data, 0), image(&data, 1)];
    let caption = "A red circle contains a square";

    let expected = command(&["search", text(&path), caption, "--top", "4"]);
    let found = server.ok("/v1/search", &json!({ "query": caption, "top": 4 }));
    assert_eq!(without(found["results"].clone(), "item"), expected["results"]);
    for field in ["model", "engine", "items", "compared", "ranked_by", "kind"] {
        assert_eq!(found[field], expected[field], "{field}");
    }
    let expected = command(&["search", text(&path), "--image", text(&first), "--top", "4"]);
    let found = server.ok("/v1/search", &json!({ "query": data_url(&first), "top": 4 }));
    assert_eq!(without(found["results"].clone(), "item"), expected["results"]);
    assert_eq!(found["ranked_by"], "pooled");

    let other = "two green triangles";
    let expected = command(&["score", text(&first), text(&second), "--caption", caption, "--caption", other]);
    let images = [data_url(&first), data_url(&second)];
    let found = server.ok("/v1/score", &json!({ "images": images, "texts": [caption, other] }));
    assert_eq!(found["similarities"], expected["similarities"]);

    let ranked = server.ok("/v1/rerank", &json!({ "query": caption, "documents": images }));
    let mut scores: Vec<f64> =
        expected["similarities"].as_array().unwrap().iter().map(|row| row[0].as_f64().unwrap()).collect();
    for result in ranked["results"].as_array().unwrap() {
        let place = result["index"].as_u64().unwrap() as usize;
        assert_eq!(result["relevance_score"].as_f64().unwrap(), scores[place]);
    }
    scores.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(ranked["results"][0]["relevance_score"].as_f64().unwrap(), scores[0]);
    let texts = server.ok("/v1/rerank", &json!({ "query": images[0], "documents": [caption, other], "top_n": 1 }));
    assert_eq!(texts["results"].as_array().unwrap().len(), 1);

    let mut expected = command(&["explain", text(&first), "--caption", caption]);
    expected["image"] = "image".into();
    assert_eq!(server.ok("/v1/explain", &json!({ "image": images[0], "caption": caption })), expected);

    let file = data.path().join("pooled.npy");
    let run = laps_zoo(["embed", text(&first), "--out", text(&file), "--pooled"].iter().chain(&MODEL));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let stored = fs_err::read(&file).unwrap();
    let encoded = json!({ "input": images[0], "encoding_format": "base64", "model": "shapes_vit" });
    let found = server.ok("/v1/embeddings", &encoded);
    let bytes = BASE64_STANDARD.decode(found["data"][0]["embedding"].as_str().unwrap()).unwrap();
    assert!(stored.ends_with(&bytes) && !bytes.is_empty());
    let floats = server.ok("/v1/embeddings", &json!({ "input": [images[0], caption] }));
    let vector: Vec<u8> = floats["data"][0]["embedding"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|value| (value.as_f64().unwrap() as f32).to_le_bytes())
        .collect();
    assert_eq!(vector, bytes);
    assert_eq!(floats["data"][1]["index"], 1);
    assert!(floats["usage"]["prompt_tokens"].as_u64().unwrap() > 2);
}

#[test]
fn items_forms_and_small_endpoints_answer() {
    let (data, path) = index(3);
    let server = RunningServer::start(&path, &[]);
    // Unless `--host` says otherwise.
    assert!(server.address.ip().is_loopback());
    for (address, content) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/healthz", "application/json"),
        ("/readyz", "application/json"),
        ("/openapi.json", "application/json"),
        ("/metrics", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("/v1/items/2/image", "image/jpeg"),
    ] {
        let answer = server.get(address);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content)), "{address}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{address}");
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'; "), "{address}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{address}");
    }
    // The image is made from the pixels: its file has no metadata of the original.
    let jpeg = server.get("/v1/items/2/image").body;
    let shown = laps_data::image::decode(&jpeg).unwrap().image;
    let original = laps_data::image::read(&image(&data, 2)).unwrap().image;
    assert_eq!((shown.width(), shown.height()), (original.width(), original.height()));

    // An item is its stored embedding, and finds itself.
    let near = server.ok("/v1/search", &json!({ "query": { "item": 1 }, "top": 1 }));
    assert_eq!(near["results"][0]["item"], 1);
    let found = server.ok("/v1/search", &json!({ "query": "a red circle", "top": 3 }));
    let explained = server.ok("/v1/explain", &json!({ "image": { "item": 1 }, "caption": "a red circle" }));
    let result = found["results"].as_array().unwrap().iter().find(|result| result["item"] == 1).unwrap();
    let [shown, similarity] = [&explained["similarity"], &result["similarity"]].map(|value| value.as_f64().unwrap());
    // The search computes in single precision, the explanation in double precision.
    assert!((shown - similarity).abs() < 1e-6, "{shown} {similarity}");
    assert_eq!(explained["image"], "test_00001.png");

    // A form with a file is the same request as JSON with a `data:` URL.
    let file = fs_err::read(image(&data, 0)).unwrap();
    let form = |fields: &[(&str, &[u8])]| {
        let mut body = Vec::new();
        for (head, value) in fields {
            body.extend(format!("--border\r\nContent-Disposition: form-data; {head}\r\n\r\n").bytes());
            body.extend(*value);
            body.extend(b"\r\n");
        }
        body.extend(b"--border--\r\n");
        body
    };
    let kind = ["Content-Type: multipart/form-data; boundary=border"];
    let body = form(&[("name=\"query\"; filename=\"a\"", &file), ("name=\"top\"", b"2")]);
    let answer = server.send("POST", "/v1/search", &kind, &body);
    let expected = server.ok("/v1/search", &json!({ "query": data_url(&image(&data, 0)), "top": 2 }));
    assert_eq!(answer.json(), expected);
    let body = form(&[("name=\"input\"; filename=\"a\"", &file), ("name=\"input\"", b"a red circle")]);
    let answer = server.send("POST", "/v1/embeddings", &kind, &body);
    assert_eq!(answer.json()["data"].as_array().unwrap().len(), 2, "{}", answer.json());

    let document = server.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["paths"].as_object().unwrap().len(), 9);
}

#[test]
fn unusable_requests_are_errors_with_the_texts_of_the_command() {
    let (data, path) = index(2);
    let server = RunningServer::start(&path, &["--max-inputs", "4", "--max-body", "20000", "--max-pixels", "20000"]);
    let error = |path: &str, body: Value| server.post(path, &body).error();
    insta::assert_snapshot!(error("/v1/search", json!({ "query": "circle ".repeat(80) })), @r"
    422 1 of 1 captions cannot be used
      caption 1: too long: 82 tokens, where 64 are allowed
    hint: shorten or remove captions that are too long, or have them truncated and counted
    ");
    insta::assert_snapshot!(error("/v1/search", json!({ "query": "data:image/png;base64,aGVsbG8=" })), @"422 `query` cannot be used: not a JPEG, PNG, GIF, BMP or WebP file");
    insta::assert_snapshot!(error("/v1/search", json!({ "query": "data:image/png;base64,%%" })), @r"
    422 `query` cannot be used
      expected: `data:image/...;base64,` and the file in base64
      found: Invalid symbol 37, offset 0.
    ");
    insta::assert_snapshot!(error("/v1/search", json!({ "query": { "image": "https://example.org/a.png" } })), @r"
    422 `query` cannot be used
      expected: `data:image/...;base64,` and the file in base64
      found: no `data:` URL
    hint: the server does not fetch URLs
    ");
    insta::assert_snapshot!(error("/v1/search", json!({ "query": { "item": 2 } })), @r"
    422 there is no item 2
      expected: the number of an item of the index
      found: 2
    ");
    insta::assert_snapshot!(error("/v1/search", json!({ "query": 7 })), @"422 the body cannot be used: `query`: expected a text, a `data:` URL of an image, or an object with one of `text`, `image` and `item`");
    insta::assert_snapshot!(error("/v1/search", json!({ "query": "a", "top": 0 })), @r"
    422 `top` cannot be used
      expected: 1 to 1000
      found: 0
    ");
    insta::assert_snapshot!(error("/v1/search", json!({ "query": "a", "tops": 1 })), @"422 the body cannot be used: `tops`: unknown field `tops`, expected one of `query`, `top`, `candidates`, `filter`");
    insta::assert_snapshot!(error("/v1/search", json!({ "query": "a", "filter": vec!["a = 1"; 65] })), @r"
    422 `filter` cannot be used
      expected: at most 64 conditions
      found: 65
    ");
    let filtered = error("/v1/search", json!({ "query": "a", "filter": ["year = 1"] }));
    insta::assert_snapshot!(filtered.replace(text(data.path()), "DIR"), @r"
    422 the items of `DIR/photos.index` have no metadata to filter by
      expected: a database with metadata
      found: an index file
    hint: move the index into a Postgres database with `laps-zoo index`
    ");
    insta::assert_snapshot!(error("/v1/score", json!({ "images": ["a"], "texts": ["b"] })), @r"
    422 `images` cannot be used
      expected: an image
      found: a text
    ");
    insta::assert_snapshot!(error("/v1/score", json!({ "images": [], "texts": ["b"] })), @r"
    422 `images` cannot be used
      expected: 1 or more
      found: none
    ");
    insta::assert_snapshot!(error("/v1/embeddings", json!({ "input": ["a", "b", "c", "d", "e"] })), @r"
    413 too many inputs
      expected: at most 4 texts and images in one request
      found: more
    ");
    insta::assert_snapshot!(error("/v1/embeddings", json!({ "input": "a", "model": "clip" })), @r"
    404 there is no model `clip`
      expected: shapes_vit
      found: clip
    ");
    insta::assert_snapshot!(error("/v1/embeddings", json!({ "input": "a", "dimensions": 3 })), @r"
    422 `dimensions` cannot be used
      expected: 64
      found: 3
    ");
    insta::assert_snapshot!(server.send("POST", "/v1/search", &["Content-Type: application/json"], b"{").error(), @"400 the body is not valid JSON: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(server.send("POST", "/v1/search", &["Content-Type: text/plain"], b"{}").error(), @r"
    415 the content type cannot be used
      expected: application/json, or multipart/form-data with a boundary
      found: text/plain
    ");
    insta::assert_snapshot!(server.get("/v1/search").error(), @"405 the path has no such method");
    insta::assert_snapshot!(server.get("/v2").error(), @"404 there is no such path");

    // An oversized body is refused before it is read, and one without a length when it passes the limit.
    let head = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let oversized = server.raw(format!("{head}Content-Length: 20001\r\n\r\n").as_bytes());
    insta::assert_snapshot!(oversized.error(), @r"
    413 the body is too large
      expected: at most 20000 bytes
      found: more
    ");
    let chunk = format!("{:x}\r\n{}\r\n", 20_001, " ".repeat(20_001));
    assert_eq!(server.raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}").as_bytes()).status, 413);

    // A file of 54 bytes that claims 12 GB of pixels, and more pixels than this server takes.
    let url = |bytes: &[u8]| json!({ "query": format!("data:image/bmp;base64,{}", BASE64_STANDARD.encode(bytes)) });
    let mut bomb = b"BM".to_vec();
    [54_u32, 0, 54, 40, 65_000, 65_000, 1 | 24 << 16, 0, 0, 0, 0, 0, 0]
        .iter()
        .for_each(|field| bomb.extend(field.to_le_bytes()));
    let large =
        laps_data::image::png(&laps_data::image::RgbImage::new(200, 101, vec![9; 200 * 101 * 3]).unwrap()).unwrap();
    #[cfg(target_os = "linux")]
    let before = server.peak_bytes();
    insta::assert_snapshot!(error("/v1/search", url(&bomb)), @"422 `query` cannot be used: too large: 65000 x 65000 pixels, where 20000 in all are allowed");
    insta::assert_snapshot!(error("/v1/search", url(&large)), @"422 `query` cannot be used: too large: 200 x 101 pixels, where 20000 in all are allowed");
    // Decoding the first would take 12 GB.
    #[cfg(target_os = "linux")]
    assert!(server.peak_bytes() < before + (64 << 20));

    // A text is no query for an index of captions.
    let captions = data.path().join("captions.index");
    let texts = data.path().join("captions/test_caps.txt");
    let run = laps_zoo(["index", "--captions", text(&texts), "--out", text(&captions)].iter().chain(&MODEL));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let server = RunningServer::start(&captions, &[]);
    insta::assert_snapshot!(server.post("/v1/search", &json!({ "query": "a red circle" })).error(), @r"
    422 `captions.index` is an index of captions
      expected: an index of images
      found: an index of captions
    hint: search it by image, or create an index of images with `laps-zoo index`
    ");
    let found = server.ok("/v1/search", &json!({ "query": data_url(&image(&data, 0)), "top": 3 }));
    let expected = command(&["search", text(&captions), "--image", text(&image(&data, 0)), "--top", "3"]);
    assert_eq!(without(found["results"].clone(), "item"), expected["results"]);
    assert_eq!(server.get("/v1/items/0/image").status, 404);
}

/// As values, an object of 6 bytes takes hundreds of bytes.
#[test]
fn json_of_many_small_values_is_refused_before_it_is_built() {
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &[]);
    #[cfg(target_os = "linux")]
    let before = server.peak_bytes();
    let objects = "{\"\":0},".repeat(1 << 20);
    let send = |body: &str| server.send("POST", "/v1/search", &["Content-Type: application/json"], body.as_bytes());
    for field in ["query", "none"] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(send(&format!("{{\"{field}\":[{objects}0]}}")).error(), @r"
            413 too many inputs
              expected: at most 64 texts and images in one request
              found: more
            ");
        }
    }
    // The body itself has 7 MB, its values about a hundred times as much.
    #[cfg(target_os = "linux")]
    assert!(server.peak_bytes() < before + (64 << 20));
    // Nested arrays end at the depth that the parser allows.
    assert_eq!(send(&"[".repeat(1 << 20)).status, 400);
}

#[test]
fn bodies_that_take_too_much_memory_together_are_refused() {
    let (_data, path) = index(2);
    // All bodies may have 256 MiB together, and one of unknown length may take all of them.
    let server = RunningServer::start(&path, &["--max-body=268435456"]);
    let mut large = server.connect();
    large
        .write_all(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
              Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    // The server asks for the body when it has room for it.
    let mut interim = [0; 25];
    large.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    let asked = json!({ "query": "a red circle" });
    let refused = server.post("/v1/search", &asked);
    insta::assert_snapshot!(refused.error(), @r"
    429 the server is busy: the bodies of other requests are too large
    hint: try again later
    ");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Requests without a body are answered.
    assert_eq!(server.get("/readyz").status, 200);
    let body = asked.to_string();
    large.write_all(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).unwrap();
    let expected = Answer::read(large).json();
    assert_eq!(server.ok("/v1/search", &asked), expected);
}

/// Request smuggling: a proxy in front of the server could find the end of such a request elsewhere than the server does.
#[test]
fn ambiguous_ends_of_requests_are_not_followed_by_another_request() {
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &[]);
    let send = |version: &str, headers: &str, body: &str| {
        let request = format!(
            "POST /v1/search HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n{body}"
        );
        server.raw(request.as_bytes())
    };
    let hidden = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = format!("Content-Length: {}\r\n", hidden.len() + 5);
    // The chunks decide, and the body is empty; the bytes after it are not read as a second request.
    let chunked = "Transfer-Encoding: chunked\r\n";
    for headers in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
        let answer = send("1.1", &headers, &format!("0\r\n\r\n{hidden}"));
        assert!(answer.error().starts_with("400 the body is not valid JSON"), "{headers}: {}", answer.error());
    }
    for headers in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "X-Folded: a\r\n Content-Length: 5\r\n",
    ] {
        let answer = send("1.1", headers, &format!("{{}}   {hidden}"));
        assert_eq!((answer.status, answer.body.as_slice()), (400, &b""[..]), "{headers}");
    }
    assert_eq!(send("1.0", chunked, "0\r\n\r\n").status, 400);
    // Sizes of chunks that are no numbers.
    for chunk in ["0x2\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n0\r\n\r\n", "fffffffffffffffff\r\n{}\r\n"] {
        let answer = send("1.1", chunked, &format!("{chunk}{hidden}"));
        assert_eq!(answer.error(), "400 the body ends early", "{chunk}");
    }
}

#[test]
fn no_path_leads_out_of_the_index() {
    let (data, path) = index(2);
    fs_err::copy(image(&data, 0), data.path().join("secret1.png")).unwrap();
    // An index is a file from outside: here one of its names leads out of the folder.
    let bytes = fs_err::read(&path).unwrap();
    let name = b"test_00001.png";
    let place = bytes.windows(name.len()).position(|window| window == name).unwrap();
    let mut hostile = bytes.clone();
    hostile[place..place + name.len()].copy_from_slice(b"../secret1.png");
    fs_err::write(&path, &hostile).unwrap();
    let server = RunningServer::start(&path, &[]);
    assert_eq!(server.get("/v1/items/0/image").status, 200);
    for path in [
        "/v1/items/1/image",
        "/v1/items/2/image",
        "/v1/items/-1/image",
        "/v1/items/..%2f..%2fsecret1.png/image",
        "/v1/items/../../secret1.png",
        "/v1/items/%00/image",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/page.html",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    // A name with a line feed neither adds a header nor a line to the log.
    let server = RunningServer::spawn(
        Command::new(crate::PROGRAM).args(["serve", text(&path), "--port", "0"]).args(&MODEL[..4]),
    );
    let answer = server.get("/v1/items/1%0d%0aX-Injected:%20yes/image");
    assert_eq!((answer.status, answer.header("x-injected")), (404, None));
    let answer = server.raw(b"GET /a HTTP/1.1\r\nHost: localhost\r\nX-Name: a\rb\r\nConnection: close\r\n\r\n");
    assert_eq!((answer.status, answer.header("b")), (400, None));
    let (status, log) = server.stop();
    assert_eq!(status, Some(0), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert_eq!((&lines[0]["status"], &lines[0]["method"]), (&404.into(), &"GET".into()));
}

#[test]
fn token_host_and_origin_are_checked() {
    let (data, path) = index(2);
    let file = data.path().join("token");
    // A byte order mark is not part of the token.
    fs_err::write(&file, "\u{feff}s3cret-token\n").unwrap();
    let server = RunningServer::start(&path, &["--token-file", text(&file)]);
    let score = json!({ "images": [{ "item": 0 }], "texts": ["a"] }).to_string();
    let with = |headers: &[&str]| {
        let headers = [headers, &["Content-Type: application/json"]].concat();
        server.send("POST", "/v1/score", &headers, score.as_bytes())
    };
    insta::assert_snapshot!(with(&[]).error(), @r"
    401 the token of the request cannot be used
      expected: `Authorization: Bearer` and the token of the server
      found: none
    ");
    assert_eq!(with(&[]).header("www-authenticate"), Some("bearer"));
    for wrong in ["Bearer s3cret-toke", "Bearer s3cret-tokens", "Bearer", "Basic s3cret-token", "Bearer \u{fc}"] {
        assert_eq!(with(&[&format!("Authorization: {wrong}")]).status, 401, "{wrong}");
    }
    assert_eq!(with(&["Authorization: Bearer s3cret-token"]).status, 200);
    // With a token, a proxy may pass another name on.
    assert_eq!(with(&["Authorization: bearer s3cret-token", "Host: photos.example.org"]).status, 200);
    for path in ["/metrics", "/v1/items/0/image", "/none"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    for path in ["/", "/healthz", "/readyz", "/openapi.json", "/page.js"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert!(server.get("/openapi.json").json()["security"][0]["token"].is_array());

    let server = RunningServer::start(&path, &[]);
    let answer = server.send("GET", "/healthz", &["Host: evil.example.org"], b"");
    insta::assert_snapshot!(answer.error(), @r"
    403 the `Host` of the request is not this machine
      expected: localhost or a loopback address
    hint: a server with a token accepts requests under other names
    ");
    let own = format!("Origin: http://{}", server.address);
    for (origin, status) in [(own.as_str(), 200), ("Origin: https://evil.example.org", 403), ("Origin: null", 403)] {
        assert_eq!(server.send("GET", "/healthz", &[origin], b"").status, status, "{origin}");
    }
    // A browser sends this one without a preflight request.
    let simple = ["Origin: https://evil.example.org", "Content-Type: text/plain"];
    assert_eq!(server.send("POST", "/v1/search", &simple, br#"{"query":"a"}"#).status, 403);
    let preflight = ["Origin: https://evil.example.org", "Access-Control-Request-Method: POST"];
    let answer = server.send("OPTIONS", "/v1/search", &preflight, b"");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));

    insta::assert_snapshot!(
        expect_error(data.path(), ["serve", text(&path), "--token", "a b"].iter().chain(&MODEL)), @r"
        error: the token cannot be used
          expected: 1 or more printable ASCII characters without spaces
          found: another character
        "
    );
    fs_err::write(&file, "\nnext line\n").unwrap();
    insta::assert_snapshot!(
        expect_error(data.path(), ["serve", text(&path), "--token-file", text(&file)].iter().chain(&MODEL)), @r"
        error: the token cannot be used
          expected: 1 or more printable ASCII characters without spaces
          found: nothing
        "
    );
    let none = data.path().join("none");
    let missing = expect_error(data.path(), ["serve", text(&path), "--token-file", text(&none)].iter().chain(&MODEL));
    assert!(missing.contains("DIR/none"), "{missing}");
    let port = server.address.port().to_string();
    let taken = expect_error(data.path(), ["serve", text(&path), "--port", &port].iter().chain(&MODEL));
    assert!(taken.starts_with(&format!("error: cannot listen on `127.0.0.1:{port}`\n")), "{taken}");
}

#[test]
fn options_come_from_the_environment() {
    let (_data, path) = index(2);
    let server = RunningServer::spawn(
        Command::new(crate::PROGRAM)
            .arg("serve")
            .env("LAPS_ZOO_SERVE_INDEX", &path)
            .envs([("LAPS_ZOO_SERVE_PORT", "0"), ("LAPS_ZOO_SERVE_ENGINE", "rust"), ("LAPS_ZOO_SERVE_TOKEN", "abc")])
            .env("LAPS_ZOO_SERVE_QUIET", "true"),
    );
    assert_eq!(server.get("/metrics").status, 401);
    assert_eq!(server.send("GET", "/metrics", &["Authorization: Bearer abc"], b"").status, 200);
}

#[test]
fn slow_clients_are_cut_off() {
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &["--read-timeout", "1"]);
    let mut slow_body = server.connect();
    slow_body
        .write_all(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
              Content-Length: 100\r\n\r\n{",
        )
        .unwrap();
    let mut slow_head = server.connect();
    slow_head.write_all(b"GET /healthz HTTP/1.1\r\nHost:").unwrap();
    // Both are waiting while others are answered.
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(Answer::read(slow_body).error(), "408 the body did not arrive within 1 s");
    let mut rest = Vec::new();
    slow_head.read_to_end(&mut rest).unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn client_that_takes_no_answer_is_cut_off() {
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &["--max-connections=1", "--read-timeout=1"]);
    let size = server.get("/page.js").body.len();
    // Answers of 64 MB, far more than the buffers of a connection hold.
    let mut idle = server.connect();
    idle.write_all("GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat((64 << 20) / size).as_bytes()).unwrap();
    // It has the only connection.
    let mut next = server.connect();
    next.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    next.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(Answer::read(next).status, 200);
    drop(idle);
}

#[test]
fn overload_is_refused_and_requests_in_batches_keep_their_answers() {
    let (_data, path) = index(4);
    let server = RunningServer::start(&path, &["--queue", "8"]);
    let captions: Vec<String> = (1..8).map(|words| "red ".repeat(words) + "circle").collect();
    let asked = |caption: &str| json!({ "images": [{ "item": 0 }, { "item": 1 }], "texts": [caption] });
    let alone: Vec<Value> = captions.iter().map(|caption| server.ok("/v1/score", &asked(caption))).collect();
    let barrier = Barrier::new(captions.len());
    // Until the queue was full once; it is for three inputs at a time, and seven clients ask for it.
    let outcomes: Vec<(usize, usize)> = thread::scope(|scope| {
        let client = |number: usize| {
            let (server, barrier, asked, captions, alone) = (&server, &barrier, &asked, &captions, &alone);
            scope.spawn(move || {
                let (mut answered, mut refused) = (0, 0);
                barrier.wait();
                for _ in 0..40 {
                    let answer = server.post("/v1/score", &asked(&captions[number]));
                    match answer.status {
                        200 => {
                            answered += 1;
                            for row in 0..2 {
                                let value = |answer: &Value| answer["similarities"][row][0].as_f64().unwrap();
                                // Another batch changes the last bits of an embedding.
                                let difference = value(&answer.json()) - value(&alone[number]);
                                assert!(difference.abs() < 1e-5, "{number}: {difference}");
                            }
                        }
                        429 => {
                            refused += 1;
                            assert_eq!(answer.header("retry-after"), Some("1"));
                        }
                        status => panic!("{status}: {}", answer.error()),
                    }
                }
                (answered, refused)
            })
        };
        let clients: Vec<_> = (0..captions.len()).map(client).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let [answered, refused] =
        [outcomes.iter().map(|pair| pair.0).sum::<usize>(), outcomes.iter().map(|pair| pair.1).sum()];
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
    assert_eq!(answered + refused, 40 * captions.len());

    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    let line = |start: &str| metrics.lines().find_map(|line| line.strip_prefix(start)?.trim().parse::<usize>().ok());
    let score = |status: u16| format!("laps_zoo_http_requests_total{{endpoint=\"/v1/score\",status=\"{status}\"}}");
    assert_eq!(line(&score(200)), Some(answered + alone.len()), "{metrics}");
    assert_eq!(line(&score(429)), Some(refused), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
}

/// A counter of `/metrics`.
fn counter(server: &RunningServer, name: &str) -> usize {
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// Requests that are being answered, without the one for the counters.
fn in_flight(server: &RunningServer) -> usize {
    counter(server, "laps_zoo_http_requests_in_flight") - 1
}

#[test]
fn stop_under_load_answers_every_request_in_flight() {
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &[]);
    // 16 requests of 16 texts each; all have been read when the counter says so.
    let texts: Vec<String> = (0..16).map(|number| format!("{number} red circles {}", "and ".repeat(40))).collect();
    let body = json!({ "images": [{ "item": 0 }, { "item": 1 }], "texts": texts }).to_string();
    let clients: Vec<TcpStream> = (0..12)
        .map(|_| {
            let mut stream = server.connect();
            let head = format!(
                "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).unwrap();
            stream
        })
        .collect();
    let accepted =
        || in_flight(&server) + counter(&server, "laps_zoo_http_requests_total{endpoint=\"/v1/score\",status=\"200\"}");
    while accepted() < clients.len() {}
    server.signal("-TERM");
    for client in clients {
        let answer = Answer::read(client);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.json()["similarities"][1].as_array().unwrap().len(), 16);
    }
    let address = server.address;
    let (status, log) = server.wait();
    assert_eq!((status, log.as_str()), (Some(0), ""));
    assert!(TcpStream::connect(address).is_err());
}

/// The request arrives after the server has stopped listening, as one does that was under way at that time.
#[test]
fn connection_accepted_before_the_stop_is_answered() {
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &[]);
    let streams = [server.connect(), server.connect()];
    server.signal("-TERM");
    while TcpStream::connect(server.address).is_ok() {}
    for (mut stream, (path, status, text)) in
        streams.into_iter().zip([("/healthz", 200, "ok"), ("/readyz", 503, "stopping")])
    {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let answer = Answer::read(stream);
        assert_eq!((answer.status, &answer.json()["status"]), (status, &text.into()));
    }
    assert_eq!(server.wait(), (Some(0), String::new()));
}

/// Every kind of request, 1,200 times in all, or `LAPS_ZOO_TEST_REQUESTS` times.
#[test]
#[cfg(target_os = "linux")]
fn memory_stays_flat() {
    let requests: usize = std::env::var("LAPS_ZOO_TEST_REQUESTS").map_or(1_200, |text| text.parse().expect("a number"));
    let (data, path) = index(4);
    let server = RunningServer::start(&path, &[]);
    let picture = data_url(&image(&data, 0));
    let mut sent = 0;
    let mut send = |count: usize| {
        for _ in 0..count {
            sent += 1;
            let words = format!("a red circle {}", "and a square ".repeat(sent % 7));
            let answer = match sent % 12 {
                0 => server.get("/v1/items/1/image"),
                1 => server.get("/metrics"),
                2 => server.post("/v1/search", &json!({ "query": picture })),
                3 => server.post("/v1/explain", &json!({ "image": { "item": 2 }, "caption": words })),
                4 => server.post("/v1/score", &json!({ "images": [{ "item": 0 }, { "item": 3 }], "texts": [words] })),
                5 => server.post("/v1/rerank", &json!({ "query": { "item": 1 }, "documents": [words, "a square"] })),
                6 => server.post("/v1/search", &json!({ "query": words, "top": 0 })),
                7 => server.post("/v1/search", &json!({ "query": words })),
                _ => server.post("/v1/embeddings", &json!({ "input": [words, sent.to_string()] })),
            };
            let expected = if sent % 12 == 6 { 422 } else { 200 };
            assert_eq!(answer.status, expected, "{sent}: {}", String::from_utf8_lossy(&answer.body));
        }
    };
    // The memory of threads and buffers grows with the first requests.
    send(requests.min(600));
    let before = server.resident_bytes();
    send(requests);
    let after = server.resident_bytes();
    println!("{requests} requests: {} KiB before, {} KiB after", before / 1024, after / 1024);
    // The allocator keeps some pages. A leak shows from 14 kB a request with 1,200 requests, from 170 bytes with 100,000.
    assert!(after < before + (16 << 20), "{before} {after}");
}

/// A request for `texts` texts that takes seconds, sent and not waited for.
fn send_long_request(server: &RunningServer, texts: usize) -> TcpStream {
    let texts: Vec<String> = (0..texts).map(|number| format!("{number} red circles {}", "and ".repeat(20))).collect();
    let body = json!({ "input": texts }).to_string();
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = server.connect();
    stream.write_all((head + &body).as_bytes()).unwrap();
    stream
}

#[test]
fn request_that_takes_too_long_is_ended() {
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &["--queue=20000", "--max-inputs=20000", "--request-timeout=1"]);
    let answer = Answer::read(send_long_request(&server, 20_000));
    assert_eq!(answer.error(), "503 the request was not answered within 1 s");
}

#[test]
fn stop_ends_a_request_that_takes_too_long() {
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &["--queue=20000", "--max-inputs=20000", "--stop-timeout=1"]);
    let mut stream = send_long_request(&server, 20_000);
    while in_flight(&server) == 0 {}
    assert_eq!(server.stop(), (Some(1), String::new()));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn further_connections_wait() {
    let (_data, path) = index(2);
    let server = RunningServer::start(&path, &["--max-connections=1", "--read-timeout=1"]);
    // It is accepted first, and ends after a second without a request.
    let idle = server.connect();
    let began = Instant::now();
    assert_eq!(server.get("/healthz").status, 200);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    drop(idle);
}

/// As in a container: every folder is read-only, the environment is empty, and the user has no rights.
#[test]
#[cfg(target_os = "linux")]
fn read_only_machine_and_user_without_rights_are_enough() {
    let (data, path) = index(3);
    let readable = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(data.path(), readable).unwrap();
    let Some(mut command) = crate::homeless::on_read_only_machine(data.path(), &[]) else { return };
    let server = RunningServer::spawn(command.arg("serve").arg(&path).args(["--port", "0"]).args(MODEL));
    let found = server.ok("/v1/search", &json!({ "query": "a red circle", "top": 3 }));
    assert_eq!(found["results"].as_array().unwrap().len(), 3);
    let asked = json!({ "image": data_url(&image(&data, 0)), "caption": "a red circle" });
    assert!(server.ok("/v1/explain", &asked)["similarity"].is_number());
    assert_eq!(server.get("/v1/items/1/image").status, 200);
    assert_eq!(server.stop(), (Some(0), String::new()));
}

#[test]
fn documented_curl_requests_are_answered() {
    if !Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: curl is not installed");
        return;
    }
    let guide = fs_err::read_to_string(crate::files::repository_file("docs/src/guides/serve.md")).unwrap();
    let blocks = guide.split("```sh\n").skip(1).filter_map(|block| block.split_once("```"));
    let script = blocks.map(|(script, _)| script).find(|script| script.starts_with("curl ")).unwrap();
    let (data, path) = index(6);
    let server = RunningServer::start(&path, &[]);
    // The content decides the format.
    fs_err::copy(image(&data, 2), data.path().join("photo.jpg")).unwrap();
    let script = script.replace("http://127.0.0.1:8080", &server.url(""));
    let output = Command::new("sh").args(["-e", "-c", &script]).current_dir(data.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Value> =
        serde_json::Deserializer::from_slice(&output.stdout).into_iter().map(|answer| answer.unwrap()).collect();
    assert_eq!(answers.len(), 2);
    for answer in &answers {
        assert_eq!(answer["results"].as_array().map(Vec::len), Some(3), "{answer}");
    }
    assert_eq!(answers[1]["results"][0]["name"], "test_00002.png");
}

/// Needs the packages that `.ci/run http_clients` installs.
#[test]
fn openai_prometheus_and_schemathesis_find_no_fault() {
    let folder = crate::files::repository_file(".runtime/http_clients");
    if !folder.join("installed").is_file() {
        println!("skipped: there is no {}, which `.ci/run http_clients` makes", folder.display());
        return;
    }
    let (data, path) = index(3);
    let server = RunningServer::start(&path, &[]);
    let succeeds = |program: &str, arguments: &[&str]| {
        // schemathesis writes into its working folder.
        let program = folder.join("bin").join(program);
        let output = Command::new(program).args(arguments).current_dir(data.path()).output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{stdout}{stderr}");
        stdout
    };
    let script = crate::files::repository_file("tests/http_clients.py");
    let printed = succeeds("python", &[text(&script), &server.url(""), text(&image(&data, 0))]);
    assert_eq!(printed, "ok\n");
    // Invalid requests may also be too large.
    let settings =
        "[checks.negative_data_rejection]\nexpected-statuses = [\"400\", \"404\", \"413\", \"415\", \"422\"]\n";
    fs_err::write(data.path().join("schemathesis.toml"), settings).unwrap();
    // A string that is no image fits the schema of an image, and is refused nevertheless.
    let document = server.url("/openapi.json");
    let arguments = ["run", &document, "--exclude-checks", "positive_data_acceptance", "--max-examples", "30"];
    let repeatable = ["--seed", "7", "--generation-database", "none", "--no-color"];
    let printed = succeeds("schemathesis", &[arguments.as_slice(), &repeatable].concat());
    println!("{printed}");
}
