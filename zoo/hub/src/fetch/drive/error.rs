//! Errors of Google Drive.

use laps_files::is_file_name;

/// A response of Drive that is not the file.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The download quota of the file, shared by all users, is used up.
    #[error("Google Drive refuses to send `{id}`\n  expected: the file\n  found: {words}")]
    Quota {
        /// Drive id of the file.
        id: String,
        /// The message of Drive.
        words: String,
    },
    /// The file or folder is not public.
    #[error("`{id}` on Google Drive is not public\n  expected: a public {kind}\n  found: a sign-in page or a refusal")]
    Private {
        /// Drive id.
        id: String,
        /// `file` or `folder`.
        kind: &'static str,
    },
    /// The file or folder does not exist.
    #[error("`{id}` is not on Google Drive\n  expected: a public {kind}\n  found: no such {kind}")]
    Gone {
        /// Drive id.
        id: String,
        /// `file` or `folder`.
        kind: &'static str,
    },
    /// The page has an unknown layout.
    #[error("unknown response of Google Drive for `{id}`\n  expected: {expected}\n  found: {found}")]
    Layout {
        /// Drive id of the file or folder.
        id: String,
        /// The known layout.
        expected: &'static str,
        /// Description of the page.
        found: String,
    },
    /// The folder does not contain the file.
    #[error(
        "the Google Drive folder `{folder}` does not contain `{file}`\n  expected: `{file}`\n  found: {}",
        list_names(names)
    )]
    NotInFolder {
        /// Drive id of the folder.
        folder: String,
        /// Name of the file.
        file: String,
        /// Names of the files in the folder.
        names: Vec<String>,
    },
    /// The folder contains several files of the same name.
    #[error(
        "the Google Drive folder `{folder}` contains `{file}` more than once\n  expected: one file\n  found: {count}"
    )]
    Ambiguous {
        /// Drive id of the folder.
        folder: String,
        /// Name of the file.
        file: String,
        /// Number of files with this name.
        count: usize,
    },
    /// The confirmation form leads elsewhere.
    #[error(
        "the form of Google Drive that confirms the download of `{id}` is not followed\n  expected: {expected}\n  \
         found: {found}"
    )]
    Form {
        /// Drive id of the file.
        id: String,
        /// The accepted value.
        expected: String,
        /// The value of the form.
        found: String,
    },
}

impl DriveError {
    /// Suggested fix.
    pub fn hint(&self) -> String {
        match self {
            Self::Quota { .. } => {
                "Drive limits downloads of a file for up to 24 hours: try again later, or download the file in a browser and \
                 pass its path"
            }
            Self::Private { .. } => "ask the owner to share it with anyone who has the link, or pass the path of a copy",
            Self::Gone { .. } => "the owner has removed or moved it: find its new location, and pass the path of a copy",
            Self::Layout { .. } | Self::Form { .. } => {
                "Drive may have changed its pages: download the file in a browser, pass its path, and report this error"
            }
            Self::NotInFolder { .. } | Self::Ambiguous { .. } => {
                "the owner has changed the folder: open it in a browser, and pass the path of the file"
            }
        }
        .to_owned()
    }
}

/// Lists names of a folder, and marks unsafe ones.
fn list_names(names: &[String]) -> String {
    /// Maximum number of names listed; the rest is counted.
    const LISTED: usize = 8;
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let quoted = |name: &String| {
        if is_file_name(name) { format!("`{name}`") } else { format!("`{}` (unsafe name)", name.escape_debug()) }
    };
    let mut text = names.iter().take(LISTED).map(quoted).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    text
}
