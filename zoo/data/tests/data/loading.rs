//! The loader and the checks of images.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use laps_data::Error;
use laps_data::{
    Augment, DataError, ExifOrientation, FileLine, ImageFile, Loader, LoaderOptions, OnFault, Split, SplitImage,
    check_images, hash_data,
    image::{Fit, ImageError, Preprocessing},
};
use tempfile::TempDir;

use crate::{captions, real};

const SIZE: usize = 4;

/// A BMP file of one colour.
fn bmp(width: u8, height: u8, [red, green, blue]: [u8; 3]) -> Vec<u8> {
    let row = (usize::from(width) * 3).next_multiple_of(4);
    let mut bytes = vec![0; 54 + row * usize::from(height)];
    bytes[..2].copy_from_slice(b"BM");
    [bytes[10], bytes[14], bytes[18], bytes[22], bytes[26], bytes[28]] = [54, 40, width, height, 1, 24];
    for line in bytes[54..].chunks_exact_mut(row) {
        for pixel in line.as_chunks_mut::<3>().0 {
            *pixel = [blue, green, red];
        }
    }
    bytes
}

/// `count` images; image `i` has `i` as its red value.
fn images(count: usize) -> (TempDir, Vec<ImageFile>) {
    let folder = tempfile::tempdir().unwrap();
    let file = |index: usize| {
        let name = format!("{index}.bmp");
        let path = folder.path().join(&name);
        fs::write(&path, bmp(3 + (index % 5) as u8 * 20, 7, [index as u8, 0, 255])).unwrap();
        let line = FileLine { file: Some(Path::new("ids.txt").into()), line: 5 * index + 1 };
        ImageFile { image: SplitImage { id: format!("id{index}"), name, line }, path }
    };
    let files = (0..count).map(file).collect();
    (folder, files)
}

fn start(files: &[ImageFile], batch: usize, threads: usize, ahead: usize) -> Loader {
    let preprocessing = Preprocessing { size: SIZE, mean: [0.0; 3], std: [1.0 / 255.0; 3], fit: Fit::Squash };
    Loader::start(files.to_vec(), preprocessing, LoaderOptions { batch_size: batch, threads, prefetch: ahead }).unwrap()
}

#[test]
fn batches_are_in_order_for_any_number_of_threads() {
    let (_folder, files) = images(23);
    for (batch, threads, ahead) in [(5, 1, 1), (5, 4, 3), (1, 8, 2), (23, 3, 1), (100, 2, 4), (0, 0, 0)] {
        let mut loader = start(&files, batch, threads, ahead);
        let batch = batch.max(1);
        let mut next = 0;
        for found in &mut loader {
            let found = found.unwrap();
            let count = batch.min(23 - next);
            assert_eq!((found.first, found.pixels.dims()), (next, &[count, 3, SIZE, SIZE][..]));
            for (image, values) in found.pixels.values().chunks_exact(3 * SIZE * SIZE).enumerate() {
                let [red, green, blue] = [values[0], values[SIZE * SIZE], values[3 * SIZE * SIZE - 1]];
                // A tenth of a level: division by 1/255 in single precision is not exact.
                assert!((red - (next + image) as f32).abs() < 0.1, "{red}");
                assert!(green.abs() < 0.1 && (blue - 255.0).abs() < 0.1, "{green} {blue}");
            }
            next += count;
        }
        assert_eq!(next, 23);
        let stats = loader.stats();
        assert_eq!(stats.images, 23);
        assert!(stats.decoding > Duration::ZERO && stats.max_pending <= ahead.max(1), "{stats:?}");
    }
    assert!(start(&[], 4, 2, 2).next().is_none());
}

