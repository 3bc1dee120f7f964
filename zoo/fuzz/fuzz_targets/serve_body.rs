//! Fuzzes the bodies of requests to `serve`: JSON and forms, up to the bytes of images.
//!
//! The first byte chooses the endpoint and the content type.
#![no_main]

use laps_serve::body_status;
use libfuzzer_sys::fuzz_target;

const PATHS: [&str; 5] = ["/v1/search", "/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/explain"];
const CONTENT_TYPES: [&str; 2] = ["application/json", "multipart/form-data; boundary=X"];

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, body)) = bytes.split_first() else { return };
    let path = PATHS[usize::from(choice / 2) % PATHS.len()];
    let status = body_status(path, CONTENT_TYPES[usize::from(choice % 2)], body.to_vec());
    assert!([200, 400, 413, 422].contains(&status), "{path}: {status}");
});
