//! Captions of a scene: five sentences, each a full description in other words.

use super::scene::{Colour, Object, Relation, SceneContent, Shape, Side, Size, Sizes};
use laps_model::random::SplitMix64;

/// Captions of a picture.
pub(super) const CAPTIONS: usize = 5;

/// Sentences of each relation; `{a}` is the first object and `{b}` the second.
const LEFT: [&str; 7] = [
    "{a} to the left of {b}",
    "{b} to the right of {a}",
    "{a} on the left and {b} on the right",
    "there is {a} left of {b}",
    "{b} lies to the right of {a}",
    "{a} is on the left side of {b}",
    "there is {b} right of {a}",
];
const ABOVE: [&str; 7] = [
    "{a} above {b}",
    "{b} below {a}",
    "{a} is higher than {b}",
    "there is {b} underneath {a}",
    "{b} lies below {a}",
    "{a} sits above {b}",
    "there is {a} on top and {b} underneath",
];
const INSIDE: [&str; 6] = [
    "{a} inside {b}",
    "{b} with {a} inside",
    "{b} contains {a}",
    "there is {a} within {b}",
    "{a} is surrounded by {b}",
    "{b} is drawn around {a}",
];
const IN_FRONT: [&str; 6] = [
    "{a} in front of {b}",
    "{b} behind {a}",
    "{a} partly covers {b}",
    "{b} is partly hidden by {a}",
    "there is {b} behind {a}",
    "{a} overlaps {b} from the front",
];
/// Clauses that follow if there is a third object `{c}` on a side `{s}` of both.
const THIRD: [&str; 3] = [" , and {c} is {s} both of them", " , with {c} {s} both", " and , {s} them , {c}"];

/// Everything a caption is made of, so that the vocabulary holds it.
pub(super) fn phrases() -> impl Iterator<Item = &'static str> {
    let sentences = [&LEFT[..], &ABOVE, &INSIDE, &IN_FRONT, &THIRD].into_iter().flatten().copied();
    let sizes = Size::ALL.into_iter().flat_map(size_words);
    let colours = Colour::ALL.into_iter().flat_map(colour_words);
    let shapes = Shape::ALL.into_iter().flat_map(shape_words);
    let sides = Side::ALL.into_iter().map(side_words);
    sentences.chain(sizes).chain(colours).chain(shapes).chain(sides).chain(["a", "."])
}

fn size_words(size: Size) -> [&'static str; 2] {
    match size {
        Size::Small => ["small", "little"],
        Size::Large => ["large", "big"],
    }
}

fn colour_words(colour: Colour) -> [&'static str; 2] {
    match colour {
        Colour::Red => ["red"; 2],
        Colour::Yellow => ["yellow"; 2],
        Colour::Green => ["green"; 2],
        Colour::Blue => ["blue"; 2],
        Colour::Purple => ["purple", "violet"],
        Colour::White => ["white"; 2],
        Colour::Black => ["black"; 2],
    }
}

pub(super) fn shape_words(shape: Shape) -> [&'static str; 2] {
    match shape {
        Shape::Circle => ["circle", "disc"],
        Shape::Square => ["square"; 2],
        Shape::Triangle => ["triangle"; 2],
        Shape::Star => ["star"; 2],
        Shape::Heart => ["heart"; 2],
        Shape::Cross => ["cross", "plus"],
    }
}

fn side_words(side: Side) -> &'static str {
    match side {
        Side::Left => "to the left of",
        Side::Right => "to the right of",
        Side::Above => "above",
        Side::Below => "below",
    }
}

/// Five different sentences that say `content`. The last two leave sizes out where `sizes` allows it.
pub(super) fn write(content: &SceneContent, sizes: Sizes, random: &mut SplitMix64) -> [String; CAPTIONS] {
    let mut sentences = match content.relation {
        Relation::LeftOf => LEFT.to_vec(),
        Relation::Above => ABOVE.to_vec(),
        Relation::Inside => INSIDE.to_vec(),
        Relation::InFrontOf => IN_FRONT.to_vec(),
    };
    random.shuffle(&mut sentences);
    std::array::from_fn(|index| {
        let sizes = if index + 2 >= CAPTIONS { sizes } else { Sizes::Told };
        let mut sentence = sentences[index].to_owned();
        if content.third.is_some() {
            sentence.push_str(random.pick(THIRD));
        }
        sentence = sentence.replace("{a}", &name(content.first, sizes, random));
        sentence = sentence.replace("{b}", &name(content.second, sizes, random));
        if let Some((side, third)) = content.third {
            sentence = sentence.replace("{c}", &name(third, sizes, random)).replace("{s}", side_words(side));
        }
        format!("{}{} .", sentence[..1].to_uppercase(), &sentence[1..])
    })
}

/// An object with its article.
fn name(object: Object, sizes: Sizes, random: &mut SplitMix64) -> String {
    let size = random.pick(size_words(object.size));
    let (colour, shape) = (random.pick(colour_words(object.colour)), random.pick(shape_words(object.shape)));
    match sizes {
        Sizes::Told => format!("a {size} {colour} {shape}"),
        Sizes::Untold => format!("a {colour} {shape}"),
    }
}
