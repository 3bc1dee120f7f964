//! TLS, with the certificates of the tests of laps-hub.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{
    PostgresServer, images,
    loading::{assert_complete, write},
};
use crate::Collection;

fn test_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../hub/src/fetch/tls_test").join(name)
}

/// A certificate for `localhost` and 127.0.0.1.
fn server_config() -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(test_file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(test_file("server_key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
}

/// Whether a client begins with the request for TLS: its length and code.
fn asks_for_tls(stream: &mut TcpStream) -> bool {
    let mut request = [0; 8];
    stream.read_exact(&mut request).is_ok() && request == [0, 0, 0, 8, 4, 210, 22, 47]
}

/// A server that speaks TLS, or answers that it does not, and refuses every user. Returns its port.
fn serve(address: &str, speaks_tls: bool) -> u16 {
    let config = server_config();
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if !asks_for_tls(&mut stream) {
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

/// Speaks TLS with clients, and forwards what they say to a server without TLS. Returns its port.
fn forward(socket: PathBuf) -> u16 {
    let config = server_config();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            assert!(asks_for_tls(&mut client), "a client sends plain text");
            client.write_all(b"S").unwrap();
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            tls.complete_io(&mut client).unwrap();
            let server = UnixStream::connect(&socket).unwrap();
            let tls = Arc::new(Mutex::new(tls));
            let answers = (Arc::clone(&tls), client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let (tls, client, server) = answers;
                forward_answers(&tls, client, server);
            });
            thread::spawn(move || forward_requests(&tls, client, server));
        }
    });
    port
}

fn forward_requests(tls: &Mutex<ServerConnection>, mut client: TcpStream, mut server: UnixStream) {
    let mut bytes = [0; 16384];
    let mut count = 0;
    loop {
        let mut plain = Vec::new();
        {
            let mut tls = tls.lock().unwrap();
            let mut received = &bytes[..count];
            // The first time, what came with the end of the handshake.
            loop {
                let start = plain.len();
                plain.resize(start + tls.process_new_packets().unwrap().plaintext_bytes_to_read(), 0);
                tls.reader().read_exact(&mut plain[start..]).unwrap();
                if received.is_empty() {
                    break;
                }
                tls.read_tls(&mut received).unwrap();
            }
        }
        // Without the lock: the server may be waiting for its answers to be read.
        let _ = server.write_all(&plain);
        match client.read(&mut bytes) {
            Ok(read @ 1..) => count = read,
            _ => break,
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

fn forward_answers(tls: &Mutex<ServerConnection>, mut client: TcpStream, mut server: UnixStream) {
    let mut bytes = [0; 16384];
    while let Ok(count @ 1..) = server.read(&mut bytes) {
        let mut tls = tls.lock().unwrap();
        tls.writer().write_all(&bytes[..count]).unwrap();
        while tls.wants_write() {
            if tls.write_tls(&mut client).is_err() {
                return;
            }
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
}

/// The server of the test has no TLS of its own.
#[test]
fn collection_is_written_and_read_over_tls() {
    let Some(server) = PostgresServer::start() else { return };
    let port = forward(server.socket());
    let roots = test_file("authority.pem");
    let address = format!(
        "postgres://postgres@localhost:{port}/postgres?collection=tls&sslmode=verify-full&sslrootcert={}",
        roots.display()
    );
    let items = images(600);
    write(address.parse().unwrap(), &items, 0..items.len());
    assert_complete(address.parse().unwrap(), &items);
}
