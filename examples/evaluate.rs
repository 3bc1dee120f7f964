//! Recalls on your own data set: `cargo run --release --example evaluate -- FOLDER`
//!
//! FOLDER has `images/` and `captions/` with `test_ids.txt`, `test_caps.txt` and `id_mapping.json`; docs/src/guides has
//! the layout. Without FOLDER, the scenes of `shapes_vit` are drawn and evaluated.

use laps::{
    Model,
    align::{CaptionImages, Protocol, Scores, evaluate},
    data::Split,
    embedded,
    hub::registry,
};

fn main() -> laps::Result<()> {
    let folder = std::env::args().nth(1).map(std::path::PathBuf::from);
    let entry = registry::find("shapes_vit")?;
    let paths = embedded::data_paths(&entry, folder.as_deref(), None)?;
    let split = Split::open(&paths.captions, &entry.data.test)?;

    let model = Model::builder("shapes_vit").open()?;
    let files = split.image_files(&paths.images);
    let images = model.embed_images(files.iter().map(|file| &file.path))?;
    let captions = model.embed_captions(split.captions())?;
    let similarities = model.similarities(&images, &captions)?;

    let pairing = CaptionImages::new(split.images().len(), split.image_of())?;
    let scores = Scores::new(similarities.values(), pairing.images(), pairing.captions())?;
    let result = evaluate(&scores, &pairing, Protocol::F30k)?;
    let recalls = &result.headline;
    println!("image to text: R@1 {:.1}  R@5 {:.1}  R@10 {:.1}", recalls.i2t.r1, recalls.i2t.r5, recalls.i2t.r10);
    println!("text to image: R@1 {:.1}  R@5 {:.1}  R@10 {:.1}", recalls.t2i.r1, recalls.t2i.r5, recalls.t2i.r10);
    Ok(())
}
