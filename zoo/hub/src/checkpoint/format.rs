//! Containers of checkpoints, told apart by their first bytes.

use std::fmt;

/// The container of a checkpoint.
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

/// The number that opens the legacy container.
pub(super) const LEGACY_MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

/// Bytes at the start of a file that tell what it is: up to the mark of a tar archive.
pub(super) const HEAD: u64 = 262;

/// What the first bytes of a file say it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    /// One of the containers.
    Checkpoint(Format),
    /// A pickle that is in no container.
    Pickle,
    /// Something else, in words.
    Foreign(&'static str),
}

/// Judges the first [`HEAD`] bytes of a file.
pub(super) fn sniff(head: &[u8]) -> Sniffed {
    // Each protocol frames the number differently, and none needs more than 64 bytes for it.
    let opening = head.get(..64).unwrap_or(head);
    let contains = |needle: &[u8]| opening.windows(needle.len()).any(|window| window == needle);
    let binary = LEGACY_MAGIC.to_le_bytes();
    if head.is_empty() {
        Sniffed::Foreign("an empty file")
    } else if head.starts_with(b"PK\x03\x04") {
        Sniffed::Checkpoint(Format::TorchZip)
    } else if contains(binary.split_at(10).0) || contains(LEGACY_MAGIC.to_string().as_bytes()) {
        Sniffed::Checkpoint(Format::TorchLegacy)
    } else if head.get(8) == Some(&b'{') && !opening.starts_with(b"<") {
        Sniffed::Checkpoint(Format::SafeTensors)
    } else if head.get(257..262) == Some(b"ustar") {
        Sniffed::Foreign("a tar archive")
    } else if head.trim_ascii_start().starts_with(b"<") {
        Sniffed::Foreign("a web page, as a server sends instead of a file that it refuses")
    } else if head.starts_with(b"version https://git-lfs") {
        Sniffed::Foreign("a Git LFS pointer instead of the file that it stands for")
    } else if head.starts_with(b"\x1f\x8b") {
        Sniffed::Foreign("a gzip archive")
    } else if head.starts_with(b"\x89HDF") {
        Sniffed::Foreign("an HDF5 file")
    } else if head.starts_with(b"GGUF") {
        Sniffed::Foreign("a GGUF file")
    } else if head.first().is_some_and(|first| b"\x80(}])lcNISVX".contains(first)) {
        Sniffed::Pickle
    } else {
        Sniffed::Foreign("a file of an unknown kind")
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, Sniffed, sniff};

    #[test]
    fn the_content_decides() {
        let header = b"\x80\0\0\0\0\0\0\0{\"a\":";
        for (head, expected) in [
            (&b""[..], Sniffed::Foreign("an empty file")),
            (b"PK\x03\x04....", Sniffed::Checkpoint(Format::TorchZip)),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", Sniffed::Checkpoint(Format::TorchLegacy)),
            (b"L119547037146038801333356L\n.", Sniffed::Checkpoint(Format::TorchLegacy)),
            (header, Sniffed::Checkpoint(Format::SafeTensors)),
            (b"cos\nsystem\n", Sniffed::Pickle),
            (b"\n<!doctype html>", Sniffed::Foreign("a web page, as a server sends instead of a file that it refuses")),
            (b"\x7fELF", Sniffed::Foreign("a file of an unknown kind")),
        ] {
            assert_eq!(sniff(head), expected, "{head:?}");
        }
    }
}
