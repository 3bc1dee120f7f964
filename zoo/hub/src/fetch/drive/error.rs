//! What Google Drive can answer instead of a file.

use laps_files::is_file_name;

/// An answer that is no file.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The file was fetched too often by everybody together.
    #[error("Google Drive does not give `{id}` at present\n  expected: the file\n  found: {words}")]
    Quota {
        /// The file.
        id: String,
        /// What Drive says.
        words: String,
    },
    /// Only some accounts may see it.
    #[error(
        "`{id}` on Google Drive is not public\n  expected: the {kind} itself\n  found: a page to sign in, or a refusal"
    )]
    Private {
        /// The file or folder.
        id: String,
        /// Which of the two.
        kind: &'static str,
    },
    /// It is not there.
    #[error("`{id}` is not on Google Drive\n  expected: a public {kind}\n  found: none of that identifier")]
    Gone {
        /// The file or folder.
        id: String,
        /// Which of the two.
        kind: &'static str,
    },
    /// The page is none that this program knows.
    #[error("the answer of Google Drive for `{id}` is not understood\n  expected: {expected}\n  found: {found}")]
    Layout {
        /// The file or folder.
        id: String,
        /// What was looked for.
        expected: &'static str,
        /// What the page is.
        found: String,
    },
    /// The folder is there and the file is not in it.
    #[error(
        "the folder `{folder}` on Google Drive has no file `{file}`\n  expected: `{file}`\n  found: {}",
        listed(names)
    )]
    NotInFolder {
        /// The folder.
        folder: String,
        /// The file that was looked for.
        file: String,
        /// What is in it.
        names: Vec<String>,
    },
    /// Two files of one name.
    #[error("the folder `{folder}` on Google Drive has {count} files `{file}`\n  expected: one\n  found: {count}")]
    Ambiguous {
        /// The folder.
        folder: String,
        /// The file that was looked for.
        file: String,
        /// How many there are.
        count: usize,
    },
    /// A form that leads elsewhere.
    #[error(
        "Google Drive asks to confirm the download of `{id}` in a way that is not followed\n  expected: {expected}\n  found: {found}"
    )]
    Form {
        /// The file.
        id: String,
        /// What is followed.
        expected: String,
        /// What the form has.
        found: String,
    },
}

impl DriveError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Quota { .. } => {
                "Drive limits how often a file is fetched, for up to 24 hours: run the same command later, or fetch the file \
                 in a browser and pass its path"
            }
            Self::Private { .. } => "ask its owner to share it with anyone who has the link, or pass the path of a copy",
            Self::Gone { .. } => "its owner has removed or moved it: look for its new place, and pass the path of a copy",
            Self::Layout { .. } | Self::Form { .. } => {
                "Drive may have changed its pages: fetch the file in a browser, pass its path, and report this"
            }
            Self::NotInFolder { .. } | Self::Ambiguous { .. } => {
                "its owner has changed the folder: look into it in a browser, and pass the path of the file"
            }
        }
        .to_owned()
    }
}

/// Names of a listing; one that is no file name is shown as such.
fn listed(names: &[String]) -> String {
    /// The rest is a number.
    const LISTED: usize = 8;
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let shown = |name: &String| {
        if is_file_name(name) { format!("`{name}`") } else { format!("`{}` (no file name)", name.escape_debug()) }
    };
    let mut text = names.iter().take(LISTED).map(shown).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    text
}
