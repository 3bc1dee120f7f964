//! The folder of baselines.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use laps_align::similarity::instruction_set;
use laps_files::strip_mark_bytes;
use laps_hub::registry::Entry;
use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::{GateGroup, GroupMeasures, Measure};
use crate::{Error, Result, files::write_atomic, machine::Machine};

/// The baseline of a group, and its JSON format.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Where the values were measured, if they depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_on: Option<MeasuredOn>,
    /// The values by name.
    pub values: BTreeMap<String, Number>,
}

/// The machine and program that values were measured with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredOn {
    /// The machine.
    pub machine: Machine,
    /// Instruction set of the similarity engine.
    pub instruction_set: String,
    /// Version of this program.
    pub version: String,
}

impl MeasuredOn {
    /// The machine and program of this process.
    pub fn here() -> Self {
        Self {
            machine: Machine::here(),
            instruction_set: instruction_set().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Baseline {
    /// The value `name`.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).and_then(Number::as_f64)
    }

    /// Keeps the values of `entries`, and values that belong to no entry.
    pub fn of_entries(mut self, group: GateGroup, entries: &[Entry]) -> Self {
        if group.is_per_entry() {
            let belongs = |name: &str| entries.iter().any(|entry| name.split('/').next() == Some(entry.name.as_str()));
            self.values.retain(|name, _| belongs(name));
        }
        self
    }

    /// A baseline of `measures`. Values that this CPU cannot measure are kept from `before`.
    fn from_measures(group: GateGroup, measures: &[Measure], before: &Self) -> Self {
        let mut values = if group.may_be_missing() { before.values.clone() } else { BTreeMap::new() };
        for measure in measures {
            if let Some(number) = number(measure.value) {
                values.insert(measure.name.clone(), number);
            }
        }
        Self { measured_on: group.depends_on_machine().then(MeasuredOn::here), values }
    }
}

/// Whole numbers are written without a decimal point.
fn number(value: f64) -> Option<Number> {
    let whole = value.fract() == 0.0 && (0.0..9e15).contains(&value);
    if whole { Some(Number::from(value as u64)) } else { Number::from_f64(value) }
}

/// A folder with one file per group.
#[derive(Clone, Debug)]
pub struct Baselines(PathBuf);

impl Baselines {
    /// Opens an existing folder.
    ///
    /// # Errors
    /// [`Error::Argument`] if it does not exist.
    pub fn open(folder: &Path) -> Result<Self> {
        if folder.is_dir() {
            return Ok(Self(folder.to_owned()));
        }
        Err(Error::Argument {
            argument: "baselines",
            expected: "a folder of baselines, such as `bench/baselines` in the repository of laps-zoo".to_owned(),
            found: format!("`{}`", folder.display()),
        })
    }

    /// Opens a folder, which is created if its parent exists.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Write`] if the folder cannot be created.
    pub fn open_or_create(folder: &Path) -> Result<Self> {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.exists() && parent.is_dir() {
            fs_err::create_dir(folder)
                .map_err(|error| Error::Write { path: folder.to_owned(), source: error.into() })?;
        }
        Self::open(folder)
    }

    /// The baseline of a group; empty if it has no file yet.
    ///
    /// # Errors
    /// [`Error::Baseline`] for a file that cannot be read or parsed.
    pub fn read(&self, group: GateGroup) -> Result<Baseline> {
        let path = self.0.join(group.file());
        let invalid = |source: Box<dyn std::error::Error + Send + Sync>| Error::Baseline { path: path.clone(), source };
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Baseline::default()),
            Err(error) => return Err(invalid(error.into())),
        };
        serde_json::from_slice(strip_mark_bytes(&bytes)).map_err(|error| invalid(error.into()))
    }

    /// Writes measures as the new baseline of their group. A skipped group keeps its baseline.
    ///
    /// # Errors
    /// [`Error::Baseline`] for the existing file, [`Error::Write`] for the new one.
    pub fn bless(&self, gathered: &GroupMeasures) -> Result<()> {
        let Ok(measures) = &gathered.measures else { return Ok(()) };
        let path = self.0.join(gathered.group.file());
        let baseline = Baseline::from_measures(gathered.group, measures, &self.read(gathered.group)?);
        let text = serde_json::to_string_pretty(&baseline)
            .map_err(|error| Error::Write { path: path.clone(), source: error.into() })?;
        write_atomic(&path, format!("{text}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::{Baselines, MeasuredOn};
    use crate::gate::{GateGroup, GroupMeasures, Measure};

    #[test]
    fn blessed_values_are_read_back_and_skipped_groups_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let baselines = Baselines::open(folder.path()).unwrap();
        assert!(baselines.read(GateGroup::Drift).unwrap().values.is_empty());
        let measures = vec![Measure::count("entry/fp32/nodes", 12), Measure::new("entry/fp32/largest", 1.25e-7)];
        baselines.bless(&GroupMeasures::measured(GateGroup::Drift, measures)).unwrap();
        baselines.bless(&GroupMeasures::skipped(GateGroup::Drift, "ONNX Runtime is missing")).unwrap();
        let found = baselines.read(GateGroup::Drift).unwrap();
        assert_eq!(found.value("entry/fp32/nodes"), Some(12.0));
        assert_eq!(found.value("entry/fp32/largest"), Some(1.25e-7));
        assert_eq!(found.measured_on, Some(MeasuredOn::here()));
        let text = fs_err::read_to_string(folder.path().join("drift.json")).unwrap();
        assert!(text.contains("\"entry/fp32/nodes\": 12\n"), "{text}");

        // A missing measure leaves the baseline, except for kernels: this CPU may lack their instruction set.
        for (group, count) in [(GateGroup::Graphs, 1), (GateGroup::Kernels, 2)] {
            for name in ["one", "other"] {
                baselines.bless(&GroupMeasures::measured(group, vec![Measure::count(name, 1)])).unwrap();
            }
            assert_eq!(baselines.read(group).unwrap().values.len(), count);
        }
        let entries = [laps_hub::registry::find("shapes_vit").unwrap()];
        let names = ["shapes_vit/tensors", "shapes_vit_large/tensors"].map(|name| Measure::count(name, 1));
        baselines.bless(&GroupMeasures::measured(GateGroup::Parameters, names.to_vec())).unwrap();
        let of_one = baselines.read(GateGroup::Parameters).unwrap().of_entries(GateGroup::Parameters, &entries);
        assert_eq!(of_one.values.keys().collect::<Vec<_>>(), ["shapes_vit/tensors"]);
        assert_eq!(
            baselines.read(GateGroup::Kernels).unwrap().of_entries(GateGroup::Kernels, &entries).values.len(),
            2
        );
        fs_err::write(folder.path().join("memory.json"), "{").unwrap();
        assert!(baselines.read(GateGroup::Memory).unwrap_err().to_string().contains("memory.json"));
        assert!(Baselines::open(&folder.path().join("none")).is_err());
    }
}
