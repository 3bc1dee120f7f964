//! The environment of ONNX Runtime: one for a process, made when the first session is.

use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

use super::{Build, Library, RuntimeError, library};

static OPEN: Mutex<Option<(Environment, Library, Build)>> = Mutex::new(None);

/// The environment of this process, and the library it is one of. Sends no telemetry.
///
/// # Errors
/// [`RuntimeError`] if no library is found, or if the one that is found can not be used.
pub fn environment() -> Result<(Environment, Library, Build), RuntimeError> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(open) = &*open {
        return Ok(open.clone());
    }
    let library = library::find()?;
    let build = library.load()?;
    let failed = |text: String| RuntimeError::Load { path: library.path.clone(), source: text.into() };
    let builder = ort::init_from(&library.path).map_err(|error| failed(error.to_string()))?;
    let environment = builder.with_telemetry(false).build().map_err(|error| failed(error.to_string()))?;
    Ok(open.insert((environment, library, build)).clone())
}
