//! What moved.

use std::collections::BTreeSet;

use super::{Baseline, Gathered, Group, Measure, MeasuredOn, Rule};

/// A measure beside its baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Name of the measure.
    pub name: String,
    /// The baseline; None where there is none.
    pub baseline: Option<f64>,
    /// What was measured; None where it no longer is.
    pub found: Option<f64>,
    /// What follows.
    pub state: State,
}

/// What follows for a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is where it was.
    Same,
    /// It is lower than before where less is better, by as much as would fail the other way.
    Better,
    /// It can not be measured on this processor.
    Lacking,
    /// It moved. The gate fails.
    Moved,
    /// It has no baseline. The gate fails.
    New,
    /// Its baseline is there, but nothing is measured under its name. The gate fails.
    Gone,
}

impl State {
    /// Whether the gate fails.
    pub fn fails(self) -> bool {
        matches!(self, Self::Moved | Self::New | Self::Gone)
    }
}

/// What was found of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupReport {
    /// The group.
    pub group: Group,
    /// A finding for every measure and baseline, or why the group was not measured.
    pub findings: Result<Vec<Finding>, String>,
}

impl GroupReport {
    /// Whether the gate fails.
    pub fn fails(&self) -> bool {
        self.findings.iter().flatten().any(|finding| finding.state.fails())
    }
}

/// Compares what was measured, on `here`, with the baseline of its group.
pub fn judge(gathered: &Gathered, baseline: &Baseline, here: &MeasuredOn) -> GroupReport {
    let group = gathered.group;
    let findings = match (&gathered.measures, baseline.measured_on.as_ref()) {
        (Err(reason), _) => Err(reason.clone()),
        (Ok(_), Some(there)) if !comparable(group, there, here) => Err(format!(
            "the baseline is of another kind of machine: {} with {}, this one is {} with {}",
            there.machine.system, there.instruction_set, here.machine.system, here.instruction_set
        )),
        (Ok(measures), _) => Ok(compare(group, measures, baseline)),
    };
    GroupReport { group, findings }
}

/// Drift is of sums in the order of the instruction set, memory of a system's allocator.
fn comparable(group: Group, there: &MeasuredOn, here: &MeasuredOn) -> bool {
    let system = there.machine.system == here.machine.system;
    match group {
        Group::Drift => system && there.instruction_set == here.instruction_set,
        Group::Memory | Group::Kernels => system,
        Group::Parameters | Group::Graphs | Group::Recalls => true,
    }
}

fn compare(group: Group, measures: &[Measure], baseline: &Baseline) -> Vec<Finding> {
    let names: BTreeSet<&str> = measures.iter().map(|measure| measure.name.as_str()).collect();
    let measured = measures.iter().map(|measure| {
        let before = baseline.value(&measure.name);
        let state = before.map_or(State::New, |before| state(group.rule(), measure, before));
        Finding { name: measure.name.clone(), baseline: before, found: Some(measure.value), state }
    });
    let gone = baseline.values.keys().filter(|name| !names.contains(name.as_str())).map(|name| Finding {
        name: name.clone(),
        baseline: baseline.value(name),
        found: None,
        state: if group.may_lack() { State::Lacking } else { State::Gone },
    });
    measured.chain(gone).collect()
}

fn state(rule: Rule, measure: &Measure, before: f64) -> State {
    let found = measure.value;
    // A figure that is not a number is within nothing.
    let within = match rule {
        Rule::Exact => found == before,
        Rule::Bounds => {
            let [least, most] = measure.bounds.unwrap_or([found; 2]);
            least <= before && before <= most
        }
        Rule::Within(share) => (found / before - 1.0).abs() <= share,
        Rule::AtMost { times, floor } => found <= (times * before).max(floor),
    };
    match rule {
        Rule::AtMost { times, floor } if within && times * found < before && before > floor => State::Better,
        _ if within => State::Same,
        _ => State::Moved,
    }
}

#[cfg(test)]
mod tests {
    use super::{State, judge};
    use crate::gate::{Baseline, Gathered, Group, Measure, MeasuredOn};

    fn baseline(figures: &[(&str, f64)]) -> Baseline {
        let number = |value: f64| serde_json::Number::from_f64(value).unwrap();
        Baseline {
            measured_on: None,
            values: figures.iter().map(|&(name, value)| (name.to_owned(), number(value))).collect(),
        }
    }

    fn states(group: Group, measures: Vec<Measure>, figures: &[(&str, f64)]) -> Vec<State> {
        let report = judge(&Gathered::measured(group, measures), &baseline(figures), &MeasuredOn::here());
        report.findings.unwrap().iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn each_group_may_move_as_far_as_its_rule_says() {
        let of = |group, value, before| states(group, vec![Measure::new("one", value)], &[("one", before)])[0];
        assert_eq!(of(Group::Graphs, 131.0, 131.0), State::Same);
        assert_eq!(of(Group::Graphs, 132.0, 131.0), State::Moved);
        assert_eq!(of(Group::Graphs, 130.0, 131.0), State::Moved);
        assert_eq!(of(Group::Kernels, 1019.0, 1000.0), State::Same);
        assert_eq!(of(Group::Kernels, 1021.0, 1000.0), State::Moved);
        assert_eq!(of(Group::Kernels, 979.0, 1000.0), State::Moved);
        assert_eq!(of(Group::Memory, 125.0, 100.0), State::Same);
        assert_eq!(of(Group::Memory, 126.0, 100.0), State::Moved);
        assert_eq!(of(Group::Memory, 60.0, 100.0), State::Better);
        assert_eq!(of(Group::Drift, 9e-7, 1e-8), State::Same);
        assert_eq!(of(Group::Drift, 2.1e-4, 1e-4), State::Moved);
        assert_eq!(of(Group::Drift, f64::NAN, 1e-4), State::Moved);
    }

    #[test]
    fn a_hit_that_rounding_explains_is_no_move_and_one_that_it_does_not_is() {
        let of = |bounds, value| {
            let measure = Measure { name: "one".to_owned(), value, bounds };
            states(Group::Recalls, vec![measure], &[("one", 122.0)])[0]
        };
        assert_eq!(of(Some([122.0, 122.0]), 122.0), State::Same);
        assert_eq!(of(Some([121.0, 121.0]), 121.0), State::Moved);
        assert_eq!(of(Some([123.0, 123.0]), 123.0), State::Moved);
        assert_eq!(of(Some([121.0, 122.0]), 121.0), State::Same);
        assert_eq!(of(None, 121.0), State::Moved);
    }

    #[test]
    fn what_is_new_or_gone_fails_and_what_a_processor_lacks_does_not() {
        let measures = || vec![Measure::new("new", 1.0)];
        assert_eq!(states(Group::Parameters, measures(), &[("old", 1.0)]), [State::New, State::Gone]);
        assert_eq!(states(Group::Kernels, measures(), &[("old", 1.0)]), [State::New, State::Lacking]);
    }

    #[test]
    fn drift_is_compared_on_the_same_kind_of_machine_only() {
        let here = MeasuredOn::here();
        let there = MeasuredOn { instruction_set: "another".to_owned(), ..here.clone() };
        let mut baseline = baseline(&[("one", 1.0)]);
        let mut compared = |group, on: &MeasuredOn| {
            baseline.measured_on = Some(on.clone());
            judge(&Gathered::measured(group, vec![Measure::new("one", 1.0)]), &baseline, &here).findings.is_ok()
        };
        assert!(compared(Group::Drift, &here) && compared(Group::Memory, &there));
        assert!(!compared(Group::Drift, &there));
    }
}
