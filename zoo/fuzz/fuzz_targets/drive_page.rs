//! Pages of Google Drive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use laps_hub::fetch::drive::{is_id, read_listing, read_notice, title};

fuzz_target!(|bytes: &[u8]| {
    let page = String::from_utf8_lossy(bytes);
    if let Some(listing) = read_listing(&page) {
        assert!(listing.entries.iter().all(|entry| is_id(&entry.id)));
    }
    read_notice(&page);
    title(&page);
});
