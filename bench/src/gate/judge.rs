//! Comparison of measures with their baseline.

use std::collections::BTreeSet;

use super::{AllowedChange, Baseline, GateGroup, GroupMeasures, Measure, MeasuredOn};

/// A measure and its baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureReport {
    /// Name of the measure.
    pub name: String,
    /// The baseline, if there is one.
    pub baseline: Option<f64>,
    /// The measured value; `None` if it is no longer measured.
    pub found: Option<f64>,
    /// The outcome.
    pub state: MeasureState,
}

/// The outcome for a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasureState {
    /// Unchanged, or changed within the allowed range.
    Same,
    /// Lower than the baseline where lower is better, by a factor that would fail in the other direction.
    Better,
    /// It cannot be measured on this CPU.
    Unavailable,
    /// It changed. The gate fails.
    Changed,
    /// It has no baseline. The gate fails.
    New,
    /// It has a baseline but is no longer measured. The gate fails.
    Missing,
}

impl MeasureState {
    /// Whether the gate fails.
    pub fn fails(self) -> bool {
        matches!(self, Self::Changed | Self::New | Self::Missing)
    }
}

/// The outcome for a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupReport {
    /// The group.
    pub group: GateGroup,
    /// A report for every measure and every baseline, or why the group was skipped.
    pub measures: Result<Vec<MeasureReport>, String>,
}

impl GroupReport {
    /// Whether the gate fails.
    pub fn fails(&self) -> bool {
        self.measures.iter().flatten().any(|measure| measure.state.fails())
    }
}

/// Compares measures from `here` with the baseline of their group.
pub fn judge(measured: &GroupMeasures, baseline: &Baseline, here: &MeasuredOn) -> GroupReport {
    let group = measured.group;
    let measures = match (&measured.measures, baseline.measured_on.as_ref()) {
        (Err(reason), _) => Err(reason.clone()),
        (Ok(_), Some(there)) if !comparable(group, there, here) => Err(format!(
            "the baseline is from a different kind of machine: {} with {} instead of {} with {}",
            there.machine.system, there.instruction_set, here.machine.system, here.instruction_set
        )),
        (Ok(measures), _) => Ok(compare(group, measures, baseline)),
    };
    GroupReport { group, measures }
}

/// Drift depends on the order of sums, which the instruction set determines; memory depends on the system's allocator.
fn comparable(group: GateGroup, there: &MeasuredOn, here: &MeasuredOn) -> bool {
    let system = there.machine.system == here.machine.system;
    match group {
        GateGroup::Drift => system && there.instruction_set == here.instruction_set,
        GateGroup::Memory | GateGroup::Kernels => system,
        GateGroup::Parameters | GateGroup::Graphs | GateGroup::Recalls | GateGroup::Results => true,
    }
}

fn compare(group: GateGroup, measures: &[Measure], baseline: &Baseline) -> Vec<MeasureReport> {
    let names: BTreeSet<&str> = measures.iter().map(|measure| measure.name.as_str()).collect();
    let measured = measures.iter().map(|measure| {
        let before = baseline.value(&measure.name);
        let state = before.map_or(MeasureState::New, |before| state(group.allowed_change(), measure, before));
        MeasureReport { name: measure.name.clone(), baseline: before, found: Some(measure.value), state }
    });
    let missing = baseline.values.keys().filter(|name| !names.contains(name.as_str())).map(|name| MeasureReport {
        name: name.clone(),
        baseline: baseline.value(name),
        found: None,
        state: if group.may_be_missing() { MeasureState::Unavailable } else { MeasureState::Missing },
    });
    measured.chain(missing).collect()
}

fn state(allowed: AllowedChange, measure: &Measure, before: f64) -> MeasureState {
    let found = measure.value;
    // NaN is within no range.
    let within = match allowed {
        AllowedChange::Exact => found == before,
        AllowedChange::Bounds => {
            let [low, high] = measure.bounds.unwrap_or([found; 2]);
            low <= before && before <= high
        }
        AllowedChange::Within(share) => (found / before - 1.0).abs() <= share,
        AllowedChange::AtMost { times, floor } => found <= (times * before).max(floor),
    };
    match allowed {
        AllowedChange::AtMost { times, floor } if within && times * found < before && before > floor => {
            MeasureState::Better
        }
        _ if within => MeasureState::Same,
        _ => MeasureState::Changed,
    }
}

