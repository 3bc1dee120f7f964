//! Addresses of collections.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use postgres::config::{Config, Host, SslMode};

use crate::Error;

/// Name of the collection if the address has none.
const DEFAULT_COLLECTION: &str = "default";

/// Bytes of the name of a collection.
const MAX_NAME: usize = 63;

/// Whether a connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// Plain text.
    None,
    /// TLS. The certificate must be valid for the name of the host.
    Tls {
        /// PEM file of the trusted certificates; None for those of the system.
        roots: Option<PathBuf>,
    },
}

/// The address of a collection: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?collection=NAME`.
///
/// The parameters are those of libpq's connection strings that the client knows, such as `host` for the folder of a Unix
/// socket, with these differences:
/// - `collection` is the name of the collection, `default` without it.
/// - `sslmode` is `disable`, `require` or `verify-full`. Both of the latter check the certificate, against the system's
///   trusted certificates or those in `sslrootcert`. Without `sslmode` connections to other machines use TLS, and those
///   to a loopback address do not. A Unix socket is never encrypted.
#[derive(Clone)]
pub struct DatabaseAddress {
    pub(crate) config: Config,
    pub(crate) collection: String,
    pub(crate) encryption: Encryption,
    /// The address without the password.
    pub(crate) location: PathBuf,
}

impl DatabaseAddress {
    /// Whether `text` is the address of a database rather than a path.
    pub fn is_address(text: &Path) -> bool {
        text.to_str().is_some_and(|text| scheme_end(text).is_some())
    }

    /// The address without the password.
    pub fn location(&self) -> &Path {
        &self.location
    }

    /// Uses `password` if the address has none.
    #[must_use]
    pub fn or_password(mut self, password: Option<String>) -> Self {
        if let (None, Some(password)) = (self.config.get_password(), password) {
            self.config.password(password);
        }
        self
    }
}

impl std::fmt::Debug for DatabaseAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DatabaseAddress").field(&self.location).finish()
    }
}

impl FromStr for DatabaseAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let location = PathBuf::from(without_password(text));
        let invalid = |expected: &str, found: String| Error::Address {
            location: location.clone(),
            expected: expected.to_owned(),
            found,
        };
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let mut collection = DEFAULT_COLLECTION.to_owned();
        let (mut mode, mut roots, mut others) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            match key {
                "collection" => collection = value,
                "sslmode" => mode = Some(value),
                "sslrootcert" => roots = Some(PathBuf::from(value)),
                _ => others.push(pair),
            }
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if collection.is_empty() || collection.len() > MAX_NAME || !collection.bytes().all(is_name) {
            let expected = "a `collection` of 1 to 63 letters, digits, `_`, `-` and `.`";
            return Err(invalid(expected, format!("`{collection}`")));
        }
        let mut config: Config = format!("{base}?{}", others.join("&")).parse().map_err(|error: postgres::Error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            invalid("postgres://USER@HOST/DATABASE?collection=NAME", cause)
        })?;
        if config.get_hosts().is_empty() {
            return Err(invalid("postgres://USER@HOST/DATABASE?collection=NAME", "no host".to_owned()));
        }
        let encryption = match mode.as_deref() {
            _ if config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_))) => Encryption::None,
            Some("disable") => Encryption::None,
            Some("require" | "verify-full") => Encryption::Tls { roots },
            None if config.get_hosts().iter().all(is_local) => Encryption::None,
            None => Encryption::Tls { roots },
            Some(mode) => {
                return Err(invalid("an `sslmode` of disable, require or verify-full", format!("`{mode}`")));
            }
        };
        config.ssl_mode(if encryption == Encryption::None { SslMode::Disable } else { SslMode::Require });
        if config.get_application_name().is_none() {
            config.application_name("laps-zoo");
        }
        Ok(Self { config, collection, encryption, location })
    }
}

fn scheme_end(text: &str) -> Option<usize> {
    ["postgres://", "postgresql://"].into_iter().find_map(|scheme| text.starts_with(scheme).then_some(scheme.len()))
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        _ => true,
    }
}

