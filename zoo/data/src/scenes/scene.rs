//! The content of a scene, and the relations that hold in it.

use super::layout::Jitter;

/// Pixels are counted in this many units, so that geometry is integer arithmetic.
pub(super) const UNIT: i32 = 8;

/// Outline of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
    Heart,
    Cross,
}

/// Colour of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Colour {
    Red,
    Yellow,
    Green,
    Blue,
    Purple,
    White,
    Black,
}

/// Size of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Size {
    Small,
    Large,
}

impl Shape {
    pub(super) const ALL: [Self; 6] =
        [Self::Circle, Self::Square, Self::Triangle, Self::Star, Self::Heart, Self::Cross];
}

impl Colour {
    pub(super) const ALL: [Self; 7] =
        [Self::Red, Self::Yellow, Self::Green, Self::Blue, Self::Purple, Self::White, Self::Black];
}

impl Size {
    pub(super) const ALL: [Self; 2] = [Self::Small, Self::Large];
}

/// An object without its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Object {
    pub(super) size: Size,
    pub(super) colour: Colour,
    pub(super) shape: Shape,
}

impl Object {
    /// Colour and shape: what every caption says of an object.
    pub(super) fn kind(self) -> (Colour, Shape) {
        (self.colour, self.shape)
    }
}

/// How the first object of a scene lies to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Relation {
    LeftOf,
    Above,
    Inside,
    InFrontOf,
}

/// On which side of the first two objects a third one lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Side {
    Left,
    Right,
    Above,
    Below,
}

impl Side {
    pub(super) const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Above, Self::Below];

    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }

    pub(super) fn is_horizontal(self) -> bool {
        matches!(self, Self::Left | Self::Right)
    }
}

/// The facts that the captions of a scene state: two objects in a relation, and perhaps a third beside both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SceneContent {
    pub(super) first: Object,
    pub(super) relation: Relation,
    pub(super) second: Object,
    pub(super) third: Option<(Side, Object)>,
}

impl SceneContent {
    /// First, second and third object.
    pub(super) fn objects(&self) -> impl Iterator<Item = Object> + Clone {
        [Some(self.first), Some(self.second), self.third.map(|(_, object)| object)].into_iter().flatten()
    }

    /// Whether it can be drawn and told: no two objects of the same colour and shape, different colours where objects
    /// overlap, something small inside something large, a third object across the line of the first two.
    pub(super) fn is_sound(&self) -> bool {
        let kinds: Vec<_> = self.objects().map(Object::kind).collect();
        let distinct = (1..kinds.len()).all(|index| !kinds[..index].contains(&kinds[index]));
        let fits = match self.relation {
            Relation::LeftOf | Relation::Above => true,
            Relation::Inside => (self.first.size, self.second.size) == (Size::Small, Size::Large),
            Relation::InFrontOf => true,
        };
        let overlap = matches!(self.relation, Relation::Inside | Relation::InFrontOf);
        let across = self.third.is_none_or(|(side, _)| match self.relation {
            Relation::LeftOf => !side.is_horizontal(),
            Relation::Above => side.is_horizontal(),
            Relation::Inside | Relation::InFrontOf => true,
        });
        distinct && fits && across && !(overlap && self.first.colour == self.second.colour)
    }
}

/// An object in its place, in [`UNIT`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlacedObject {
    pub(super) object: Object,
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) radius: i32,
}

/// A scene that can be drawn. `objects` are those of `content` in its order; the second is drawn first, the first over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scene {
    pub(super) content: SceneContent,
    pub(super) objects: Vec<PlacedObject>,
    pub(super) jitter: Jitter,
}

/// How certain a statement about a scene is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// Holds for every viewer.
    Certain,
    /// Holds for some viewers.
    Possible,
}

impl Scene {
    /// Whether object `a` of this scene lies to object `b` as `relation` says.
    pub(super) fn holds(&self, relation: Relation, a: usize, b: usize, certainty: Certainty) -> bool {
        let (front, back) = (self.objects[a], self.objects[b]);
        let (dx, dy) = (back.x - front.x, back.y - front.y);
        let reach = front.radius + back.radius;
        let touching = dx * dx + dy * dy < reach * reach;
        let on_top = (a, b) == (0, 1);
        match (relation, certainty) {
            (Relation::LeftOf, Certainty::Certain) => dx >= reach,
            (Relation::Above, Certainty::Certain) => dy >= reach,
            // The centres of objects that lie side by side differ by at most 4 pixels across.
            (Relation::LeftOf, Certainty::Possible) => dx > 4 * UNIT,
            (Relation::Above, Certainty::Possible) => dy > 4 * UNIT,
            (Relation::Inside, _) => on_top && touching && 2 * front.radius < back.radius,
            (Relation::InFrontOf, Certainty::Certain) => on_top && touching && 2 * front.radius >= back.radius,
            (Relation::InFrontOf, Certainty::Possible) => on_top && touching,
        }
    }

    /// Whether `content` can be said of this scene: an assignment of its objects to different objects here with the same
    /// attributes, in the same relations. `sizes` says whether sizes are told.
    pub(super) fn satisfies(&self, content: &SceneContent, sizes: Sizes, certainty: Certainty) -> bool {
        let matches = |told: Object| {
            let found = self.objects.iter().position(|placed| placed.object.kind() == told.kind());
            found.filter(|&index| sizes == Sizes::Untold || self.objects[index].object.size == told.size)
        };
        // Kinds are distinct within a scene, so there is at most one assignment.
        let (Some(first), Some(second)) = (matches(content.first), matches(content.second)) else { return false };
        if !self.holds(content.relation, first, second, certainty) {
            return false;
        }
        let Some((side, third)) = content.third else { return true };
        let Some(third) = matches(third) else { return false };
        [first, second].into_iter().all(|other| match side {
            Side::Left => self.holds(Relation::LeftOf, third, other, certainty),
            Side::Right => self.holds(Relation::LeftOf, other, third, certainty),
            Side::Above => self.holds(Relation::Above, third, other, certainty),
            Side::Below => self.holds(Relation::Above, other, third, certainty),
        })
    }
}

/// Whether a caption tells sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizes {
    Told,
    Untold,
}
