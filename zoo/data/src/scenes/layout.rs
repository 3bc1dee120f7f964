//! Where the objects of a scene go.

use super::{
    outline,
    scene::{Object, PlacedObject, Relation, Scene, SceneContent, Side, Size, UNIT},
};
use laps_model::random::SplitMix64;

/// Random variation of a picture. The scenes of a group share it, so that they differ in what the captions say
/// and in nothing else. Lengths in [`UNIT`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jitter {
    /// Moves the whole picture, where there is room.
    shift: (i32, i32),
    /// Moves each object a little.
    nudges: [(i32, i32); 3],
    /// Added to each radius.
    growth: [i32; 3],
    /// From the back object to the front one, as a unit vector in 25ths.
    direction: (i32, i32),
    /// Which background.
    pub(super) background: usize,
    /// Added to each colour channel of each object.
    pub(super) tint: [[i32; 3]; 3],
}

/// Unit vectors in 25ths, first the steep ones, then their transposes, the flat ones.
const DIRECTIONS: [(i32, i32); 8] = [(7, 24), (-7, 24), (7, -24), (-7, -24), (24, 7), (-24, 7), (24, -7), (-24, -7)];
/// The same for diagonal ones: an overlap that is neither beside nor above.
const DIAGONALS: [(i32, i32); 8] =
    [(20, 15), (-20, 15), (20, -15), (-20, -15), (15, 20), (-15, 20), (15, -20), (-15, -20)];

impl Jitter {
    pub(super) fn draw(random: &mut SplitMix64, third: Option<Side>) -> Self {
        let mut pair = |reach: i32| (random.around(reach), random.around(reach));
        let shift = pair(8 * UNIT);
        let nudges = [pair(UNIT), pair(UNIT), pair(UNIT)];
        let direction = match third {
            // With a third object beside them there is little room on its axis.
            Some(side) if side.is_horizontal() => {
                random.pick([DIRECTIONS[0], DIRECTIONS[1], DIRECTIONS[2], DIRECTIONS[3]])
            }
            Some(_) => random.pick([DIRECTIONS[4], DIRECTIONS[5], DIRECTIONS[6], DIRECTIONS[7]]),
            None => random.pick(DIAGONALS),
        };
        Self {
            shift,
            nudges,
            direction,
            growth: [random.around(UNIT / 2), random.around(UNIT / 2), random.around(UNIT / 2)],
            background: random.below(usize::MAX >> 33),
            tint: std::array::from_fn(|_| std::array::from_fn(|_| random.around(12))),
        }
    }
}

/// Half the width of the picture in [`UNIT`]s.
const MIDDLE: i32 = super::raster::PIXELS as i32 * UNIT / 2;
/// From the middle of the picture to either of two things that lie side by side.
const HALF_DISTANCE: i32 = 15 * UNIT;
/// The least distance to the border.
const BORDER: i32 = UNIT + UNIT / 2;

/// `content` with places for its objects; none if its shapes do not fit each other there, such as a heart in a cross.
pub(super) fn place(content: SceneContent, jitter: Jitter) -> Option<Scene> {
    let objects: Vec<Object> = content.objects().collect();
    let radius = |index: usize| {
        let base = match (content.relation, objects[index].size, index) {
            (Relation::Inside, _, 0) => 6 * UNIT,
            (Relation::Inside, _, 1) => 15 * UNIT,
            (_, Size::Small, _) => 7 * UNIT,
            (_, Size::Large, _) => 12 * UNIT,
        };
        base + jitter.growth[index]
    };
    let mut placed: Vec<PlacedObject> = objects
        .iter()
        .enumerate()
        .map(|(index, &object)| PlacedObject { object, x: 0, y: 0, radius: radius(index) })
        .collect();

    let (first, second) = pair(content.relation, &placed, &jitter)?;
    (placed[0].x, placed[0].y) = first;
    (placed[1].x, placed[1].y) = second;
    if let Some((side, _)) = content.third {
        let gap = 3 * UNIT + placed[2].radius;
        let low = |axis: fn(&PlacedObject) -> i32| placed[..2].iter().map(|p| axis(p) - p.radius).min();
        let high = |axis: fn(&PlacedObject) -> i32| placed[..2].iter().map(|p| axis(p) + p.radius).max();
        let (x, y) = match side {
            Side::Left => (low(|p| p.x)? - gap, 0),
            Side::Right => (high(|p| p.x)? + gap, 0),
            Side::Above => (0, low(|p| p.y)? - gap),
            Side::Below => (0, high(|p| p.y)? + gap),
        };
        (placed[2].x, placed[2].y) = (x, y);
    }
    for (object, nudge) in placed.iter_mut().zip(jitter.nudges) {
        // Objects that overlap were fitted to each other: they move together.
        let nudge =
            if matches!(content.relation, Relation::Inside | Relation::InFrontOf) { jitter.nudges[0] } else { nudge };
        object.x += nudge.0;
        object.y += nudge.1;
    }
    centre(&mut placed, jitter.shift)?;
    Some(Scene { content, objects: placed, jitter })
}

/// Places of the first two objects around the origin.
fn pair(relation: Relation, placed: &[PlacedObject], jitter: &Jitter) -> Option<((i32, i32), (i32, i32))> {
    let (front, back) = (placed[0], placed[1]);
    match relation {
        Relation::LeftOf => Some(((-HALF_DISTANCE, 0), (HALF_DISTANCE, 0))),
        Relation::Above => Some(((0, -HALF_DISTANCE), (0, HALF_DISTANCE))),
        Relation::Inside => {
            let spot = (0, outline::middle(back.object.shape) * back.radius / 100);
            let fits = outline::overlap(front, spot, back, (0, 0)).covers_front(100);
            fits.then_some((spot, (0, 0)))
        }
        // As far apart as still overlaps clearly.
        Relation::InFrontOf => (7..15).rev().find_map(|share| {
            let distance = (front.radius + back.radius) * share / 16;
            let spot = (jitter.direction.0 * distance / 25, jitter.direction.1 * distance / 25);
            outline::overlap(front, spot, back, (0, 0)).is_clear().then_some((spot, (0, 0)))
        }),
    }
}

/// Moves everything into the middle of the picture and then by `shift`, as far as there is room; none if there is not
/// enough for the objects.
fn centre(placed: &mut [PlacedObject], shift: (i32, i32)) -> Option<()> {
    let offset = |low: i32, high: i32, shift: i32| {
        let room = MIDDLE - BORDER - (high - low + 1) / 2;
        (room >= 0).then(|| MIDDLE - (low + high) / 2 + shift.clamp(-room, room))
    };
    let low = |axis: fn(&PlacedObject) -> i32| placed.iter().map(|p| axis(p) - p.radius).min();
    let high = |axis: fn(&PlacedObject) -> i32| placed.iter().map(|p| axis(p) + p.radius).max();
    let x = offset(low(|p| p.x)?, high(|p| p.x)?, shift.0)?;
    let y = offset(low(|p| p.y)?, high(|p| p.y)?, shift.1)?;
    for object in placed {
        object.x += x;
        object.y += y;
    }
    Some(())
}
