//! The environment of ONNX Runtime: one per process, created with the first session.

use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

use super::{BuildInfo, Library, RuntimeError, library};

static ENVIRONMENT: Mutex<Option<(Environment, Library, BuildInfo)>> = Mutex::new(None);

/// The environment of this process and its library. Telemetry is off.
///
/// # Errors
/// [`RuntimeError`] if no library is found, or if the library cannot be used.
pub fn environment() -> Result<(Environment, Library, BuildInfo), RuntimeError> {
    let mut current = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(current) = &*current {
        return Ok(current.clone());
    }
    let library = library::find()?;
    let build = library.load()?;
    let failed = |text: String| RuntimeError::Load { path: library.path.clone(), source: text.into() };
    let builder = ort::init_from(&library.path).map_err(|error| failed(error.to_string()))?;
    let environment = builder.with_telemetry(false).build().map_err(|error| failed(error.to_string()))?;
    Ok(current.insert((environment, library, build)).clone())
}
