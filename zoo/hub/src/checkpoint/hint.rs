//! The likely cause of a mismatch.

use super::report::Report;

/// A hint from the most specific difference.
pub(super) fn hint(report: &Report) -> Option<String> {
    architecture(report).or_else(|| head(report)).or_else(|| shape(report)).or_else(|| general(report))
}

/// The head whose parameters are among `names`, in words. Heads without parameters have none.
fn head_of(names: &[String]) -> Option<&'static str> {
    let starts = |start: &str| names.iter().any(|name| name.starts_with(start));
    if starts("cross_net.") {
        Some("`laps`")
    } else if starts("visual_projection.") {
        Some("`cosine`")
    } else if starts("sim_enc.") {
        Some("`sgr`")
    } else if starts("img_enc.image_encoder.") {
        Some("`d2s_vse`")
    } else if starts("img_enc.gpool.") {
        Some("`vsepp` with the pooling `gpo`")
    } else {
        None
    }
}

fn head(report: &Report) -> Option<String> {
    // All parameters are missing from a checkpoint of something else.
    if report.missing.len() == report.parameters && report.parameters > 0 {
        return None;
    }
    let has_prompt = |names: &[String]| names.iter().any(|name| name.starts_with("prompt_learner."));
    if head_of(&report.unexpected).or(head_of(&report.missing)).is_none() {
        if has_prompt(&report.unexpected) {
            return Some(
                "the checkpoint is a second-stage model of D2S-VSE: it has a prompt, the model has none".to_owned(),
            );
        }
        if has_prompt(&report.missing) {
            return Some(
                "the checkpoint is a first-stage model of D2S-VSE: it has no prompt, the model has one".to_owned(),
            );
        }
    }
    match (head_of(&report.unexpected), head_of(&report.missing)) {
        (Some(found), Some(expected)) if found != expected => {
            Some(format!("the checkpoint is of another head: it has {found}, the model has {expected}"))
        }
        (Some(found), None) => {
            Some(format!("the checkpoint is of another head: it has {found}, the model's head has no parameters"))
        }
        (None, Some(expected)) if report.unexpected.is_empty() => {
            Some(format!("the checkpoint has no parameters of a head, the model has {expected}"))
        }
        _ => None,
    }
}

/// Swin has its blocks in stages, `encoder.layers.0.blocks.0`; ViT has not, `encoder.layer.0`. CLIP has a `vision_model`.
fn architecture(report: &Report) -> Option<String> {
    let kind = |names: &[String]| {
        let has = |part: &str| names.iter().any(|name| name.starts_with("img_enc.") && name.contains(part));
        match [has(".vision_model."), has(".encoder.layers."), has(".encoder.layer.")] {
            [true, _, false] => Some("CLIP"),
            [false, true, false] => Some("Swin"),
            [false, false, true] => Some("ViT"),
            _ => None,
        }
    };
    let (found, expected) = (kind(&report.unexpected)?, kind(&report.missing)?);
    let hint = || {
        format!(
            "the checkpoint is probably of another architecture: its image encoder is {found}, the model has {expected}"
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
        return Some(format!("the checkpoint probably has another embed_size: {found}, the model has {expected}"));
    }
    if let Some((expected, found)) = first("cross_net.aggr_net.weight.3.weight", 0) {
        return Some(format!(
            "the checkpoint probably has another sparse_ratio, aggr_ratio or image size: {found} groups of patches, the \
             model has {expected}"
        ));
    }
    if let Some((expected, found)) = first("visual_encoder.embeddings.position_embeddings", 1) {
        return Some(format!(
            "the checkpoint probably has another image size or patch size: {found} tokens, the model has {expected}"
        ));
    }
    if let Some((expected, found)) = first("sim_enc.v_global_w.embedding_local.1.weight", 0) {
        return Some(format!(
            "the head `sgr` has a scale for each token of an image: {found} in the checkpoint, and the image encoder of the \
             model has {expected} tokens"
        ));
    }
    if let Some((expected, found)) = first("embeddings.word_embeddings.weight", 0) {
        return Some(format!(
            "the checkpoint probably has another vocabulary: {found} tokens, the model has {expected}"
        ));
    }
    None
}

fn general(report: &Report) -> Option<String> {
    let starts = |start: &str| report.unexpected.iter().any(|name| name.starts_with(start));
    if report.parameters > 0 && report.missing.len() == report.parameters {
        let base = ["bert.", "vit.", "swin.", "embeddings.", "encoder."].into_iter().any(starts);
        let hint = if base {
            "the checkpoint is probably a Hugging Face base model: one encoder, not a complete LAPS model"
        } else {
            "the checkpoint is probably of another model: no tensor name is in both"
        };
        return Some(hint.to_owned());
    }
    let names_fit = report.missing.is_empty() && report.unexpected.is_empty();
    let forms_fit = report.shapes.is_empty() && report.types.is_empty();
    if names_fit && forms_fit {
        return Some("the training had diverged before the weights were saved, or the file is damaged".to_owned());
    }
    if !names_fit && forms_fit && report.missing.iter().chain(&report.unexpected).all(|name| is_projection(name)) {
        return Some(
            "the checkpoint probably has another embed_size: there is a projection only where it changes the width"
                .to_owned(),
        );
    }
    None
}

fn is_projection(name: &str) -> bool {
    name.starts_with("img_enc.vision_proj.") || name.starts_with("txt_enc.fc.")
}
