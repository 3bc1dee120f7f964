//! SIGINT and SIGTERM as a flag that long work looks at.

use std::sync::{Arc, atomic::AtomicBool};

use signal_hook::{consts::TERM_SIGNALS, flag};

/// A flag that the first of these signals sets; the second ends the program at once, with 2.
pub(crate) fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for &signal in TERM_SIGNALS {
        flag::register_conditional_shutdown(signal, 2, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
