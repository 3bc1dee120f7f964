//! The drawn entries fit the scenes that they draw.

use laps_data::{Split, scenes};

#[test]
fn vocabulary_image_size_and_positions_fit_the_scenes() {
    for name in ["shapes_vit", "shapes_swin"] {
        let entry = laps_hub::registry::find(name).unwrap();
        assert_eq!(entry.model.text.vocab_size, scenes::vocabulary().len());
        assert_eq!(entry.model.image.image_size(), 60);
        let folder = tempfile::tempdir().unwrap();
        let drawn = entry.data.drawn.unwrap();
        scenes::write(folder.path(), &drawn, &[scenes::DrawnSplit::Dev, scenes::DrawnSplit::Test]).unwrap();
        let paths = entry.data_paths(Some(folder.path())).unwrap();
        for split in [&entry.data.dev, &entry.data.test] {
            let split = Split::open(&paths.captions, split).unwrap();
            let longest = split.captions().iter().map(|caption| caption.split(' ').count()).max().unwrap();
            assert!(longest + 2 <= entry.model.text.max_position_embeddings, "{longest} words");
        }
    }
}
