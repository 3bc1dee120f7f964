//! Search a folder of photos by text: `cargo run --release --example search_folder -- FOLDER "a red circle"`

use laps::{Model, Workload, search::Index};

fn main() -> laps::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(text)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: search_folder FOLDER TEXT");
        std::process::exit(2);
    };
    let index = std::env::temp_dir().join("laps-example.index");

    let model = Model::builder("shapes_vit").workload(Workload::Many).open()?;
    // A second run encodes only new and changed photos.
    let summary = model.index_folder(&folder, &index)?;
    println!("{} photos encoded", summary.encoded);
    for (name, similarity) in model.search(&Index::open(&index)?, &text, 5)? {
        println!("{similarity:.4}  {name}");
    }
    Ok(())
}
