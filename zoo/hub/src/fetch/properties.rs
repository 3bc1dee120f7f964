//! Property tests of the parsers of untrusted text: no panic, consistent results, linear time.

use std::time::{Duration, Instant};

use proptest::{collection::vec, prelude::*};

use super::{
    drive::{is_id, read_listing, read_page},
    html::title,
    range::ContentRange,
};

/// Far more than any of these parsers takes; a parser of quadratic time takes hours.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Fragments of Drive pages in any order and number.
fn page() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just("<div class=\"flip-entries\">"),
        Just("<a href=\"https://drive.google.com/file/d/1FileFileFile/view\">"),
        Just("<a href='/drive/folders/1FolderFolder'>"),
        Just("<div class='flip-entry-title'>"),
        Just("</div></a>"),
        Just("<form id=\"download-form\" action=\"/download\">"),
        Just("<input type=hidden name=id value=\"1"),
        Just("<p class=\"uc-error-subcaption\">"),
        Just("<script>"),
        Just("</script>"),
        Just("<!--"),
        Just("-->"),
        Just("<title>"),
        Just("&#x"),
        Just("&amp;"),
        Just("'"),
        Just("\""),
        Just("<"),
        Just(">"),
        Just("model_best.pth"),
    ];
    (vec(fragment, 0..200), any::<String>()).prop_map(|(fragments, text)| fragments.concat() + &text)
}

fn read_all(page: &str) {
    if let Some(listing) = read_listing(page) {
        assert!(listing.entries.iter().all(|entry| is_id(&entry.id) && entry.name.len() <= 4000));
    }
    read_page(page);
    title(page);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn drive_pages_are_read_without_panic(page in page()) {
        read_all(&page);
    }

    #[test]
    fn parsed_ranges_are_consistent(value in "[ a-z]{0,7}[-0-9*/ +,]{0,40}", text in any::<String>()) {
        for value in [&value, &text] {
            if let Some(range) = ContentRange::parse(value) {
                prop_assert!(range.first <= range.last && range.last < range.total);
            }
        }
    }

    #[test]
    fn written_ranges_are_parsed(first in 0_u64..1 << 40, length in 1_u64..1 << 40, rest in 0_u64..1 << 40) {
        let (last, total) = (first + length - 1, first + length + rest);
        let range = ContentRange::parse(&format!("bytes {first}-{last}/{total}"));
        prop_assert_eq!(range, Some(ContentRange { first, last, total }));
    }
}

#[test]
fn long_pages_are_read_in_linear_time() {
    for fragment in
        ["<", "<a ", "<a href='", "<!--", "<script>", "</", "&", "<a a=b ", "<script></", "<div class=x>", "<p a"]
    {
        let page = fragment.repeat((4 << 20) / fragment.len());
        let start = Instant::now();
        read_all(&page);
        assert!(start.elapsed() < TIMEOUT, "{fragment}: {:?}", start.elapsed());
    }
}
