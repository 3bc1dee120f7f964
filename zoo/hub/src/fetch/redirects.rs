//! Which redirects are followed.

use reqwest::Url;

/// Maximum number of redirects of a request. Browsers stop at 20; the services here need at most four.
pub(super) const MAX_REDIRECTS: usize = 10;

/// The hosts that a service may redirect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectPolicy {
    /// Scheme, host and port of the service itself.
    origin: (String, String, Option<u16>),
    /// Further hosts on their default port; `*.` matches any subdomain.
    hosts: Vec<&'static str>,
}

impl RedirectPolicy {
    /// The policy of the service at `base`, which may also redirect to `hosts`.
    pub(crate) fn new(base: &Url, hosts: &[&'static str]) -> Self {
        Self { origin: origin(base), hosts: hosts.to_vec() }
    }

    /// Whether a server at `from` may redirect to `to`. The host must be an allowed one, https must not become http,
    /// and the URL must not contain credentials.
    pub(super) fn allows(&self, from: &Url, to: &Url) -> bool {
        let secure = to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http");
        if !secure || !to.username().is_empty() || to.password().is_some() {
            return false;
        }
        let Some(host) = to.host_str() else { return false };
        let matches = |pattern: &str| match pattern.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => host == pattern,
        };
        let (_, own_host, own_port) = &self.origin;
        (host == own_host && (to.port_or_known_default() == *own_port || to.port().is_none()))
            || (to.port().is_none() && self.hosts.iter().any(|pattern| matches(pattern)))
    }

    /// The allowed hosts, for messages.
    pub(super) fn describe(&self) -> String {
        let own = format!("`{}`", self.origin.1);
        std::iter::once(own).chain(self.hosts.iter().map(|host| format!("`{host}`"))).collect::<Vec<_>>().join(", ")
    }
}

fn origin(url: &Url) -> (String, String, Option<u16>) {
    (url.scheme().to_owned(), url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default())
}

/// Whether the host is this machine, so that the bytes cannot be changed on the way.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use super::{RedirectPolicy, is_loopback};

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn redirects_stay_on_allowed_https_hosts() {
        let base = url("https://huggingface.co");
        let policy = RedirectPolicy::new(&base, &["huggingface.co", "*.hf.co"]);
        for to in ["https://huggingface.co/a", "https://cdn.hf.co/a?b", "https://a.b.hf.co/"] {
            assert!(policy.allows(&base, &url(to)), "{to}");
        }
        for to in [
            "http://huggingface.co/a",
            "https://hf.co/a",
            "https://evilhf.co/a",
            "https://hf.co.evil.org/a",
            "https://huggingface.co.evil.org/a",
            "https://cdn.hf.co:8443/a",
            "https://user@huggingface.co/a",
            "https://127.0.0.1/a",
            "ftp://huggingface.co/a",
            "file:///etc/passwd",
        ] {
            assert!(!policy.allows(&base, &url(to)), "{to}");
        }
    }

    #[test]
    fn local_server_may_only_redirect_to_its_own_port() {
        let base = url("http://127.0.0.1:8000");
        let policy = RedirectPolicy::new(&base, &[]);
        assert!(policy.allows(&base, &url("http://127.0.0.1:8000/b")));
        assert!(!policy.allows(&base, &url("http://127.0.0.1:9000/b")));
        assert!(!policy.allows(&base, &url("http://localhost:8000/b")));
        assert!(is_loopback(&base) && is_loopback(&url("http://[::1]:80")) && is_loopback(&url("http://localhost")));
        assert!(!is_loopback(&url("http://192.168.0.1")) && !is_loopback(&url("https://localhost.evil.org")));
    }
}
