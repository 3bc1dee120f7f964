//! File handling for laps-zoo. Every other crate of the project uses this one, so that each task has one implementation:
//!
//! * **Output.** [`OutputFile`] and [`write_output`] write a file that is complete or absent, and write into pipes and
//!   devices. [`persist`] is the last step alone, for files that are written in several sessions, such as downloads, and
//!   [`seekable_target`] the file that such a writer completes. [`folder_target`] is the folder of an output of many files.
//! * **Temporary files.** [`TemporaryFolder`] is a folder in the first place that works, [`memory_file`] a file without a
//!   name. [`remove_temporary_files`] removes them, and unfinished output files, before a signal ends the process.
//! * **Input.** [`read_regular`] reads a file and does not wait for a FIFO.
//! * **Hashes.** [`sha256`], [`sha256_hex`] and [`digest_file`] hash bytes and files. [`DigestWriter`] hashes a stream while
//!   it passes. [`ExpectedDigest`] is what a manifest states about a file, and [`FileDigest`] what was computed.
//! * **Names from outside.** [`safe_relative_path`] is the only check of paths that come from an archive, a manifest, a
//!   caption file or a server. [`path_to_text`] writes a path of any bytes as text that leads back to it.
//! * **Text.** [`read_text`] reads the text files of users, with or without a byte order mark; [`lines`](lines()) splits them.
//! * **safetensors.** [`safetensors_header`] reads and checks the header of a safetensors file, [`safetensors_header_at`]
//!   one of several in a file, and [`safetensors_head`] writes one.
//! * **Locks.** [`FileLock`] is an exclusive lock between processes.
//! * **Cache.** [`cache`] finds the cache folder.
//! * **Progress.** [`Progress`] reports long-running work.
//!
//! # Example
//!
//! Write a file at a path that a server sent, and verify it:
//!
//! ```
//! use std::io::Write;
//! use laps_files::{ExpectedDigest, digest_file, safe_relative_path, sha256_hex, write_output};
//!
//! # let folder = tempfile::tempdir()?;
//! assert!(safe_relative_path("../../etc/passwd").is_none());
//! let name = safe_relative_path("train2014-000009.txt").ok_or("the path leaves the folder")?;
//! let path = folder.path().join(name);
//! write_output(&path, |output| output.write_all(b"laps\n"))?;
//!
//! let expected = ExpectedDigest { sha256: Some(sha256_hex(b"laps\n")), ..ExpectedDigest::default() };
//! let found = digest_file(&path, &expected)?;
//! assert_eq!(found.bytes, 5);
//! assert_eq!(expected.check(&found), Ok(()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cache;
mod digest;
mod error;
mod lock;
mod names;
mod output;
mod progress;
mod read;
mod safetensors;
mod temporary;
mod text;
mod time;

pub use digest::{
    BLOCK, DigestWriter, ExpectedDigest, FileDigest, Mismatch, Verified, digest_file, hex, is_hex, sha256, sha256_hex,
};
pub use error::{Error, IoError, Result};
pub use lock::FileLock;
pub use names::{is_file_name, path_to_text, safe_relative_path, text_to_path};
pub use output::{
    OutputFile, folder_target, is_stdout, is_temporary_name, persist, remove_abandoned_files, replace, seekable_target,
    with_suffix, write_output,
};
pub use progress::{Progress, ProgressUnit};
pub use read::{irregular, read_regular};
pub use safetensors::{TensorHeader, safetensors_head, safetensors_header, safetensors_header_at};
pub use temporary::{TemporaryFolder, memory_file, remove_temporary_files};
pub use text::{NotUtf8, decode_text, lines, read_text, skip_mark, strip_mark, strip_mark_bytes};
pub use time::utc_now;
