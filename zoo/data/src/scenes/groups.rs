//! Draws the scenes of a split: in groups that differ in one attribute or relation, so that no caption fits two scenes.

use std::collections::{HashMap, HashSet};

use super::{
    DrawnConfig, DrawnSplit, SceneError,
    captions::{self, CAPTIONS},
    layout::{Jitter, place},
    scene::{Certainty, Colour, Object, Relation, Scene, SceneContent, Shape, Side, Size, Sizes},
};
use laps_model::random::SplitMix64;

/// Maximum number of scenes of a group. All differ from the first in exactly one attribute or relation.
const GROUP_SIZE: usize = 4;
/// Maximum number of scenes of a split. More would take ever more draws.
const MAX_SCENES: usize = 20_000;
/// Number of draws without a new scene after which drawing fails.
const MAX_MISSES: usize = 20_000;

/// A scene and its captions.
pub(super) struct CaptionedScene {
    pub(super) scene: Scene,
    pub(super) captions: [String; CAPTIONS],
}

/// The scenes of a split, in groups of [`GROUP_SIZE`]. Each caption is certainly true of its scene and cannot be read as true
/// of any other scene of the split. No two splits share a scene.
pub(super) fn draw(config: &DrawnConfig, wanted: DrawnSplit) -> Result<Vec<CaptionedScene>, SceneError> {
    let mut taken = HashSet::new();
    // The order is fixed: the test split does not depend on the others.
    let mut seen = fill(config, DrawnSplit::Test, &mut taken)?;
    if wanted != DrawnSplit::Test {
        seen = fill(config, DrawnSplit::Dev, &mut taken)?;
    }
    if wanted == DrawnSplit::Train {
        seen = fill(config, DrawnSplit::Train, &mut taken)?;
    }
    Ok(seen.describe(&mut SplitMix64::named(config.seed, &format!("{wanted} captions"))))
}

fn fill(config: &DrawnConfig, split: DrawnSplit, taken: &mut HashSet<SceneContent>) -> Result<Seen, SceneError> {
    let mut random = SplitMix64::named(config.seed, &format!("{split} scenes"));
    let mut seen = Seen::default();
    let count = config.count(split);
    if count > MAX_SCENES {
        return Err(SceneError::TooMany { split, most: MAX_SCENES, wanted: count });
    }
    let mut misses = 0;
    while seen.scenes.len() < count && misses < MAX_MISSES {
        let before = seen.scenes.len();
        let base = content(&mut random);
        let jitter = Jitter::draw(&mut random, base.third.map(|(side, _)| side));
        let mut add = |content: SceneContent| {
            let scene = (content.is_sound() && !taken.contains(&content)).then(|| place(content, jitter)).flatten();
            let added = scene.is_some_and(|scene| seen.add(scene));
            if added {
                taken.insert(content);
            }
            added
        };
        if add(base) {
            let mut size = 1;
            // Each kind of change once, while the split has room. Some are impossible for some scenes.
            let mut kinds = SceneChange::ALL;
            random.shuffle(&mut kinds);
            for kind in kinds {
                for _ in 0..4 {
                    if size == GROUP_SIZE || before + size == count {
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

/// Random content, which may be unsound.
fn content(random: &mut SplitMix64) -> SceneContent {
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
    SceneContent { first, relation, second, third }
}

/// The difference between a scene and the first of its group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SceneChange {
    Colour,
    Shape,
    Size,
    /// The two objects swap places.
    Swap,
    /// Another relation, or the third object on the other side.
    Relation,
}

impl SceneChange {
    const ALL: [Self; 5] = [Self::Colour, Self::Shape, Self::Size, Self::Swap, Self::Relation];

    fn apply(self, base: SceneContent, random: &mut SplitMix64) -> SceneContent {
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

type ObjectKind = (Colour, Shape);

/// The scenes of a split so far.
#[derive(Default)]
struct Seen {
    scenes: Vec<Scene>,
    /// Scenes by pairs of the kinds of their objects. A caption can only fit scenes that share such a pair.
    by_kinds: HashMap<(ObjectKind, ObjectKind), Vec<usize>>,
}

impl Seen {
    /// Adds `scene`, unless its captions fit another scene, or those of another scene fit it.
    fn add(&mut self, scene: Scene) -> bool {
        let says = scene.satisfies(&scene.content, Sizes::Told, Certainty::Certain);
        let clear = says
            && self.alike(&scene).all(|index| {
                let other = &self.scenes[index];
                !scene.satisfies(&other.content, Sizes::Told, Certainty::Possible)
                    && !other.satisfies(&scene.content, Sizes::Told, Certainty::Possible)
            });
        if clear {
            for pair in pairs(&scene.content) {
                self.by_kinds.entry(pair).or_default().push(self.scenes.len());
            }
            self.scenes.push(scene);
        }
        clear
    }

    /// Scenes that share two kinds of objects with `scene`, possibly with duplicates.
    fn alike(&self, scene: &Scene) -> impl Iterator<Item = usize> {
        pairs(&scene.content).into_iter().filter_map(|pair| self.by_kinds.get(&pair)).flatten().copied()
    }

    fn describe(self, random: &mut SplitMix64) -> Vec<CaptionedScene> {
        let sizes: Vec<Sizes> = (0..self.scenes.len())
            .map(|index| {
                let scene = &self.scenes[index];
                let mut others = self.alike(scene).filter(|&other| other != index);
                let shared = others
                    .any(|other| self.scenes[other].satisfies(&scene.content, Sizes::Untold, Certainty::Possible));
                if shared { Sizes::Told } else { Sizes::Untold }
            })
            .collect();
        let drawn = self.scenes.into_iter().zip(sizes);
        drawn
            .map(|(scene, sizes)| CaptionedScene { captions: captions::write(&scene.content, sizes, random), scene })
            .collect()
    }
}

/// All pairs of kinds of its objects, each in ascending order.
fn pairs(content: &SceneContent) -> Vec<(ObjectKind, ObjectKind)> {
    let kinds: Vec<ObjectKind> = content.objects().map(Object::kind).collect();
    let pairs = (0..kinds.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    pairs.map(|(a, b)| (kinds[a].min(kinds[b]), kinds[a].max(kinds[b]))).collect()
}
