//! The models of LAPS, defined once and generic over a tensor.
//!
//! | module | contents |
//! |---|---|
//! | [`tensor`] | [`Tensor`](tensor::Tensor): the operations of models; [`DeviceTensor`](tensor::DeviceTensor): a tensor with values |
//! | [`mod@array`] | [`Array`](array::Array): the pure-Rust tensor |
//! | [`dim`] | [`Dim`](dim::Dim): a size, which may be symbolic |
//! | [`params`] | [`ParamPath`](params::ParamPath): how layers request their parameters by name |
//! | [`params_init`] | initialisation, the same bits on every platform |
//! | [`nn`] | layers: linear, layer norm, attention, feed-forward, dropout |
//! | [`models`] | ViT, Swin, BERT, CLIP, and [`Laps`](models::Laps) on top of them, with their configurations |
//! | [`heads`] | other similarity heads over the same embeddings |
//! | [`encoder`] | [`Encoder`](encoder::Encoder): images and captions to embeddings; [`Device`](encoder::Device) |
//! | [`random`] | the random number generator |
//!
//! A model is a struct with a `new` and a `forward`. `new` requests parameters by their names in published checkpoints.
//! `forward` calls operations of the [`Tensor`](tensor::Tensor) trait only and has no control flow that depends on values,
//! so that the same code computes with [`Array`](array::Array) or libtorch and records an ONNX graph.
//!
//! # Example
//!
//! List the parameters of a tiny model, initialise them, and embed an image:
//!
//! ```
//! use std::collections::HashMap;
//! use laps_model::{
//!     array::Array,
//!     encoder::{Encoder, ModelEncoder},
//!     heads::HeadConfig,
//!     models::{self, config::{ImageConfig, ModelConfig, PreprocessingType, TextConfig, TextType, VitConfig}},
//!     params_init::init_parameters,
//! };
//!
//! let image = VitConfig {
//!     image_size: 32,
//!     patch_size: 8,
//!     hidden_size: 16,
//!     num_hidden_layers: 1,
//!     num_attention_heads: 2,
//!     intermediate_size: 32,
//!     layer_norm_eps: 1e-12,
//!     interpolate_pos_encoding: false,
//!     preprocessing: PreprocessingType::Laps,
//! };
//! let text = TextConfig {
//!     model_type: TextType::Bert,
//!     vocab_size: 100,
//!     hidden_size: 16,
//!     num_hidden_layers: 1,
//!     num_attention_heads: 2,
//!     intermediate_size: 32,
//!     max_position_embeddings: 64,
//!     type_vocab_size: 2,
//!     layer_norm_eps: 1e-12,
//! };
//! let config = ModelConfig {
//!     image: ImageConfig::Vit(image),
//!     text,
//!     embed_size: 8,
//!     sparse_ratio: 0.5,
//!     aggr_ratio: 0.4,
//!     head: HeadConfig::Laps,
//! };
//!
//! let parameters = models::parameters(&config)?;
//! assert_eq!(parameters[0].name, "img_enc.visual_encoder.embeddings.cls_token");
//! assert_eq!(parameters[0].shape, [1, 1, 16]);
//!
//! let weights: HashMap<String, Array> = init_parameters(&parameters, 7)?.into_iter().collect();
//! let encoder: ModelEncoder<Array> = ModelEncoder::new(&config, (), move |p| Ok(weights[&p.name].clone()))?;
//! let pixels = Array::new(&[1, 3, 32, 32], vec![0.0; 3 * 32 * 32])?;
//! assert_eq!(encoder.encode_images(&pixels)?.dims(), [1, 17, 8]); // a class token and 4 x 4 patches
//! # Ok::<(), laps_model::Error>(())
//! ```

pub mod array;
pub mod dim;
pub mod encoder;
mod error;
pub mod heads;
pub mod models;
pub mod nn;
pub mod params;
pub mod params_init;
pub mod random;
pub mod tensor;

pub use error::{Error, Result};
