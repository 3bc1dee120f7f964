//! A local HTTP server that answers as the test says, faults included.
//!
//! Nothing here sleeps: a stalled connection is kept open until the client closes it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path with query.
    pub(crate) path: String,
    /// Headers by lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Arc<Vec<u8>>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte of `Range: bytes=N-`.
    pub(crate) fn from(&self) -> Option<u64> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A response body.
#[derive(Clone)]
pub(crate) enum Body {
    Bytes(Arc<Vec<u8>>),
    /// A file from an offset.
    File(PathBuf, u64),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// After the body.
    Whole,
    /// After this many bytes of the body.
    Cut(u64),
    /// Stays open without data after this many bytes of the body.
    Stall(u64),
    /// Before the first byte of the response.
    Refuse,
    /// Before the first byte, and the server restarts.
    Restart,
}

/// A response.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
    pub(crate) end: End,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body: Vec<u8> = body.into();
        let headers = vec![("Content-Length".to_owned(), body.len().to_string())];
        Self { status, headers, body: Body::Bytes(Arc::new(body)), end: End::Whole }
    }

    pub(crate) fn page(status: u16, html: &str) -> Self {
        Self::new(status, html).with("Content-Type", "text/html; charset=utf-8")
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self::new(302, "").with("Location", to)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(own, _)| own != name);
        self
    }

    pub(crate) fn ending(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// `bytes`, or the requested range of them, as a correct server sends it.
    pub(crate) fn file(request: &Request, bytes: &Arc<Vec<u8>>, etag: &str) -> Self {
        Self::ranged(request, bytes.len() as u64, etag, |from| match from {
            0 => Body::Bytes(Arc::clone(bytes)),
            from => Body::Bytes(Arc::new(bytes[from as usize..].to_vec())),
        })
    }

    /// The same for a file on disk.
    pub(crate) fn disk(request: &Request, path: &std::path::Path, etag: &str) -> Self {
        let length = std::fs::metadata(path).unwrap().len();
        Self::ranged(request, length, etag, |from| Body::File(path.to_owned(), from))
    }

    fn ranged(request: &Request, total: u64, etag: &str, body: impl Fn(u64) -> Body) -> Self {
        let is_same = request.header("if-range").is_none_or(|tag| tag == etag);
        let headers = |from: u64| {
            let mut headers = vec![
                ("Content-Length".to_owned(), (total - from).to_string()),
                ("Content-Type".to_owned(), "application/octet-stream".to_owned()),
            ];
            if !etag.is_empty() {
                headers.push(("ETag".to_owned(), etag.to_owned()));
            }
            headers
        };
        match request.from().filter(|_| is_same) {
            Some(from) if from < total => {
                let range = format!("bytes {from}-{}/{total}", total - 1);
                Self { status: 206, headers: headers(from), body: body(from), end: End::Whole }
                    .with("Content-Range", &range)
            }
            Some(_) => Self::new(416, "").with("Content-Range", &format!("bytes */{total}")),
            None => Self { status: 200, headers: headers(0), body: body(0), end: End::Whole },
        }
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// Bytes of the body of a request after which the connection is closed.
type BodyLimit = dyn Fn(&Request) -> Option<u64> + Send + Sync;

/// A running server; stops on drop.
pub(crate) struct TestServer {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl TestServer {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_reading(|_| None, handler)
    }

    /// A server that closes the connection within the bodies for which `limit` gives a number of bytes.
    pub(crate) fn start_reading(
        limit: impl Fn(&Request) -> Option<u64> + Send + Sync + 'static,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (log, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let server = Self { port, log: Arc::clone(&log), stop: Arc::clone(&stop) };
        let (handler, limit): (Arc<Handler>, Arc<BodyLimit>) = (Arc::new(handler), Arc::new(limit));
        let restart = Arc::new(AtomicBool::new(false));
        thread::spawn(move || {
            let mut listener = Some(listener);
            while let Some(Ok((stream, _))) = listener.as_ref().map(TcpListener::accept) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                if restart.swap(false, Ordering::SeqCst) {
                    // Drops the queued connections, and takes the same port again.
                    drop(listener.take());
                    listener = TcpListener::bind(("127.0.0.1", port)).ok();
                    continue;
                }
                let (handler, limit) = (Arc::clone(&handler), Arc::clone(&limit));
                let (log, restart) = (Arc::clone(&log), Arc::clone(&restart));
                thread::spawn(move || serve(stream, &*limit, &*handler, &log, &restart));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests received so far.
    pub(crate) fn log(&self) -> MutexGuard<'_, Vec<Request>> {
        self.log.lock().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(mut stream: TcpStream, limit: &BodyLimit, handler: &Handler, log: &Mutex<Vec<Request>>, restart: &AtomicBool) {
    let Ok(read) = stream.try_clone() else { return };
    let mut reader = BufReader::new(read);
    while let Some(request) = read_request(&mut reader, limit) {
        log.lock().unwrap().push(request.clone());
        let reply = handler(&request);
        match reply.end {
            End::Refuse => return,
            End::Restart => return restart.store(true, Ordering::SeqCst),
            _ => {}
        }
        if send(&mut stream, &reply).is_err() || !matches!(reply.end, End::Whole) {
            if matches!(reply.end, End::Stall(_)) {
                // Until the client closes the connection.
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
            }
            return;
        }
        // Without a length, closing the connection ends the body.
        if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead, limit: &BodyLimit) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    let mut request = loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
        match line.trim().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break Request { method, path, headers, body: Arc::default() },
        };
    };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let limit = limit(&request);
    let mut body = Vec::new();
    reader.take(limit.unwrap_or(length)).read_to_end(&mut body).ok()?;
    request.body = Arc::new(body);
    limit.is_none().then_some(request)
}

fn send(stream: &mut TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Words\r\n", reply.status);
    reply.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all((head + "\r\n").as_bytes())?;
    let most = match reply.end {
        End::Cut(bytes) | End::Stall(bytes) => bytes,
        _ => u64::MAX,
    };
    match &reply.body {
        Body::Bytes(bytes) => {
            stream.write_all(&bytes[..bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))])?
        }
        Body::File(path, from) => {
            let mut file = std::fs::File::open(path)?;
            file.seek(SeekFrom::Start(*from))?;
            std::io::copy(&mut file.take(most), stream)?;
        }
    }
    stream.flush()
}
