//! Hashes of bytes, files and streams.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes read at a time: large enough that the cost of system calls is negligible, small enough for the CPU's cache.
pub const BLOCK: usize = 1 << 18;

/// Expected size and hashes of a file. Hashes are lower-case hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedDigest {
    /// Size in bytes.
    pub bytes: Option<u64>,
    /// SHA-256.
    pub sha256: Option<String>,
    /// MD5.
    pub md5: Option<String>,
    /// SHA-1 of `blob <size>\0` and the content, as git computes it.
    pub git_blob: Option<String>,
}

/// Size and hashes of a file. Hashes are lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: String,
    /// MD5, if it was expected.
    pub md5: Option<String>,
    /// Git's blob id, if it was expected and the size was known beforehand.
    pub git_blob: Option<String>,
}

impl FileDigest {
    /// Whether every kind of hash in `expected` was computed.
    pub fn covers(&self, expected: &ExpectedDigest) -> bool {
        (expected.md5.is_none() || self.md5.is_some()) && (expected.git_blob.is_none() || self.git_blob.is_some())
    }
}

/// How a file was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// By the SHA-256 in the manifest or in an earlier pin.
    Sha256,
    /// By the MD5 in the manifest.
    Md5,
    /// By git's blob id in the manifest.
    GitBlob,
    /// By the hash that the hub stated before the download.
    Hub,
    /// Not by a hash: it was the first fetch, and only the size and the contents were checked.
    FirstFetch,
    /// It was converted from a verified file.
    Converted,
}

/// The property in which a file differs from what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// `size`, `sha256`, `md5` or `git blob id`.
    pub kind: &'static str,
    /// The expected value.
    pub expected: String,
    /// The file's value.
    pub found: String,
}

impl ExpectedDigest {
    /// Whether a hash is known.
    pub fn is_hashed(&self) -> bool {
        self.sha256.is_some() || self.md5.is_some() || self.git_blob.is_some()
    }

    /// How a file that passes [`check`](Self::check) is verified.
    pub fn basis(&self) -> Verified {
        if self.sha256.is_some() {
            Verified::Sha256
        } else if self.git_blob.is_some() {
            Verified::GitBlob
        } else if self.md5.is_some() {
            Verified::Md5
        } else {
            Verified::FirstFetch
        }
    }

    /// Merges both, or returns the first property in which they differ (`found` is the value of `other`).
    pub fn and(&self, other: &Self) -> Result<Self, Mismatch> {
        let bytes = merge("size", self.bytes.map(|bytes| bytes.to_string()), other.bytes.map(|b| b.to_string()))?;
        Ok(Self {
            bytes: bytes.and_then(|bytes| bytes.parse().ok()),
            sha256: merge("sha256", self.sha256.clone(), other.sha256.clone())?,
            md5: merge("md5", self.md5.clone(), other.md5.clone())?,
            git_blob: merge("git blob id", self.git_blob.clone(), other.git_blob.clone())?,
        })
    }

    /// Compares `found` with the expected values: the size first, then the hashes.
    ///
    /// # Errors
    /// The first property that differs.
    pub fn check(&self, found: &FileDigest) -> Result<(), Mismatch> {
        let found = Self {
            bytes: Some(found.bytes),
            sha256: Some(found.sha256.clone()),
            md5: found.md5.clone(),
            git_blob: found.git_blob.clone(),
        };
        self.and(&found).map(drop)
    }
}

fn merge(kind: &'static str, expected: Option<String>, found: Option<String>) -> Result<Option<String>, Mismatch> {
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => Err(Mismatch { kind, expected, found }),
        (expected, found) => Ok(expected.or(found)),
    }
}

/// Computes the size and hashes of the bytes that are written to it.
///
/// ```
/// use std::io::Write;
/// use laps_files::{DigestWriter, sha256_hex};
///
/// let mut digest = DigestWriter::sha256();
/// digest.write_all(b"la")?;
/// digest.write_all(b"ps")?;
/// assert_eq!(digest.finish().sha256, sha256_hex(b"laps"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct DigestWriter {
    bytes: u64,
    sha256: Sha256,
    md5: Option<Md5>,
    git_blob: Option<Sha1>,
}

