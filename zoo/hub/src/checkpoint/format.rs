//! Container formats, recognised by the first bytes of a file.

use std::{ffi::OsStr, fmt, path::Path};

/// The container format of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    SafeTensors,
    /// The zip archive of `torch.save` since PyTorch 1.6.
    TorchZip,
    /// The stream of pickles and storages of `torch.save` before PyTorch 1.6.
    TorchLegacy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SafeTensors => "safetensors",
            Self::TorchZip => "torch (zip)",
            Self::TorchLegacy => "torch (legacy)",
        })
    }
}

/// Extensions of checkpoints in the two formats.
const EXTENSIONS: [&str; 6] = ["pth", "pt", "bin", "ckpt", "tar", "safetensors"];

/// Whether a file of this name can be a checkpoint.
pub(super) fn is_checkpoint_name(name: impl AsRef<Path>) -> bool {
    let extension = name.as_ref().extension().and_then(OsStr::to_str).unwrap_or_default();
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// The magic number of the legacy container.
pub(super) const LEGACY_MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

/// Bytes at the start of a file that are enough to recognise it: up to the magic of a tar archive.
pub(super) const HEAD_BYTES: u64 = 262;

/// The kind of a file by its first bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A supported container.
    Checkpoint(Format),
    /// A pickle outside of any container.
    BarePickle,
    /// Another kind, in words.
    Foreign(&'static str),
}

/// Recognises the first [`HEAD_BYTES`] bytes of a file.
pub(super) fn detect(head: &[u8]) -> FileKind {
    // Each protocol encodes the number differently, within the first 64 bytes.
    let opening = head.get(..64).unwrap_or(head);
    let contains = |needle: &[u8]| opening.windows(needle.len()).any(|window| window == needle);
    let binary = LEGACY_MAGIC.to_le_bytes();
    if head.is_empty() {
        FileKind::Foreign("an empty file")
    } else if head.starts_with(b"PK\x03\x04") {
        FileKind::Checkpoint(Format::TorchZip)
    } else if contains(binary.split_at(10).0) || contains(LEGACY_MAGIC.to_string().as_bytes()) {
        FileKind::Checkpoint(Format::TorchLegacy)
    } else if head.get(8) == Some(&b'{') && !opening.starts_with(b"<") {
        FileKind::Checkpoint(Format::SafeTensors)
    } else if head.get(257..262) == Some(b"ustar") {
        FileKind::Foreign("a tar archive")
    } else if head.trim_ascii_start().starts_with(b"<") {
        FileKind::Foreign("a web page, which a server sends in place of a file that it refuses")
    } else if head.starts_with(b"version https://git-lfs") {
        FileKind::Foreign("a Git LFS pointer in place of the file")
    } else if head.starts_with(b"\x1f\x8b") {
        FileKind::Foreign("a gzip archive")
    } else if head.starts_with(b"\x89HDF") {
        FileKind::Foreign("an HDF5 file")
    } else if head.starts_with(b"GGUF") {
        FileKind::Foreign("a GGUF file")
    } else if head.first().is_some_and(|first| b"\x80(}])lcNISVX".contains(first)) {
        FileKind::BarePickle
    } else {
        FileKind::Foreign("a file of unknown kind")
    }
}

#[cfg(test)]
mod tests {
    use super::{FileKind, Format, detect};

    #[test]
    fn format_is_recognised_by_content() {
        let header = b"\x80\0\0\0\0\0\0\0{\"a\":";
        for (head, expected) in [
            (&b""[..], FileKind::Foreign("an empty file")),
            (b"PK\x03\x04....", FileKind::Checkpoint(Format::TorchZip)),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", FileKind::Checkpoint(Format::TorchLegacy)),
            (b"L119547037146038801333356L\n.", FileKind::Checkpoint(Format::TorchLegacy)),
            (header, FileKind::Checkpoint(Format::SafeTensors)),
            (b"cos\nsystem\n", FileKind::BarePickle),
            (
                b"\n<!doctype html>",
                FileKind::Foreign("a web page, which a server sends in place of a file that it refuses"),
            ),
            (b"\x7fELF", FileKind::Foreign("a file of unknown kind")),
        ] {
            assert_eq!(detect(head), expected, "{head:?}");
        }
    }
}
