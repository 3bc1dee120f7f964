//! Sizes of models.

use laps_hub::registry::Entry;
use laps_model::{models, params::Parameter};

use super::{GateGroup, GroupMeasures, Measure};
use crate::Result;

/// Number of tensors and of parameters of every entry's model.
///
/// # Errors
/// An entry with an invalid model configuration.
pub fn parameters(entries: &[Entry]) -> Result<GroupMeasures> {
    let mut measures = Vec::new();
    for Entry { name, model, .. } in entries {
        let parameters = models::parameters(model)?;
        measures.push(Measure::count(format!("{name}/tensors"), parameters.len()));
        measures.push(Measure::count(format!("{name}/numbers"), parameters.iter().map(Parameter::elements).sum()));
    }
    Ok(GroupMeasures::measured(GateGroup::Parameters, measures))
}
