//! Unusable data: exit code 2 and a message that names it, before anything is encoded.

use insta::assert_snapshot;
use tempfile::TempDir;

use crate::{
    files::scenes,
    support::{expect_error, json, laps_zoo},
};

fn message(folder: &TempDir) -> String {
    expect_error(folder.path(), ["reproduce", "shapes_vit", "--quiet", "--data", folder.path().to_str().unwrap()])
}

#[test]
fn missing_and_undecodable_images_are_all_listed_before_encoding() {
    let folder = scenes(4);
    let images = folder.path().join("images");
    fs_err::remove_file(images.join("test_00001.png")).unwrap();
    fs_err::write(images.join("test_00002.png"), "<html>not found</html>").unwrap();
    let whole = fs_err::read(images.join("test_00003.png")).unwrap();
    fs_err::write(images.join("test_00003.png"), &whole[..40]).unwrap();
    assert_snapshot!(message(&folder), @r"
    error: 3 of 4 images cannot be used
      image `3` (line 6 of `DIR/captions/test_ids.txt`, file `DIR/images/test_00001.png`): cannot be read: No such file or directory (os error 2)
      image `4` (line 11 of `DIR/captions/test_ids.txt`, file `DIR/images/test_00002.png`): not a JPEG, PNG, GIF, BMP or WebP file
      image `5` (line 16 of `DIR/captions/test_ids.txt`, file `DIR/images/test_00003.png`): not decodable as PNG: the file ends before its image data
    hint: file names are relative to the image folder of the data set
    ");
    // The same with progress output, which shows how far the run got.
    let stderr = expect_error(folder.path(), ["reproduce", "shapes_vit", "--data", folder.path().to_str().unwrap()]);
    assert!(stderr.contains("hash images") && !stderr.contains("encode"), "{stderr}");
}

#[test]
fn undecodable_images_are_all_listed_when_encoding_finds_the_first() {
    let folder = scenes(4);
    let images = folder.path().join("images");
    for name in ["test_00001.png", "test_00003.png"] {
        let whole = fs_err::read(images.join(name)).unwrap();
        fs_err::write(images.join(name), &whole[..20]).unwrap();
    }
    let message = message(&folder);
    assert!(message.starts_with("error: 2 of 4 images cannot be used\n"), "{message}");
    assert!(message.contains("test_00001.png") && message.contains("test_00003.png"), "{message}");
}

#[test]
fn truncated_image_is_named_in_the_result() {
    let folder = scenes(4);
    let path = folder.path().join("images/test_00001.png");
    let photo = laps_data::image::read(&path).unwrap().image;
    // The content decides the format, not the name.
    let jpeg = laps_data::image::jpeg(&photo, 90).unwrap();
    fs_err::write(&path, &jpeg[..jpeg.len() / 2]).unwrap();
    let path = folder.path().join("result.json");
    let data = folder.path().to_str().unwrap();
    let run = laps_zoo(["reproduce", "shapes_vit", "--quiet", "--data", data, "--json", path.to_str().unwrap()]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let result = json(&path);
    let notes = result["notes"].to_string();
    assert_eq!(result["provenance"]["data"]["damaged"], serde_json::json!(["3"]));
    assert!(notes.contains("image `3` is damaged and was decoded partially"), "{notes}");
}

#[test]
fn unusable_captions_and_images_are_all_listed_at_once() {
    let folder = scenes(4);
    let images = folder.path().join("images");
    fs_err::remove_file(images.join("test_00001.png")).unwrap();
    fs_err::write(images.join("test_00003.png"), "text").unwrap();
    let path = folder.path().join("captions/test_caps.txt");
    let text = fs_err::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let long = "red ".repeat(600);
    (lines[2], lines[8], lines[13]) = (&long, "", " \t");
    fs_err::write(&path, format!("\u{feff}{}\r\n", lines.join("\r\n"))).unwrap();
    assert_snapshot!(message(&folder), @r"
    error: 3 of 20 captions and 2 of 4 images cannot be used
      caption in line 3 of `DIR/captions/test_caps.txt`: too long: 602 tokens, where 64 are allowed
      caption in line 9 of `DIR/captions/test_caps.txt`: empty
      caption in line 14 of `DIR/captions/test_caps.txt`: empty
      image `3` (line 6 of `DIR/captions/test_ids.txt`, file `DIR/images/test_00001.png`): cannot be read: No such file or directory (os error 2)
      image `5` (line 16 of `DIR/captions/test_ids.txt`, file `DIR/images/test_00003.png`): not a JPEG, PNG, GIF, BMP or WebP file
    hint: shorten or remove captions that are too long, or have them truncated and counted
    ");
    // Without a model, no caption is too long; the images of a matrix are not read.
    let sims = folder.path().join("sims.npy");
    fs_err::write(&sims, "").unwrap();
    let captions = folder.path().join("captions");
    let evaluate = ["evaluate", "--sims", sims.to_str().unwrap(), "--data", captions.to_str().unwrap()];
    assert_snapshot!(expect_error(folder.path(), evaluate), @r"
    error: 2 of 20 captions cannot be used
      caption in line 9 of `DIR/captions/test_caps.txt`: empty
      caption in line 14 of `DIR/captions/test_caps.txt`: empty
    ");
}

/// As in the tree of the authors' README, where the files of captions are in `f30k`.
#[test]
fn evaluate_finds_the_captions_of_a_data_set_in_a_tree() {
    let folder = scenes(2);
    let (root, captions) = (folder.path().join("data"), folder.path().join("captions"));
    fs_err::create_dir(&root).unwrap();
    fs_err::rename(&captions, root.join("f30k")).unwrap();
    let sims = folder.path().join("sims.npy");
    fs_err::write(&sims, "").unwrap();
    let message = || {
        let arguments = ["evaluate", "--sims", sims.to_str().unwrap(), "--data", root.to_str().unwrap()];
        expect_error(folder.path(), arguments)
    };
    // The split is found, so the matrix is read.
    assert!(message().contains("DIR/sims.npy"), "{}", message());
    fs_err::create_dir_all(root.join("coco/captions")).unwrap();
    for name in ["test_ids.txt", "test_caps.txt"] {
        fs_err::copy(root.join("f30k").join(name), root.join("coco/captions").join(name)).unwrap();
    }
    assert_snapshot!(message(), @r"
    error: `--data` cannot be used
      expected: a folder with one split `test`
      found: `DIR/data/coco/captions`, `DIR/data/f30k`
    ");
}

#[test]
fn evaluate_without_the_split_shows_the_tree_that_is_wanted() {
    let folder = scenes(2);
    let sims = folder.path().join("sims.npy");
    fs_err::write(&sims, "").unwrap();
    let message = |data: &str, split: &str| {
        let data = folder.path().join(data);
        let arguments = ["evaluate", "--sims", sims.to_str().unwrap(), "--data", data.to_str().unwrap()];
        expect_error(folder.path(), arguments.iter().chain(&["--split", split]))
    };
    assert_snapshot!(message("images", "test"), @r"
    error: `--data` cannot be used
      expected: `test_ids.txt`, `test_caps.txt` and `id_mapping.json` in the folder, or in `captions`, `SET` or `SET/captions` in it
      found: `test_00000.png`, `test_00001.png` in `DIR/images`
    ");
    assert!(message("absent", "test").ends_with("  found: no folder `DIR/absent`\n"), "{}", message("absent", "test"));
    assert_snapshot!(message("", "val"), @r"
    error: split `val` is not in `DIR/captions`
      expected: `val_ids.txt`
      found: the split `test`
    hint: choose one of the splits that are there, or put both files of the split there
    ");
}

#[test]
fn missing_vocabulary_is_named_with_the_tree() {
    let folder = scenes(2);
    fs_err::remove_file(folder.path().join("vocab.txt")).unwrap();
    assert_snapshot!(message(&folder), @r"
    error: the data of entry `shapes_vit` are incomplete: there is no vocabulary `DIR/vocab.txt`
      expected: captions in `captions` and images in `images`; and the vocabulary `vocab.txt`
      found: `captions`, `drawn.json`, `images` in `DIR`
    hint: a caption folder holds `<split>_ids.txt`, `<split>_caps.txt` and `id_mapping.json`
    ");
}

#[test]
fn unequal_numbers_of_captions_and_ids_are_rejected() {
    let folder = scenes(2);
    let path = folder.path().join("captions/test_caps.txt");
    let text = fs_err::read_to_string(&path).unwrap();
    fs_err::write(&path, format!("{text}One more caption .\n")).unwrap();
    assert_snapshot!(message(&folder), @r"
    error: `DIR/captions/test_ids.txt` and `DIR/captions/test_caps.txt` do not belong together
      expected: as many ids as captions, or one id for five captions
      found: 10 ids and 11 captions
    hint: line N of the one file is a caption of the image in line N of the other; with one id for each image, lines 5N-4 to 5N are its captions
    ");
}

#[test]
fn empty_caption_file_is_rejected() {
    let folder = scenes(2);
    fs_err::write(folder.path().join("captions/test_caps.txt"), "").unwrap();
    assert_snapshot!(message(&folder), @"error: `DIR/captions/test_caps.txt` is empty");
}

#[test]
fn mapping_with_unknown_image_or_path_outside_the_folder_is_rejected() {
    let folder = scenes(2);
    let path = folder.path().join("captions/id_mapping.json");
    fs_err::write(&path, r#"{"2": "test_00000.png"}"#).unwrap();
    assert_snapshot!(message(&folder), @r"
    error: 5 image ids cannot be used
      image id `3` (line 6 of `DIR/captions/test_ids.txt`) is not in `DIR/captions/id_mapping.json`
      image id `3` (line 7 of `DIR/captions/test_ids.txt`) is not in `DIR/captions/id_mapping.json`
      image id `3` (line 8 of `DIR/captions/test_ids.txt`) is not in `DIR/captions/id_mapping.json`
      image id `3` (line 9 of `DIR/captions/test_ids.txt`) is not in `DIR/captions/id_mapping.json`
      image id `3` (line 10 of `DIR/captions/test_ids.txt`) is not in `DIR/captions/id_mapping.json`
    hint: the mapping has to come from the same data set as the ids
    ");
    fs_err::write(&path, r#"{"2": "test_00000.png", "3": "../../secret.png"}"#).unwrap();
    assert_snapshot!(message(&folder), @r"
    error: image id `3` is mapped to `../../secret.png` (line 1 of `DIR/captions/id_mapping.json`), not to a path inside the image folder
    hint: names are relative to the image folder, without `..`
    ");
    fs_err::write(&path, "{").unwrap();
    assert_snapshot!(message(&folder), @r"
    error: `DIR/captions/id_mapping.json` cannot be used
      expected: a JSON object from image id to file name
      found: EOF while parsing an object at line 1 column 1
    ");
}

#[test]
fn vocabulary_of_another_size_than_the_model_is_rejected() {
    let folder = scenes(2);
    let path = folder.path().join("vocab.txt");
    let text = fs_err::read_to_string(&path).unwrap();
    fs_err::write(&path, format!("{text}zebra\n")).unwrap();
    assert_snapshot!(message(&folder), @r"
    error: `DIR/vocab.txt` does not fit the model
      expected: 82 tokens, the `vocab_size` of the model
      found: 83 tokens
    hint: use the vocabulary that the text encoder was trained with
    ");
}
