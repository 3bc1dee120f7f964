//! Deserialises [`HeadConfig`]: a type alone, or a mapping whose `type` determines the other keys.
//!
//! It is written by hand, because the code that serde derives for a tagged enum accepts no type alone and loses the line of an
//! error.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{
        Error, IntoDeserializer, MapAccess, Visitor,
        value::{MapAccessDeserializer, MapDeserializer},
    },
};
use serde_json::{Map, Value};

use super::{Ablation, ChanAggregation, D2sVseConfig, HeadConfig, Pooling};

const TAG: &str = "type";
const DEFAULT_EMBED_SIZE: usize = 512;
const DEFAULT_SIM_DIM: usize = 256;
const DEFAULT_STEPS: usize = 3;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeadType {
    Laps,
    LapsAblation,
    Cosine,
    Vsepp,
    ScanT2i,
    ScanI2t,
    ScanAll,
    MaxMean,
    Sgr,
    Chan,
    D2sVse,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LapsAblationOptions {
    ablation: Ablation,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CosineOptions {
    embed_size: usize,
}

impl Default for CosineOptions {
    fn default() -> Self {
        Self { embed_size: DEFAULT_EMBED_SIZE }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct VseppOptions {
    pooling: Pooling,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SgrOptions {
    sim_dim: usize,
    steps: usize,
}

impl Default for SgrOptions {
    fn default() -> Self {
        Self { sim_dim: DEFAULT_SIM_DIM, steps: DEFAULT_STEPS }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ChanOptions {
    aggregation: ChanAggregation,
}

impl HeadType {
    /// The head with the options in the rest of a mapping.
    fn read<'de, M: MapAccess<'de>>(self, mut options: M) -> Result<HeadConfig, M::Error> {
        let without_options = match self {
            Self::LapsAblation => {
                let LapsAblationOptions { ablation } = Deserialize::deserialize(MapAccessDeserializer::new(options))?;
                return Ok(HeadConfig::LapsAblation { ablation });
            }
            Self::Cosine => {
                let CosineOptions { embed_size } = Deserialize::deserialize(MapAccessDeserializer::new(options))?;
                return Ok(HeadConfig::Cosine { embed_size });
            }
            Self::Vsepp => {
                let VseppOptions { pooling } = Deserialize::deserialize(MapAccessDeserializer::new(options))?;
                return Ok(HeadConfig::Vsepp { pooling });
            }
            Self::Sgr => {
                let SgrOptions { sim_dim, steps } = Deserialize::deserialize(MapAccessDeserializer::new(options))?;
                return Ok(HeadConfig::Sgr { sim_dim, steps });
            }
            Self::Chan => {
                let ChanOptions { aggregation } = Deserialize::deserialize(MapAccessDeserializer::new(options))?;
                return Ok(HeadConfig::Chan { aggregation });
            }
            Self::D2sVse => {
                return D2sVseConfig::deserialize(MapAccessDeserializer::new(options)).map(HeadConfig::D2sVse);
            }
            Self::Laps => HeadConfig::Laps,
            Self::ScanT2i => HeadConfig::ScanT2i,
            Self::ScanI2t => HeadConfig::ScanI2t,
            Self::ScanAll => HeadConfig::ScanAll,
            Self::MaxMean => HeadConfig::MaxMean,
        };
        match options.next_key::<String>()? {
            Some(key) => Err(M::Error::unknown_field(&key, &[TAG])),
            None => Ok(without_options),
        }
    }
}

impl<'de> Deserialize<'de> for HeadConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HeadVisitor)
    }
}

struct HeadVisitor;

impl<'de> Visitor<'de> for HeadVisitor {
    type Value = HeadConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type of a head or a mapping with one")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<HeadConfig, E> {
        let options = MapDeserializer::new(std::iter::empty::<(&str, usize)>());
        HeadType::deserialize(text.into_deserializer())?.read(options)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeadConfig, A::Error> {
        let Some(first) = map.next_key::<String>()? else { return Err(A::Error::missing_field(TAG)) };
        if first == TAG {
            return map.next_value::<HeadType>()?.read(map);
        }
        let mut fields = Map::from_iter([(first, map.next_value::<Value>()?)]);
        while let Some((key, value)) = map.next_entry()? {
            if fields.insert(key, value).is_some() {
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        let head = fields.remove(TAG).ok_or_else(|| A::Error::missing_field(TAG))?;
        let head: HeadType = serde_json::from_value(head).map_err(A::Error::custom)?;
        head.read(MapDeserializer::new(fields.into_iter())).map_err(A::Error::custom::<serde_json::Error>)
    }
}
