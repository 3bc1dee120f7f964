//! The trait of a place that a file is read from, and the interpretation of HTTP responses as files.

use std::io::Read;

use reqwest::{
    StatusCode,
    blocking::Response,
    header::{
        ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
        LAST_MODIFIED, RETRY_AFTER, TRANSFER_ENCODING,
    },
};

use super::{FetchError, html::describe_page, range::ContentRange};
use laps_files::ExpectedDigest;

/// Where a download resumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResumePoint {
    /// Offset of the first byte requested.
    pub(super) from: u64,
    /// The strong `ETag` or the `Last-Modified` of the partial file.
    pub(super) validator: Option<String>,
}

/// An opened source.
pub(super) struct OpenedSource {
    /// Offset of the first byte of `body` in the file.
    pub(super) start: u64,
    /// Size of the whole file.
    pub(super) total: Option<u64>,
    /// Strong `ETag` or `Last-Modified`, to check later that the file has not changed.
    pub(super) validator: Option<String>,
    /// Whether the end of `body` is marked, so that it can be told from a dropped connection.
    pub(super) framed: bool,
    /// Size and hashes stated by the service.
    pub(super) stated: ExpectedDigest,
    /// Commit that the requested branch points to.
    pub(super) revision: Option<String>,
    pub(super) body: Box<dyn Read>,
}

/// A place that one file is read from: a URL, a hub repository, a Drive folder, a local file.
pub(super) trait ByteSource {
    /// Name in errors and pins.
    fn label(&self) -> String;

    /// Identifies the file across processes: equal for the same file of the same source.
    fn identity(&self) -> String {
        self.label()
    }

    /// Whether reading it needs no network.
    fn is_local(&self) -> bool {
        false
    }

    /// Opens the file at `resume`, or at its start if the source does not support ranges.
    fn open(&mut self, resume: Option<&ResumePoint>) -> Result<OpenedSource, FetchError>;
}

/// Checks the response to a request for a file, or with `resume` for the rest of one.
pub(super) fn interpret(
    label: &str,
    response: Response,
    resume: Option<&ResumePoint>,
) -> Result<OpenedSource, FetchError> {
    let url = || label.to_owned();
    let headers = response.headers();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let wrong_range = |expected: String, found: String| Err(FetchError::Range { url: url(), expected, found });
    let announced = content_length(headers);
    let (start, total) = match (response.status(), resume) {
        (StatusCode::OK, _) => (0, announced),
        (StatusCode::PARTIAL_CONTENT, None) => {
            return wrong_range("the whole file".to_owned(), "a range that was not requested".to_owned());
        }
        (StatusCode::PARTIAL_CONTENT, Some(resume)) => {
            let expected = format!("bytes {}- to the end", resume.from);
            let value = text(CONTENT_RANGE).unwrap_or_default();
            match ContentRange::parse(&value) {
                Some(range)
                    if range.first == resume.from
                        && range.last == range.total - 1
                        && announced.is_none_or(|length| length == range.total - range.first) =>
                {
                    (range.first, Some(range.total))
                }
                _ => return wrong_range(expected, format!("`{}`", value.escape_debug())),
            }
        }
        (status, _) => {
            let retry_after = text(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
            return Err(FetchError::Status { url: url(), status: status.as_u16(), retry_after });
        }
    };
    if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(FetchError::Encoded { url: url(), encoding });
    }
    if text(CONTENT_TYPE).is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("text/html")) {
        return Err(FetchError::Page { url: url(), found: describe_response(response) });
    }
    let etag = text(ETAG).filter(|etag| etag.starts_with('"'));
    let validator = etag.or_else(|| text(LAST_MODIFIED)).filter(|_| text(ACCEPT_RANGES).as_deref() != Some("none"));
    let framed = announced.is_some() || headers.contains_key(TRANSFER_ENCODING);
    let stated = ExpectedDigest::default();
    Ok(OpenedSource { start, total, validator, framed, stated, revision: None, body: Box::new(response) })
}

/// `Content-Length`; None for a chunked body.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Describes a web page by its title.
fn describe_response(response: Response) -> String {
    /// Bytes that are read; titles stand near the beginning.
    const HEAD: u64 = 1 << 16;
    let mut bytes = Vec::new();
    // A truncated page still has a title.
    let _ = response.take(HEAD).read_to_end(&mut bytes);
    describe_page(&String::from_utf8_lossy(&bytes))
}

/// Whether a file begins like a web page, whatever its content type.
pub(super) fn looks_like_a_page(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    [&b"<!doctype html"[..], b"<html", b"<head"]
        .iter()
        .any(|opening| head.get(..opening.len()).is_some_and(|head| head.eq_ignore_ascii_case(opening)))
}
