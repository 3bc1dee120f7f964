//! The line of a text at which something stands.
//!
//! The parser tells positions through errors only. So the text is read a second time, along the steps to the value, and
//! the reading fails on purpose when it arrives.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fault::Step;

/// The line, counted from 1, of the key or list entry that `steps` lead to. None for the root, and where they lead nowhere.
pub(super) fn line(text: &str, steps: &[Step]) -> Option<usize> {
    let (first, rest) = steps.split_first()?;
    let arrival = Along { first, rest }.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    arrival.location().map(|location| location.line())
}

/// Goes the step `first`, and then the others.
#[derive(Clone, Copy)]
struct Along<'a> {
    first: &'a Step,
    rest: &'a [Step],
}

impl<'a> Along<'a> {
    fn next(self) -> Option<Self> {
        self.rest.split_first().map(|(first, rest)| Self { first, rest })
    }
}

impl<'de> DeserializeSeed<'de> for Along<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Along<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place that the steps lead to")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(KeyAt(self))? {
            match self.next() {
                Some(next) if found => map.next_value_seed(next)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let there = *self.first == Step::Index(index);
            let more = match self.next() {
                Some(next) if there => list.next_element_seed(next)?.is_some(),
                None if there => list.next_element_seed(Arrival)?.is_some(),
                _ => list.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// Whether a key is that of the step; fails at the key of the last step.
struct KeyAt<'a>(Along<'a>);

impl<'de> DeserializeSeed<'de> for KeyAt<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyAt<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        let found = matches!(self.0.first, Step::Key(step) if step == key);
        if found && self.0.rest.is_empty() { Err(E::custom("arrived")) } else { Ok(found) }
    }
}

/// Fails at whatever it is given.
struct Arrival;

impl<'de> DeserializeSeed<'de> for Arrival {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Arrival {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the end of the steps")
    }
}
