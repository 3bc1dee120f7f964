//! From the bytes of a request to what is encoded.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http_body_util::BodyExt;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    api::{Input, TaggedInput},
    app::App,
    failure::Failure,
    worker::Encodable,
};

/// Form fields that hold numbers.
const NUMBERS: [&str; 4] = ["top", "candidates", "top_n", "dimensions"];
/// Form fields that hold lists, also with one value.
const LISTS: [&str; 5] = ["input", "images", "texts", "documents", "filter"];

/// Most values of a JSON body besides its inputs: options, and the conditions of a filter.
const OTHER_VALUES: usize = 256;

/// Room for the body of a request among those of all requests. It is kept as long as the body, or what was read from it, is in
/// memory.
#[derive(Debug)]
pub(crate) struct BodyRoom(OwnedSemaphorePermit);

impl BodyRoom {
    fn reserve(bodies: &Arc<Semaphore>, bytes: u64) -> Result<Self, Failure> {
        let room = Arc::clone(bodies).try_acquire_many_owned(kibibytes(bytes));
        room.map(Self).map_err(|_| Failure::overloaded("the bodies of other requests are too large"))
    }

    /// The permit for `bytes` of it. The rest is released.
    pub(crate) fn into_permit(mut self, bytes: usize) -> OwnedSemaphorePermit {
        self.shrink(bytes);
        self.0
    }

    /// Releases what is not needed for `bytes`.
    fn shrink(&mut self, bytes: usize) {
        let unused = self.0.num_permits().saturating_sub(kibibytes(bytes as u64) as usize);
        drop(self.0.split(unused));
    }
}

/// The unit of the semaphore of bodies, at least 1.
fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX)
}

/// The body of a request as JSON, from `application/json` or `multipart/form-data`, and its room.
pub(crate) async fn read<T: DeserializeOwned>(app: &App, request: Request) -> Result<(T, BodyRoom), Failure> {
    let (parts, body) = request.into_parts();
    let kind = ContentKind::of(&parts.headers)?;
    let (bytes, room) = read_bytes(app, &parts.headers, body).await?;
    Ok((kind.parse(bytes, app.limits.inputs).await?, room))
}

pub(crate) enum ContentKind {
    Json,
    Form { boundary: String },
}

impl ContentKind {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            return Ok(Self::Json);
        }
        multer::parse_boundary(value).map(|boundary| Self::Form { boundary }).map_err(|_| {
            let message = format!(
                "the content type cannot be used\n  expected: application/json, or multipart/form-data with a boundary\n  found: {}",
                if value.is_empty() { "none" } else { value }
            );
            Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
        })
    }

    /// The request in `bytes`, which has room for `inputs` texts and images.
    pub(crate) async fn parse<T: DeserializeOwned>(self, bytes: Bytes, inputs: usize) -> Result<T, Failure> {
        match self {
            Self::Json => parse(&bytes, inputs),
            Self::Form { boundary } => {
                let value = form(bytes, boundary, inputs).await?;
                serde_path_to_error::deserialize(value).map_err(unusable)
            }
        }
    }
}

async fn read_bytes(app: &App, headers: &HeaderMap, body: Body) -> Result<(Bytes, BodyRoom), Failure> {
    let limit = app.limits.body_bytes;
    let too_large = || {
        let message = format!("the body is too large\n  expected: at most {limit} bytes\n  found: more");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // A body of unknown length may take the whole limit.
    let bytes = stated.unwrap_or(limit as u64);
    if bytes > limit as u64 {
        return Err(too_large());
    }
    let mut room = BodyRoom::reserve(&app.bodies, bytes)?;
    let mut body = body;
    let collect = async {
        let mut collected = Vec::with_capacity(stated.map_or(0, |bytes| bytes as usize));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "the body ends early"))?;
            if let Ok(data) = frame.into_data() {
                if collected.len() + data.len() > limit {
                    return Err(too_large());
                }
                collected.extend_from_slice(&data);
            }
        }
        Ok(Bytes::from(collected))
    };
    let read_time = app.limits.read_time;
    let collected = timeout(read_time, collect).await.unwrap_or_else(|_| Err(too_slow(read_time)))?;
    room.shrink(collected.len());
    Ok((collected, room))
}

fn too_slow(limit: Duration) -> Failure {
    let message = format!("the body did not arrive within {} s", limit.as_secs());
    Failure::new(StatusCode::REQUEST_TIMEOUT, message)
}

fn parse<T: DeserializeOwned>(bytes: &[u8], inputs: usize) -> Result<T, Failure> {
    // An input is a text or an object with one. In memory a value takes up to a hundred times its bytes, so they are counted
    // before they are built.
    let mut left = inputs.saturating_mul(2).saturating_add(OTHER_VALUES);
    let counted = ValueCounter(&mut left).deserialize(&mut serde_json::Deserializer::from_slice(bytes));
    if counted.is_err() && left == 0 {
        return Err(too_many(inputs));
    }
    // First as any JSON, so that what is no JSON and what has other fields are told apart.
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}")))?;
    serde_path_to_error::deserialize(value).map_err(unusable)
}

