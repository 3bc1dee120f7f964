//! Results in the forms of other projects: a model folder for the Hugging Face hub, with `.eval_results/*.yaml`, and the
//! result files of MTEB.

mod data_set;
mod eval_results;
mod model_folder;
pub mod mteb;
#[cfg(test)]
mod tests;

pub use data_set::HubDataSet;
pub use model_folder::{ModelFolder, write_model_folder};
