//! Fuzzes the readers of Google Drive pages.
#![no_main]

/// The private modules of `laps_hub::fetch` under test.
mod fetch {
    #[path = "../../../hub/src/fetch/html.rs"]
    pub mod html;
    #[path = "../../../hub/src/fetch/drive/page.rs"]
    pub mod page;
}

use fetch::{
    html::title,
    page::{is_id, read_listing, read_page},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let page = String::from_utf8_lossy(bytes);
    if let Some(listing) = read_listing(&page) {
        assert!(listing.entries.iter().all(|entry| is_id(&entry.id)));
    }
    read_page(&page);
    title(&page);
});