/// Counts the values of a JSON document down, and fails if none is left. It keeps none of them.
struct ValueCounter<'a>(&'a mut usize);

impl<'de> DeserializeSeed<'de> for ValueCounter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let too_many = || <D::Error as serde::de::Error>::custom("too many values");
        *self.0 = self.0.checked_sub(1).ok_or_else(too_many)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueCounter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while values.next_element_seed(ValueCounter(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key::<IgnoredAny>()?.is_some() {
            fields.next_value_seed(ValueCounter(self.0))?;
        }
        Ok(())
    }
}

fn unusable(error: serde_path_to_error::Error<serde_json::Error>) -> Failure {
    let path = error.path().to_string();
    let place = if path == "." { String::new() } else { format!("`{path}`: ") };
    let message = format!("the body cannot be used: {place}{}", error.into_inner());
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, message)
}

/// The fields of a form as JSON. A file becomes the `data:` URL that it would be in JSON.
async fn form(bytes: Bytes, boundary: String, inputs: usize) -> Result<Value, Failure> {
    let invalid = |error: multer::Error| {
        let message = format!("the form is not valid\n  expected: multipart/form-data\n  found: {error}");
        Failure::new(StatusCode::BAD_REQUEST, message)
    };
    let mut form = multer::Multipart::new(Body::from(bytes).into_data_stream(), boundary);
    let mut fields: Map<String, Value> = Map::new();
    let mut count = 0;
    while let Some(field) = form.next_field().await.map_err(invalid)? {
        count += 1;
        // Besides the inputs there are a few options.
        if count > inputs + 16 {
            return Err(too_many(inputs));
        }
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(Failure::new(StatusCode::BAD_REQUEST, "a field of the form has no name"));
        };
        let value = if field.file_name().is_some() {
            let data = field.bytes().await.map_err(invalid)?;
            let url = format!("data:application/octet-stream;base64,{}", BASE64_STANDARD.encode(&data));
            Value::from(Map::from_iter([("image".to_owned(), Value::from(url))]))
        } else {
            let text = field.text().await.map_err(invalid)?;
            match text.trim().parse::<u64>() {
                Ok(number) if NUMBERS.contains(&name.as_str()) => Value::from(number),
                _ => Value::from(text),
            }
        };
        let is_list = LISTS.contains(&name.as_str());
        match fields.get_mut(&name) {
            Some(Value::Array(values)) => values.push(value),
            Some(_) => return Err(Failure::field(&name, "one value", "several")),
            None => {
                fields.insert(name, if is_list { Value::Array(vec![value]) } else { value });
            }
        }
    }
    Ok(Value::Object(fields))
}

pub(crate) fn too_many(limit: usize) -> Failure {
    let message =
        format!("too many inputs\n  expected: at most {limit} texts and images in one request\n  found: more");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

impl From<Input> for TaggedInput {
    fn from(input: Input) -> Self {
        match input {
            Input::Plain(text) if text.starts_with("data:") => Self::Image(text),
            Input::Plain(text) => Self::Text(text),
            Input::Tagged(input) => input,
        }
    }
}

/// Checks an input, and decodes it if it is an image. `field` names it in errors.
pub(crate) async fn encodable(app: &App, field: &str, input: Input) -> Result<Encodable, Failure> {
    match TaggedInput::from(input) {
        // As the command does.
        TaggedInput::Text(text) => Ok(Encodable::Text(text.trim().to_owned())),
        TaggedInput::Image(url) => app.decode(data_url(field, &url)?, field.to_owned()).await,
        TaggedInput::Item(item) => Ok(Encodable::Item(item)),
    }
}

/// The bytes of a `data:` URL in base64. Its media type does not matter: the content decides the format.
pub(crate) fn data_url(field: &str, url: &str) -> Result<Vec<u8>, Failure> {
    let expected = "`data:image/...;base64,` and the file in base64";
    let Some((head, data)) = url.strip_prefix("data:").and_then(|rest| rest.split_once(',')) else {
        return Err(Failure::field(field, expected, "no `data:` URL").with_hint("the server does not fetch URLs"));
    };
    if !head.ends_with(";base64") {
        return Err(Failure::field(field, expected, "another encoding"));
    }
    BASE64_STANDARD.decode(data).map_err(|error| Failure::field(field, expected, error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::BodyRoom;

    #[test]
    fn room_is_released_but_for_the_bytes_that_are_kept() {
        let bodies = Arc::new(Semaphore::new(20));
        let room = BodyRoom::reserve(&bodies, 10 << 10).unwrap();
        assert_eq!(bodies.available_permits(), 10);
        assert!(BodyRoom::reserve(&bodies, (10 << 10) + 1).is_err());
        let permit = room.into_permit(1025);
        assert_eq!(bodies.available_permits(), 18);
        drop(permit);
        assert_eq!(bodies.available_permits(), 20);
    }
}
