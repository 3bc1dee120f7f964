//! Hashes of files, computed while the bytes pass by.

use std::io::{self, Read};

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes that are read at a time: large enough that system calls do not show, small enough for any cache.
pub const BLOCK: usize = 1 << 18;

/// What is known of a file before it is here. Hashes are in lower-case hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Size.
    pub bytes: Option<u64>,
    /// SHA-256.
    pub sha256: Option<String>,
    /// MD5.
    pub md5: Option<String>,
    /// SHA-1 of `blob <size>\0` and the content, as git computes it.
    pub git_blob: Option<String>,
}

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Size.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: String,
    /// MD5, where it was asked for.
    pub md5: Option<String>,
    /// Git's blob id, where it was asked for and the size was known beforehand.
    pub git_blob: Option<String>,
}

impl Found {
    /// Whether every kind of hash that `expected` has was computed.
    pub fn covers(&self, expected: &Expected) -> bool {
        (expected.md5.is_none() || self.md5.is_some()) && (expected.git_blob.is_none() || self.git_blob.is_some())
    }
}

/// What vouches for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// The SHA-256 that the manifest or an earlier pin has.
    Sha256,
    /// The MD5 of the manifest.
    Md5,
    /// Git's blob id of the manifest.
    GitBlob,
    /// The hash that the hub stated before the bytes.
    Hub,
    /// Nothing: it was the first fetch, and only its size and its content were checked.
    FirstFetch,
    /// It was made here, from a file that was verified.
    Converted,
}

/// A property in which a file is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// `size`, `sha256`, `md5` or `git blob id`.
    pub kind: &'static str,
    /// What was known.
    pub expected: String,
    /// What the file has.
    pub found: String,
}

impl Expected {
    /// Whether a hash is known.
    pub fn is_hashed(&self) -> bool {
        self.sha256.is_some() || self.md5.is_some() || self.git_blob.is_some()
    }

    /// What vouches for a file that passes [`check`](Self::check).
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

    /// Both together, or the first property in which they contradict each other (`found` is of `other`).
    pub fn and(&self, other: &Self) -> Result<Self, Mismatch> {
        let bytes = agreed("size", self.bytes.map(|bytes| bytes.to_string()), other.bytes.map(|b| b.to_string()))?;
        Ok(Self {
            bytes: bytes.and_then(|bytes| bytes.parse().ok()),
            sha256: agreed("sha256", self.sha256.clone(), other.sha256.clone())?,
            md5: agreed("md5", self.md5.clone(), other.md5.clone())?,
            git_blob: agreed("git blob id", self.git_blob.clone(), other.git_blob.clone())?,
        })
    }

    /// The first property in which `found` is not this; its size before its hashes.
    pub fn check(&self, found: &Found) -> Result<(), Mismatch> {
        let found = Self {
            bytes: Some(found.bytes),
            sha256: Some(found.sha256.clone()),
            md5: found.md5.clone(),
            git_blob: found.git_blob.clone(),
        };
        self.and(&found).map(drop)
    }
}

fn agreed(kind: &'static str, expected: Option<String>, found: Option<String>) -> Result<Option<String>, Mismatch> {
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => Err(Mismatch { kind, expected, found }),
        (expected, found) => Ok(expected.or(found)),
    }
}

/// The hashes of a stream.
#[derive(Clone)]
pub struct Digests {
    bytes: u64,
    sha256: Sha256,
    md5: Option<Md5>,
    git_blob: Option<Sha1>,
}

impl Digests {
    /// SHA-256, and the others where `expected` has them; git's blob id begins with the size, so it needs `total`.
    pub fn new(expected: &Expected, total: Option<u64>) -> Self {
        let git = |total: u64| Sha1::new_with_prefix(format!("blob {total}\0"));
        Self {
            bytes: 0,
            sha256: Sha256::new(),
            md5: expected.md5.as_ref().map(|_| Md5::new()),
            git_blob: expected.git_blob.as_ref().and(total.or(expected.bytes)).map(git),
        }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
        self.md5.iter_mut().for_each(|md5| md5.update(bytes));
        self.git_blob.iter_mut().for_each(|git| git.update(bytes));
    }

    /// Everything from `source`, to its end.
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

    /// The hashes.
    pub fn finish(self) -> Found {
        Found {
            bytes: self.bytes,
            sha256: hex(&self.sha256.finalize()),
            md5: self.md5.map(|md5| hex(&md5.finalize())),
            git_blob: self.git_blob.map(|git| hex(&git.finalize())),
        }
    }
}

/// The file at `path`, read to its end.
pub fn digest_file(path: &std::path::Path, expected: &Expected) -> io::Result<Found> {
    let file = fs_err::File::open(path)?;
    let total = file.metadata()?.len();
    Ok(Digests::new(expected, Some(total)).read(file)?.finish())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `text` is `digits` lower-case hexadecimal digits.
pub fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

impl Verified {
    /// For people.
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
    use super::{Digests, Expected, Verified};

    /// The values are those of `sha256sum`, `md5sum` and `git hash-object` for the five bytes `laps\n`.
    #[test]
    fn hashes_are_those_of_the_usual_tools() {
        let asked =
            Expected { md5: Some(String::new()), git_blob: Some(String::new()), bytes: Some(5), ..Expected::default() };
        let mut digests = Digests::new(&asked, None);
        digests.update(b"la");
        digests.update(b"ps\n");
        let found = digests.finish();
        assert_eq!(found.bytes, 5);
        assert_eq!(found.sha256, "0b7b2f9a5f96c07e44751ef46832cb9f8fb15d981aa1afbe12d9efeed9f2a1d6");
        assert_eq!(found.md5.as_deref(), Some("4963172b03ecea8bf99ee1bac4ee3ed1"));
        assert_eq!(found.git_blob.as_deref(), Some("2e687e609534b9f5e5f7a9a5ec45ce84d80664f4"));
    }

    #[test]
    fn a_wrong_size_is_said_before_a_wrong_hash() {
        let found = Digests::new(&Expected::default(), None).finish();
        let expected = Expected { bytes: Some(7), sha256: Some("00".repeat(32)), ..Expected::default() };
        assert_eq!(expected.check(&found).unwrap_err().kind, "size");
        assert_eq!(Expected { bytes: None, ..expected }.check(&found).unwrap_err().kind, "sha256");
        assert!(Expected::default().check(&found).is_ok());
        assert_eq!(Expected::default().basis(), Verified::FirstFetch);
    }
}
