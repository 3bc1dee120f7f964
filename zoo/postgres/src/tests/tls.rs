//! TLS, with the certificates of the tests of laps-hub.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::Collection;

fn test_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../hub/src/fetch/tls_test").join(name)
}

/// A server that speaks TLS, or answers that it does not, and refuses every user. Its certificate is for `localhost` and
/// 127.0.0.1. Returns its port.
fn serve(address: &str, speaks_tls: bool) -> u16 {
    let certificate = CertificateDer::from_pem_file(test_file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(test_file("server_key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The request for TLS: its length and code.
            let mut request = [0; 8];
            if stream.read_exact(&mut request).is_err() || request != [0, 0, 0, 8, 4, 210, 22, 47] {
                let _ = stream.write_all(b"no request for TLS");
                continue;
            }
            if !speaks_tls {
                let _ = stream.write_all(b"N");
                continue;
            }
            let _ = stream.write_all(b"S");
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            // Fails if the client rejects the certificate.
            if stream.read(&mut [0; 1024]).is_ok() {
                let fields = b"SFATAL\0VFATAL\0C28P01\0Mover TLS\0\0";
                let length = (fields.len() as u32 + 4).to_be_bytes();
                let _ = stream.write_all(&[b"E", &length[..], fields].concat());
                let _ = stream.flush();
            }
        }
    });
    port
}

/// The error of opening a collection.
fn open(host: &str, port: u16, parameters: &str) -> String {
    let address = format!("postgres://u:secret@{host}:{port}/d?{parameters}").parse().unwrap();
    let error = Collection::open(address).err().unwrap();
    let text = format!("{error}\nhint: {}", error.hint().unwrap_or_default());
    assert!(!text.contains("secret"), "{text}");
    text
}

#[test]
fn certificates_are_checked() {
    let port = serve("127.0.0.1", true);
    let other_port = serve("127.0.0.2", true);
    let roots = format!("sslmode=verify-full&sslrootcert={}", test_file("authority.pem").display());
    let trusted = open("localhost", port, &roots);
    assert!(trusted.contains("refuses the connection") && trusted.contains("over TLS (28P01)"), "{trusted}");
    for (host, port, parameters) in [("localhost", port, "sslmode=require"), ("127.0.0.2", other_port, roots.as_str())]
    {
        let error = open(host, port, parameters);
        assert!(error.contains("cannot be reached") && error.contains("certificate"), "{error}");
        assert!(error.contains("`sslrootcert` names trusted certificates"), "{error}");
    }
    let missing = open("localhost", port, "sslmode=require&sslrootcert=/nonexistent.pem");
    assert!(missing.contains("expected: certificates in PEM format in the file `sslrootcert`"), "{missing}");
}

#[test]
fn server_without_tls_is_not_asked_in_plain_text() {
    let error = open("localhost", serve("127.0.0.1", false), "sslmode=require");
    assert!(error.contains("cannot be reached") && error.contains("TLS"), "{error}");
    assert!(error.contains("`sslmode=disable` turns TLS off"), "{error}");
}
