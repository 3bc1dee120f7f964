//! Parses a YAML text to values, or up to the line of one of them.
//!
//! The parser reports positions only in errors, so finding a line means to fail there on purpose.

use std::{collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Mapping, Value};

/// The keys whose value decides how the other keys of their mapping are read, so that they come first.
const TAGS: [&str; 2] = ["model_type", "type"];

/// A step from a mapping or a list to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The value of this key.
    Key(String),
    /// The element of a list at this index.
    Index(usize),
}

/// Parses `text`. Keys have to be texts, each once in its mapping; tags such as `!name` are refused.
pub(super) fn parse(text: &str) -> serde_yaml::Result<Value> {
    Walk { target: None }.deserialize(serde_yaml::Deserializer::from_str(text))
}

/// The line, counted from 1, of the key or list element that `steps` lead to. None for the root, and where they lead
/// nowhere.
pub(super) fn line(text: &str, steps: &[Step]) -> Option<usize> {
    let walk = Walk { target: Some(steps).filter(|steps| !steps.is_empty()) };
    let error = walk.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    error.location().map(|location| location.line())
}

/// Reads a value, and fails at `target` if that is in it.
#[derive(Clone, Copy)]
struct Walk<'a> {
    target: Option<&'a [Step]>,
}

impl Walk<'_> {
    fn descend(self, step: &Step) -> Self {
        let (first, rest) = self.target.and_then(<[Step]>::split_first).unzip();
        Self { target: rest.filter(|_| first == Some(step)) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.target.is_some_and(<[Step]>::is_empty) {
            return deserializer.deserialize_any(Arrival).map(|()| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value, a list or a mapping")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self.descend(&Step::Index(items.len())))? {
            items.push(item);
        }
        Ok(Value::Sequence(items))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("a tag such as `!name` is not allowed"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut seen = HashSet::new();
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key_seed(NewKey { seen: &mut seen, target: self.target })? {
            let value = map.next_value_seed(self.descend(&Step::Key(key.clone())))?;
            pairs.push((key, value));
        }
        pairs.sort_by_key(|(key, _)| !TAGS.contains(&key.as_str()));
        Ok(Value::Mapping(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect::<Mapping>()))
    }
}

/// A key that was not seen before in its mapping. Fails while the key is read, so that the error has its line.
struct NewKey<'a> {
    seen: &'a mut HashSet<String>,
    target: Option<&'a [Step]>,
}

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        if !self.seen.insert(key.to_owned()) {
            return Err(E::custom(format!("the key `{key}` is given twice")));
        }
        if matches!(self.target, Some([Step::Key(target)]) if target == key) {
            return Err(E::custom("the target"));
        }
        Ok(key.to_owned())
    }
}

/// Fails at any value.
struct Arrival;

impl Visitor<'_> for Arrival {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the target")
    }
}
