//! Where a server may send on to.

use reqwest::Url;

/// Most times that one request is sent on; browsers stop at 20, and no service here needs more than four.
pub(super) const MOST_HOPS: usize = 10;

/// The hosts that one service may send on to, and by which scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Scheme, host and port of the service itself.
    own: (String, String, Option<u16>),
    /// Further hosts, `*.` for any name below one; at their usual port.
    hosts: Vec<&'static str>,
}

impl Policy {
    /// That of the service at `base`.
    pub(super) fn new(base: &Url, hosts: &[&'static str]) -> Self {
        Self { own: origin(base), hosts: hosts.to_vec() }
    }

    /// Whether a server at `from` may send on to `to`: its own hosts, never from https to http, and to no address with a
    /// user name in it.
    pub(super) fn allows(&self, from: &Url, to: &Url) -> bool {
        let secure = to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http");
        if !secure || !to.username().is_empty() || to.password().is_some() {
            return false;
        }
        let Some(host) = to.host_str() else { return false };
        let below = |pattern: &str| match pattern.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => host == pattern,
        };
        let (_, own_host, own_port) = &self.own;
        (host == own_host && (to.port_or_known_default() == *own_port || to.port().is_none()))
            || (to.port().is_none() && self.hosts.iter().any(|pattern| below(pattern)))
    }

    /// The hosts, for people.
    pub(super) fn describe(&self) -> String {
        let own = format!("`{}`", self.own.1);
        std::iter::once(own).chain(self.hosts.iter().map(|host| format!("`{host}`"))).collect::<Vec<_>>().join(", ")
    }
}

fn origin(url: &Url) -> (String, String, Option<u16>) {
    (url.scheme().to_owned(), url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default())
}

/// Whether the host is this machine, so that nobody between can change the bytes.
pub(super) fn is_loopback(url: &Url) -> bool {
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

    use super::{Policy, is_loopback};

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_service_sends_on_to_its_own_hosts_by_https() {
        let base = url("https://huggingface.co");
        let policy = Policy::new(&base, &["huggingface.co", "*.hf.co"]);
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
    fn a_server_of_this_machine_stays_at_its_port() {
        let base = url("http://127.0.0.1:8000");
        let policy = Policy::new(&base, &[]);
        assert!(policy.allows(&base, &url("http://127.0.0.1:8000/b")));
        assert!(!policy.allows(&base, &url("http://127.0.0.1:9000/b")));
        assert!(!policy.allows(&base, &url("http://localhost:8000/b")));
        assert!(is_loopback(&base) && is_loopback(&url("http://[::1]:80")) && is_loopback(&url("http://localhost")));
        assert!(!is_loopback(&url("http://192.168.0.1")) && !is_loopback(&url("https://localhost.evil.org")));
    }
}