/// Crops depend on seed, epoch and sample, not on the threads or on where an epoch is resumed.
#[test]
fn random_crops_are_the_same_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<ImageFile> = (0..23_u8)
        .map(|index| {
            // Stripes, so that a crop shows.
            let mut bytes = bmp(40, 30, [index, 0, 255]);
            bytes[54..].iter_mut().enumerate().for_each(|(at, value)| *value ^= (at % 251) as u8);
            let name = format!("{index}.bmp");
            let path = folder.path().join(&name);
            fs::write(&path, bytes).unwrap();
            ImageFile { image: SplitImage { id: name.clone(), name, line: FileLine { file: None, line: 1 } }, path }
        })
        .collect();
    let pixels = |first: usize, threads: usize, augment: Option<Augment>| -> Vec<u32> {
        let preprocessing = Preprocessing { size: SIZE, mean: [0.0; 3], std: [1.0; 3], fit: Fit::Squash };
        let options = LoaderOptions { batch_size: 5, threads, prefetch: 2 };
        let augment = augment.map(|augment| (augment, (first..files.len()).collect()));
        let batches = Loader::start_with(files[first..].to_vec(), preprocessing, options, augment).unwrap();
        batches.flat_map(|batch| batch.unwrap().pixels.values().to_vec()).map(f32::to_bits).collect()
    };
    let augment = Some(Augment::new(7, 1));
    let one = pixels(0, 1, augment);
    for threads in [2, 5, 9] {
        assert!(pixels(0, threads, augment) == one, "{threads} threads");
    }
    assert!(pixels(10, 3, augment) == one[10 * 3 * SIZE * SIZE..], "taken up at sample 10");
    assert!(pixels(0, 1, None) != one && pixels(0, 1, Some(Augment::new(7, 2))) != one);
}

/// Without a consumer, at most `prefetch` batches are decoded ahead.
#[test]
fn memory_is_bounded_by_prefetch() {
    let (_folder, files) = images(40);
    let mut loader = start(&files, 4, 3, 2);
    let settled = |loader: &Loader, count: usize| {
        let began = Instant::now();
        while loader.stats().images < count {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", loader.stats());
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(100));
        assert_eq!((loader.stats().images, loader.stats().max_pending), (count, 2));
    };
    settled(&loader, 8);
    let first = loader.next().unwrap().unwrap();
    settled(&loader, 12);
    assert_eq!(first.first, 0);
    assert!(loader.stats().waiting < loader.stats().decoding + Duration::from_secs(1));
    assert_eq!(loader.count(), 9);
}

