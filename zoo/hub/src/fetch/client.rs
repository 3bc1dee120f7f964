//! The HTTP client: redirects follow our own rules, and response bodies are never decompressed.

use std::{
    env,
    error::Error as _,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use reqwest::{
    Certificate, Method, Url,
    blocking::{Body, Client, ClientBuilder, Response},
    header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LOCATION, RANGE},
    redirect,
};

use super::{
    FetchError,
    redirects::{MAX_REDIRECTS, RedirectPolicy, is_loopback},
    source::ResumePoint,
};

/// Maximum size of a page in bytes; a listing of a thousand files takes about 1 MB.
const MAX_PAGE_BYTES: u64 = 8 << 20;

/// Bytes per second below which an upload is given up.
const MIN_UPLOAD_RATE: u64 = 1 << 14;

/// Variables that name a PEM file of certificate authorities, in order of precedence, as in Python's `requests`.
const CA_BUNDLE_VARIABLES: [&str; 2] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// Variables that name the proxy for `https://`, in order of precedence.
const HTTPS_PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Variables that name the proxy for `http://`, in order of precedence.
const HTTP_PROXY_VARIABLES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Network timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection is established.
    pub connect: Duration,
    /// Until the first byte of a response, and then between any two reads.
    pub read: Duration,
}

impl Default for Timeouts {
    /// A long read timeout, because servers that pack a file first can be silent for some time.
    fn default() -> Self {
        Self { connect: Duration::from_secs(20), read: Duration::from_secs(60) }
    }
}

/// Sends requests.
#[derive(Debug)]
pub(crate) struct HttpClient {
    timeouts: Timeouts,
    /// For remote servers, through the proxy of the environment.
    remote: OnceLock<Client>,
    /// For servers on this machine, without TLS and proxy.
    local: OnceLock<Client>,
}

/// A request with a body. Its redirects are not followed, so that body and token go to one server only.
pub(crate) struct Upload<'a> {
    /// Name in errors.
    pub(crate) label: &'a str,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) token: Option<&'a str>,
    pub(crate) body: Body,
    /// Size of the body.
    pub(crate) bytes: u64,
}

/// A GET request.
pub(crate) struct HttpRequest<'a> {
    /// Name in errors and pins.
    pub(crate) label: &'a str,
    pub(crate) url: Url,
    pub(crate) policy: &'a RedirectPolicy,
    pub(crate) resume: Option<&'a ResumePoint>,
    /// Sent to the host of `url` only.
    pub(crate) token: Option<&'a str>,
}

/// The response after all redirects.
pub(crate) struct HttpResponse {
    pub(crate) response: Response,
    /// Headers of the redirects before it.
    pub(super) redirects: Vec<HeaderMap>,
}

