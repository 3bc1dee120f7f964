//! Shared by the golden tests: reading golden tensors, and the two tiny models that they were computed with.
#![allow(dead_code)] // each test binary uses its own part
#![allow(clippy::unwrap_used, clippy::panic)] // test helpers may panic

use std::path::{Path, PathBuf};

use laps_model::{
    array::Array,
    encoder::Device,
    heads::HeadConfig,
    models::config::{
        ClipVisionConfig, ImageConfig, ModelConfig, PreprocessingType, SwinConfig, TextConfig, TextType, VitConfig,
    },
};
use safetensors::{Dtype, SafeTensors};

pub fn golden(name: &str) -> PathBuf {
    // Crates of several depths use this module, so search upwards for the workspace. The tests also run on other machines than
    // they are built on, where `bench/gpu.sh` says where the tensors are.
    let start = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut folders = Path::new(&start).ancestors().map(|folder| folder.join("tests/golden"));
    folders.find(|folder| folder.is_dir()).unwrap().join(name)
}

/// Device of the tests: the CPU, or that of `LAPS_ZOO_TEST_DEVICE`, such as `cuda:0`.
pub fn device() -> Device {
    std::env::var("LAPS_ZOO_TEST_DEVICE").map_or(Device::Cpu, |device| device.parse().unwrap())
}

/// A file of tensors, read as f32.
#[derive(Clone)]
pub struct Tensors(Vec<u8>);

impl Tensors {
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(golden(name)).unwrap())
    }

    pub fn get(&self, name: &str) -> Array {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::F16 => {
                data.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
            }
            Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
            Dtype::I64 => data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
            other => panic!("{name} is {other:?}"),
        };
        Array::new(view.shape(), values).unwrap()
    }
}

fn text() -> TextConfig {
    TextConfig {
        model_type: TextType::Bert,
        vocab_size: 1024,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 32,
        max_position_embeddings: 512,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
    }
}

pub fn vit_tiny() -> ModelConfig {
    let image = ImageConfig::Vit(VitConfig {
        image_size: 224,
        patch_size: 16,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 64,
        layer_norm_eps: 1e-12,
        interpolate_pos_encoding: false,
        preprocessing: PreprocessingType::Laps,
    });
    ModelConfig { image, text: text(), embed_size: 24, sparse_ratio: 0.5, aggr_ratio: 0.4, head: HeadConfig::Laps }
}

pub fn swin_tiny() -> ModelConfig {
    let image = ImageConfig::Swin(SwinConfig {
        image_size: 224,
        patch_size: 4,
        embed_dim: 12,
        depths: vec![2, 2, 2, 2],
        num_heads: vec![1, 2, 3, 4],
        window_size: 7,
        mlp_ratio: 4.0,
        layer_norm_eps: 1e-5,
        preprocessing: PreprocessingType::Laps,
    });
    ModelConfig { image, text: text(), embed_size: 96, sparse_ratio: 0.8, aggr_ratio: 0.6, head: HeadConfig::Laps }
}

/// The image encoder of `clip_vision_tiny.safetensors`.
pub fn clip_vision() -> ImageConfig {
    ImageConfig::ClipVisionModel(ClipVisionConfig {
        image_size: 96,
        patch_size: 16,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 128,
        layer_norm_eps: 1e-5,
        preprocessing: PreprocessingType::Clip,
    })
}

/// The text encoder of `clip_text_tiny.safetensors`.
pub fn clip_text() -> TextConfig {
    TextConfig {
        model_type: TextType::ClipTextModel,
        vocab_size: 512,
        hidden_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 96,
        max_position_embeddings: 77,
        type_vocab_size: 0,
        layer_norm_eps: 1e-5,
    }
}

/// Maximum absolute difference of two arrays of one shape.
pub fn difference(left: &Array, right: &Array) -> f32 {
    assert_eq!(left.dims(), right.dims());
    left.values().iter().zip(right.values()).map(|(a, b)| (a - b).abs()).fold(0.0, |all: f32, d| {
        assert!(!d.is_nan());
        all.max(d)
    })
}
