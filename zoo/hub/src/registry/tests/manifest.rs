use crate::registry::{Manifest, find, names};

fn assert_hex(text: &str, digits: usize) {
    let hexadecimal = text.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit));
    assert!(text.len() == digits && hexadecimal, "`{text}` is not a hash of {digits} digits");
}

#[test]
fn hashes_are_well_formed() {
    let manifest = Manifest::embedded().unwrap();
    assert_hex(&manifest.captions.commit, 40);
    assert_eq!(manifest.captions.files.len(), 14);
    for file in manifest.captions.files.values() {
        assert_hex(&file.git_blob, 40);
        file.sha256.iter().for_each(|hash| assert_hex(hash, 64));
    }
    for image in manifest.images.values() {
        image.md5.iter().for_each(|hash| assert_hex(hash, 32));
    }
    for backbone in manifest.backbones.values() {
        assert!(backbone.is_pinned() || backbone.revision == "main");
        for file in backbone.files.values() {
            file.sha256.iter().for_each(|hash| assert_hex(hash, 64));
        }
    }
    for judgements in manifest.judgements.values() {
        assert_hex(&judgements.sha256, 64);
        assert!(judgements.url.starts_with(crate::registry::PYPI_FILES), "{}", judgements.url);
    }
    for matches in manifest.plausible_matches.values() {
        assert_eq!(matches.gdrive_folder.len(), 33);
        let names: Vec<_> = matches.files.keys().collect();
        assert_eq!(names, ["pm_caption_to_image.json", "pm_image_to_caption.json"]);
    }
    for (name, checkpoint) in &manifest.checkpoints {
        checkpoint.sha256.iter().for_each(|hash| assert_hex(hash, 64));
        checkpoint.hub.iter().for_each(|hub| assert_hex(&hub.revision, 40));
        // The hash of a file of this project is always known.
        assert!(checkpoint.url().is_some() || checkpoint.sha256.is_some(), "{name}");
    }
    for entry in names() {
        let entry = find(entry).unwrap();
        assert_hex(&entry.text_sha256, 64);
        assert_hex(&entry.config_sha256, 64);
    }
}

#[test]
fn every_checkpoint_belongs_to_an_entry() {
    for name in Manifest::embedded().unwrap().checkpoints.keys() {
        assert_eq!(find(name).unwrap().checkpoint.as_ref(), Some(name));
    }
}

#[test]
fn splits_of_entries_have_files_and_sizes() {
    let manifest = Manifest::embedded().unwrap();
    for name in names() {
        let entry = find(name).unwrap();
        // Data sets with long captions are read as their authors publish them.
        if entry.data.drawn.is_some() || entry.data.captions.as_os_str().is_empty() {
            continue;
        }
        let set = if entry.data.captions.starts_with("coco") { "coco" } else { "f30k" };
        let splits = &manifest.splits[set];
        for split in [&entry.data.train, &entry.data.dev, &entry.data.test] {
            for kind in ["ids", "caps"] {
                let file = format!("data/{set}/{split}_{kind}.txt");
                assert!(manifest.captions.files.contains_key(&file), "{name}: {file}");
            }
        }
        for split in [&entry.data.dev, &entry.data.test] {
            assert_eq!(splits[split].captions, 5 * splits[split].images, "{name} {split}");
        }
    }
}

#[test]
fn urls_are_pinned_to_the_hashed_revision() {
    let manifest = Manifest::embedded().unwrap();
    insta::assert_snapshot!(manifest.captions.url("data/f30k/test_ids.txt"), @"https://raw.githubusercontent.com/CrossmodalGroup/LAPS/355a43babb70a3fdfbe74aabebad9a8414b91b3b/data/f30k/test_ids.txt");
    insta::assert_snapshot!(manifest.backbones["bert-base-uncased"].url("vocab.txt"), @"https://huggingface.co/google-bert/bert-base-uncased/resolve/86b5e0934494bd15c9632b12f734a8a67f723594/vocab.txt");
    insta::assert_snapshot!(manifest.checkpoints["coco_vit"].url().unwrap(), @"https://drive.google.com/drive/folders/1C0XZ7FAoq47huy6gItcIV4XqudRVfe3n");
}

