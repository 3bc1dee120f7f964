//! A small model and embeddings of its sizes. A crate that shares this module imports the types of laps-search beside it.

use laps_align::similarity::{AlignmentConfig, Engine, EngineOptions};
use laps_data::image::Preprocessing;
use laps_model::{
    array::Array,
    heads::{HeadConfig, HeadSizes},
};

use super::{IndexDescription, IndexKind, IndexPrecision, ModelUsed, samples::SampleGenerator};

/// Small sizes with a class token.
pub(super) const SIZES: AlignmentConfig =
    AlignmentConfig { patches: 9, has_class_token: true, kept: 5, groups: 3, width: 16 };

/// Output sizes of such an encoder.
pub(super) const ENCODED: HeadSizes = HeadSizes {
    tokens: SIZES.patches + 1,
    has_class_token: SIZES.has_class_token,
    width: SIZES.width,
    word_width: SIZES.width,
};

pub(super) fn engine() -> Engine {
    let options = EngineOptions { threads: 2, ..EngineOptions::default() };
    Engine::new(SIZES, &SampleGenerator(11).weights(&SIZES, 2.0), options).unwrap()
}

pub(super) fn description(kind: IndexKind, precision: IndexPrecision) -> IndexDescription {
    description_of(HeadConfig::Laps, &ENCODED, kind, precision)
}

pub(super) fn description_of(
    head: HeadConfig,
    sizes: &HeadSizes,
    kind: IndexKind,
    precision: IndexPrecision,
) -> IndexDescription {
    let hash = |digit: &str| digit.repeat(64);
    let model = ModelUsed {
        entry: "small".to_owned(),
        head,
        config_sha256: hash("a"),
        checkpoint_sha256: hash("b"),
        engine: "fake".to_owned(),
    };
    IndexDescription::new(kind, model, Preprocessing::imagenet(4), sizes, precision)
}

/// Different embeddings around a common direction.
pub(super) fn images(count: usize) -> Vec<Array> {
    let all = SampleGenerator(5).embeddings([count, SIZES.tokens(), SIZES.width], 1.0);
    let values = all.values().chunks_exact(SIZES.tokens() * SIZES.width);
    values.map(|image| Array::new(&[SIZES.tokens(), SIZES.width], image.to_vec()).unwrap()).collect()
}

pub(super) fn captions(count: usize) -> Vec<Array> {
    let lengths: Vec<usize> = (0..count).map(|index| 3 + index % 5).collect();
    SampleGenerator(6).captions(&lengths, SIZES.width, 1.0)
}
