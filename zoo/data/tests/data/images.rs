//! Decoding, resizing and normalising against Pillow.

use std::{collections::BTreeMap, fs, path::Path};

use laps_data::image::{Fit, ImageError, MAX_PIXELS, Preprocessing, RgbImage, decode, read, resize};
use safetensors::SafeTensors;

use crate::real;

const PILLOW: &[u8] = include_bytes!("fixtures/pillow.safetensors");

/// `(shape, bytes)` by name.
fn tensors(bytes: &[u8]) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let pair = |name: &str| {
        let view = tensors.tensor(name).unwrap();
        (name.to_owned(), (view.shape().to_vec(), view.data().to_vec()))
    };
    tensors.names().into_iter().map(pair).collect()
}

fn largest_difference(one: &[u8], other: &[u8]) -> u8 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| one.abs_diff(*other)).max().unwrap()
}

#[test]
fn every_format_decodes_as_in_pillow() {
    let tensors = tensors(PILLOW);
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (key, (_, bytes)) in &tensors {
        let Some(name) = key.strip_suffix(".file") else { continue };
        seen += 1;
        let decoded = decode(bytes);
        let Some((shape, pixels)) = tensors.get(&format!("{name}.pixels")) else {
            // Cut within a table of a later scan: Pillow leaves all black what libjpeg-turbo decodes in part.
            let error = decoded.unwrap_err().to_string();
            assert_eq!(error, "not decodable as JPEG: a file of several scans ends within a table", "{name}");
            continue;
        };
        let decoded = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!([decoded.image.height(), decoded.image.width(), 3], shape[..], "{name}");
        assert_eq!(decoded.damage.is_some(), tensors.contains_key(&format!("{name}.damaged")), "{name}");
        let difference = largest_difference(decoded.image.pixels(), pixels);
        if difference > 0 {
            wrong.push((name, difference));
        }
    }
    assert_eq!((seen, wrong), (42, Vec::new()));
}

#[test]
fn resizing_is_bit_exact() {
    let tensors = tensors(PILLOW);
    let mut seen = 0;
    for (key, (shape, pixels)) in &tensors {
        let Some(name) = key.strip_prefix("resize.").and_then(|key| key.strip_suffix(".source")) else { continue };
        seen += 1;
        let (result_shape, result) = &tensors[&format!("resize.{name}.result")];
        let image = RgbImage::new(shape[1], shape[0], pixels.clone()).unwrap();
        let resized = resize(&image, result_shape[1], result_shape[0]);
        assert_eq!([resized.height(), resized.width(), 3], result_shape[..], "{name}");
        assert_eq!(largest_difference(resized.pixels(), result), 0, "{name}");
    }
    assert_eq!(seen, 11);
}

#[test]
fn real_photos_are_bit_exact() {
    let Some(real) = real() else { return };
    let folder = real.join("preprocess");
    let reference = tensors(&fs::read(folder.join("reference.safetensors")).unwrap());
    let mut differences = BTreeMap::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some((shape, expected)) = reference.get(&format!("{name}.resized_u8")) else { continue };
        assert_eq!(shape[..], [224, 224, 3]);
        let decoded = read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded.damage, None, "{name}");
        let resized = resize(&decoded.image, 224, 224);
        differences.insert(name.to_owned(), largest_difference(resized.pixels(), expected));
    }
    println!("{differences:?}");
    assert_eq!(differences.len(), 19);
    assert!(differences.values().all(|&difference| difference == 0), "{differences:?}");
}

