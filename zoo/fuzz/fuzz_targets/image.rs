//! Fuzzes the image decoders. `zoo/data/tests/data/corpus/odd` has files to start from.
#![no_main]

use laps_data::image::{ImageError, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Ok(decoded) => {
            let image = decoded.image;
            assert_eq!(image.pixels().len(), 3 * image.width() * image.height());
        }
        Err(error) => assert!(!matches!(error, ImageError::Panic)),
    }
});
