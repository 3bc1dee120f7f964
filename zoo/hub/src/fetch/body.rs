//! Answers that are a file, or a part of one.

use std::io::Read;

use reqwest::{
    StatusCode,
    blocking::Response,
    header::{
        ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
        RETRY_AFTER, TRANSFER_ENCODING,
    },
};

use super::{ContentRange, FetchError};
use laps_files::Expected;

/// Where a download goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    /// The first byte that is asked for.
    pub(super) from: u64,
    /// What the file had as its strong `ETag` or its `Last-Modified`.
    pub(super) validator: Option<String>,
}

/// An open source.
pub(super) struct Opened {
    /// Offset of the first byte of `body` in the file.
    pub(super) start: u64,
    /// Size of the whole file.
    pub(super) total: Option<u64>,
    /// Tells whether it is still the same file later.
    pub(super) validator: Option<String>,
    /// Whether the end of `body` is marked, so that a broken connection is no end.
    pub(super) framed: bool,
    /// What the service states of the file.
    pub(super) stated: Expected,
    /// The commit that a branch stands for.
    pub(super) revision: Option<String>,
    pub(super) body: Box<dyn Read>,
}

/// Something that a file is read from.
pub(super) trait Source {
    /// How errors and pins name it.
    fn label(&self) -> String;

    /// The same for one file as long as it is the same file, from run to run.
    fn identity(&self) -> String {
        self.label()
    }

    /// Whether it is read without a network.
    fn is_local(&self) -> bool {
        false
    }

    /// Opens it, at `resume` if the source can. One that can not begins at the start.
    fn open(&mut self, resume: Option<&Resume>) -> Result<Opened, FetchError>;
}

/// Judges an answer to a request for a file, or with `resume` for the rest of one.
pub(super) fn interpret(label: &str, response: Response, resume: Option<&Resume>) -> Result<Opened, FetchError> {
    let url = || label.to_owned();
    let headers = response.headers();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let wrong_range = |expected: String, found: String| Err(FetchError::Range { url: url(), expected, found });
    let announced = content_length(headers);
    let (start, total) = match (response.status(), resume) {
        (StatusCode::OK, _) => (0, announced),
        (StatusCode::PARTIAL_CONTENT, None) => {
            return wrong_range("the whole file".to_owned(), "a part of it, unasked".to_owned());
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
        return Err(FetchError::Page { url: url(), found: page_title(response) });
    }
    let etag = text(ETAG).filter(|etag| etag.starts_with('"'));
    let validator = etag.or_else(|| text(LAST_MODIFIED)).filter(|_| text(ACCEPT_RANGES).as_deref() != Some("none"));
    let framed = announced.is_some() || headers.contains_key(TRANSFER_ENCODING);
    let stated = Expected::default();
    Ok(Opened { start, total, validator, framed, stated, revision: None, body: Box::new(response) })
}

/// The length that the server itself gives; none for a chunked body.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(reqwest::header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// What a page calls itself.
fn page_title(response: Response) -> String {
    /// Titles stand near the beginning.
    const HEAD: u64 = 1 << 16;
    let mut bytes = Vec::new();
    // A page that breaks off still says enough.
    let _ = response.take(HEAD).read_to_end(&mut bytes);
    title(&String::from_utf8_lossy(&bytes))
}

/// The title of a page, for people.
pub(super) fn title(page: &str) -> String {
    match super::drive::title(page) {
        Some(title) => format!("a page with the title `{}`", title.escape_debug()),
        None => "a page without a title".to_owned(),
    }
}

/// Whether a file begins as a web page does, whatever the server calls it.
pub(super) fn looks_like_a_page(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    [&b"<!doctype html"[..], b"<html", b"<head"]
        .iter()
        .any(|opening| head.get(..opening.len()).is_some_and(|head| head.eq_ignore_ascii_case(opening)))
}
