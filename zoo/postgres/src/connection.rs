//! A connection that is made again when it is lost.

use std::sync::{Arc, Mutex, PoisonError};

use postgres::{Client, NoTls, error::SqlState};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    DatabaseAddress, Error,
    address::Encryption,
    error::{WorkError, cause, connect_error},
};
use laps_search::Result;

/// Attempts of a transaction that deadlocks with one of another writer.
const ATTEMPTS: usize = 20;

/// A connection for one thread at a time.
pub(crate) struct Connection {
    address: DatabaseAddress,
    client: Mutex<Option<Client>>,
}

impl Connection {
    pub(crate) fn open(address: DatabaseAddress) -> Result<Self> {
        let client = connect(&address)?;
        Ok(Self { address, client: Mutex::new(Some(client)) })
    }

    pub(crate) fn address(&self) -> &DatabaseAddress {
        &self.address
    }

    /// Runs `work`, whose effects must be the same if it runs twice: it is repeated if another writer's transaction
    /// deadlocks with it, and once if the connection is lost. `action` says what fails, in errors.
    pub(crate) fn run<T>(
        &self,
        action: &'static str,
        mut work: impl FnMut(&mut Client) -> Result<T, WorkError>,
    ) -> Result<T> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reconnected = false;
        let mut attempt = 1;
        loop {
            let mut client = match slot.take() {
                Some(client) => client,
                None => {
                    reconnected = true;
                    connect(&self.address)?
                }
            };
            let outcome = work(&mut client);
            let closed = client.is_closed();
            if !closed {
                *slot = Some(client);
            }
            let location = || self.address.location.clone();
            match outcome {
                Ok(value) => return Ok(value),
                Err(WorkError::Search(error)) => return Err(error),
                Err(WorkError::Client(_)) if closed && !reconnected => {}
                Err(WorkError::Client(error)) if closed => {
                    return Err(Error::Unreachable { location: location(), cause: cause(&error) }.into());
                }
                Err(WorkError::Client(error)) => {
                    let deadlock = error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED);
                    if !deadlock || attempt == ATTEMPTS {
                        return Err(Error::Database { location: location(), action, cause: cause(&error) }.into());
                    }
                    attempt += 1;
                }
            }
        }
    }
}

fn connect(address: &DatabaseAddress) -> Result<Client, Error> {
    let location = || address.location.clone();
    let client = match &address.encryption {
        Encryption::None => address.config.connect(NoTls),
        Encryption::Tls { roots } => {
            let mut store = RootCertStore::empty();
            match roots {
                Some(path) => {
                    let invalid = |found: String| Error::Address {
                        location: location(),
                        expected: "certificates in PEM format in the file `sslrootcert`".to_owned(),
                        found,
                    };
                    let certificates =
                        CertificateDer::pem_file_iter(path).map_err(|error| invalid(error.to_string()))?;
                    for certificate in certificates {
                        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
                        store.add(certificate).map_err(|error| invalid(error.to_string()))?;
                    }
                    if store.is_empty() {
                        return Err(invalid("none".to_owned()));
                    }
                }
                None => {
                    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                }
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let builder =
                builder.map_err(|error| Error::Unreachable { location: location(), cause: error.to_string() })?;
            let config = builder.with_root_certificates(store).with_no_client_auth();
            address.config.connect(MakeRustlsConnect::new(config))
        }
    };
    client.map_err(|error| connect_error(location(), &error))
}
