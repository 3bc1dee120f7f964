//! Reads a type from a tree, and keeps track of where in the tree a fault is.

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};

use super::{
    super::error::list,
    fault::{Fault, Problem, Step},
    node::Node,
};

/// A node to read from.
pub(super) struct Reader<'a>(pub(super) &'a Node);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Unsigned(number) => visitor.visit_u64(*number),
            Node::Signed(number) => visitor.visit_i64(*number),
            Node::Float(number) => visitor.visit_f64(*number),
            Node::Text(text) => visitor.visit_borrowed_str(text),
            Node::List(nodes) => {
                let mut entries = Entries { nodes, next: 0 };
                let value = visitor.visit_seq(&mut entries)?;
                if entries.next < nodes.len() {
                    return Err(Fault::invalid_length(nodes.len(), &format!("a list of {}", entries.next).as_str()));
                }
                Ok(value)
            }
            Node::Mapping(nodes) => {
                // What `model_type` says decides how its neighbours are read, so it comes first wherever it stands.
                let (first, rest): (Vec<_>, Vec<_>) = nodes.iter().partition(|(key, _)| key == "model_type");
                visitor.visit_map(Fields {
                    rest: first.into_iter().chain(rest).collect::<Vec<_>>().into_iter(),
                    value: None,
                })
            }
        }
    }

    /// By name only: the fields of a type have no order that a list could follow.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Node::Mapping(_) => self.deserialize_any(visitor),
            other => Err(Fault::value("a mapping", other)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Node::Text(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            other => Err(Fault::value(format!("one of {}", list(known)), other)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Entries<'de> {
    nodes: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for &mut Entries<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let index = self.next;
        let Some(node) = self.nodes.get(index) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(Reader(node)).map(Some).map_err(|fault| fault.under(Step::Index(index)))
    }
}

struct Fields<'de> {
    rest: std::vec::IntoIter<&'de (String, Node)>,
    value: Option<&'de (String, Node)>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.rest.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| match fault.problem {
            Problem::Word { found, known } => Fault { problem: Problem::UnknownKey { key: found, known }, ..fault },
            _ => fault,
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, node) = self.value.take().ok_or_else(|| Fault::custom("a key before its value"))?;
        seed.deserialize(Reader(node)).map_err(|fault| fault.under(Step::Key(key.clone())))
    }
}
