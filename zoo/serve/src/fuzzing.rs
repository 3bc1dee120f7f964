//! The reading of a body without a server, for the fuzz target.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use laps_search::Filter;

use crate::{
    Limits,
    api::{EmbeddingsRequest, ExplainRequest, Inputs, RerankRequest, ScoreRequest, SearchRequest, TaggedInput},
    body::{ContentKind, data_url},
    failure::Failure,
};

/// The status with which the endpoint `path` refuses a body before anything is encoded, with the default limits; 200 if it does
/// not.
pub fn body_status(path: &str, content_type: &str, body: Vec<u8>) -> u16 {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return 500 };
    let outcome = runtime.block_on(check(path, content_type, Bytes::from(body)));
    outcome.map_or_else(|failure| failure.status.as_u16(), |()| StatusCode::OK.as_u16())
}

async fn check(path: &str, content_type: &str, body: Bytes) -> Result<(), Failure> {
    let mut headers = HeaderMap::new();
    headers.extend(HeaderValue::from_str(content_type).ok().map(|value| (header::CONTENT_TYPE, value)));
    let kind = ContentKind::of(&headers)?;
    let limit = Limits::default().inputs;
    let inputs = match path {
        "/v1/search" => {
            let SearchRequest { query, filter, .. } = kind.parse(body, limit).await?;
            Filter::parse(&filter).map_err(laps_search::Error::from)?;
            vec![query]
        }
        "/v1/embeddings" => match kind.parse::<EmbeddingsRequest>(body, limit).await?.input {
            Inputs::One(input) => vec![input],
            Inputs::Many(inputs) => inputs,
        },
        "/v1/score" => {
            let ScoreRequest { images, texts } = kind.parse(body, limit).await?;
            images.into_iter().chain(texts).collect()
        }
        "/v1/rerank" => {
            let RerankRequest { query, documents, .. } = kind.parse(body, limit).await?;
            documents.into_iter().chain([query]).collect()
        }
        "/v1/explain" => vec![kind.parse::<ExplainRequest>(body, limit).await?.image],
        _ => return Err(Failure::new(StatusCode::NOT_FOUND, "there is no such path")),
    };
    for input in inputs {
        if let TaggedInput::Image(url) = TaggedInput::from(input) {
            data_url("input", &url)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::body_status;

    /// The calls of the fuzz target, on its seeds.
    #[test]
    fn bodies_are_refused_with_the_status_of_their_fault() {
        const JSON: &str = "application/json";
        const FORM: &str = "multipart/form-data; boundary=X";
        let form = |name: &str, value: &str| {
            format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n--X--\r\n")
        };
        let file = "--X\r\nContent-Disposition: form-data; name=\"query\"; filename=\"a\"\r\n\r\n\u{1}\r\n--X--\r\n";
        for (path, kind, body, status) in [
            ("/v1/search", JSON, r#"{"query":"a red circle","filter":["year > 2000"]}"#.to_owned(), 200),
            ("/v1/search", JSON, r#"{"query":"a","filter":["year"]}"#.to_owned(), 422),
            ("/v1/search", JSON, r#"{"query":{"image":"data:image/png;base64,!"}}"#.to_owned(), 422),
            ("/v1/search", JSON, "{".to_owned(), 400),
            ("/v1/search", JSON, "[".repeat(200_000), 400),
            ("/v1/search", JSON, format!("{{{}\"query\":1}}", "\"a\":{},".repeat(1000)), 413),
            ("/v1/search", JSON, format!("{{\"query\":\"a\",\"filter\":[{}0]}}", "0,".repeat(200)), 422),
            ("/v1/embeddings", JSON, format!("{{\"input\":[{}\"a\"]}}", "\"a\",".repeat(1000)), 413),
            ("/v1/search", FORM, form("query", "a red circle"), 200),
            ("/v1/search", FORM, file.to_owned(), 200),
            ("/v1/search", FORM, form("query", "a").replace("--X--", ""), 400),
            (
                "/v1/embeddings",
                JSON,
                r#"{"input":["a","data:;base64,AA=="],"encoding_format":"base64"}"#.to_owned(),
                200,
            ),
            ("/v1/score", JSON, r#"{"images":[{"item":18446744073709551615}],"texts":["a"]}"#.to_owned(), 200),
            ("/v1/rerank", JSON, r#"{"query":"a","documents":["data:;base64,A"],"top_n":1}"#.to_owned(), 422),
            ("/v1/explain", JSON, r#"{"image":{"item":1},"caption":"a"}"#.to_owned(), 200),
            ("/v1/explain", "text/plain", String::new(), 415),
            ("/v1/nothing", JSON, "{}".to_owned(), 404),
        ] {
            let start: String = body.chars().take(60).collect();
            assert_eq!(body_status(path, kind, body.into_bytes()), status, "{path} {kind} {start}");
        }
    }
}
