//! The folder of committed baselines.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use laps_align::similarity::instruction_set;
use laps_hub::registry::Entry;
use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::{Gathered, Group, Measure};
use crate::{Error, Result, files::write_whole, machine::Machine};

/// The baseline of a group, as its file holds it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Where the figures come from, if they hang on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_on: Option<MeasuredOn>,
    /// The figures by name.
    pub values: BTreeMap<String, Number>,
}

/// What measured figures that hang on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredOn {
    /// The machine.
    pub machine: Machine,
    /// Instructions that the engines used.
    pub instruction_set: String,
    /// Version of this program.
    pub version: String,
}

impl MeasuredOn {
    /// This machine and program.
    pub fn here() -> Self {
        Self {
            machine: Machine::here(),
            instruction_set: instruction_set().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Baseline {
    /// The figure `name`.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).and_then(Number::as_f64)
    }

    /// The part that is of `entries`; figures that are of no entry stay.
    pub fn of_entries(mut self, group: Group, entries: &[Entry]) -> Self {
        if group.is_of_entries() {
            let of_one = |name: &str| entries.iter().any(|entry| name.split('/').next() == Some(entry.name.as_str()));
            self.values.retain(|name, _| of_one(name));
        }
        self
    }

    /// That of measures; what a processor lacks is taken from `before`.
    fn taken(group: Group, measures: &[Measure], before: &Self) -> Self {
        let mut values = if group.may_lack() { before.values.clone() } else { BTreeMap::new() };
        for measure in measures {
            if let Some(number) = number(measure.value) {
                values.insert(measure.name.clone(), number);
            }
        }
        Self { measured_on: group.hangs_on_machine().then(MeasuredOn::here), values }
    }
}

/// Whole numbers without a point.
fn number(value: f64) -> Option<Number> {
    let whole = value.fract() == 0.0 && (0.0..9e15).contains(&value);
    if whole { Some(Number::from(value as u64)) } else { Number::from_f64(value) }
}

/// A folder with a file for each group.
#[derive(Clone, Debug)]
pub struct Baselines(PathBuf);

impl Baselines {
    /// The folder, which has to be there.
    ///
    /// # Errors
    /// [`Error::Option`] where it is not.
    pub fn open(folder: &Path) -> Result<Self> {
        if folder.is_dir() {
            return Ok(Self(folder.to_owned()));
        }
        Err(Error::Option {
            option: "--baselines",
            expected: "a folder of baselines; that of this project is `bench/baselines` in its repository".to_owned(),
            found: format!("`{}`", folder.display()),
        })
    }

    /// The baseline of a group; one without figures where it has no file yet.
    ///
    /// # Errors
    /// [`Error::Baseline`] for a file that can not be read, or is none.
    pub fn read(&self, group: Group) -> Result<Baseline> {
        let path = self.0.join(group.file());
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Baseline { path: path.clone(), source };
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Baseline::default()),
            Err(error) => return Err(failed(error.into())),
        };
        serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
    }

    /// Takes what was measured for the baseline of its group. A group that was skipped keeps its own.
    ///
    /// # Errors
    /// [`Error::Baseline`] for the file that is there, [`Error::Write`] for the new one.
    pub fn bless(&self, gathered: &Gathered) -> Result<()> {
        let Ok(measures) = &gathered.measures else { return Ok(()) };
        let path = self.0.join(gathered.group.file());
        let baseline = Baseline::taken(gathered.group, measures, &self.read(gathered.group)?);
        let text = serde_json::to_string_pretty(&baseline)
            .map_err(|error| Error::Write { path: path.clone(), source: error.into() })?;
        write_whole(&path, format!("{text}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::{Baselines, MeasuredOn};
    use crate::gate::{Gathered, Group, Measure};

    #[test]
    fn what_was_blessed_is_read_again_and_what_was_skipped_stays() {
        let folder = tempfile::tempdir().unwrap();
        let baselines = Baselines::open(folder.path()).unwrap();
        assert!(baselines.read(Group::Drift).unwrap().values.is_empty());
        let measures = vec![Measure::count("entry/fp32/nodes", 12), Measure::new("entry/fp32/largest", 1.25e-7)];
        baselines.bless(&Gathered::measured(Group::Drift, measures)).unwrap();
        baselines.bless(&Gathered::skipped(Group::Drift, "no runtime")).unwrap();
        let found = baselines.read(Group::Drift).unwrap();
        assert_eq!(found.value("entry/fp32/nodes"), Some(12.0));
        assert_eq!(found.value("entry/fp32/largest"), Some(1.25e-7));
        assert_eq!(found.measured_on, Some(MeasuredOn::here()));
        let text = fs_err::read_to_string(folder.path().join("drift.json")).unwrap();
        assert!(text.contains("\"entry/fp32/nodes\": 12\n"), "{text}");

        // A measure that is gone leaves the baseline, but for kernels that this processor may only lack.
        for (group, kept) in [(Group::Graphs, 1), (Group::Kernels, 2)] {
            for name in ["one", "other"] {
                baselines.bless(&Gathered::measured(group, vec![Measure::count(name, 1)])).unwrap();
            }
            assert_eq!(baselines.read(group).unwrap().values.len(), kept);
        }
        let entries = [laps_hub::registry::find("shapes_vit").unwrap()];
        let names = ["shapes_vit/tensors", "shapes_vit_large/tensors"].map(|name| Measure::count(name, 1));
        baselines.bless(&Gathered::measured(Group::Parameters, names.to_vec())).unwrap();
        let of_one = baselines.read(Group::Parameters).unwrap().of_entries(Group::Parameters, &entries);
        assert_eq!(of_one.values.keys().collect::<Vec<_>>(), ["shapes_vit/tensors"]);
        assert_eq!(baselines.read(Group::Kernels).unwrap().of_entries(Group::Kernels, &entries).values.len(), 2);
        fs_err::write(folder.path().join("memory.json"), "{").unwrap();
        assert!(baselines.read(Group::Memory).unwrap_err().to_string().contains("memory.json"));
        assert!(Baselines::open(&folder.path().join("none")).is_err());
    }
}
