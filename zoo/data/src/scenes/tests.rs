//! Compares scenes with their captions and pixels, both parsed independently of the code that makes them.

use std::collections::{BTreeMap, HashSet};

use super::{
    groups::{self, CaptionedScene},
    raster,
    scene::{Certainty, Colour, Object, Relation, Scene, SceneContent, Shape, Size},
    *,
};
use crate::image::png_of_pixels;

fn config() -> DrawnConfig {
    DrawnConfig { seed: 7, train: 400, dev: 100, test: 200 }
}

/// An object as a sentence names it; the size may be left out.
type Named = (Option<Size>, Colour, Shape);

/// The facts that a sentence states, as a reader understands it.
#[derive(Debug)]
struct Statement {
    objects: Vec<Named>,
    /// Relations between objects, by their order in the sentence.
    relations: Vec<(Relation, usize, usize)>,
}

fn object(words: &[&str]) -> Option<(Named, usize)> {
    let size = match words.first()? {
        &"small" | &"little" => Some(Size::Small),
        &"large" | &"big" => Some(Size::Large),
        _ => None,
    };
    let rest = &words[usize::from(size.is_some())..];
    let colour = match *rest.first()? {
        "red" => Colour::Red,
        "yellow" => Colour::Yellow,
        "green" => Colour::Green,
        "blue" => Colour::Blue,
        "purple" | "violet" => Colour::Purple,
        "white" => Colour::White,
        "black" => Colour::Black,
        _ => return None,
    };
    let shape = match *rest.get(1)? {
        "circle" | "disc" => Shape::Circle,
        "square" => Shape::Square,
        "triangle" => Shape::Triangle,
        "star" => Shape::Star,
        "heart" => Shape::Heart,
        "cross" | "plus" => Shape::Cross,
        _ => return None,
    };
    Some(((size, colour, shape), 2 + usize::from(size.is_some())))
}

/// Parses a caption, independently of the phrases that it was made of.
fn read(caption: &str) -> Statement {
    let caption = caption.to_lowercase();
    let words: Vec<&str> = caption.strip_suffix(" .").unwrap().split(' ').collect();
    let (mut objects, mut frame, mut at) = (Vec::new(), Vec::new(), 0);
    while at < words.len() {
        match (words[at] == "a").then(|| object(&words[at + 1..])).flatten() {
            Some((object, length)) => {
                frame.push(["X", "Y", "Z"][objects.len()]);
                objects.push(object);
                at += 1 + length;
            }
            None => {
                frame.push(words[at]);
                at += 1;
            }
        }
    }
    let mut frame = frame.join(" ");
    let mut relations = Vec::new();
    if objects.len() == 3 {
        let tail = frame.find(" , and Z").or(frame.find(" , with Z")).or(frame.find(" and , ")).unwrap();
        let tail = frame.split_off(tail);
        let both = |relation, third_first: bool| {
            [0, 1].map(|other| if third_first { (relation, 2, other) } else { (relation, other, 2) })
        };
        relations.extend(if tail.contains("to the left of") {
            both(Relation::LeftOf, true)
        } else if tail.contains("to the right of") {
            both(Relation::LeftOf, false)
        } else if tail.contains("above") {
            both(Relation::Above, true)
        } else {
            assert!(tail.contains("below"), "{caption}");
            both(Relation::Above, false)
        });
    }
    let frame = frame.strip_prefix("there is ").unwrap_or(&frame);
    relations.push(match frame {
        "X to the left of Y" | "X left of Y" | "X on the left and Y on the right" | "X is on the left side of Y" => {
            (Relation::LeftOf, 0, 1)
        }
        "X to the right of Y" | "X right of Y" | "X lies to the right of Y" => (Relation::LeftOf, 1, 0),
        "X above Y" | "X is higher than Y" | "X sits above Y" | "X on top and Y underneath" => (Relation::Above, 0, 1),
        "X below Y" | "X underneath Y" | "X lies below Y" => (Relation::Above, 1, 0),
        "X inside Y" | "X within Y" | "X is surrounded by Y" => (Relation::Inside, 0, 1),
        "X with Y inside" | "X contains Y" | "X is drawn around Y" => (Relation::Inside, 1, 0),
        "X in front of Y" | "X partly covers Y" | "X overlaps Y from the front" => (Relation::InFrontOf, 0, 1),
        "X behind Y" | "X is partly hidden by Y" => (Relation::InFrontOf, 1, 0),
        other => panic!("`{other}` of `{caption}` cannot be understood"),
    });
    Statement { objects, relations }
}

impl Statement {
    /// Whether there are objects in the scene that all of it is true of.
    fn is_true(&self, scene: &Scene, certainty: Certainty) -> bool {
        self.assign(scene, certainty, &mut Vec::new())
    }