impl DigestWriter {
    /// Computes SHA-256 alone.
    pub fn sha256() -> Self {
        Self::new(&ExpectedDigest::default(), None)
    }

    /// Computes SHA-256, and the other hashes that `expected` has. Git's blob id starts with the size, so it needs `total`
    /// or the expected size.
    pub fn new(expected: &ExpectedDigest, total: Option<u64>) -> Self {
        let git = |total: u64| Sha1::new_with_prefix(format!("blob {total}\0"));
        Self {
            bytes: 0,
            sha256: Sha256::new(),
            md5: expected.md5.as_ref().map(|_| Md5::new()),
            git_blob: expected.git_blob.as_ref().and(total.or(expected.bytes)).map(git),
        }
    }

    /// Number of bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the next bytes. Unlike `write`, it cannot fail.
    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
        self.md5.iter_mut().for_each(|md5| md5.update(bytes));
        self.git_blob.iter_mut().for_each(|git| git.update(bytes));
    }

    /// Adds all bytes of `source`.
    pub fn read(mut self, mut source: impl Read) -> io::Result<Self> {
        let mut block = vec![0; BLOCK];
        loop {
            match source.read(&mut block) {
                Ok(0) => return Ok(self),
                Ok(read) => self.update(&block[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Size and hashes of everything that was added.
    pub fn finish(self) -> FileDigest {
        FileDigest {
            bytes: self.bytes,
            sha256: hex(&self.sha256.finalize()),
            md5: self.md5.map(|md5| hex(&md5.finalize())),
            git_blob: self.git_blob.map(|git| hex(&git.finalize())),
        }
    }
}

impl Write for DigestWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes the file at `path`: SHA-256, and the other hashes that `expected` has.
pub fn digest_file(path: &Path, expected: &ExpectedDigest) -> io::Result<FileDigest> {
    let file = fs_err::File::open(path)?;
    let total = file.metadata()?.len();
    Ok(DigestWriter::new(expected, Some(total)).read(file)?.finish())
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

/// `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `text` is `digits` lower-case hexadecimal digits.
pub fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

impl Verified {
    /// Text for the user.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Sha256 => "by a known sha256",
            Self::Md5 => "by a known md5",
            Self::GitBlob => "by a known git blob id",
            Self::Hub => "by the hash that the hub states",
            Self::FirstFetch => "on first fetch: nobody has published a hash",
            Self::Converted => "made from a verified file",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DigestWriter, ExpectedDigest, Verified};

    /// The values are those of `sha256sum`, `md5sum` and `git hash-object` for the five bytes `laps\n`.
    #[test]
    fn hashes_equal_those_of_command_line_tools() {
        let asked = ExpectedDigest {
            md5: Some(String::new()),
            git_blob: Some(String::new()),
            bytes: Some(5),
            ..ExpectedDigest::default()
        };
        let mut digests = DigestWriter::new(&asked, None);
        digests.update(b"la");
        digests.update(b"ps\n");
        let found = digests.finish();
        assert_eq!(found.bytes, 5);
        assert_eq!(found.sha256, "0b7b2f9a5f96c07e44751ef46832cb9f8fb15d981aa1afbe12d9efeed9f2a1d6");
        assert_eq!(found.md5.as_deref(), Some("4963172b03ecea8bf99ee1bac4ee3ed1"));
        assert_eq!(found.git_blob.as_deref(), Some("2e687e609534b9f5e5f7a9a5ec45ce84d80664f4"));
    }

    #[test]
    fn size_is_compared_before_hashes() {
        let found = DigestWriter::new(&ExpectedDigest::default(), None).finish();
        let expected = ExpectedDigest { bytes: Some(7), sha256: Some("00".repeat(32)), ..ExpectedDigest::default() };
        assert_eq!(expected.check(&found).unwrap_err().kind, "size");
        assert_eq!(ExpectedDigest { bytes: None, ..expected }.check(&found).unwrap_err().kind, "sha256");
        assert!(ExpectedDigest::default().check(&found).is_ok());
        assert_eq!(ExpectedDigest::default().basis(), Verified::FirstFetch);
    }
}
