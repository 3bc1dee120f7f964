//! Readers of what comes from outside, on bytes that nobody thought of: no panic, and time and memory in proportion.

use std::time::{Duration, Instant};

use laps_files::inside;
use laps_hub::{
    checkpoint::Checkpoint,
    fetch::{
        ContentRange,
        drive::{read_listing, read_notice, title},
    },
    registry::{Entry, Origin},
};
use proptest::{collection::vec, prelude::*};

/// Far more than any of these readers takes; a reader whose time grows with the square of its input takes hours.
const LONG: Duration = Duration::from_secs(10);

fn config() -> ProptestConfig {
    // The seed is printed with a failure; nothing is written beside the sources.
    ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() }
}

/// Pieces that pages of Drive are made of, in any order and number.
fn page() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
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
    (vec(piece, 0..200), any::<String>()).prop_map(|(pieces, text)| pieces.concat() + &text)
}

fn read_page(page: &str) {
    if let Some(listing) = read_listing(page) {
        assert!(
            listing.entries.iter().all(|entry| laps_hub::fetch::drive::is_id(&entry.id) && entry.name.len() <= 4000)
        );
    }
    read_notice(page);
    title(page);
}

fn open(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    // An error is an answer.
    let _ = Checkpoint::open(file.path());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pages_of_drive(page in page()) {
        read_page(&page);
    }

    #[test]
    fn ranges(value in "[ a-z]{0,7}[-0-9*/ +,]{0,40}", text in any::<String>()) {
        for value in [&value, &text] {
            if let Some(range) = ContentRange::parse(value) {
                prop_assert!(range.first <= range.last && range.last < range.total);
            }
        }
    }

    #[test]
    fn a_range_reads_back(first in 0_u64..1 << 40, length in 1_u64..1 << 40, rest in 0_u64..1 << 40) {
        let (last, total) = (first + length - 1, first + length + rest);
        let range = ContentRange::parse(&format!("bytes {first}-{last}/{total}"));
        prop_assert_eq!(range, Some(ContentRange { first, last, total }));
    }

    #[test]
    fn pickles(program in vec(any::<u8>(), 0..400), ops in vec(prop::sample::select(b"(.0125]}){NIJKMSUVXacdeghjlopqrstu\x80\x85\x86\x87\x88\x89\x8a\x8c\x90\x91\x94\x95q\x00\x01".to_vec()), 0..400)) {
        open(&program);
        open(&[b"\x80\x02", ops.as_slice(), b"."].concat());
        open(&crate::writer::torch_zip(&ops, &[("0", vec![0; 4])]));
        open(&crate::writer::torch_legacy(&ops, &[("0", 1, vec![0; 4])]));
    }

    #[test]
    fn headers_of_safetensors(header in r#"[\[\]{}":,a-z0-9]{0,300}"#, offset in any::<u64>(), good in any::<bool>()) {
        let length = if good { header.len() as u64 } else { offset };
        open(&[&length.to_le_bytes(), header.as_bytes()].concat());
        let described = format!(r#"{{"a":{{"dtype":"F32","shape":[{offset},{}],"data_offsets":[0,{offset}]}}}}"#, header.len());
        open(&[&(described.len() as u64).to_le_bytes(), described.as_bytes(), header.as_bytes()].concat());
    }

    #[test]
    fn entries(line in 0_usize..50, change in "[-:\\[\\]{}&*!|>%@ a-z0-9.\"'\n]{0,40}", noise in any::<String>()) {
        let text = include_str!("../../configs/f30k_vit.yaml");
        let mut lines: Vec<&str> = text.lines().collect();
        let place = line.min(lines.len() - 1);
        lines[place] = &change;
        for text in [lines.join("\n"), noise] {
            let _ = Entry::from_yaml(Origin::File("x.yaml".into()), &text);
        }
    }

    #[test]
    fn names(name in "[./\\\\:a-zA-Z0-9 \u{0}]{0,60}") {
        if let Some(path) = inside(&name) {
            let root = std::path::Path::new("/base");
            let joined = root.join(&path);
            prop_assert!(joined.starts_with(root) && path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
        }
    }
}

#[test]
fn long_pages_take_time_in_proportion() {
    for piece in
        ["<", "<a ", "<a href='", "<!--", "<script>", "</", "&", "<a a=b ", "<script></", "<div class=x>", "<p a"]
    {
        let page = piece.repeat((4 << 20) / piece.len());
        let start = Instant::now();
        read_page(&page);
        assert!(start.elapsed() < LONG, "{piece}: {:?}", start.elapsed());
    }
}