#[test]
fn dropping_the_loader_stops_its_threads() {
    let (_folder, files) = images(60);
    let files: Vec<ImageFile> = files.iter().cycle().take(60_000).cloned().collect();
    let mut loader = start(&files, 8, 4, 10_000);
    loader.next().unwrap().unwrap();
    let began = Instant::now();
    let stats = loader.stats();
    drop(loader);
    assert!(stats.images < 60_000);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn first_bad_image_ends_the_batches() {
    let (_folder, files) = images(30);
    fs::remove_file(&files[11].path).unwrap();
    fs::write(&files[17].path, "<html>").unwrap();
    for threads in [1, 6] {
        let mut loader = start(&files, 4, threads, 3);
        let found: Vec<_> = loader.by_ref().collect();
        assert_eq!(found.iter().filter(|batch| batch.is_ok()).count(), 2);
        assert_eq!(found.len(), 3);
        let Some(Err(Error::Data(DataError::Image(fault)))) = found.last() else { panic!("{found:?}") };
        assert_eq!((fault.id.as_str(), fault.line.line, &fault.path), ("id11", 56, &files[11].path));
        assert!(matches!(fault.cause, ImageError::Read(_)));
        let text = found.last().unwrap().as_ref().unwrap_err().to_string();
        assert!(text.starts_with("image `id11` (line 56 of `ids.txt`, file `"), "{text}");
        assert!(loader.next().is_none());
    }
}

/// Of two bad images of a batch the first is reported, even if the second fails sooner.
#[test]
fn first_of_two_bad_images_is_reported() {
    for sizes in [[1 << 26, 6], [1 << 24, 1 << 27]] {
        let (_folder, files) = images(12);
        for (file, size) in files[9..].iter().zip(sizes) {
            fs::File::create(&file.path).unwrap().set_len(size).unwrap();
        }
        let found = start(&files, 4, 6, 3).find_map(|batch| batch.err()).unwrap().to_string();
        assert!(found.starts_with("image `id9` (line 46 of `ids.txt`, file `"), "{found}");
    }
}

/// The split of the caption tests with its three images; returns the folder of both.
fn data_set() -> (TempDir, Split) {
    let folder = captions::folder();
    fs::create_dir(folder.path().join("sub")).unwrap();
    for (level, name) in ["a.png", "b.png", "sub/c.png"].iter().enumerate() {
        fs::write(folder.path().join(name), bmp(5, 5, [level as u8; 3])).unwrap();
    }
    let split = Split::open(folder.path(), "test").unwrap();
    (folder, split)
}

#[test]
fn hash_depends_on_used_data_only() {
    let (folder, split) = data_set();
    let seen = AtomicUsize::new(0);
    let check =
        |split: &Split| hash_data(split, folder.path(), 2, || _ = seen.fetch_add(1, Ordering::Relaxed)).unwrap();
    let first = check(&split);
    assert_eq!((first.bytes, seen.load(Ordering::Relaxed)), (402, 3));
    // Computed independently from the documentation of `hash_data` with Python's hashlib.
    assert_eq!(first.sha256, HASH);

    let path = folder.path();
    let change = |name: &str, from: &str, to: &str| {
        let before = fs::read_to_string(path.join(name)).unwrap();
        assert!(before.contains(from));
        fs::write(path.join(name), before.replacen(from, to, 1)).unwrap();
        let changed = check(&Split::open(path, "test").unwrap()).sha256;
        fs::write(path.join(name), before).unwrap();
        changed != first.sha256
    };
    assert!(!change("id_mapping.json", "unused.png", "never.png"));
    assert!(!change("test_caps.txt", "  a red", " a red"));
    assert!(change("test_caps.txt", "a circle", "a circlet"));
    assert!(change("test_ids.txt", "3", "12"));
    fs::copy(path.join("a.png"), path.join("d.png")).unwrap();
    assert!(change("id_mapping.json", "a.png", "d.png"));
    fs::write(path.join("a.png"), bmp(5, 5, [9; 3])).unwrap();
    assert_ne!(check(&split).sha256, first.sha256);
}

const HASH: &str = "36be9755b0885fe24770bf19e84fe962159df3c093e09230e837b7b79850e04a";

#[test]
fn every_bad_image_is_reported() {
    let (folder, split) = data_set();
    fs::remove_file(folder.path().join("a.png")).unwrap();
    fs::write(folder.path().join("sub/c.png"), "<html>").unwrap();
    let error = check_images(&split.image_files(folder.path()), 2, || ()).unwrap_err();
    let text = error.to_string().replace(&folder.path().display().to_string(), "DIR");
    assert_eq!(
        text,
        "2 of 3 images cannot be used\n  image `7` (line 1 of `DIR/test_ids.txt`, file `DIR/a.png`): cannot be read: No \
         such file or directory (os error 2)\n  image `3` (line 5 of `DIR/test_ids.txt`, file `DIR/sub/c.png`): not a \
         JPEG, PNG, GIF, BMP or WebP file"
    );
    assert!(error.hint().is_some());
}

#[test]
fn long_list_of_bad_images_is_truncated() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |text: &dyn Fn(usize) -> String| (0..120).map(text).collect::<String>();
    fs::write(folder.path().join("test_ids.txt"), lines(&|row| format!("{row}\n"))).unwrap();
    fs::write(folder.path().join("test_caps.txt"), lines(&|row| format!("caption {row}\n"))).unwrap();
    let mapping: String = lines(&|row| format!(",\"{row}\": \"{row}.jpg\""));
    fs::write(folder.path().join("id_mapping.json"), format!("{{{}}}", &mapping[1..])).unwrap();
    let split = Split::open(folder.path(), "test").unwrap();
    let text = hash_data(&split, folder.path(), 3, || ()).unwrap_err().to_string();
    assert!(text.starts_with("120 of 120 images"), "{text}");
    assert!(text.ends_with("\n  and 20 more"), "{text}");
    assert_eq!(text.lines().count(), 1 + 100 + 1);
}