/// `truncated.jpg` is the first half of the bytes of another photo.
#[test]
fn truncated_photo_is_decoded_in_part() {
    let Some(real) = real() else { return };
    let [whole, cut] =
        ["1009434119.jpg", "truncated.jpg"].map(|name| read(&real.join("preprocess").join(name)).unwrap());
    assert_eq!((whole.damage, cut.damage.as_deref()), (None, Some("Premature end of JPEG file")));
    let [width, height] = [whole.image.width(), whole.image.height()];
    assert_eq!([cut.image.width(), cut.image.height()], [width, height]);
    let rows = whole.image.pixels().chunks_exact(3 * width).zip(cut.image.pixels().chunks_exact(3 * width));
    let same = rows.clone().take_while(|(whole, cut)| whole == cut).count();
    let grey = rows.rev().take_while(|(_, cut)| cut.iter().all(|&value| value == 128)).count();
    println!("{same} of {height} rows as in the whole photo, {grey} rows grey");
    // Blocks are 16 rows high, and the chroma of a row of blocks is interpolated towards the next: the rest of 32 rows.
    assert!(same > height / 4 && grey > height / 4 && same + grey + 32 >= height);
}

#[test]
fn preprocessing_scales_then_normalises_in_f32() {
    let image = RgbImage::new(2, 2, vec![0, 128, 255, 10, 20, 30, 1, 2, 3, 254, 253, 252]).unwrap();
    let preprocessing = Preprocessing::imagenet(2);
    let array = preprocessing.array(&image).unwrap();
    assert_eq!(array.dims(), [1, 3, 2, 2]);
    // Red, green and blue of the first pixel as torchvision gives them: (0 - 0.485) / 0.229 and so on.
    let found = [array.values()[0], array.values()[4], array.values()[8]];
    let expected = [-2.117_904, 0.205_182_1, 2.64];
    assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{found:?}");
    assert!(preprocessing.write(&image, &mut [0.0; 11]).is_err());
    assert!(Preprocessing { size: 0, ..preprocessing }.write(&image, &mut []).is_err());
}

fn file(name: &str) -> Vec<u8> {
    tensors(PILLOW).remove(&format!("{name}.file")).unwrap().1
}

#[test]
fn other_files_are_rejected() {
    assert!(matches!(decode(b""), Err(ImageError::Empty)));
    assert!(matches!(decode(b"<html>not found</html>"), Err(ImageError::Format)));
    assert!(matches!(decode(b"BM"), Err(ImageError::Undecodable { .. })));
    let png = file("rgb.png");
    assert!(matches!(decode(&png[..40]), Err(ImageError::Undecodable { .. })));
    assert!(matches!(decode(&png[..50]), Err(ImageError::NoImageData { .. })));
    assert!(matches!(read("none.jpg".as_ref()), Err(ImageError::Read(_))));
}

#[test]
fn jpeg_without_image_data_is_rejected() {
    let jpeg = file("s420.jpg");
    let scan = jpeg.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    let data = scan + 2 + usize::from(u16::from_be_bytes([jpeg[scan + 2], jpeg[scan + 3]]));
    for length in [3, 20, scan, scan + 2, data] {
        let found = decode(&jpeg[..length]);
        assert!(matches!(found, Err(ImageError::NoImageData { .. })), "{length}: {found:?}");
    }
    let ended = [&jpeg[..data], &[0xff, 0xd9]].concat();
    assert!(matches!(decode(&ended), Err(ImageError::NoImageData { .. })));
    assert!(decode(&jpeg[..data + 1]).unwrap().damage.is_some());
}

/// libjpeg-turbo then reports a warning, though nothing was decoded.
#[test]
fn error_after_a_warning_is_an_error() {
    let mut jpeg = file("progressive.jpg");
    let find = |jpeg: &[u8], from: usize, marker: u8| {
        from + jpeg[from..].windows(2).position(|pair| pair == [0xff, marker]).unwrap()
    };
    let scan = find(&jpeg, 0, 0xda);
    let table = find(&jpeg, scan, 0xc4);
    jpeg[table + 4] = 0xee;
    jpeg.splice(table..table, [7; 5]);
    let Err(ImageError::Undecodable { reason, .. }) = decode(&jpeg) else { panic!("decoded") };
    assert!(reason.contains("DHT"), "{reason}");
}