    fn assign(&self, scene: &Scene, certainty: Certainty, chosen: &mut Vec<usize>) -> bool {
        let Some(&(size, colour, shape)) = self.objects.get(chosen.len()) else {
            return self
                .relations
                .iter()
                .all(|&(relation, a, b)| scene.holds(relation, chosen[a], chosen[b], certainty));
        };
        (0..scene.objects.len()).any(|index| {
            let object = scene.objects[index].object;
            let right = object.kind() == (colour, shape) && size.is_none_or(|size| size == object.size);
            if !right || chosen.contains(&index) {
                return false;
            }
            chosen.push(index);
            let found = self.assign(scene, certainty, chosen);
            chosen.pop();
            found
        })
    }
}

#[test]
fn each_caption_is_true_of_its_own_scene_only() {
    for split in DrawnSplit::ALL {
        let drawn = groups::draw(&config(), split).unwrap();
        assert_eq!(drawn.len(), config().count(split));
        for (index, CaptionedScene { scene, captions }) in drawn.iter().enumerate() {
            assert_eq!(captions.iter().collect::<HashSet<_>>().len(), captions.len());
            for caption in captions {
                let statement = read(caption);
                assert!(statement.is_true(scene, Certainty::Certain), "`{caption}` of {:?}", scene.content);
                for (other, drawn) in drawn.iter().enumerate().filter(|&(other, _)| other != index) {
                    let excluded = !statement.is_true(&drawn.scene, Certainty::Possible);
                    assert!(excluded, "`{caption}` of {index} fits {other}: {:?}", drawn.scene.content);
                }
            }
        }
    }
}

/// How many attributes or relations two scenes differ in.
fn differences(a: &SceneContent, b: &SceneContent) -> usize {
    let object = |a: Object, b: Object| {
        [a.size != b.size, a.colour != b.colour, a.shape != b.shape].map(usize::from).iter().sum::<usize>()
    };
    let swapped = (a.first, a.second) == (b.second, b.first) && a.relation == b.relation && a.third == b.third;
    if swapped {
        return 1;
    }
    let third = match (a.third, b.third) {
        (Some((side, one)), Some((other_side, other))) => usize::from(side != other_side) + object(one, other),
        (None, None) => 0,
        _ => usize::MAX / 2,
    };
    usize::from(a.relation != b.relation) + object(a.first, b.first) + object(a.second, b.second) + third
}

#[test]
fn nearly_every_scene_has_neighbours_that_differ_in_one_attribute() {
    let drawn = groups::draw(&config(), DrawnSplit::Test).unwrap();
    let near =
        |scene: &Scene| drawn.iter().filter(|other| differences(&scene.content, &other.scene.content) == 1).count();
    let counts: Vec<usize> = drawn.iter().map(|drawn| near(&drawn.scene)).collect();
    assert!(counts.iter().filter(|&&count| count > 0).count() >= 196, "{counts:?}");
    // Three to the first scene of a group of four, one to each of the others.
    assert!(counts.iter().sum::<usize>() >= 280, "{counts:?}");
}

#[test]
fn splits_are_disjoint_and_independent() {
    let contents = |config: &DrawnConfig, split| {
        groups::draw(config, split).unwrap().into_iter().map(|drawn| drawn.scene.content).collect::<Vec<_>>()
    };
    let all: Vec<SceneContent> = DrawnSplit::ALL.into_iter().flat_map(|split| contents(&config(), split)).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 700);
    let more = DrawnConfig { train: 500, ..config() };
    assert_eq!(contents(&more, DrawnSplit::Test), contents(&config(), DrawnSplit::Test));
    assert_eq!(contents(&more, DrawnSplit::Train)[..395], contents(&config(), DrawnSplit::Train)[..395]);
    assert_ne!(contents(&DrawnConfig { seed: 8, ..config() }, DrawnSplit::Test), contents(&config(), DrawnSplit::Test));
}

/// Which pixels are nearest to a colour, and near to it.
fn mask(pixels: &[u8], colour: Colour) -> Vec<bool> {
    let shows = |pixel: &[u8; 3]| {
        let distance = |other: Colour| -> i32 {
            pixel.iter().zip(other.rgb()).map(|(&value, wanted)| (i32::from(value) - wanted).pow(2)).sum()
        };
        Colour::ALL.into_iter().min_by_key(|&other| distance(other)) == Some(colour) && distance(colour) < 3000
    };
    pixels.as_chunks::<3>().0.iter().map(shows).collect()
}

/// Mean place of the pixels of a colour, as (column, row).
fn middle(pixels: &[u8], colour: Colour) -> (f64, f64) {
    let mask = mask(pixels, colour);
    let shown: Vec<usize> = (0..mask.len()).filter(|&index| mask[index]).collect();
    assert!(shown.len() > 8, "there is no {colour:?} object");
    let mean = |part: fn(usize) -> usize| shown.iter().map(|&at| part(at) as f64).sum::<f64>() / shown.len() as f64;
    (mean(|at| at % PIXELS), mean(|at| at / PIXELS))
}

