//! Errors of this crate.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use laps_files::{IoError, NotUtf8};

use super::{
    faults::{ImageFault, UnusableData, list},
    sources::SourceKind,
};

/// A data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A text file could not be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The folder has no such split.
    #[error(
        "split `{name}` is not in `{}`\n  expected: `{missing}`\n  found: {}", folder.display(), splits(available)
    )]
    Split {
        /// Folder of the caption files.
        folder: PathBuf,
        /// The requested split.
        name: String,
        /// Its missing file.
        missing: String,
        /// The splits in the folder.
        available: Vec<String>,
    },
    /// The two files of a split differ in length.
    #[error(
        "`{}` and `{}` do not belong together\n  expected: as many ids as captions, or one id for five captions\n  found: {ids} ids and {captions} \
         captions", ids_path.display(), captions_path.display()
    )]
    Lengths {
        /// The file of image ids.
        ids_path: PathBuf,
        /// Its rows.
        ids: usize,
        /// The file of captions.
        captions_path: PathBuf,
        /// Its rows.
        captions: usize,
    },
    /// A source has no such file.
    #[error("`{}` has no files of the layout `{kind}`\n  expected: `{expected}`\n  found: no such file", folder.display())]
    SourceFiles {
        /// The layout.
        kind: SourceKind,
        /// Folder of the source.
        folder: PathBuf,
        /// The names or globs.
        expected: String,
    },
    /// A file is empty.
    #[error("`{}` is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The contents of a text file cannot be used.
    #[error("`{}` cannot be used\n  expected: {expected}\n  found: {found}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The required content.
        expected: String,
        /// Its content.
        found: String,
    },
    /// Image ids have no file name, or one that leads out of the image folder.
    #[error("{}", MappingFaults { faults, ids_path, mapping_path })]
    Mapping {
        /// The ids that cannot be used, in the order of their file.
        faults: Vec<MappingFault>,
        /// The file of image ids.
        ids_path: PathBuf,
        /// The file that maps ids to file names.
        mapping_path: PathBuf,
    },
    /// The vocabulary has another size than the model's table of words.
    #[error(
        "`{}` does not fit the model\n  expected: {expected} tokens, the `vocab_size` of the model\n  \
         found: {entries} tokens", path.display()
    )]
    VocabularySize {
        /// The vocabulary.
        path: PathBuf,
        /// Its tokens.
        entries: usize,
        /// Rows of the model's word embedding.
        expected: usize,
    },
    /// The vocabulary has capital letters, and nothing says whether captions are converted to lower case.
    #[error(
        "`{}` has capital letters, as in line {line}\n  expected: a vocabulary in lower case, or `do_lower_case` for a cased \
         one\n  found: `{token}`", path.display()
    )]
    CasedVocabulary {
        /// The vocabulary.
        path: PathBuf,
        /// The first line with such a token, counted from 1.
        line: usize,
        /// The token.
        token: String,
    },
    /// The tokenizer failed.
    #[error("a caption cannot be tokenized: {reason}")]
    Tokenizer {
        /// Message of the library.
        reason: String,
    },
    /// An image cannot be used.
    #[error("{0} cannot be used: {cause}", cause = .0.cause)]
    Image(Box<ImageFault>),
    /// Captions or images cannot be used.
    #[error("{0}")]
    Unusable(Box<UnusableData>),
    /// Threads could not be started.
    #[error("cannot start {threads} threads")]
    Threads {
        /// Number of threads.
        threads: usize,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

/// An image id that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappingFault {
    /// The mapping has no such id.
    Unmapped {
        /// The id.
        id: String,
        /// Its line in the file of ids, counted from 1.
        line: usize,
    },
    /// The file name leads out of the image folder.
    UnsafeName {
        /// The id.
        id: String,
        /// The file name.
        name: String,
        /// Line of the id in the mapping, counted from 1.
        line: Option<usize>,
    },
}

/// The message of [`DataError::Mapping`].
struct MappingFaults<'a> {
    faults: &'a [MappingFault],
    ids_path: &'a Path,
    mapping_path: &'a Path,
}

impl fmt::Display for MappingFaults<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ids, mapping] = [self.ids_path, self.mapping_path].map(Path::display);
        let describe = |fault: &MappingFault| match fault {
            MappingFault::Unmapped { id, line } => {
                format!("image id `{id}` (line {line} of `{ids}`) is not in `{mapping}`")
            }
            MappingFault::UnsafeName { id, name, line } => {
                let line = line.map_or_else(String::new, |line| format!("line {line} of "));
                format!(
                    "image id `{id}` is mapped to `{name}` ({line}`{mapping}`), not to a path inside the image folder"
                )
            }
        };
        match self.faults {
            [fault] => formatter.write_str(&describe(fault)),
            faults => {
                write!(formatter, "{} image ids cannot be used", faults.len())?;
                list(formatter, faults.iter().map(describe))
            }
        }
    }
}

impl DataError {
    /// The error with the file that its captions are lines of.
    pub fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Unusable(mut data) => {
                for fault in &mut data.caption_faults {
                    fault.line.file.get_or_insert_with(|| file.into());
                }
                Self::Unusable(data)
            }
            other => other,
        }
    }

    pub(crate) fn not_utf8(path: &Path, error: NotUtf8) -> Self {
        Self::Content { path: path.to_owned(), expected: "text in UTF-8".to_owned(), found: error.to_string() }
    }

    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Split { available, .. } if available.is_empty() => {
                "a split is two files, `NAME_ids.txt` and `NAME_caps.txt`, beside `id_mapping.json`"
            }
            Self::Split { .. } => "choose one of the splits that are there, or put both files of the split there",
            Self::Lengths { .. } => {
                "line N of the one file is a caption of the image in line N of the other; with one id for each image, lines 5N-4 to 5N are its captions"
            }
            Self::Mapping { faults, .. } => match faults.first() {
                Some(MappingFault::UnsafeName { .. }) => "names are relative to the image folder, without `..`",
                _ => "the mapping has to come from the same data set as the ids",
            },
            Self::CasedVocabulary { .. } => {
                "write `{\"do_lower_case\": false}` to a `tokenizer_config.json` beside the vocabulary, or set \
                 `data.do_lower_case` in the entry"
            }
            Self::VocabularySize { .. } => "use the vocabulary that the text encoder was trained with",
            Self::Image(fault) => return fault.cause.hint(),
            Self::Unusable(data) => return data.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

fn splits(names: &[String]) -> String {
    if names.is_empty() {
        return "no split".to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("the split{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`DataError`].
    #[error(transparent)]
    Data(#[from] DataError),
    /// See [`crate::scenes::SceneError`].
    #[error(transparent)]
    Scenes(#[from] crate::scenes::SceneError),
    /// See [`laps_model::Error`].
    #[error(transparent)]
    Model(#[from] laps_model::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Error {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => error.hint(),
            Self::Scenes(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Io(_) => None,
        }
    }
}
