//! A thread that owns a model and runs the calls of Python's threads one after another.
//!
//! The interpreter is released while a call waits, and asked for signals meanwhile. Each operation uses all threads by
//! itself, so calls at once would not be faster.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use laps::{Model, ModelBuilder, Result};
use pyo3::{PyResult, Python};

use crate::{LapsError, exception};

/// How often a waiting call asks for signals such as Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

type ModelCall = Box<dyn FnOnce(&Model) + Send>;

/// The thread of a model. It ends with the last job after the worker is dropped.
pub(crate) struct ModelThread {
    jobs: Sender<ModelCall>,
    state: Arc<CallState>,
}

/// State that is shared by the worker thread and the callers.
#[derive(Default)]
struct CallState {
    /// The flag of the model, which ends the work in progress.
    stop: Arc<AtomicBool>,
    /// The call in progress, by its flag.
    running: Mutex<Option<Arc<AtomicBool>>>,
}

impl CallState {
    fn running(&self) -> MutexGuard<'_, Option<Arc<AtomicBool>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `call` the call in progress, unless it is cancelled.
    fn begin(&self, call: &Arc<AtomicBool>) -> bool {
        let mut running = self.running();
        if call.load(Ordering::Relaxed) {
            return false;
        }
        self.stop.store(false, Ordering::Relaxed);
        *running = Some(Arc::clone(call));
        true
    }

    /// Ends `call` after its current batch if it is in progress, and before it starts otherwise.
    fn cancel(&self, call: &Arc<AtomicBool>) {
        let running = self.running();
        call.store(true, Ordering::Relaxed);
        if running.as_ref().is_some_and(|running| Arc::ptr_eq(running, call)) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl ModelThread {
    /// Starts the thread, opens the model in it, and returns what `describe` says about the model too.
    pub(crate) fn open<T: Send + 'static>(
        py: Python<'_>,
        builder: ModelBuilder,
        describe: impl FnOnce(&Model) -> T + Send + 'static,
    ) -> PyResult<(Self, T)> {
        let (jobs, queue) = channel::<ModelCall>();
        let (sender, opened) = channel();
        let state = Arc::new(CallState::default());
        let builder = builder.stop(Arc::clone(&state.stop));
        let started = thread::Builder::new().name("laps-zoo model".to_owned()).spawn(move || {
            let model = match builder.open() {
                Ok(model) => model,
                Err(error) => return drop(sender.send(Err(error))),
            };
            if sender.send(Ok(describe(&model))).is_ok() {
                queue.iter().for_each(|job| job(&model));
            }
        });
        started.map_err(|error| LapsError::new_err(format!("a thread cannot be started: {error}")))?;
        let description = wait(py, opened, || ())?;
        Ok((Self { jobs, state }, description))
    }

    /// Runs `work` with the model, and waits for its result.
    ///
    /// # Errors
    /// The error of `work` as `LapsError`, and the exception of a signal, such as `KeyboardInterrupt`.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Model) -> Result<T> + Send + 'static,
    ) -> PyResult<T> {
        let (sender, result) = channel();
        let call = Arc::new(AtomicBool::new(false));
        let (state, flag) = (Arc::clone(&self.state), Arc::clone(&call));
        let job = move |model: &Model| {
            if state.begin(&flag) {
                // Nobody waits for the result of a cancelled call.
                let _ = sender.send(work(model));
                *state.running() = None;
            }
        };
        self.jobs.send(Box::new(job)).map_err(|_| ended())?;
        wait(py, result, || self.state.cancel(&call))
    }
}

/// Waits without the interpreter. `cancel` is called if a signal raises an exception.
fn wait<T: Send>(py: Python<'_>, mut result: Receiver<Result<T>>, cancel: impl Fn()) -> PyResult<T> {
    loop {
        let received;
        (received, result) = py.detach(move || (result.recv_timeout(SIGNAL_INTERVAL), result));
        match received {
            Ok(value) => return value.map_err(exception),
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| cancel())?,
            Err(RecvTimeoutError::Disconnected) => return Err(ended()),
        }
    }
}

fn ended() -> pyo3::PyErr {
    LapsError::new_err("the thread of the model has ended unexpectedly; its message is on standard error")
}
