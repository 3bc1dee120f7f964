//! Sets of scenes: groups that differ in one word's meaning, no two scenes with a description in common.

use std::collections::{HashMap, HashSet};

use super::{
    DrawnConfig, SceneError, Split,
    captions::{self, CAPTIONS},
    layout::{Jitter, place},
    scene::{Colour, Content, Object, Reading, Relation, Scene, Shape, Side, Size, Sizes},
};
use laps_model::random::SplitMix64;

/// Scenes of a group: one, and as many that differ from it in exactly one attribute or relation.
const GROUP: usize = 4;
/// Scenes of a split; beyond, a new one takes ever more draws.
const MOST: usize = 20_000;
/// Draws without a new scene after which there are taken to be no more.
const PATIENCE: usize = 20_000;

/// A picture and what is said of it.
pub(super) struct Drawn {
    pub(super) scene: Scene,
    pub(super) captions: [String; CAPTIONS],
}

/// The scenes of a split, in groups of [`GROUP`]. Each sentence is true of its own scene beyond doubt, and of no other of
/// the split even with good will. What a scene of one split shows, no scene of another does.
pub(super) fn draw(config: &DrawnConfig, wanted: Split) -> Result<Vec<Drawn>, SceneError> {
    let mut taken = HashSet::new();
    // Always in this order: what is in the test split depends on no other.
    let mut seen = fill(config, Split::Test, &mut taken)?;
    if wanted != Split::Test {
        seen = fill(config, Split::Dev, &mut taken)?;
    }
    if wanted == Split::Train {
        seen = fill(config, Split::Train, &mut taken)?;
    }
    Ok(seen.describe(&mut SplitMix64::named(config.seed, &format!("{wanted} captions"))))
}

fn fill(config: &DrawnConfig, split: Split, taken: &mut HashSet<Content>) -> Result<Seen, SceneError> {
    let mut random = SplitMix64::named(config.seed, &format!("{split} scenes"));
    let mut seen = Seen::default();
    let count = config.count(split);
    if count > MOST {
        return Err(SceneError::TooMany { split, most: MOST, wanted: count });
    }
    let mut misses = 0;
    while seen.scenes.len() < count && misses < PATIENCE {
        let before = seen.scenes.len();
        let base = content(&mut random);
        let jitter = Jitter::draw(&mut random, base.third.map(|(side, _)| side));
        let mut add = |content: Content| {
            let scene = (content.is_sound() && !taken.contains(&content)).then(|| place(content, jitter)).flatten();
            let added = scene.is_some_and(|scene| seen.add(scene));
            if added {
                taken.insert(content);
            }
            added
        };
        if add(base) {
            let mut size = 1;
            // Each kind of change once, as long as the split has room; some are not possible for every scene.
            let mut kinds = Change::ALL;
            random.shuffle(&mut kinds);
            for kind in kinds {
                for _ in 0..4 {
                    if size == GROUP || before + size == count {
                        break;
                    }
                    if add(kind.apply(base, &mut random)) {
                        size += 1;
                        break;
                    }
                }
            }
        }
        misses = if seen.scenes.len() > before { 0 } else { misses + 1 };
    }
    if seen.scenes.len() < count {
        return Err(SceneError::TooMany { split, most: seen.scenes.len(), wanted: count });
    }
    Ok(seen)
}

/// Any content; it need not be sound.
fn content(random: &mut SplitMix64) -> Content {
    let mut object =
        || Object { size: random.pick(Size::ALL), colour: random.pick(Colour::ALL), shape: random.pick(Shape::ALL) };
    let (mut first, mut second, third) = (object(), object(), object());
    let relation = match random.below(20) {
        0..7 => Relation::LeftOf,
        7..14 => Relation::Above,
        14..17 => Relation::Inside,
        _ => Relation::InFrontOf,
    };
    if relation == Relation::Inside {
        (first.size, second.size) = (Size::Small, Size::Large);
    }
    let third = (random.below(3) == 0).then(|| (random.pick(Side::ALL), third));
    Content { first, relation, second, third }
}

