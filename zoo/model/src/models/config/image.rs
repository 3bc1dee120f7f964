//! Deserialises [`ImageConfig`], whose `model_type` determines the other keys.
//!
//! It is written by hand, because the code that serde derives for a tagged enum loses the line and column of an error.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

use super::{ClipVisionConfig, ImageConfig, SwinConfig, VitConfig};

const TAG: &str = "model_type";

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ImageType {
    Vit,
    Swin,
    ClipVisionModel,
}

impl ImageType {
    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<ImageConfig, D::Error> {
        match self {
            Self::Vit => VitConfig::deserialize(deserializer).map(ImageConfig::Vit),
            Self::Swin => SwinConfig::deserialize(deserializer).map(ImageConfig::Swin),
            Self::ClipVisionModel => ClipVisionConfig::deserialize(deserializer).map(ImageConfig::ClipVisionModel),
        }
    }
}

impl<'de> Deserialize<'de> for ImageConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ImageVisitor)
    }
}

struct ImageVisitor;

impl<'de> Visitor<'de> for ImageVisitor {
    type Value = ImageConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ImageConfig, A::Error> {
        let Some(first) = map.next_key::<String>()? else { return Err(A::Error::missing_field(TAG)) };
        if first == TAG {
            return map.next_value::<ImageType>()?.read(MapAccessDeserializer::new(map));
        }
        let mut fields = Map::from_iter([(first, map.next_value::<Value>()?)]);
        while let Some((key, value)) = map.next_entry()? {
            if fields.insert(key, value).is_some() {
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        let model_type = fields.remove(TAG).ok_or_else(|| A::Error::missing_field(TAG))?;
        let model_type: ImageType = serde_json::from_value(model_type).map_err(A::Error::custom)?;
        model_type.read(Value::Object(fields)).map_err(A::Error::custom)
    }
}