/// Removes passwords. A password that should have been percent-encoded may contain `/` and `?`, so everything from the
/// first colon to the last `@` is removed.
fn without_password(text: &str) -> String {
    let (scheme, rest) = text.split_at(scheme_end(text).unwrap_or(0));
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (user.split(':').next().map(|user| format!("{user}@")).unwrap_or_default(), rest),
        None => (String::new(), rest),
    };
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    // Parameters such as `sslpassword` too.
    let pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !names_password(pair)).collect();
    let mark = if pairs.is_empty() { "" } else { "?" };
    format!("{scheme}{user}{base}{mark}{}", pairs.join("&"))
}

fn names_password(pair: &str) -> bool {
    let key = pair.split('=').next().unwrap_or_default();
    percent_decode_str(key).decode_utf8_lossy().to_ascii_lowercase().contains("password")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{DatabaseAddress, Encryption};

    fn parse(text: &str) -> Result<DatabaseAddress, crate::Error> {
        text.parse()
    }

    #[test]
    fn passwords_are_not_in_the_location() {
        for (text, location) in [
            ("postgres://u:secret@h:5/d?collection=c", "postgres://u@h:5/d?collection=c"),
            ("postgresql://u@h/d?password=secret&collection=c", "postgresql://u@h/d?collection=c"),
            ("postgres://h/d?user=u&pass%77ord=secret", "postgres://h/d?user=u"),
        ] {
            let address = parse(text).unwrap();
            assert_eq!(address.location(), Path::new(location));
            assert!(!format!("{address:?}").contains("secret"));
        }
        // Passwords that are not percent-encoded, and addresses that cannot be used.
        for text in [
            "postgres://u:secret/secret@h/d",
            "postgres://u:secret?secret@h/d",
            "postgres://u:secret@secret@h/d?sslmode=x",
            "postgres://u:secret@h:port/d",
            "postgres://u:secret@h/d?collection=a/b",
            "postgres://u:secret@/d",
        ] {
            if let Err(error) = parse(text) {
                assert!(!format!("{error} {error:?}").contains("secret"), "{error} {error:?}");
            }
            assert!(!super::without_password(text).contains("secret"), "{text}");
        }
    }

    #[test]
    fn other_machines_are_reached_by_tls() {
        let tls = |roots: Option<&str>| Encryption::Tls { roots: roots.map(Into::into) };
        for (text, expected) in [
            ("postgres://h/d", tls(None)),
            ("postgres://h/d?sslmode=disable", Encryption::None),
            ("postgres://h/d?sslmode=require", tls(None)),
            ("postgres://h/d?sslmode=verify-full&sslrootcert=/a%20b.pem", tls(Some("/a b.pem"))),
            ("postgres://localhost,127.0.0.1/d", Encryption::None),
            ("postgres://localhost,h/d", tls(None)),
            ("postgres://[::1]/d", Encryption::None),
            ("postgres://localhost/d?sslmode=verify-full", tls(None)),
            ("postgres:///d?host=/run/postgresql", Encryption::None),
        ] {
            assert_eq!(parse(text).unwrap().encryption, expected, "{text}");
        }
        insta::assert_snapshot!(parse("postgres://u:p@h/d?sslmode=prefer").unwrap_err(), @r"
        the database address `postgres://u@h/d?sslmode=prefer` cannot be used
          expected: an `sslmode` of disable, require or verify-full
          found: `prefer`
        ");
    }

    #[test]
    fn paths_are_not_addresses() {
        assert!(DatabaseAddress::is_address(Path::new("postgres://h/d")));
        assert!(DatabaseAddress::is_address(Path::new("postgresql://h/d")));
        assert!(!DatabaseAddress::is_address(Path::new("postgres/photos.index")));
    }

    #[test]
    fn password_of_the_environment_does_not_replace_that_of_the_address() {
        let password =
            |text| parse(text).unwrap().or_password(Some("p".to_owned())).config.get_password().map(<[u8]>::to_vec);
        assert_eq!(password("postgres://u:q@h/d"), Some(b"q".to_vec()));
        assert_eq!(password("postgres://u@h/d"), Some(b"p".to_vec()));
    }
}