impl HttpClient {
    pub(crate) fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, remote: OnceLock::new(), local: OnceLock::new() }
    }

    /// Sends `request` and follows redirects as its policy allows. Any status is a response.
    pub(crate) fn get(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, FetchError> {
        let failed = |source: reqwest::Error| self.failed(request.label, source);
        let mut url = request.url.clone();
        let mut redirects = Vec::new();
        loop {
            let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
            if let Some(resume) = request.resume {
                insert(&mut headers, RANGE, &format!("bytes={}-", resume.from));
                if let Some(validator) = &resume.validator {
                    insert(&mut headers, IF_RANGE, validator);
                }
            }
            let is_same_host = url.origin() == request.url.origin() && (url.scheme() == "https" || is_loopback(&url));
            if let Some(token) = request.token.filter(|_| is_same_host) {
                insert(&mut headers, AUTHORIZATION, &format!("Bearer {token}"));
            }
            let client = self.client(request.label, &url)?;
            let response = client.get(url.clone()).headers(headers).send().map_err(failed)?;
            let location = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
            let Some(location) = location else { return Ok(HttpResponse { response, redirects }) };
            let target = location.to_str().ok().and_then(|location| url.join(location).ok());
            let is_allowed = |target: &Url| redirects.len() < MAX_REDIRECTS && request.policy.allows(&url, target);
            let Some(target) = target.filter(is_allowed) else {
                let to = match url.join(location.to_str().unwrap_or_default()) {
                    Ok(target) => without_query(&target),
                    Err(_) => "an invalid URL".to_owned(),
                };
                return Err(FetchError::Redirect {
                    from: request.label.to_owned(),
                    to,
                    expected: format!("{} within {MAX_REDIRECTS} redirects", request.policy.describe()),
                });
            };
            redirects.push(response.headers().clone());
            url = target;
        }
    }

    /// Sends a request with a body. Any status except a redirect is a response.
    pub(crate) fn send(&self, upload: Upload<'_>) -> Result<Response, FetchError> {
        let Upload { label, method, url, mut headers, token, body, bytes } = upload;
        if let Some(token) = token {
            insert(&mut headers, AUTHORIZATION, &format!("Bearer {token}"));
        }
        let request = self.client(label, &url)?.request(method, url.clone()).headers(headers).body(body);
        let timeout = self.timeouts.read + Duration::from_secs(bytes / MIN_UPLOAD_RATE);
        let response = request.timeout(timeout).send().map_err(|source| self.failed(label, source))?;
        let location = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
        let Some(location) = location else { return Ok(response) };
        let to = location.to_str().ok().and_then(|location| url.join(location).ok());
        let to = to.map_or_else(|| "an invalid URL".to_owned(), |to| without_query(&to));
        Err(FetchError::Redirect { from: label.to_owned(), to, expected: "no redirect of an upload".to_owned() })
    }

    /// Reads the text of a page.
    pub(crate) fn page(&self, label: &str, response: Response) -> Result<String, FetchError> {
        let mut bytes = Vec::new();
        let read = response.take(MAX_PAGE_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|source| FetchError::Connect { url: label.to_owned(), source: source.into() })?;
        if bytes.len() as u64 > MAX_PAGE_BYTES {
            let expected = format!("a page of at most {MAX_PAGE_BYTES} bytes");
            return Err(FetchError::Length { url: label.to_owned(), expected, found: bytes.len() as u64 });
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn failed(&self, label: &str, source: reqwest::Error) -> FetchError {
        if source.is_timeout() && !source.is_connect() {
            let seconds = self.timeouts.read.as_secs();
            return FetchError::Stalled { url: label.to_owned(), at: 0, of: None, seconds };
        }
        let (url, source) = (label.to_owned(), source.without_url());
        match is_certificate_error(&source) {
            true => FetchError::Certificate { url, source: source.into() },
            false => FetchError::Connect { url, source: source.into() },
        }
    }

    /// The client for `url`. The one for this machine needs neither certificates nor a proxy.
    fn client(&self, label: &str, url: &Url) -> Result<&Client, FetchError> {
        let is_local = url.scheme() == "http" && is_loopback(url);
        if !is_local {
            check_proxy(url)?;
        }
        let cell = if is_local { &self.local } else { &self.remote };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        // Fails if the program has installed a provider already; then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("laps-zoo/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.timeouts.connect)
            .timeout(self.timeouts.read)
            .redirect(redirect::Policy::none())
            .referer(false);
        if is_local {
            builder = builder.no_proxy().tls_certs_only([]);
        } else {
            if let Some((variable, path)) = ca_bundle() {
                builder = with_ca_bundle(builder, variable, &path)?;
            }
        }
        let client = builder.build().map_err(|source| self.failed(label, source))?;
        Ok(cell.get_or_init(|| client))
    }
}

/// Refuses a proxy for `url` that the client does not support and would ignore silently.
fn check_proxy(url: &Url) -> Result<(), FetchError> {
    let variables = if url.scheme() == "https" { HTTPS_PROXY_VARIABLES } else { HTTP_PROXY_VARIABLES };
    let value = |variable| env::var(variable).ok().filter(|value| !value.is_empty());
    let proxy = variables.into_iter().find_map(|variable| Some((variable, value(variable)?)));
    let Some((variable, value)) = proxy else { return Ok(()) };
    let scheme = value.split_once("://").map_or("http", |(scheme, _)| scheme).to_ascii_lowercase();
    match scheme.as_str() {
        "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h" => Ok(()),
        _ => Err(FetchError::Environment {
            variable,
            expected: "a proxy `http://host:port`, `https://host:port` or `socks5h://host:port`".to_owned(),
            found: format!("the scheme `{scheme}`"),
        }),
    }
}

/// The variable that names a file of certificate authorities, and the path.
fn ca_bundle() -> Option<(&'static str, PathBuf)> {
    let named = CA_BUNDLE_VARIABLES.into_iter().find_map(|name| Some((name, env::var_os(name)?)));
    named.filter(|(_, path)| !path.is_empty()).map(|(name, path)| (name, path.into()))
}

/// Trusts the certificate authorities of the file at `path`, named by `variable`, instead of those of the system.
fn with_ca_bundle(builder: ClientBuilder, variable: &'static str, path: &Path) -> Result<ClientBuilder, FetchError> {
    let refuse = |found: String| FetchError::Environment {
        variable,
        expected: "a PEM file of certificate authorities".to_owned(),
        found,
    };
    let pem = fs_err::read(path).map_err(|error| refuse(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| refuse(error.to_string()))?;
    if certificates.is_empty() {
        return Err(refuse(format!("no certificates in `{}`", path.display())));
    }
    Ok(builder.tls_certs_only(certificates))
}

/// Whether the server's certificate was rejected.
fn is_certificate_error(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // The `source` of an I/O error skips the error that it wraps.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // A value that a header cannot hold is not a valid validator or token either.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A URL without its query, which may hold a signature.
pub(crate) fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        path::PathBuf,
        sync::Arc,
        thread,
    };

    use reqwest::{Url, blocking::Client};
    use rustls::{
        ServerConfig, ServerConnection, StreamOwned,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };

    use super::{HttpClient, HttpRequest, Timeouts, with_ca_bundle};
    use crate::fetch::{FetchError, RedirectPolicy};

    const VARIABLE: &str = "REQUESTS_CA_BUNDLE";

    fn test_file(name: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/fetch/tls_test")).join(name)
    }

    /// A TLS server with a certificate of the test authority; responds to every request with `ok`.
    fn serve() -> Url {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificate = CertificateDer::from_pem_file(test_file("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(test_file("server_key.pem")).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let url = format!("https://localhost:{}/a", listener.local_addr().unwrap().port());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
                // Fails if the client rejects the certificate.
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                let _ = stream.flush();
            }
        });
        Url::parse(&url).unwrap()
    }

    fn get(url: &Url, client: Client) -> Result<String, FetchError> {
        let client = HttpClient { remote: client.into(), ..HttpClient::new(Timeouts::default()) };
        let policy = RedirectPolicy::new(url, &[]);
        let request = HttpRequest { label: "URL", url: url.clone(), policy: &policy, resume: None, token: None };
        let response = client.get(&request)?.response;
        client.page("URL", response)
    }

    #[test]
    fn untrusted_certificate_is_a_permanent_error() {
        let url = serve();
        let error = get(&url, Client::builder().no_proxy().build().unwrap()).unwrap_err();
        assert!(matches!(error, FetchError::Certificate { .. }) && !error.is_transient(), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains(VARIABLE)));
    }

    #[test]
    fn ca_bundle_is_trusted() {
        let url = serve();
        let builder = with_ca_bundle(Client::builder().no_proxy(), VARIABLE, &test_file("authority.pem")).unwrap();
        assert_eq!(get(&url, builder.build().unwrap()).unwrap(), "ok");
    }

    #[test]
    fn unusable_ca_bundle_names_its_variable() {
        for name in ["missing.pem", "server_key.pem"] {
            let error = with_ca_bundle(Client::builder(), VARIABLE, &test_file(name)).unwrap_err();
            assert!(error.to_string().contains("`REQUESTS_CA_BUNDLE`"), "{error}");
        }
    }
}
