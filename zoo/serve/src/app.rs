//! State shared by all requests.

use std::{
    path::{Component, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use laps_data::{
    ExifOrientation,
    image::{self, Preprocessing},
    orient,
};
use laps_files::{path_to_text, text_to_path};
use laps_search::{ModelUsed, SearchError, Store};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
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
    /// KiB of bodies that may be read.
    pub(crate) bodies: Semaphore,
    /// Images that are decoded at one time.
    pub(crate) decoding: Semaphore,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Longer side of an image of the index as it is sent, in pixels.
const SIDE: usize = 640;
/// JPEG quality of an image of the index as it is sent.
const QUALITY: u8 = 85;

impl App {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Decodes and preprocesses the bytes of an image file. `name` says which one, in errors.
    pub(crate) async fn decode(&self, bytes: Vec<u8>, name: String) -> Result<Encodable, Failure> {
        let _permit = self.decoding.acquire().await.map_err(|_| Failure::internal())?;
        let (preprocessing, pixels, orientation) =
            (self.preprocessing, self.limits.pixels, self.index.description().orientation());
        let decoded = spawn_blocking(move || -> Result<Vec<f32>, Failure> {
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
        let _permit = self.decoding.acquire().await.map_err(|_| Failure::internal())?;
        let jpeg = spawn_blocking(move || {
            // An index comes from outside too: its names must not lead out of its folder.
            let name = text_to_path(index.names(&[item]).ok()?.first()?);
            if !name.components().all(|part| matches!(part, Component::Normal(_))) {
                return None;
            }
            let path = folder.join(name);
            let bytes = laps_files::read_regular(&path).ok()?;
            let image = decode_upright(&bytes, pixels, orientation, path_to_text(&path)).ok()?;
            image::thumbnail(&image, SIDE, QUALITY).ok()
        });
        jpeg.await.ok().flatten().ok_or_else(missing)
    }
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
