//! What can go wrong with a checkpoint.

use std::path::PathBuf;

use super::{Dtype, Format, options::Difference, report::Report};

/// A checkpoint that can not be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be read.
    #[error("can not read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("`{}` is not a checkpoint\n  expected: safetensors, or what `torch.save` writes\n  found: {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// The file begins like a checkpoint and does not go on like one.
    #[error("`{}` can not be read to the end\n  expected: a whole {format} checkpoint\n  found: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The container it begins as.
        format: Format,
        /// What is wrong with it.
        reason: String,
    },
    /// The file asks Python for something that is neither data nor a tensor. Nothing of it was run.
    #[error("`{}` asks for `{name}` and was refused\n  expected: tensors and plain data\n  found: a pickle that needs `{name}`", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The Python name that is asked for, with its module.
        name: String,
    },
    /// The checkpoint was trained with other options than the entry has.
    #[error("the options in the checkpoint differ from the entry{}", lines(.0))]
    Options(Vec<Difference>),
    /// The tensors are not those of the model.
    #[error("{0}")]
    Mismatch(Box<Report>),
    /// A tensor that the checkpoint does not have.
    #[error("the checkpoint has no tensor `{name}`")]
    Absent {
        /// The name that was asked for.
        name: String,
    },
    /// A tensor whose elements are no floats.
    #[error("tensor `{name}` can not be a parameter\n  expected: f32, f16, bf16 or f64\n  found: {found}")]
    Type {
        /// Name of the tensor.
        name: String,
        /// Type of its elements.
        found: Dtype,
    },
}

impl CheckpointError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Foreign { .. } => "a checkpoint is a `.safetensors` file, or a `.pth` that holds a state dict",
            Self::Damaged { .. } => {
                "the file is cut off, damaged or not written by torch: fetch it again and compare its size and sha256"
            }
            Self::Refused { .. } => {
                "nothing of the file was run; trust it only from its authors, and have them save the state dict alone"
            }
            Self::Options(_) => "choose the entry that the checkpoint was trained for, or change its ratios and sizes",
            Self::Mismatch(report) => return report.hint(),
            Self::Io { .. } | Self::Absent { .. } | Self::Type { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

fn lines(differences: &[Difference]) -> String {
    differences.iter().map(|difference| format!("\n  {difference}")).collect()
}
