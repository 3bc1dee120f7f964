//! From the bytes of a request to what is encoded.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

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

/// The body of a request as JSON, from `application/json` or `multipart/form-data`.
pub(crate) async fn read<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Failure> {
    let (parts, body) = request.into_parts();
    let kind = ContentKind::of(&parts.headers)?;
    let bytes = read_bytes(app, &parts.headers, body).await?;
    kind.parse(bytes, app.limits.inputs).await
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

    /// The request in `bytes`. A form has at most about `inputs` fields.
    pub(crate) async fn parse<T: DeserializeOwned>(self, bytes: Bytes, inputs: usize) -> Result<T, Failure> {
        match self {
            Self::Json => parse(&bytes),
            Self::Form { boundary } => {
                let value = form(bytes, boundary, inputs).await?;
                serde_path_to_error::deserialize(value).map_err(unusable)
            }
        }
    }
}

async fn read_bytes(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Failure> {
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
    let kilobytes = u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
    let room = app.bodies.try_acquire_many(kilobytes);
    let _room = room.map_err(|_| Failure::overloaded("too many large requests are being read"))?;
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
    timeout(app.limits.read_time, collect).await.unwrap_or_else(|_| Err(too_slow(app.limits.read_time)))
}

fn too_slow(limit: Duration) -> Failure {
    let message = format!("the body did not arrive within {} s", limit.as_secs());
    Failure::new(StatusCode::REQUEST_TIMEOUT, message)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // First as any JSON, so that what is no JSON and what has other fields are told apart.
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}")))?;
    serde_path_to_error::deserialize(value).map_err(unusable)
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