/// A checkpoint and a backbone from the same repository are the same file.
#[test]
fn clip_is_pinned_to_commits() {
    let manifest = Manifest::embedded().unwrap();
    let sources = [
        ("clip_vit_b32", "clip-vit-base-patch32"),
        ("clip_vit_b16", "clip-vit-base-patch16"),
        ("clip_vit_l14", "clip-vit-large-patch14"),
    ];
    for (checkpoint, backbone) in sources {
        let (checkpoint, backbone) = (&manifest.checkpoints[checkpoint], &manifest.backbones[backbone]);
        let hub = checkpoint.hub.as_ref().unwrap();
        assert!(backbone.is_pinned(), "{}", hub.repository);
        assert_eq!((&hub.repository, &hub.revision), (&backbone.repository, &backbone.revision));
        let file = &backbone.files[&checkpoint.file];
        assert_eq!((file.bytes, &file.sha256), (checkpoint.bytes, &checkpoint.sha256));
        assert!(file.bytes.is_some() && file.sha256.is_some(), "{}", hub.repository);
        assert!(backbone.files.contains_key("tokenizer.json"), "{}", hub.repository);
    }
    insta::assert_snapshot!(manifest.checkpoints["clip_vit_b32"].url().unwrap(), @"https://huggingface.co/openai/clip-vit-base-patch32/tree/3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268");
}

/// The shared list of sources has the same hashes. It does not list the judgements, CLIP, D2S-VSE, and the ids of splits.
#[test]
fn hashes_are_those_of_the_shared_sources() {
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/sources.yaml");
    let Ok(theirs) = std::fs::read_to_string(shared) else {
        println!("skipped: {shared} does not exist");
        return;
    };
    let ours = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/manifest.yaml"));
    // The checkpoints of CLIP and those of D2S-VSE after them are not in the shared list.
    let (before, rest) = ours.split_once("  clip_vit_b32:").unwrap();
    let (rest, _) = rest.split_once("  # OpenAI's CLIP").unwrap();
    let ours = format!("{before}\n{}", &rest[rest.find("\nbackbones:").unwrap()..]);
    let (before, rest) = ours.split_once("\nsplit_ids:").unwrap();
    let ours = &format!("{before}\n{}", &rest[rest.find("\nimages:").unwrap()..]);
    let words = |text: &str| {
        let uncommented = text.lines().map(|line| line.split('#').next().unwrap()).collect::<Vec<_>>().join("\n");
        let long = |word: &&str| {
            word.len() >= 28 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        };
        let mut words: Vec<_> = uncommented
            .split(|letter: char| letter.is_whitespace() || ",{}".contains(letter))
            .filter(long)
            .map(str::to_owned)
            .collect();
        words.sort();
        words
    };
    // There, the commit is in a comment.
    let theirs = theirs.replacen("# caption", "caption", 1).replace("LAPS at ", "\n");
    assert_eq!(words(ours), words(&theirs));
}

#[test]
fn splits_are_known_by_the_files_of_their_ids() {
    let known = Manifest::embedded().unwrap().known_ids();
    let names: Vec<_> =
        known.iter().flat_map(|(set, splits)| splits.keys().map(move |split| format!("{set} {split}"))).collect();
    assert_eq!(names, ["coco dev", "coco testall", "coco train", "f30k dev", "f30k test", "f30k train"]);
    let sha256 = known["f30k"]["test"].id_file_sha256.as_deref().unwrap();
    assert_eq!(sha256, "4f3298190e704c5b115da9e0427b582e1342e52dbd553dc926000b3f50622d94");
    assert!(known["coco"]["testall"].ids_sha256.is_some() && known["coco"]["testall"].id_file_sha256.is_some());
}
