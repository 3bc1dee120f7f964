//! Writes the embedded checkpoint of an entry that has not been trained: `cargo run -p zoo --example fresh -- shapes_vit`.

use std::{collections::HashMap, path::PathBuf};

use safetensors::{Dtype, tensor::TensorView};
use zoo::{models::laps, params_init::fresh, registry};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).ok_or("usage: fresh ENTRY")?;
    let entry = registry::find(&name)?;
    let tensors = fresh(&laps::parameters(&entry.model)?, 0)?;
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, array)| {
            let bytes = array.values().iter().flat_map(|value| value.to_le_bytes()).collect();
            (name, array.dims().to_vec(), bytes)
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let model = &entry.model;
    let options = serde_json::json!({
        "embed_size": model.embed_size, "sparse_ratio": model.sparse_ratio, "aggr_ratio": model.aggr_ratio, "seed": 0,
    });
    let metadata = HashMap::from([("opt".to_owned(), options.to_string())]);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../checkpoints").join(format!("{name}.safetensors"));
    fs_err::write(&path, safetensors::serialize(views, Some(metadata))?)?;
    println!("{}", path.display());
    Ok(())
}
