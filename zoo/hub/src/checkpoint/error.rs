//! The error type of checkpoints.

use std::path::PathBuf;

use laps_files::IoError;

use super::{Dtype, Format, options::OptionDifference, report::Report};

/// A checkpoint that cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read, or a converted file cannot be written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A converted file cannot be written, or another process is writing it.
    #[error(transparent)]
    Output(#[from] laps_files::Error),
    /// The file is of another kind.
    #[error("`{}` is not a checkpoint\n  expected: safetensors, or a file that `torch.save` wrote\n  found: {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its apparent kind.
        found: String,
        /// Suggested fix, where it depends on the file.
        hint: Option<String>,
    },
    /// The file starts like a checkpoint but is truncated or contradicts itself.
    #[error("`{}` is damaged\n  expected: a complete {format} checkpoint\n  found: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The container that it starts as.
        format: Format,
        /// The fault.
        reason: String,
    },
    /// The list of a model in several files cannot be used, or does not fit the files.
    #[error("the files of `{}` cannot be used\n  expected: {expected}\n  found: {found}", path.display())]
    Shards {
        /// The list.
        path: PathBuf,
        /// The required contents.
        expected: String,
        /// The found contents.
        found: String,
    },
    /// The output is a file of the checkpoint.
    #[error("input and output are the same file, `{}`\n  expected: another output file\n  found: the checkpoint itself", path.display())]
    SameFile {
        /// The output.
        path: PathBuf,
    },
    /// The pickle asks Python for something that is neither data nor a tensor. Nothing of it was executed.
    #[error("`{}` asks for `{name}` and was refused\n  expected: tensors and plain data\n  found: a pickle that needs `{name}`", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The Python name that it asks for, with its module.
        name: String,
    },
    /// The checkpoint was trained with options that differ from the entry.
    #[error("the options in the checkpoint differ from the entry{}", lines(.0))]
    Options(Vec<OptionDifference>),
    /// The tensors do not fit the model.
    #[error("{0}")]
    Mismatch(Box<Report>),
    /// The checkpoint has no tensor of this name.
    #[error("the checkpoint has no tensor `{name}`")]
    Absent {
        /// The name.
        name: String,
    },
    /// The elements of a tensor have the wrong type.
    #[error("tensor `{name}` cannot be a parameter\n  expected: f32, f16, bf16 or f64\n  found: {found}")]
    Type {
        /// Name of the tensor.
        name: String,
        /// Its element type.
        found: Dtype,
    },
    /// The model to compare with is not valid.
    #[error(transparent)]
    Model(Box<laps_model::Error>),
}

impl CheckpointError {
    /// Suggested fix, where one is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Foreign { hint: Some(hint), .. } => hint,
            Self::Foreign { hint: None, .. } => {
                "a checkpoint is a `.safetensors` file, or a `.pth` file with a state dict"
            }
            Self::Damaged { .. } => {
                "the file is truncated, damaged or not written by torch: download it again and compare its size and sha256"
            }
            Self::Shards { .. } => "download the whole folder again, with every file that the list names",
            Self::Refused { .. } => {
                "nothing of the file was executed; trust it only from its authors, and ask them to save the state dict alone"
            }
            Self::Options(_) => "choose the entry that the checkpoint was trained for, or change its ratios and sizes",
            Self::Mismatch(report) => return report.hint(),
            Self::Model(error) => return error.hint(),
            Self::Output(error) => return error.hint(),
            Self::Io(_) | Self::SameFile { .. } | Self::Absent { .. } | Self::Type { .. } => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}

impl From<laps_model::Error> for CheckpointError {
    fn from(error: laps_model::Error) -> Self {
        Self::Model(Box::new(error))
    }
}

fn lines(differences: &[OptionDifference]) -> String {
    differences.iter().map(|difference| format!("\n  {difference}")).collect()
}