/// Of the pixels that both of the first two objects would show alone, how many show the first, and how many the second.
fn overlap(scene: &Scene, front: Colour, back: Colour) -> (usize, usize) {
    let alone = |object: usize, colour| {
        let mut scene = scene.clone();
        scene.objects.remove(1 - object);
        mask(&raster::draw(&scene), colour)
    };
    let (front_alone, back_alone) = (alone(0, front), alone(1, back));
    let pixels = raster::draw(scene);
    let shown = |colour| {
        let mask = mask(&pixels, colour);
        (0..mask.len()).filter(|&at| front_alone[at] && back_alone[at] && mask[at]).count()
    };
    (shown(front), shown(back))
}

#[test]
fn pixels_agree_with_captions() {
    let mut checked = BTreeMap::new();
    let mut slivers = 0;
    for CaptionedScene { scene, captions } in groups::draw(&config(), DrawnSplit::Train).unwrap() {
        let pixels = raster::draw(&scene);
        assert_eq!(pixels.len(), PIXELS * PIXELS * 3);
        let statement = read(&captions[0]);
        for &(relation, a, b) in &statement.relations {
            let (a, b) = (statement.objects[a].1, statement.objects[b].1);
            let colours: HashSet<_> = statement.objects.iter().map(|object| object.1).collect();
            if colours.len() < statement.objects.len() {
                continue;
            }
            let (middle_a, middle_b) = (middle(&pixels, a), middle(&pixels, b));
            let (right, down) = (middle_b.0 - middle_a.0, middle_b.1 - middle_a.1);
            match relation {
                Relation::LeftOf => assert!(right > 8.0, "{captions:?}: {right}"),
                Relation::Above => assert!(down > 8.0, "{captions:?}: {down}"),
                Relation::Inside => assert!(right.hypot(down) < 6.0, "{captions:?}: {right}, {down}"),
                // Pixels on the edge are mixed and show neither.
                Relation::InFrontOf => {
                    let (front, back) = overlap(&scene, a, b);
                    assert!(back == 0, "{captions:?}: {back} pixels show the object behind, {front} the other");
                    slivers += usize::from(front == 0);
                }
            }
            *checked.entry(format!("{relation:?}")).or_insert(0) += 1;
        }
    }
    assert!(checked.len() == 4 && checked.values().all(|&count| count >= 20), "{checked:?}");
    // Behind the tips of a star an object may be covered in slivers alone, all of whose pixels are on an edge.
    assert!(slivers <= 1, "{slivers} overlaps do not show a whole pixel");
}

#[test]
fn vocabulary_has_every_word() {
    let vocabulary = vocabulary();
    assert_eq!(vocabulary[..5], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    let known: HashSet<&str> = vocabulary.iter().copied().collect();
    assert_eq!(known.len(), vocabulary.len());
    for CaptionedScene { captions, .. } in groups::draw(&config(), DrawnSplit::Train).unwrap() {
        for word in captions.iter().flat_map(|caption| caption.split(' ')) {
            assert!(known.contains(word.to_lowercase().as_str()), "`{word}`");
        }
    }
}

#[test]
fn too_many_scenes_are_an_error() {
    let error = groups::draw(&DrawnConfig { test: usize::MAX, ..config() }, DrawnSplit::Test).err().unwrap();
    assert!(matches!(error, SceneError::TooMany { split: DrawnSplit::Test, wanted: usize::MAX, .. }), "{error}");
}

fn small() -> DrawnConfig {
    DrawnConfig { seed: 7, train: 15, dev: 5, test: 10 }
}

/// All bytes of a folder, by path.
fn files(folder: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for part in [folder.to_owned(), folder.join("captions"), folder.join("images")] {
        for entry in fs_err::read_dir(part).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files.insert(path.strip_prefix(folder).unwrap().display().to_string(), fs_err::read(&path).unwrap());
            }
        }
    }
    files
}

