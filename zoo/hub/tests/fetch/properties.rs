//! Property tests of the readers of untrusted files: no panic on any input.

use laps_files::safe_relative_path;
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{Entry, Origin},
};
use proptest::{collection::vec, prelude::*};

fn config() -> ProptestConfig {
    // A failure prints its seed; no file is written into the source tree.
    ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() }
}

fn open(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    // An error is fine, a panic is not.
    let _ = Checkpoint::open(file.path());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pickles_are_read_without_panic(program in vec(any::<u8>(), 0..400), ops in vec(prop::sample::select(b"(.0125]}){NIJKMSUVXacdeghjlopqrstu\x80\x85\x86\x87\x88\x89\x8a\x8c\x90\x91\x94\x95q\x00\x01".to_vec()), 0..400)) {
        open(&program);
        open(&[b"\x80\x02", ops.as_slice(), b"."].concat());
        open(&crate::writer::torch_zip(&ops, &[("0", vec![0; 4])]));
        open(&crate::writer::torch_legacy(&ops, &[("0", 1, vec![0; 4])]));
    }

    #[test]
    fn safetensors_headers_are_read_without_panic(header in r#"[\[\]{}":,a-z0-9]{0,300}"#, offset in any::<u64>(), good in any::<bool>()) {
        let length = if good { header.len() as u64 } else { offset };
        open(&[&length.to_le_bytes(), header.as_bytes()].concat());
        let described = format!(r#"{{"a":{{"dtype":"F32","shape":[{offset},{}],"data_offsets":[0,{offset}]}}}}"#, header.len());
        open(&[&(described.len() as u64).to_le_bytes(), described.as_bytes(), header.as_bytes()].concat());
    }

    #[test]
    fn entries_are_read_without_panic(line in 0_usize..50, change in "[-:\\[\\]{}&*!|>%@ a-z0-9.\"'\n]{0,40}", noise in any::<String>()) {
        let text = include_str!("../../configs/f30k_vit.yaml");
        let mut lines: Vec<&str> = text.lines().collect();
        let place = line.min(lines.len() - 1);
        lines[place] = &change;
        for text in [lines.join("\n"), noise] {
            let _ = Entry::from_yaml(Origin::File("x.yaml".into()), &text);
        }
    }

    #[test]
    fn accepted_names_stay_below_the_folder(name in "[./\\\\:a-zA-Z0-9 \u{0}]{0,60}") {
        if let Some(path) = safe_relative_path(&name) {
            let root = std::path::Path::new("/base");
            let joined = root.join(&path);
            prop_assert!(joined.starts_with(root) && path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
        }
    }
}