/// Truncated files of every format are used and reported, as truncated JPEG files are.
#[test]
fn truncated_png_gif_and_bmp_are_reported_as_damaged() {
    let odd = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/odd");
    let names = ["interlaced.gif", "interlaced_cut70.gif", "without_iend.png", "bits8_cut60.bmp"];
    let folder = tempfile::tempdir().unwrap();
    let ids: String = (0..names.len()).map(|id| format!("{id}\n")).collect();
    fs::write(folder.path().join("odd_ids.txt"), &ids).unwrap();
    fs::write(folder.path().join("odd_caps.txt"), &ids).unwrap();
    let mapping: BTreeMap<String, &str> = names.iter().enumerate().map(|(id, &name)| (id.to_string(), name)).collect();
    fs::write(folder.path().join("id_mapping.json"), serde_json::to_string(&mapping).unwrap()).unwrap();
    let split = Split::open(folder.path(), "odd").unwrap();
    let found = check_images(&split.image_files(&odd), 2, || ()).unwrap();
    let damaged: Vec<_> = found.iter().map(|damage| &*damage.file.image.name).collect();
    assert_eq!(damaged, names[1..]);
}

#[test]
fn truncated_photo_is_reported_as_damaged() {
    let Some(real) = real() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("odd_ids.txt"), "1\n2\n").unwrap();
    fs::write(folder.path().join("odd_caps.txt"), "whole\nhalf\n").unwrap();
    fs::write(folder.path().join("id_mapping.json"), r#"{"1": "s444.jpg", "2": "truncated.jpg"}"#).unwrap();
    let split = Split::open(folder.path(), "odd").unwrap();
    let found = check_images(&split.image_files(&real.join("preprocess")), 1, || ()).unwrap();
    let damaged: Vec<_> = found.iter().map(|damage| (&*damage.file.image.id, &*damage.warning)).collect();
    assert_eq!(damaged, [("2", "Premature end of JPEG file")]);
}

/// Measures decoding and preprocessing of full-size photos on one thread.
#[test]
#[ignore = "a measurement"]
fn speed_on_one_thread() {
    let Some(real) = real() else { return };
    let photos: Vec<PathBuf> =
        fs::read_dir(real.join("preprocess")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_photo = |path: &&PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().is_ok();
    let file = |path: &PathBuf| ImageFile {
        image: SplitImage { id: "0".to_owned(), name: "0".to_owned(), line: FileLine { file: None, line: 1 } },
        path: Path::new(path).to_owned(),
    };
    let files: Vec<ImageFile> = photos.iter().filter(is_photo).map(file).collect();
    assert_eq!(files.len(), 10);
    let files: Vec<ImageFile> = files.iter().cycle().take(200).cloned().collect();
    let options = LoaderOptions { batch_size: 16, threads: 1, prefetch: 2 };
    let mut loader = Loader::start(files, Preprocessing::imagenet(224), options).unwrap();
    let count: usize = loader.by_ref().map(|batch| batch.unwrap().pixels.dims()[0]).sum();
    let seconds = loader.stats().decoding.as_secs_f64();
    println!("{count} photos in {seconds:.2} s: {:.0} a second", count as f64 / seconds);
}

#[test]
fn bad_images_are_skipped_with_on_fault_skip() {
    let (folder, files) = images(11);
    for (index, content) in [(0, &b"<html>"[..]), (4, b""), (5, b"BM"), (10, b"BM")] {
        fs::write(folder.path().join(format!("{index}.bmp")), content).unwrap();
    }
    let preprocessing = Preprocessing { size: SIZE, mean: [0.0; 3], std: [1.0 / 255.0; 3], fit: Fit::Squash };
    for threads in [1, 4] {
        let options = LoaderOptions { batch_size: 4, threads, prefetch: 2 };
        let loader =
            Loader::start_on_fault(files.clone(), preprocessing, options, OnFault::Skip, ExifOrientation::Ignore)
                .unwrap();
        let (mut reds, mut faults) = (Vec::new(), Vec::new());
        for batch in loader {
            let batch = batch.unwrap();
            let pixels = batch.pixels.values().chunks_exact(3 * SIZE * SIZE);
            reds.extend(pixels.map(|image| image[0].round() as usize));
            faults.extend(batch.faults.into_iter().map(|(index, _)| index));
        }
        assert_eq!(reds, [0, 1, 2, 3, 0, 0, 6, 7, 8, 9, 0]);
        assert_eq!(faults, [0, 4, 5, 10]);
    }
}
