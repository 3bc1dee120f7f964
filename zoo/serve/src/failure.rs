//! Errors of requests, as JSON.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// An error answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    message: String,
    hint: Option<String>,
}

/// Body of every answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// The kind of error, a name for the status.
    r#type: &'static str,
    /// The error, with the expected and the found value.
    message: String,
    /// Suggested fix, if known.
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// A field whose value has the right type and cannot be used.
    pub(crate) fn field(field: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Self {
        let message = format!("`{field}` cannot be used\n  expected: {expected}\n  found: {found}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// The server has no room for the request.
    pub(crate) fn overloaded(what: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, format!("the server is busy: {what}")).with_hint("try again later")
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed; the log of the server has the reason")
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "bad_request",
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::REQUEST_TIMEOUT => "request_timeout",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            StatusCode::UNPROCESSABLE_ENTITY => "invalid_request",
            StatusCode::TOO_MANY_REQUESTS => "overloaded",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            _ => "internal",
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let detail = ErrorDetail { r#type: self.kind(), message: self.message, hint: self.hint };
        let mut response = (self.status, Json(ErrorBody { error: detail })).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

/// Caller errors are returned; all others are only logged.
impl From<laps::Error> for Failure {
    fn from(error: laps::Error) -> Self {
        use laps_search::SearchError;

        let status = match &error {
            laps::Error::Data(_)
            | laps::Error::NotExplained { .. }
            | laps::Error::Search(
                laps_search::Error::Data(_)
                | laps_search::Error::Search(
                    SearchError::Image { .. }
                    | SearchError::Kind { .. }
                    | SearchError::NoItem { .. }
                    | SearchError::NoMetadata { .. }
                    | SearchError::Option { .. },
                ),
            ) => StatusCode::UNPROCESSABLE_ENTITY,
            laps::Error::Search(laps_search::Error::Store(store)) if store.is_temporary() => {
                eprint!("error: {}", laps::describe(&error, None));
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer");
            }
            _ => {
                eprint!("error: {}", laps::describe(&error, None));
                return Self::internal();
            }
        };
        Self { status, message: laps::describe(&error, None).trim_end().to_owned(), hint: error.hint() }
    }
}

impl From<laps_search::Error> for Failure {
    fn from(error: laps_search::Error) -> Self {
        laps::Error::from(error).into()
    }
}

impl From<laps_align::Error> for Failure {
    fn from(error: laps_align::Error) -> Self {
        laps::Error::from(error).into()
    }
}
