//! Fuzzes the readers of Google Drive pages.
#![no_main]

// Private modules of `laps_hub::fetch`. `page` imports the other one from `crate::fetch`.
#[allow(dead_code, reason = "the target reads titles and tokens alone")]
#[path = "../../hub/src/fetch/html.rs"]
mod html;
#[path = "../../hub/src/fetch/drive/page.rs"]
mod page;
mod fetch {
    pub(crate) use super::html;
}

use html::title;
use libfuzzer_sys::fuzz_target;
use page::{is_id, read_listing, read_page};

fuzz_target!(|bytes: &[u8]| {
    let page = String::from_utf8_lossy(bytes);
    if let Some(listing) = read_listing(&page) {
        assert!(listing.entries.iter().all(|entry| is_id(&entry.id)));
    }
    read_page(&page);
    title(&page);
});