/// What distinguishes a scene from the first of its group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Colour,
    Shape,
    Size,
    /// The two objects change places.
    Swap,
    /// Another relation, or the third object on the other side.
    Relation,
}

impl Change {
    const ALL: [Self; 5] = [Self::Colour, Self::Shape, Self::Size, Self::Swap, Self::Relation];

    fn apply(self, base: Content, random: &mut SplitMix64) -> Content {
        let mut changed = base;
        if self == Self::Swap {
            (changed.first, changed.second) = (base.second, base.first);
            return changed;
        }
        if self == Self::Relation {
            match &mut changed.third {
                Some((side, _)) => *side = side.opposite(),
                None => {
                    changed.relation =
                        random.pick([Relation::LeftOf, Relation::Above, Relation::Inside, Relation::InFrontOf]);
                }
            }
            return changed;
        }
        let objects = base.objects().count();
        let object = match (random.below(objects), &mut changed.third) {
            (2, Some((_, third))) => third,
            (1, _) => &mut changed.second,
            _ => &mut changed.first,
        };
        match self {
            Self::Colour => object.colour = random.pick(Colour::ALL),
            Self::Shape => object.shape = random.pick(Shape::ALL),
            _ => object.size = if object.size == Size::Small { Size::Large } else { Size::Small },
        }
        changed
    }
}

type Kind = (Colour, Shape);

/// The scenes of a split so far.
#[derive(Default)]
struct Seen {
    scenes: Vec<Scene>,
    /// Scenes that hold two objects of these kinds: whatever can be said of two scenes has such a pair in common.
    by_kinds: HashMap<(Kind, Kind), Vec<usize>>,
}

impl Seen {
    /// Takes `scene` in, unless something that is said of it can be said of another scene, or the reverse.
    fn add(&mut self, scene: Scene) -> bool {
        let says = scene.satisfies(&scene.content, Sizes::Told, Reading::Certain);
        let clear = says
            && self.alike(&scene).all(|index| {
                let other = &self.scenes[index];
                !scene.satisfies(&other.content, Sizes::Told, Reading::Possible)
                    && !other.satisfies(&scene.content, Sizes::Told, Reading::Possible)
            });
        if clear {
            for pair in pairs(&scene.content) {
                self.by_kinds.entry(pair).or_default().push(self.scenes.len());
            }
            self.scenes.push(scene);
        }
        clear
    }

    /// Scenes with two kinds of object in common with `scene`; some of them more than once.
    fn alike(&self, scene: &Scene) -> impl Iterator<Item = usize> {
        pairs(&scene.content).into_iter().filter_map(|pair| self.by_kinds.get(&pair)).flatten().copied()
    }

    fn describe(self, random: &mut SplitMix64) -> Vec<Drawn> {
        let sizes: Vec<Sizes> = (0..self.scenes.len())
            .map(|index| {
                let scene = &self.scenes[index];
                let mut others = self.alike(scene).filter(|&other| other != index);
                let shared =
                    others.any(|other| self.scenes[other].satisfies(&scene.content, Sizes::Untold, Reading::Possible));
                if shared { Sizes::Told } else { Sizes::Untold }
            })
            .collect();
        let drawn = self.scenes.into_iter().zip(sizes);
        drawn.map(|(scene, sizes)| Drawn { captions: captions::write(&scene.content, sizes, random), scene }).collect()
    }
}

/// Every two kinds of object in it, in ascending order.
fn pairs(content: &Content) -> Vec<(Kind, Kind)> {
    let kinds: Vec<Kind> = content.objects().map(Object::kind).collect();
    let pairs = (0..kinds.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    pairs.map(|(a, b)| (kinds[a].min(kinds[b]), kinds[a].max(kinds[b]))).collect()
}