/// The digest is over all bytes but the stamp's. Another one means other data: raise the edition, and train again.
#[test]
fn data_set_is_the_same_bytes_on_every_platform() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("shapes");
    assert_eq!(write(&folder, &small(), &DrawnSplit::ALL).unwrap(), DrawOutcome::Written);
    let files = files(&folder);
    assert_eq!(files.len(), 30 + 2 * 3 + 1 + 1 + 1);
    insta::assert_snapshot!(String::from_utf8_lossy(&files["drawn.json"]), @r#"
    {
      "edition": 1,
      "drawn": {
        "seed": 7,
        "train": 15,
        "dev": 5,
        "test": 10
      },
      "splits": [
        "train",
        "dev",
        "test"
      ],
      "sha256": "ccd4a458bb89980f444912f7851c5cddffb6f805bc5798bffac930c73e1b1f4a"
    }
    "#);
    let captions = String::from_utf8_lossy(&files["captions/test_caps.txt"]).into_owned();
    insta::assert_snapshot!(captions.lines().take(10).collect::<Vec<_>>().join("\n"), @r"
    A large white square contains a small violet circle .
    A big white square is drawn around a small violet circle .
    There is a small violet circle within a large white square .
    A purple circle is surrounded by a white square .
    A violet circle inside a white square .
    A big black square with a little purple disc inside .
    There is a little violet disc within a big black square .
    A little purple circle is surrounded by a big black square .
    A purple disc inside a black square .
    A black square is drawn around a violet disc .
    ");
    let mapping = serde_json::from_slice::<BTreeMap<String, String>>(&files["captions/id_mapping.json"]).unwrap();
    assert_eq!((mapping.len(), mapping["20"].as_str()), (30, "test_00000.png"));
    let ids = String::from_utf8_lossy(&files["captions/test_ids.txt"]).into_owned();
    assert_eq!(ids.lines().take(6).collect::<Vec<_>>(), ["20", "20", "20", "20", "20", "21"]);
    // Nothing is left beside the folder.
    assert_eq!(fs_err::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn existing_folder_is_reused_repaired_or_rejected() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("deep/shapes");
    assert_eq!(write(&folder, &small(), &[DrawnSplit::Test]).unwrap(), DrawOutcome::Written);
    let test = files(&folder);
    assert_eq!(test.len(), 10 + 2 + 3);
    assert_eq!(write(&folder, &small(), &[DrawnSplit::Test]).unwrap(), DrawOutcome::Unchanged);

    assert_eq!(write(&folder, &small(), &[DrawnSplit::Dev]).unwrap(), DrawOutcome::Written);
    assert_eq!(write(&folder, &small(), &[DrawnSplit::Test, DrawnSplit::Dev]).unwrap(), DrawOutcome::Unchanged);
    let both = files(&folder);
    for (name, bytes) in test.iter().filter(|(name, _)| name.contains("test_")) {
        assert_eq!(&both[name], bytes, "{name}");
    }

    fs_err::write(folder.join("images/test_00003.png"), "half").unwrap();
    assert_eq!(write(&folder, &small(), &[DrawnSplit::Test]).unwrap(), DrawOutcome::Written);
    assert_eq!(files(&folder), both);

    let other = DrawnConfig { seed: 8, ..small() };
    assert_eq!(write(&folder, &other, &[DrawnSplit::Test]).unwrap(), DrawOutcome::Written);
    assert_ne!(files(&folder)["captions/test_caps.txt"], both["captions/test_caps.txt"]);

    fs_err::write(folder.join("notes.txt"), "mine").unwrap();
    let error = write(&folder, &small(), &[DrawnSplit::Test]).unwrap_err();
    assert!(error.to_string().contains("notes.txt") && error.hint().is_some(), "{error}");
    assert!(folder.join("notes.txt").exists());
    fs_err::remove_file(folder.join("notes.txt")).unwrap();
    fs_err::remove_file(folder.join("drawn.json")).unwrap();
    assert!(write(&folder, &small(), &[DrawnSplit::Test]).is_err());
    assert_eq!(fs_err::read_dir(place.path().join("deep")).unwrap().count(), 1);
}

/// Writes a sheet of scenes to look at: `SHEET=FOLDER cargo test -p zoo sheet -- --ignored`.
#[test]
#[ignore = "writes a picture to look at"]
fn sheet() {
    let folder = std::path::PathBuf::from(std::env::var("SHEET").unwrap());
    let drawn = groups::draw(&config(), DrawnSplit::Test).unwrap();
    let (columns, rows, scale) = (5, 5, 3);
    let [width, height] = [columns, rows].map(|count| count * (PIXELS + 2) * scale);
    let mut sheet = vec![[0; 3]; width * height];
    for (index, CaptionedScene { scene, captions }) in drawn.iter().take(columns * rows).enumerate() {
        println!("{index}: {captions:#?}");
        let pixels = raster::draw(scene);
        for (at, pixel) in pixels.as_chunks::<3>().0.iter().enumerate() {
            for part in 0..scale * scale {
                let x = ((index % columns) * (PIXELS + 2) + at % PIXELS) * scale + part % scale;
                let y = ((index / columns) * (PIXELS + 2) + at / PIXELS) * scale + part / scale;
                sheet[y * width + x] = *pixel;
            }
        }
    }
    let file = png_of_pixels(sheet.as_flattened(), width, height).unwrap();
    fs_err::write(folder.join("sheet.png"), file).unwrap();
}
