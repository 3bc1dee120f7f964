//! Export an entry to ONNX and run the graphs in ONNX Runtime: `cargo run --release --example export_and_run -- DIR`

use std::{path::Path, rc::Rc};

use laps::{
    Model, find_vocabulary,
    hub::registry,
    onnx::{
        graph::{GraphPrecision, Target},
        package::{ExportRequest, export},
    },
    open_checkpoint,
};

fn main() -> laps::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "shapes-onnx".to_owned());
    let entry = registry::find("shapes_vit")?;
    let (checkpoint, _) = open_checkpoint(&entry, None)?;
    let vocabulary = find_vocabulary(&entry, None, None)?;
    let request = ExportRequest {
        entry,
        checkpoint: Rc::new(checkpoint),
        target: Target::default(),
        precision: GraphPrecision::Fp32,
        threads: 2,
        vocabulary,
    };
    export(&request, Path::new(&folder))?;

    // The folder names entry, checkpoint, vocabulary and preprocessing itself.
    let model = Model::from_graphs(&folder).open()?;
    let words = model.embed_captions(&["a red circle above a blue square"])?;
    println!("{}: {:?}", model.engine(), words[0].dims());
    Ok(())
}