#[cfg(test)]
mod tests {
    use super::{MeasureState, judge};
    use crate::gate::{Baseline, GateGroup, GroupMeasures, Measure, MeasuredOn};

    fn baseline(values: &[(&str, f64)]) -> Baseline {
        let number = |value: f64| serde_json::Number::from_f64(value).unwrap();
        Baseline {
            measured_on: None,
            values: values.iter().map(|&(name, value)| (name.to_owned(), number(value))).collect(),
        }
    }

    fn states(group: GateGroup, measures: Vec<Measure>, before: &[(&str, f64)]) -> Vec<MeasureState> {
        let report = judge(&GroupMeasures::measured(group, measures), &baseline(before), &MeasuredOn::here());
        report.measures.unwrap().iter().map(|measure| measure.state).collect()
    }

    #[test]
    fn allowed_changes_depend_on_the_group() {
        let of = |group, value, before| states(group, vec![Measure::new("one", value)], &[("one", before)])[0];
        assert_eq!(of(GateGroup::Graphs, 131.0, 131.0), MeasureState::Same);
        assert_eq!(of(GateGroup::Graphs, 132.0, 131.0), MeasureState::Changed);
        assert_eq!(of(GateGroup::Graphs, 130.0, 131.0), MeasureState::Changed);
        assert_eq!(of(GateGroup::Kernels, 1019.0, 1000.0), MeasureState::Same);
        assert_eq!(of(GateGroup::Kernels, 1021.0, 1000.0), MeasureState::Changed);
        assert_eq!(of(GateGroup::Kernels, 979.0, 1000.0), MeasureState::Changed);
        assert_eq!(of(GateGroup::Memory, 125.0, 100.0), MeasureState::Same);
        assert_eq!(of(GateGroup::Memory, 126.0, 100.0), MeasureState::Changed);
        assert_eq!(of(GateGroup::Memory, 60.0, 100.0), MeasureState::Better);
        assert_eq!(of(GateGroup::Drift, 9e-7, 1e-8), MeasureState::Same);
        assert_eq!(of(GateGroup::Drift, 2.1e-4, 1e-4), MeasureState::Changed);
        assert_eq!(of(GateGroup::Drift, f64::NAN, 1e-4), MeasureState::Changed);
    }

    #[test]
    fn hits_may_change_only_as_far_as_rounding_explains() {
        let of = |bounds, value| {
            let measure = Measure { name: "one".to_owned(), value, bounds };
            states(GateGroup::Recalls, vec![measure], &[("one", 122.0)])[0]
        };
        assert_eq!(of(Some([122.0, 122.0]), 122.0), MeasureState::Same);
        assert_eq!(of(Some([121.0, 121.0]), 121.0), MeasureState::Changed);
        assert_eq!(of(Some([123.0, 123.0]), 123.0), MeasureState::Changed);
        assert_eq!(of(Some([121.0, 122.0]), 121.0), MeasureState::Same);
        assert_eq!(of(None, 121.0), MeasureState::Changed);
    }

    #[test]
    fn new_or_missing_measures_fail_and_unavailable_ones_do_not() {
        let measures = || vec![Measure::new("new", 1.0)];
        assert_eq!(
            states(GateGroup::Parameters, measures(), &[("old", 1.0)]),
            [MeasureState::New, MeasureState::Missing]
        );
        assert_eq!(
            states(GateGroup::Kernels, measures(), &[("old", 1.0)]),
            [MeasureState::New, MeasureState::Unavailable]
        );
    }

    #[test]
    fn drift_is_compared_only_on_the_same_kind_of_machine() {
        let here = MeasuredOn::here();
        let there = MeasuredOn { instruction_set: "another".to_owned(), ..here.clone() };
        let mut baseline = baseline(&[("one", 1.0)]);
        let mut compared = |group, on: &MeasuredOn| {
            baseline.measured_on = Some(on.clone());
            judge(&GroupMeasures::measured(group, vec![Measure::new("one", 1.0)]), &baseline, &here).measures.is_ok()
        };
        assert!(compared(GateGroup::Drift, &here) && compared(GateGroup::Memory, &there));
        assert!(!compared(GateGroup::Drift, &there));
    }
}
