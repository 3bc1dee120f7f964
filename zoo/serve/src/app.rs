//! State shared by all requests.

use std::{
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use laps_data::{
    ExifOrientation,
    image::{self, Preprocessing},
    orient,
};
use laps_files::{path_to_text, text_to_path};
use laps_search::{ModelUsed, SearchError, Store};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, spawn_blocking},
    time::timeout,
};

use crate::{
    Limits,
    failure::Failure,
    metrics::Metrics,
    worker::{Encodable, Queue},
};

pub(crate) struct App {
    pub(crate) queue: Queue,
    pub(crate) index: Arc<dyn Store>,
    pub(crate) model: ModelUsed,
    pub(crate) width: usize,
    pub(crate) preprocessing: Preprocessing,
    pub(crate) limits: Limits,
    /// SHA-256 of the token.
    pub(crate) token: Option<[u8; 32]>,
    /// Whether only the names of this machine are accepted as `Host`.
    pub(crate) local_names_only: bool,
    pub(crate) images: Option<PathBuf>,
    pub(crate) log: bool,
    pub(crate) metrics: Metrics,
    /// KiB of bodies that may be in memory.
    pub(crate) bodies: Arc<Semaphore>,
    /// Images that are decoded at one time.
    pub(crate) decoding: Arc<Semaphore>,
    /// Checks of the index that run at one time: one.
    pub(crate) checking: Arc<Semaphore>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Longer side of an image of the index as it is sent, in pixels.
const SIDE: usize = 640;
/// JPEG quality of an image of the index as it is sent.
const QUALITY: u8 = 85;
/// Time in which the index must answer a check.
const CHECK_TIME: Duration = Duration::from_secs(5);

impl App {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the index can be read, which a database that does not answer cannot.
    pub(crate) async fn index_answers(&self) -> bool {
        let check = async {
            // A database that hangs keeps one thread, and not one for each check.
            let permit = Arc::clone(&self.checking).acquire_owned().await.ok()?;
            let index = Arc::clone(&self.index);
            let answers = spawn_blocking(move || {
                let _permit = permit;
                index.names(&[]).is_ok()
            });
            answers.await.ok()
        };
        timeout(CHECK_TIME, check).await.ok().flatten().unwrap_or(false)
    }

    /// A permit to decode an image, which the decoding thread holds: that thread continues after the client has disconnected.
    async fn decoding_permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.decoding).acquire_owned().await.map_err(|_| Failure::internal())
    }

    /// Decodes and preprocesses the bytes of an image file. `name` says which one, in errors.
    pub(crate) async fn decode(&self, bytes: Vec<u8>, name: String) -> Result<Encodable, Failure> {
        let permit = self.decoding_permit().await?;
        let (preprocessing, pixels, orientation) =
            (self.preprocessing, self.limits.pixels, self.index.description().orientation());
        let decoded = spawn_blocking(move || -> Result<Vec<f32>, Failure> {
            let _permit = permit;
            let image = decode_upright(&bytes, pixels, orientation, name)?;
            let mut values = vec![0.0; preprocessing.values()];
            preprocessing.write(&image, &mut values).map_err(laps::Error::from)?;
            Ok(values)
        });
        Ok(Encodable::Pixels(finished(decoded.await)?))
    }

    /// The image of an item of the index, as a JPEG file made from its pixels.
    pub(crate) async fn item_image(&self, item: usize) -> Result<Vec<u8>, Failure> {
        let missing = || {
            let message = format!("item {item} has no image that can be read");
            Failure::new(axum::http::StatusCode::NOT_FOUND, message)
                .with_hint("the images must be where they were when they were indexed")
        };
        let description = self.index.description();
        if description.kind != laps_search::IndexKind::Images {
            return Err(missing());
        }
        let folder = self.images.clone().unwrap_or_else(|| text_to_path(&description.source));
        let (index, pixels, orientation) = (Arc::clone(&self.index), self.limits.pixels, description.orientation());
        let permit = self.decoding_permit().await?;
        let jpeg = spawn_blocking(move || -> Result<Option<Vec<u8>>, Failure> {
            let _permit = permit;
            let name = match index.names(&[item]) {
                Err(laps_search::Error::Search(SearchError::NoItem { .. })) => return Ok(None),
                names => names?.pop(),
            };
            Ok(name.and_then(|name| thumbnail(&folder, &name, pixels, orientation)))
        });
        finished(jpeg.await)?.ok_or_else(missing)
    }
}

/// The image `name` of `folder` as a JPEG file; None if it cannot be read.
fn thumbnail(folder: &Path, name: &str, pixels: usize, orientation: ExifOrientation) -> Option<Vec<u8>> {
    // An index comes from outside too: its names must not lead out of its folder.
    let name = text_to_path(name);
    if !name.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let path = folder.join(name);
    let bytes = laps_files::read_regular(&path).ok()?;
    let image = decode_upright(&bytes, pixels, orientation, path_to_text(&path)).ok()?;
    image::thumbnail(&image, SIDE, QUALITY).ok()
}

fn decode_upright(
    bytes: &[u8],
    pixels: usize,
    orientation: ExifOrientation,
    name: String,
) -> Result<image::RgbImage, Failure> {
    let decoded = image::decode_within(bytes, pixels);
    let failed = |cause| laps::Error::from(SearchError::Image { path: name.into(), cause });
    let image = decoded.map_err(failed)?.image;
    Ok(orient(bytes, image, orientation))
}

fn finished<T>(outcome: Result<Result<T, Failure>, JoinError>) -> Result<T, Failure> {
    outcome.unwrap_or_else(|_| Err(Failure::internal()))
}
