//! SIGINT, SIGTERM and SIGQUIT: the first one ends the program, with exit code 2 and without temporary files.
//!
//! Work that saves something asks for a [`flag`], which the first signal sets, and ends by itself. All other work ends at
//! once.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use signal_hook::{consts::TERM_SIGNALS, iterator::Signals, low_level};

/// Time that work with a flag has to end, unless it saves its state. A batch of images and a tile of similarities take less,
/// except on a very slow machine, and then nothing is lost but the message.
const GRACE: Duration = Duration::from_secs(5);

/// How long the work may go on after the first signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// For a few seconds: a read or write that blocks cannot hold it up.
    Seconds,
    /// Until it has saved its state. A second signal ends it at once.
    StateSaved,
    /// As long as the work decides. Further signals change nothing: `timeout` sends two.
    OfWork,
}

/// The flag of the work in progress.
static WORK: Mutex<Option<(Arc<AtomicBool>, Deadline)>> = Mutex::new(None);

fn work() -> MutexGuard<'static, Option<(Arc<AtomicBool>, Deadline)>> {
    WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a flag that the first signal sets from now on.
pub(crate) fn flag(deadline: Deadline) -> Arc<AtomicBool> {
    let stop = Arc::default();
    *work() = Some((Arc::clone(&stop), deadline));
    stop
}

/// Starts the thread that receives the signals.
///
/// # Errors
/// That of the operating system.
pub(crate) fn watch() -> io::Result<()> {
    let mut signals = Signals::new(TERM_SIGNALS)?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut seen = false;
        for _ in signals.forever() {
            match work().as_ref() {
                Some((stop, deadline)) if !seen => {
                    stop.store(true, Ordering::Relaxed);
                    if *deadline == Deadline::Seconds {
                        thread::spawn(|| {
                            thread::sleep(GRACE);
                            exit("the work in progress did not stop in time")
                        });
                    }
                }
                Some((_, Deadline::OfWork)) => {}
                _ => exit("nothing more was written"),
            }
            seen = true;
        }
    })?;
    Ok(())
}

/// Ends the process. Unfinished outputs are removed; what earlier steps have saved stays.
fn exit(state: &str) -> ! {
    let _guard = laps_files::remove_temporary_files();
    // If standard error is closed, only the exit code reports the signal.
    let _ = writeln!(io::stderr(), "error: interrupted: {state}");
    low_level::exit(2)
}