#[test]
fn huge_claimed_size_is_rejected_before_allocation() {
    let mut jpeg = file("s420.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xfd, 0xe8, 0xfd, 0xe8]);
    let mut png = file("rgb.png");
    png[16..24].copy_from_slice(&[0, 0, 0xfd, 0xe8, 0, 0, 0xfd, 0xe8]);
    let checksum = crc(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    for bytes in [jpeg, png] {
        match decode(&bytes) {
            Err(ImageError::Size { width: 65_000, height: 65_000, limit: MAX_PIXELS }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The checksum of a PNG chunk.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Cut at every length, and with bytes overwritten: an image or an error, never a panic.
#[test]
fn broken_files_never_panic() {
    for name in [
        "s420.jpg",
        "cmyk.jpg",
        "progressive.jpg",
        "palette.png",
        "rgba16.png",
        "plain.gif",
        "palette.bmp",
        "lossy.webp",
    ] {
        let bytes = file(name);
        for length in 0..bytes.len() {
            assert!(!matches!(decode(&bytes[..length]), Err(ImageError::Panic)), "{name} cut to {length} bytes");
        }
        for step in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[step] ^= 1 << (step % 8);
            let other = (step * 7919) % bytes.len();
            bytes[other] = !bytes[other];
            assert!(!matches!(decode(&bytes), Err(ImageError::Panic)), "{name} changed at {step}");
        }
    }
}

/// Pixels after the resize and the crop, `(size, size, 3)`.
fn square(image: &RgbImage, size: usize) -> Vec<u8> {
    let identity = Preprocessing { size, mean: [0.0; 3], std: [1.0 / 255.0; 3], fit: Fit::CenterCrop };
    let planes = identity.array(image).unwrap().into_values();
    let plane = size * size;
    (0..plane).flat_map(|pixel| [0, 1, 2].map(|channel| planes[channel * plane + pixel].round() as u8)).collect()
}

fn image_of(view: &safetensors::tensor::TensorView<'_>) -> RgbImage {
    let [height, width, 3] = *view.shape() else { panic!("an image of {:?}", view.shape()) };
    RgbImage::new(width, height, view.data().to_vec()).unwrap()
}

/// The tensors of the reference preprocessing, where they are.
fn golden_preprocessing() -> Option<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/clip_preprocess.safetensors");
    if !path.exists() {
        println!("skipped: there is no `{}`", path.display());
        return None;
    }
    Some(fs::read(path).unwrap())
}

#[test]
fn clip_pixels_equal_the_reference() {
    let Some(bytes) = golden_preprocessing() else { return };
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let image = image_of(&golden.tensor("input_u8").unwrap());
    assert_eq!(square(&image, 224), golden.tensor("hf_u8").unwrap().data());
    // The offset of the crop is 21.5, which OpenAI rounds to 22.
    assert_ne!(square(&image, 224), golden.tensor("openai_u8").unwrap().data());
    let pixels = Preprocessing::clip(224).array(&image).unwrap().into_values();
    let corner = golden.tensor("hf_pixel_values_corner").unwrap();
    let corner = corner.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    let largest = corner.enumerate().map(|(index, expected)| {
        let (channel, row, column) = (index / 256, index / 16 % 16, index % 16);
        (pixels[(channel * 224 + row) * 224 + column] - expected).abs()
    });
    let largest = largest.fold(0.0, f32::max);
    println!("normalised pixels differ by {largest:e}");
    // NumPy normalises in another order.
    assert!(largest <= 5e-7, "{largest:e}");
}

fn values(view: &safetensors::tensor::TensorView<'_>) -> Vec<f32> {
    view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Largest difference from the reference, of the rule of D2S-VSE at `size` pixels: the square that begins at `offset`.
fn d2s_difference(image: &RgbImage, size: usize, offset: usize, expected: &safetensors::tensor::TensorView<'_>) -> f32 {
    let preprocessing = Preprocessing { fit: Fit::SquashBilinear, ..Preprocessing::imagenet(size) };
    let pixels = preprocessing.array(image).unwrap().into_values();
    let [3, rows, columns] = *expected.shape() else { panic!("{:?}", expected.shape()) };
    let found = |index: usize| {
        let (channel, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
        pixels[(channel * size + offset + row) * size + offset + column]
    };
    let differences = values(expected).into_iter().enumerate().map(|(index, value)| (found(index) - value).abs());
    differences.fold(0.0, f32::max)
}

/// NumPy normalises in another order, and OpenCV sums in another one.
const D2S_TOLERANCE: f32 = 1e-6;

#[test]
fn d2s_vse_pixels_equal_the_reference() {
    let Some(bytes) = golden_preprocessing() else { return };
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let image = image_of(&golden.tensor("input_u8").unwrap());
    let largest = d2s_difference(&image, 96, 0, &golden.tensor("d2s_96").unwrap());
    println!("normalised pixels differ by {largest:e}");
    assert!(largest <= D2S_TOLERANCE, "{largest:e}");

    let Some(real) = real() else { return };
    let folder = real.join("preprocess");
    let bytes = fs::read(folder.join("clip_reference.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let image = read(&folder.join("1009434119.jpg")).unwrap().image;
    for size in [384, 480] {
        for (part, offset) in [("corner", 0), ("centre", (size - 64) / 2)] {
            let expected = golden.tensor(&format!("1009434119.jpg.d2s_{size}_{part}")).unwrap();
            let largest = d2s_difference(&image, size, offset, &expected);
            println!("{part} of {size}: {largest:e}");
            assert!(largest <= D2S_TOLERANCE, "{part} of {size}: {largest:e}");
        }
    }
}

/// Values computed by hand: at (i + 0.5) / 2 - 0.5 the pixels 0 and 255 are mixed 1:0, 3:1, 1:3 and 0:1, and a shrunk image takes
/// the two pixels around each center alone.
#[test]
fn bilinear_pixels_are_not_antialiased_or_rounded() {
    let identity = |size| Preprocessing { size, mean: [0.0; 3], std: [1.0 / 255.0; 3], fit: Fit::SquashBilinear };
    let image = RgbImage::new(2, 1, vec![0, 0, 0, 255, 255, 255]).unwrap();
    let found = identity(4).array(&image).unwrap().into_values();
    for (found, expected) in found[..4].iter().zip([0.0, 63.75, 191.25, 255.0]) {
        assert!((found - expected).abs() < 1e-4, "{found} and {expected}");
    }
    let pixels: Vec<u8> = (0..8).flat_map(|pixel| [[0, 100, 3, 8, 9, 1, 200, 100][pixel]; 3]).collect();
    let found = identity(2).array(&RgbImage::new(8, 1, pixels).unwrap()).unwrap().into_values();
    // The centers are at 1.5 and 5.5.
    for (found, expected) in found[..2].iter().zip([51.5, 100.5]) {
        assert!((found - expected).abs() < 1e-4, "{found} and {expected}");
    }
}

#[test]
fn clip_pixels_of_photos_equal_the_reference() {
    let Some(real) = real() else { return };
    let folder = real.join("preprocess");
    let bytes = fs::read(folder.join("clip_reference.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let names: Vec<&str> = golden.names().into_iter().filter_map(|name| name.strip_suffix(".hf_u8")).collect();
    assert_eq!(names.len(), 3);
    for name in names {
        let image = read(&folder.join(name)).unwrap().image;
        assert_eq!(square(&image, 224), golden.tensor(&format!("{name}.hf_u8")).unwrap().data(), "{name}");
    }
}

/// Only the pixels of the square are computed, so that an extreme aspect ratio takes no memory.
#[test]
fn center_crop_of_a_long_image_is_that_of_the_resized_image() {
    let pixels: Vec<u8> = (0..7 * 90 * 3).map(|index| (index * 37 % 251) as u8).collect();
    let image = RgbImage::new(90, 7, pixels).unwrap();
    let whole = resize(&image, 10 * 90 / 7, 10);
    let left = (whole.width() - 10) / 2;
    let rows = whole.pixels().chunks_exact(3 * whole.width());
    let expected: Vec<u8> = rows.flat_map(|row| row[3 * left..3 * (left + 10)].to_vec()).collect();
    assert_eq!(square(&image, 10), expected);
    let line = RgbImage::new(65_000, 1, vec![9; 3 * 65_000]).unwrap();
    assert_eq!(square(&line, 224), vec![9; 224 * 224 * 3]);
}
