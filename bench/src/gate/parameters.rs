//! Sizes of the models.

use laps_hub::registry::Entry;
use laps_model::{models, params::Parameter};

use super::{Gathered, Group, Measure};
use crate::Result;

/// Tensors and numbers of every entry's model.
///
/// # Errors
/// Those of an entry that describes no model.
pub fn parameters(entries: &[Entry]) -> Result<Gathered> {
    let mut measures = Vec::new();
    for Entry { name, model, .. } in entries {
        let parameters = models::parameters(model)?;
        measures.push(Measure::count(format!("{name}/tensors"), parameters.len()));
        measures.push(Measure::count(format!("{name}/numbers"), parameters.iter().map(Parameter::elements).sum()));
    }
    Ok(Gathered::measured(Group::Parameters, measures))
}
