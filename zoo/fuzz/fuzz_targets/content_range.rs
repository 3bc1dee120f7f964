//! Fuzzes the parser of the header `Content-Range`.
#![no_main]

#[path = "../../hub/src/fetch/range.rs"]
mod range;

use libfuzzer_sys::fuzz_target;
use range::ContentRange;

fuzz_target!(|value: &str| {
    if let Some(ContentRange { first, last, total }) = ContentRange::parse(value) {
        assert!(first <= last && last < total);
        let written = format!("bytes {first}-{last}/{total}");
        assert_eq!(ContentRange::parse(&written), Some(ContentRange { first, last, total }));
    }
});
