//! Requests: one client, redirects by our own rules, and nothing that the server could decide for us.

use std::{io::Read, sync::OnceLock, time::Duration};

use reqwest::{
    Url,
    blocking::{Client as Http, Response},
    header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, IF_RANGE, LOCATION, RANGE},
    redirect,
};

use super::{
    FetchError, Resume,
    policy::{MOST_HOPS, Policy, is_loopback},
};

/// Largest page that is read in bytes; a listing of a thousand files takes about 1 MB.
pub(super) const LARGEST_PAGE: u64 = 8 << 20;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until there is a connection.
    pub connect: Duration,
    /// Until the first byte of an answer, and from then on between any two.
    pub read: Duration,
}

impl Default for Timeouts {
    /// Servers that pack a file first can be silent for some time.
    fn default() -> Self {
        Self { connect: Duration::from_secs(20), read: Duration::from_secs(60) }
    }
}

/// What asks.
#[derive(Debug)]
pub(super) struct Client {
    timeouts: Timeouts,
    /// Through the proxy that the environment names, if it does.
    outside: OnceLock<Http>,
    /// To servers of this machine, without TLS.
    local: OnceLock<Http>,
}

/// A request.
pub(super) struct Ask<'a> {
    /// How errors and pins name it.
    pub(super) label: &'a str,
    pub(super) url: Url,
    pub(super) policy: &'a Policy,
    pub(super) resume: Option<&'a Resume>,
    /// Goes to the host of `url` alone.
    pub(super) token: Option<&'a str>,
}

/// The answer after every redirect.
pub(super) struct Answer {
    pub(super) response: Response,
    /// Headers of the redirects before it.
    pub(super) hops: Vec<HeaderMap>,
}

impl Client {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, outside: OnceLock::new(), local: OnceLock::new() }
    }

    /// Sends `ask` and follows redirects as its policy allows. Any status is an answer.
    pub(super) fn get(&self, ask: &Ask<'_>) -> Result<Answer, FetchError> {
        let failed = |source: reqwest::Error| self.failed(ask.label, source);
        let mut url = ask.url.clone();
        let mut hops = Vec::new();
        loop {
            let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
            if let Some(resume) = ask.resume {
                insert(&mut headers, RANGE, &format!("bytes={}-", resume.from));
                if let Some(validator) = &resume.validator {
                    insert(&mut headers, IF_RANGE, validator);
                }
            }
            let is_own = url.origin() == ask.url.origin() && (url.scheme() == "https" || is_loopback(&url));
            if let Some(token) = ask.token.filter(|_| is_own) {
                insert(&mut headers, AUTHORIZATION, &format!("Bearer {token}"));
            }
            let response = self.http(&url).map_err(failed)?.get(url.clone()).headers(headers).send().map_err(failed)?;
            let next = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
            let Some(next) = next else { return Ok(Answer { response, hops }) };
            let target = next.to_str().ok().and_then(|next| url.join(next).ok());
            let Some(target) = target.filter(|target| hops.len() < MOST_HOPS && ask.policy.allows(&url, target)) else {
                let to = match url.join(next.to_str().unwrap_or_default()) {
                    Ok(target) => bare(&target),
                    Err(_) => "what is no address".to_owned(),
                };
                return Err(FetchError::Redirect {
                    from: ask.label.to_owned(),
                    to,
                    expected: format!("{} within {MOST_HOPS} steps", ask.policy.describe()),
                });
            };
            hops.push(response.headers().clone());
            url = target;
        }
    }

    /// The text of a page.
    pub(super) fn page(&self, label: &str, response: Response) -> Result<String, FetchError> {
        let mut bytes = Vec::new();
        let read = response.take(LARGEST_PAGE + 1).read_to_end(&mut bytes);
        read.map_err(|source| FetchError::Connect { url: label.to_owned(), source: source.into() })?;
        if bytes.len() as u64 > LARGEST_PAGE {
            let expected = format!("a page of at most {LARGEST_PAGE} bytes");
            return Err(FetchError::Length { url: label.to_owned(), expected, found: bytes.len() as u64 });
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn failed(&self, label: &str, source: reqwest::Error) -> FetchError {
        if source.is_timeout() && !source.is_connect() {
            let seconds = self.timeouts.read.as_secs();
            return FetchError::Stalled { url: label.to_owned(), at: 0, of: None, seconds };
        }
        FetchError::Connect { url: label.to_owned(), source: source.without_url().into() }
    }

    /// The client for `url`. The one for this machine needs neither certificates nor a proxy.
    fn http(&self, url: &Url) -> Result<&Http, reqwest::Error> {
        let is_local = url.scheme() == "http" && is_loopback(url);
        let cell = if is_local { &self.local } else { &self.outside };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        // Another part of the program may have chosen a provider already; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Http::builder()
            .user_agent(concat!("laps-zoo/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.timeouts.connect)
            .timeout(self.timeouts.read)
            .redirect(redirect::Policy::none())
            .referer(false);
        if is_local {
            builder = builder.no_proxy().tls_certs_only([]);
        }
        let client = builder.build()?;
        Ok(cell.get_or_init(|| client))
    }
}

fn insert(headers: &mut HeaderMap, name: reqwest::header::HeaderName, value: &str) {
    // What is no header value was no validator or token either.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// An address without its query, which may hold a signature.
pub(super) fn bare(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}
