//! The option `--data-source`.

use anyhow::Result;
use clap::Args;
use laps_data::sources::SourceKind;
use laps_hub::registry::Entry;

// Not a doc comment: clap would use it as the help text of every command with this option.
#[derive(Args, Clone, Copy)]
pub(crate) struct DataSource {
    /// Layout of the data: laps, karpathy, coco, parquet, kaggle, webdataset, folder, authors, docci, dci, urban1k or
    /// sharegpt4v [default: the entry's]
    #[arg(long, value_name = "LAYOUT")]
    data_source: Option<SourceKind>,
}

impl DataSource {
    /// The layout that was given.
    pub(crate) fn kind(self) -> Option<SourceKind> {
        self.data_source
    }

    /// The entry with the layout that was given.
    pub(crate) fn apply(self, entry: Entry) -> Result<Entry> {
        Ok(match self.data_source {
            Some(kind) => entry.with_source(kind)?,
            None => entry,
        })
    }
}
