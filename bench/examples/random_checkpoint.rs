//! Writes a checkpoint with random weights, for measurements of full-size models:
//!
//! ```sh
//! cargo run --release -p laps-bench --example random_checkpoint -- f30k_vit FOLDER
//! ```

use std::path::Path;

use laps_bench::timing::random_checkpoint;
use laps_hub::registry;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let entry = registry::find(&arguments.next().ok_or("the name of an entry is missing")?)?;
    let folder = arguments.next().ok_or("the folder is missing")?;
    println!("{}", random_checkpoint(&entry, 7, Path::new(&folder))?.display());
    Ok(())
}
