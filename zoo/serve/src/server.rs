//! Connections, and the way from start to stop.

use std::{
    future::{Future, poll_fn},
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use laps::Model;
use laps_files::sha256;
use laps_search::Store;
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

use crate::{
    Error, Limits, Result, ServeOptions,
    app::App,
    handlers::router,
    metrics::Metrics,
    stream::TimedStream,
    worker::{queue, work},
};

/// How often the stop flag is looked at.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// After the stop, how long a connection that was accepted can still send its first request.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(3);
/// Pause after a connection could not be accepted, for example because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    options: ServeOptions,
}

/// Summary of a server after it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeSummary {
    /// Whether all requests in flight were answered before the end of [`Limits::stop_time`].
    pub finished: bool,
}

impl Server {
    /// Opens the port. Connections wait until [`run`](Self::run).
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Token`], [`Error::Bind`].
    pub fn bind(options: ServeOptions) -> Result<Self> {
        options.check()?;
        let failed = |source| Error::Bind { address: format!("{}:{}", options.host, options.port), source };
        let listener = TcpListener::bind((options.host.as_str(), options.port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, options })
    }

    /// The address with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether requests from other machines are answered without a token.
    pub fn is_open_to_others(&self) -> bool {
        !self.address.ip().is_loopback() && self.options.token.is_none()
    }

    /// Answers requests on this thread and on others until `stop` is set, and then finishes those in flight.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub fn run(self, model: &Model, index: Arc<dyn Store>, stop: Arc<AtomicBool>) -> Result<ServeSummary> {
        let Self { listener, address, options } = self;
        let Limits { queue: capacity, total_body_bytes, .. } = options.limits;
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (queue, jobs) = queue(capacity);
        let app = Arc::new(App {
            queue,
            index: Arc::clone(&index),
            model: model.used().clone(),
            width: model.sizes().width,
            preprocessing: *model.preprocessing(),
            limits: options.limits,
            token: options.token.as_ref().map(|token| sha256(token.as_bytes())),
            local_names_only: address.ip().is_loopback() && options.token.is_none(),
            images: options.images,
            log: options.log,
            metrics: Metrics::new(),
            bodies: Arc::new(Semaphore::new(total_body_bytes.div_ceil(1024))),
            decoding: Arc::new(Semaphore::new(threads)),
            checking: Arc::new(Semaphore::new(1)),
            stop: Arc::clone(&stop),
        });
        let failed = |source| Error::Start { source };
        let runtime =
            Builder::new_multi_thread().enable_all().worker_threads(threads.min(4)).build().map_err(failed)?;
        let metrics = app.metrics.clone();
        let router = router(app);
        let http = thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || accept_until_stopped(runtime, listener, router, options.limits, &stop))
            .map_err(failed)?;
        // Ends when the last sender of the queue, which the routes own, is dropped.
        work(model, &*index, jobs, &metrics);
        Ok(ServeSummary { finished: http.join().unwrap_or(Ok(false)).map_err(failed)? })
    }
}

/// Accepts connections until `stop` is set. Returns whether all requests in flight were answered.
fn accept_until_stopped(
    runtime: Runtime,
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: &AtomicBool,
) -> std::io::Result<bool> {
    let finished = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stopping, stopped) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(limits.connections));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.read_time);
        let spawn = |stream: TcpStream, permit: OwnedSemaphorePermit| {
            // Answers are written at once.
            let _ = stream.set_nodelay(true);
            let stream = TimedStream::new(stream, limits.read_time);
            tokio::spawn(serve_connection(http.clone(), stream, router.clone(), stopped.clone(), permit));
        };
        while !stop.load(Ordering::Relaxed) {
            let Ok(Ok(permit)) = timeout(STOP_INTERVAL, Arc::clone(&connections).acquire_owned()).await else {
                continue;
            };
            match timeout(STOP_INTERVAL, listener.accept()).await {
                Ok(Ok((stream, _))) => spawn(stream, permit),
                Ok(Err(_)) => sleep(ACCEPT_PAUSE).await,
                Err(_) => {}
            }
        }
        // The system has accepted the connections that wait: closing the port would reset them.
        let listener = listener.into_std()?;
        while let Ok(permit) = Arc::clone(&connections).try_acquire_owned()
            && let Ok((stream, _)) = listener.accept()
        {
            stream.set_nonblocking(true)?;
            spawn(TcpStream::from_std(stream)?, permit);
        }
        drop(listener);
        // An error means that there are no connections.
        let _ = stopping.send(true);
        drop(stopped);
        std::io::Result::Ok(timeout(limits.stop_time, stopping.closed()).await.is_ok())
    });
    // Dropping the router and the connections that are left closes the queue.
    drop(router);
    runtime.shutdown_background();
    finished
}

/// Answers the requests of a connection. When `stopped` becomes true, the one that is being answered is the last. A connection
/// without a request then has [`FIRST_REQUEST_TIME`] for it: its client may have sent it already.
async fn serve_connection(
    http: http1::Builder,
    stream: TimedStream,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    let first_request = Arc::new(Notify::new());
    let router = TowerToHyperService::new(router);
    let begun = Arc::clone(&first_request);
    let service = service_fn(move |request| {
        begun.notify_one();
        router.call(request)
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut last_request = pin!(async {
        let _ = stopped.wait_for(|&stopped| stopped).await;
        let _ = timeout(FIRST_REQUEST_TIME, first_request.notified()).await;
    });
    let mut is_last = false;
    // An error here is that of the client or the network.
    let _ = poll_fn(|context| {
        if !is_last && last_request.as_mut().poll(context).is_ready() {
            is_last = true;
            connection.as_mut().graceful_shutdown();
        }
        // It wakes this task when the first request begins.
        connection.as_mut().poll(context)
    })
    .await;
}
