//! Heads against tensors of the original implementations.
#![allow(clippy::unwrap_used, clippy::panic)] // only tests use it

use std::rc::Rc;

use laps_model::{
    array::Array,
    heads::{Head, HeadConfig, HeadSizes},
    params::{ParamPath, Parameter},
    tensor::DeviceTensor,
};

use crate::support::{Tensors, difference};

/// The largest difference of two correct f32 implementations is 8e-7, and the smallest mistake that the tensors can show
/// moves a similarity by 7e-5.
const TOLERANCE: f32 = 1e-5;

/// Similarities of the golden inputs on the tensor `T`, against the original's, which are the tensor `key` of the file of
/// `name`.
pub fn head_agrees<T: DeviceTensor + 'static>(name: &str, key: &str, config: &HeadConfig, device: &T::Device)
where
    T::Device: 'static,
{
    for (geometry, has_class_token) in [("vit", true), ("swin", false)] {
        let file = format!("head_{name}_{geometry}.safetensors");
        // The tensors at ViT's geometry are large, so only the reference data holds them.
        let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/");
        let file = if has_class_token { format!("{shared}{file}") } else { file };
        if !crate::support::golden(&file).exists() {
            println!("skipped: there is no `{file}`");
            continue;
        }
        let golden = Rc::new(Tensors::open(&file));
        let (images, words) = (golden.get("images"), golden.get("words"));
        let [_, tokens, width] = *images.dims() else { panic!("images of {:?}", images.dims()) };
        let sizes = HeadSizes { tokens, has_class_token, width, word_width: width };
        let (source, on) = (Rc::clone(&golden), device.clone());
        let path = ParamPath::root(Rc::new(move |parameter: Parameter| T::upload(&source.get(&parameter.name), &on)));
        let head = Head::<T>::new(config, &sizes, &path).unwrap();
        let upload = |array: &Array| T::upload(array, device).unwrap();
        let mask = mask(&golden.get("lengths"), words.dims()[1]);
        let found = head.forward(&upload(&images), &upload(&words), &upload(&mask)).unwrap().download().unwrap();
        let largest = difference(&found, &golden.get(key));
        println!("{name} {geometry}, {key}: largest difference {largest:e}");
        assert!(largest < TOLERANCE, "{name} {geometry}, {key}: {largest:e}");
    }
}

/// 1 for each of the first words of a caption, 0 behind them.
fn mask(lengths: &Array, longest: usize) -> Array {
    let rows = lengths
        .values()
        .iter()
        .flat_map(|&length| (0..longest).map(move |word| f32::from(u8::from((word as f32) < length))));
    Array::new(&[lengths.values().len(), longest], rows.collect()).unwrap()
}

/// A test of every head on the tensor `$tensor` and the device `$device`.
macro_rules! test_heads {
    ($tensor:ty, $device:expr) => {
        test_heads!(@ $tensor, $device; vsepp_mean, vsepp_cls, vsepp_gpo, scan_t2i, scan_i2t, scan_all, max_mean, sgr, chan, chan_lse, d2s_vse);

        #[test] fn d2s_vse_pretrain() {
            let config = $crate::configs::d2s_vse_pretrain();
            $crate::cases::head_agrees::<$tensor>("d2s_vse", "sims_pretrain", &config, &$device);
        }
    };
    (@ $tensor:ty, $device:expr; $($head:ident),*) => {
        $(#[test] fn $head() {
            let name = stringify!($head);
            let (_, config) = $crate::configs::heads().into_iter().find(|(known, _)| *known == name).unwrap();
            $crate::cases::head_agrees::<$tensor>(name, "sims", &config, &$device);
        })*
    };
}
