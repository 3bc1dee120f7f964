//! The header `Content-Range`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use laps_hub::fetch::ContentRange;

fuzz_target!(|value: &str| {
    if let Some(ContentRange { first, last, total }) = ContentRange::parse(value) {
        assert!(first <= last && last < total);
        assert_eq!(ContentRange::parse(&format!("bytes {first}-{last}/{total}")), Some(ContentRange { first, last, total }));
    }
});
