//! Score a photo against two captions: `cargo run --release --example score -- PHOTO [ENTRY]`

fn main() -> laps::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(photo) = arguments.next() else {
        eprintln!("usage: score PHOTO [ENTRY]");
        std::process::exit(2);
    };
    let entry = arguments.next().unwrap_or_else(|| "shapes_vit".to_owned());
    let captions = ["a red circle above a blue square", "a small green triangle"];

    let model = laps::Model::builder(entry).open()?;
    for (caption, similarity) in captions.iter().zip(model.score(&photo, &captions)?) {
        println!("{similarity:.4}  {caption}");
    }
    Ok(())
}
