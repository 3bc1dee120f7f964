//! The lock file `laps-zoo.lock`: the size and hash of every fetched file.

use std::{collections::BTreeMap, io::Read, path::Path};

use serde::{Deserialize, Serialize};

use super::FileStoreError;
use laps_files::{ExpectedDigest, FileLock, Verified, is_hex, replace, strip_mark};

/// Name of the lock file.
pub const LOCK_FILE: &str = "laps-zoo.lock";

/// Maximum size of the lock file in bytes. A pin takes about 300 bytes, and there are about 40 of them.
const MAX_BYTES: u64 = 1 << 20;

/// Format version.
const VERSION: u32 = 1;

const HEADER: &str = "# Written by laps-zoo: size and hash of every fetched file. Remove an entry to accept another file in its \
    place.\n";

/// The pin of a fetched file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Where the file was downloaded from.
    pub url: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: String,
    /// Time of the fetch in UTC: `2026-11-24T20:26:41Z`.
    pub fetched: String,
    /// How the file was verified.
    pub verified: Verified,
    /// Commit that the branch pointed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// The pins of a lock file by key, which is the path below the cache folder.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    files: BTreeMap<String, Pin>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinFile {
    version: u32,
    files: BTreeMap<String, Pin>,
}

impl Pin {
    /// The size and hash that the file must have.
    pub fn expected(&self) -> ExpectedDigest {
        ExpectedDigest { bytes: Some(self.bytes), sha256: Some(self.sha256.clone()), ..ExpectedDigest::default() }
    }
}

impl Pins {
    /// Reads a lock file. A missing file has no pins.
    ///
    /// # Errors
    /// [`FileStoreError::Pins`] for an invalid file.
    pub fn open(path: &Path) -> Result<Self, FileStoreError> {
        let read = |source| FileStoreError::io("read", path, source);
        let mut text = String::new();
        match fs_err::File::open(path) {
            Ok(file) => file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(read)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(read(error)),
        };
        let wrong = |reason: String| FileStoreError::Pins { path: path.to_owned(), reason };
        if text.len() as u64 > MAX_BYTES {
            return Err(wrong(format!("more than {MAX_BYTES} bytes")));
        }
        let file: PinFile = serde_yaml::from_str(strip_mark(&text)).map_err(|error| wrong(error.to_string()))?;
        if file.version != VERSION {
            return Err(wrong(format!("version {}, expected {VERSION}", file.version)));
        }
        if let Some((key, _)) = file.files.iter().find(|(_, pin)| !is_hex(&pin.sha256, 64)) {
            return Err(wrong(format!("`{key}` without a sha256 of 64 hexadecimal digits")));
        }
        Ok(Self { files: file.files })
    }

    /// The pin of `key`.
    pub fn get(&self, key: &str) -> Option<&Pin> {
        self.files.get(key)
    }

    /// All pins in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Pin)> {
        self.files.iter().map(|(key, pin)| (key.as_str(), pin))
    }

    /// Adds a pin to the lock file at `path`, which other processes may change at the same time. An equal pin keeps its
    /// time.
    ///
    /// # Errors
    /// [`FileStoreError::PinConflict`] if the key is pinned with another hash.
    pub fn record(path: &Path, key: &str, pin: Pin) -> Result<(), FileStoreError> {
        let write = |source| FileStoreError::io("write", path, source);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder).map_err(write)?;
        }
        let _lock = FileLock::acquire(path, || {}).map_err(write)?;
        let mut pins = Self::open(path)?;
        match pins.files.get(key) {
            Some(known) if known.sha256 == pin.sha256 && known.bytes == pin.bytes => return Ok(()),
            // Another version of this program may convert a checkpoint to other bytes.
            Some(known) if known.verified != Verified::Converted => {
                return Err(FileStoreError::PinConflict {
                    key: key.to_owned(),
                    pins: path.to_owned(),
                    expected: known.sha256.clone(),
                    found: pin.sha256,
                });
            }
            _ => {}
        }
        pins.files.insert(key.to_owned(), pin);
        let file = PinFile { version: VERSION, files: pins.files };
        let text = serde_yaml::to_string(&file)
            .map_err(|error| FileStoreError::Pins { path: path.to_owned(), reason: error.to_string() })?;
        replace(path, (HEADER.to_owned() + &text).as_bytes()).map_err(write)
    }
}

#[cfg(test)]
mod tests {
    use super::{LOCK_FILE, Pin, Pins, Verified};
    use crate::store::FileStoreError;

    fn pin(digit: &str) -> Pin {
        Pin {
            url: "https://example.org/a".to_owned(),
            bytes: 5,
            sha256: digit.repeat(64),
            fetched: "1970-01-01T00:00:00Z".to_owned(),
            verified: Verified::FirstFetch,
            revision: None,
        }
    }

    #[test]
    fn pins_are_recorded_and_enforced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper").join(LOCK_FILE);
        assert!(Pins::open(&path).unwrap().get("a/b").is_none());
        Pins::record(&path, "a/b", pin("1")).unwrap();
        Pins::record(&path, "a/c", pin("2")).unwrap();
        Pins::record(&path, "a/b", Pin { fetched: "later".to_owned(), ..pin("1") }).unwrap();
        assert_eq!(Pins::open(&path).unwrap().get("a/b"), Some(&pin("1")));
        assert!(matches!(Pins::record(&path, "a/b", pin("3")), Err(FileStoreError::PinConflict { .. })));
        assert_eq!(Pins::open(&path).unwrap().iter().count(), 2);
        let left: Vec<_> = fs_err::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [LOCK_FILE]);
    }

    #[test]
    fn byte_order_mark_is_not_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOCK_FILE);
        Pins::record(&path, "a/b", pin("1")).unwrap();
        let text = fs_err::read_to_string(&path).unwrap();
        // Also without the comment in front.
        for text in [text.as_str(), &text[text.find("version").unwrap()..]] {
            fs_err::write(&path, format!("\u{feff}{text}")).unwrap();
            assert_eq!(Pins::open(&path).unwrap().get("a/b"), Some(&pin("1")));
        }
    }

    #[test]
    fn invalid_lock_file_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOCK_FILE);
        for text in ["", "version: 2\nfiles: {}", "version: 1\nfiles: []", "version: 1\nfiles: {}\nmore: 1", "<html>"] {
            fs_err::write(&path, text).unwrap();
            assert!(matches!(Pins::open(&path), Err(FileStoreError::Pins { .. })), "{text}");
        }
        fs_err::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(matches!(Pins::open(&path), Err(FileStoreError::Pins { .. })));
    }
}
