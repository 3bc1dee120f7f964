//! What a checkpoint that does not fit looks like.

use super::report::Report;

/// The most telling difference in words.
pub(super) fn hint(report: &Report) -> Option<String> {
    architecture(report).or_else(|| shape(report)).or_else(|| general(report))
}

/// Blocks of Swin lie in stages, `encoder.layers.0.blocks.0`; those of ViT do not, `encoder.layer.0`.
fn architecture(report: &Report) -> Option<String> {
    let kind = |names: &[String]| {
        let has = |part: &str| names.iter().any(|name| name.starts_with("img_enc.") && name.contains(part));
        match (has(".encoder.layers."), has(".encoder.layer.")) {
            (true, false) => Some("Swin"),
            (false, true) => Some("ViT"),
            _ => None,
        }
    };
    let (found, expected) = (kind(&report.unexpected)?, kind(&report.missing)?);
    let hint = || {
        format!(
            "the checkpoint looks like another architecture: its image encoder is a {found}, the model's a {expected}"
        )
    };
    (found != expected).then(hint)
}

fn shape(report: &Report) -> Option<String> {
    let first = |name: &str, axis: usize| {
        let wrong = report.shapes.iter().find(|wrong| wrong.name.ends_with(name))?;
        Some((*wrong.expected.get(axis)?, *wrong.found.get(axis)?)).filter(|(expected, found)| expected != found)
    };
    if let Some((expected, found)) = first("cross_net.aggr_net.weight.0.weight", 0) {
        return Some(format!("the checkpoint looks like another embed_size: {found}, where the model has {expected}"));
    }
    if let Some((expected, found)) = first("cross_net.aggr_net.weight.3.weight", 0) {
        return Some(format!(
            "the checkpoint looks like another sparse_ratio, aggr_ratio or image size: {found} groups of patches, where \
             the model has {expected}"
        ));
    }
    if let Some((expected, found)) = first("visual_encoder.embeddings.position_embeddings", 1) {
        return Some(format!(
            "the checkpoint looks like another image size or patch size: {found} tokens, where the model has {expected}"
        ));
    }
    if let Some((expected, found)) = first("embeddings.word_embeddings.weight", 0) {
        return Some(format!(
            "the checkpoint looks like another vocabulary: {found} entries, where the model has {expected}"
        ));
    }
    None
}

fn general(report: &Report) -> Option<String> {
    let starts = |start: &str| report.unexpected.iter().any(|name| name.starts_with(start));
    if report.parameters > 0 && report.missing.len() == report.parameters {
        let base = ["bert.", "vit.", "swin.", "embeddings.", "encoder."].into_iter().any(starts);
        let hint = if base {
            "the checkpoint looks like a Hugging Face base model, which is one encoder and no whole LAPS model"
        } else {
            "the checkpoint looks like another model: no name is shared"
        };
        return Some(hint.to_owned());
    }
    let names_fit = report.missing.is_empty() && report.unexpected.is_empty();
    let forms_fit = report.shapes.is_empty() && report.types.is_empty();
    if names_fit && forms_fit {
        return Some("the weights were saved after training had diverged, or the file is damaged".to_owned());
    }
    if !names_fit && forms_fit && report.missing.iter().chain(&report.unexpected).all(|name| is_projection(name)) {
        return Some(
            "the checkpoint looks like another embed_size: a projection is there only where it changes the width"
                .to_owned(),
        );
    }
    None
}

fn is_projection(name: &str) -> bool {
    name.starts_with("img_enc.vision_proj.") || name.starts_with("txt_enc.fc.")
}
