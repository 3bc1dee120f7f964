//! Checks applied to every request: host, origin and token on the way in; headers, log and counters on the way out.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use laps_files::{sha256, utc_now};
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::{app::App, failure::Failure};

/// Paths that need no token: they hold nothing of the index.
const PUBLIC: [&str; 6] = ["/", "/page.css", "/page.js", "/healthz", "/readyz", "/openapi.json"];

/// Headers of every answer. The page loads only its own files and shows only images of this server.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let _in_flight = app.metrics.begin();
    // The route and not the path, which anybody can make up.
    let endpoint = request.extensions().get::<MatchedPath>().map_or("none", |path| path.as_str()).to_owned();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = match check(&app, &request, &path) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
    let (status, time) = (response.status().as_u16(), began.elapsed());
    app.metrics.request(&endpoint, status, time);
    if app.log {
        let line = json!({
            "time": utc_now(),
            "method": method.as_str(),
            "path": path,
            "status": status,
            "ms": (time.as_secs_f64() * 1e6).round() / 1e3,
        });
        eprintln!("{line}");
    }
    response
}

fn check(app: &App, request: &Request, path: &str) -> Result<(), Failure> {
    let headers = request.headers();
    let host = header_text(headers, &header::HOST);
    if app.local_names_only && !host.is_some_and(is_local) {
        // A page of another site can have its name resolved to this machine.
        let message = "the `Host` of the request is not this machine\n  expected: localhost or a loopback address";
        return Err(Failure::new(StatusCode::FORBIDDEN, message)
            .with_hint("a server with a token accepts requests under other names"));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if site.is_none() || site != host {
            return Err(Failure::new(StatusCode::FORBIDDEN, "requests of pages of other sites are not answered"));
        }
    }
    match &app.token {
        Some(token) if !PUBLIC.contains(&path) => check_token(token, headers),
        _ => Ok(()),
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether a `Host` header names this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Compares hashes, in a time that does not depend on where they differ.
fn check_token(expected: &[u8; 32], headers: &HeaderMap) -> Result<(), Failure> {
    let given = header_text(headers, &header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match given {
        Some(token) if bool::from(sha256(token.as_bytes()).ct_eq(expected)) => Ok(()),
        given => {
            let found = if given.is_some() { "another one" } else { "none" };
            let message = format!(
                "the token of the request cannot be used\n  expected: `Authorization: Bearer` and the token of the server\n  found: {found}"
            );
            Err(Failure::new(StatusCode::UNAUTHORIZED, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "LocalHost:80", "127.0.0.1:8080", "127.3.2.1", "[::1]", "[::1]:80"] {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["", "example.org", "localhost.example.org", "127.0.0.1.example.org", "10.0.0.1:80", "[::2]:80", ":80"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
