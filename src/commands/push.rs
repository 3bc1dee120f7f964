//! `laps-zoo push`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use laps_bench::publish::{HubDataSet, ModelFolder, write_model_folder};
use laps_files::TemporaryFolder;
use laps_hub::{
    fetch::{FetchSettings, Network, Pinning},
    push::{PushFile, PushRequest, Pushed, Pusher, folder_files, read_token},
    registry,
};

use crate::{
    fetching, progress,
    report::{CommandStatus, print},
};

/// Upload a model to a Hugging Face repository: weights, entry, card, results and graphs
///
/// Without --yes, the files are only made and listed, and nothing is sent. An interrupted upload is resumed by the same
/// command. The repository must exist. The token comes from HF_TOKEN or the login of `huggingface_hub`, and HF_ENDPOINT
/// replaces the hub.
#[derive(Args)]
pub(crate) struct PushArgs {
    /// Entry name, or path to an entry YAML file
    entry: String,
    /// Repository of the hub
    #[arg(value_name = "OWNER/NAME")]
    repository: String,
    /// Results of `reproduce --json` for this checkpoint, and of `evaluate --json` to compare with
    #[arg(value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Checkpoint (.safetensors or .pth) [default: the embedded one, or download the published one]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Folder of graphs that `export` wrote, to upload too; can be repeated
    #[arg(long, value_name = "DIR")]
    graphs: Vec<PathBuf>,
    /// Data set of the hub that the results are of, for the results on the model page [default: the one of a built-in
    /// entry]
    #[arg(long, value_name = "OWNER/NAME[@COMMIT]")]
    hub_data: Option<HubDataSet>,
    /// Upload; without this option, list what would be uploaded
    #[arg(long)]
    yes: bool,
    /// Branch to commit to
    #[arg(long, default_value = "main")]
    branch: String,
    /// First line of the commit message
    #[arg(long, value_name = "TEXT", default_value = "Upload model with laps-zoo")]
    message: String,
    /// File with the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Keep the model folder as DIR, which must not exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    access: fetching::NetworkArgs,
    /// Hide progress output
    #[arg(long, short)]
    quiet: bool,
}

impl PushArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let entry = registry::find(&self.entry)?;
        // Fail before the weights are converted.
        let pusher = if self.yes { Some(self.pusher()?) } else { None };
        let checkpoint = match &self.checkpoint {
            Some(path) => Some(path.clone()),
            None => fetching::checkpoint(&entry, self.access, self.quiet)?,
        };
        let temporary = TemporaryFolder::create()?;
        let folder = match &self.out {
            Some(out) => {
                fs_err::create_dir(out)
                    .map_err(|source| laps_bench::Error::Write { path: out.clone(), source: source.into() })?;
                out.as_path()
            }
            None => temporary.path(),
        };
        let model = ModelFolder {
            entry: &self.entry,
            checkpoint: checkpoint.as_deref(),
            results: &self.results,
            graphs: &self.graphs,
            hub_data: self.hub_data.as_ref(),
            repository: &self.repository,
        };
        write_model_folder(folder, &model)?;
        let files = folder_files(folder)?;
        let Some(pusher) = pusher else {
            print(&self.describe_plan(&files))?;
            return Ok(CommandStatus::Success);
        };
        let progress = progress::choose(self.quiet);
        let request =
            PushRequest { repository: &self.repository, branch: &self.branch, files: &files, summary: &self.message };
        let pushed = pusher.push(&request, progress.as_ref())?;
        print(&describe(&self.repository, &pushed))?;
        Ok(CommandStatus::Success)
    }

    fn pusher(&self) -> Result<Pusher> {
        let network = if self.access.is_offline() { Network::Offline } else { Network::Online };
        let mut settings = FetchSettings::from_environment(network, Pinning::OnFirstFetch)?;
        if let Some(path) = self.token_file.as_deref() {
            settings.services.token = Some(read_token(path)?);
        }
        Ok(Pusher::new(&settings)?)
    }

    fn describe_plan(&self, files: &[PushFile]) -> String {
        let mut text = String::new();
        for file in files {
            text += &format!("{:>12}  {}  {}\n", file.bytes, &file.sha256[..12], file.name);
        }
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        text += &format!(
            "{} files, {bytes} bytes for `{}`; nothing was sent, pass --yes to upload\n",
            files.len(),
            self.repository
        );
        text + &self.out.as_deref().map_or_else(String::new, folder_line)
    }
}

fn folder_line(folder: &Path) -> String {
    format!("the folder is `{}`\n", folder.display())
}

fn describe(repository: &str, pushed: &Pushed) -> String {
    let Pushed { commit, uploaded, stored, unchanged, ignored } = pushed;
    let mut text = match commit {
        Some(commit) => format!("commit {commit} of `{repository}`\n"),
        None => format!("`{repository}` has every file already; no commit was made\n"),
    };
    let lists = [
        ("uploaded large files", uploaded),
        ("large files that the hub had", stored),
        ("unchanged files", unchanged),
        ("files that .gitignore leaves out", ignored),
    ];
    for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
        text += &format!("{what}: {}\n", names.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    }
    text
}
