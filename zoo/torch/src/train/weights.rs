//! The weights of a model while it trains: f32, with gradients, in two groups.

use std::{collections::HashMap, ops::Range, rc::Rc};

use tch::{Kind, Tensor as Tch};

use super::precision::TorchPrecision;
use crate::{Error, Result, Torch, TorchDevice, error::refused};
use laps_hub::registry::Precision;
use laps_model::{
    array::Array,
    models::{self, Laps, config::ModelConfig},
    params::{Mode, Parameter, Path},
    tensor::Eager,
};

/// Weights that share a learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The projections and the alignment.
    Heads,
    /// The two pretrained encoders.
    Backbones,
}

impl Group {
    /// The group of the parameter `name`.
    pub fn of(name: &str) -> Self {
        let of_backbone = ["img_enc.visual_encoder.", "txt_enc.bert."].iter().any(|prefix| name.starts_with(prefix));
        if of_backbone { Self::Backbones } else { Self::Heads }
    }

    pub(super) fn index(self) -> usize {
        usize::from(self == Self::Backbones)
    }
}

/// One weight.
pub(super) struct Weight {
    pub(super) name: String,
    pub(super) group: Group,
    pub(super) tensor: Tch,
}

impl Weight {
    /// Its gradient, if there is one.
    pub(super) fn gradient(&self) -> Result<Option<Tch>> {
        let gradient = self.tensor.f_grad()?;
        Ok(gradient.defined().then_some(gradient))
    }
}

/// Weights of a group that lie one after another in memory, so that they can be moved together: a GPU takes longer to be told
/// of many small operations than to do them.
pub(super) struct Bucket {
    pub(super) group: Group,
    /// Which of the list.
    pub(super) members: Range<usize>,
    /// Where each of them begins and ends in the values.
    places: Vec<Range<usize>>,
    /// Their values, each weight from a multiple of [`ALIGNED`] on, with 0 between.
    pub(super) values: Tch,
}

/// As the processor's vectors, and libtorch's own tensors, begin.
const ALIGNED: usize = 16;
/// Numbers of a bucket, if no weight has more.
const BUCKET: usize = 1 << 24;

impl Bucket {
    /// Gradients of all members one after another; nothing where one of them has none.
    pub(super) fn gradient(&self, list: &[Weight]) -> Result<Option<Tch>> {
        let mut parts = Vec::new();
        for (weight, place) in list[self.members.clone()].iter().zip(&self.places) {
            if !weight.tensor.requires_grad() {
                return Ok(None);
            }
            let Some(gradient) = weight.gradient()? else { return Ok(None) };
            let beyond = place.end.next_multiple_of(ALIGNED) - place.end;
            parts.push(gradient.f_reshape([-1])?);
            if beyond > 0 {
                parts.push(Tch::f_zeros([beyond as i64], (Kind::Float, self.values.device()))?);
            }
        }
        Ok(Some(Tch::f_cat(&parts, 0)?))
    }

    /// What `flat`, which is like [`values`](Self::values), has for each member, in its shape; it shares the memory.
    pub(super) fn parts(&self, flat: &Tch, list: &[Weight]) -> Result<Vec<Tch>> {
        let members = list[self.members.clone()].iter().zip(&self.places);
        members.map(|(weight, place)| part(flat, place, &weight.tensor.size())).collect()
    }
}

/// The numbers at `place` in a shape; they share the memory.
fn part(flat: &Tch, place: &Range<usize>, shape: &[i64]) -> Result<Tch> {
    Ok(flat.f_narrow(0, place.start as i64, place.len() as i64)?.f_view(shape)?)
}

/// All weights of one model.
pub struct Weights {
    config: ModelConfig,
    device: TorchDevice,
    pub(super) list: Vec<Weight>,
    pub(super) buckets: Vec<Bucket>,
    by_name: Rc<HashMap<String, Torch>>,
}

impl Weights {
    /// From what `read` gives for each parameter.
    pub fn new(
        config: &ModelConfig,
        device: TorchDevice,
        mut read: impl FnMut(&Parameter) -> Result<Array>,
    ) -> Result<Self> {
        let mut weights =
            Self { config: config.clone(), device, list: Vec::new(), buckets: Vec::new(), by_name: Rc::default() };
        let mut by_name = HashMap::new();
        let mut members: Vec<(Parameter, Array)> = Vec::new();
        for parameter in models::parameters(config)? {
            let array = read(&parameter)?;
            if array.dims() != parameter.shape {
                return Err(laps_model::Error::Parameter {
                    name: parameter.name,
                    expected: format!("shape {:?}", parameter.shape),
                    found: format!("shape {:?}", array.dims()),
                }
                .into());
            }
            let same_group = |(first, _): &(Parameter, Array)| Group::of(&first.name) == Group::of(&parameter.name);
            let elements: usize = members.iter().map(|(member, _)| member.elements()).sum();
            if !members.first().is_none_or(same_group) || elements + parameter.elements() > BUCKET {
                weights.push(std::mem::take(&mut members), &mut by_name)?;
            }
            members.push((parameter, array));
        }
        weights.push(members, &mut by_name)?;
        weights.by_name = Rc::new(by_name);
        Ok(weights)
    }

    /// Adds weights of one group.
    fn push(&mut self, members: Vec<(Parameter, Array)>, by_name: &mut HashMap<String, Torch>) -> Result<()> {
        let Some((first, _)) = members.first() else { return Ok(()) };
        let group = Group::of(&first.name);
        let (mut values, mut places) = (Vec::new(), Vec::with_capacity(members.len()));
        for (_, array) in &members {
            places.push(values.len()..values.len() + array.values().len());
            values.extend_from_slice(array.values());
            values.resize(values.len().next_multiple_of(ALIGNED), 0.0);
        }
        let values = Torch::upload(&Array::new(&[values.len()], values)?, &self.device)?.0.shallow_clone();
        let start = self.list.len();
        for ((parameter, _), place) in members.into_iter().zip(&places) {
            let shape: Vec<i64> = parameter.shape.iter().map(|&size| size as i64).collect();
            let tensor = part(&values, place, &shape)?.f_detach()?.f_set_requires_grad(true)?;
            by_name.insert(parameter.name.clone(), Torch::new(tensor.shallow_clone()));
            self.list.push(Weight { group, name: parameter.name, tensor });
        }
        self.buckets.push(Bucket { group, members: start..self.list.len(), places, values });
        Ok(())
    }

    /// What they are the weights of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where they are.
    pub fn device(&self) -> TorchDevice {
        self.device
    }

    /// The model on these weights, its encoders in `precision`: in less than f32 on copies that pass gradients on.
    pub(super) fn model(&self, precision: Precision, mode: Mode) -> Result<Laps<Torch>> {
        model(&self.config, Rc::clone(&self.by_name), precision, mode)
    }

    /// The same weights for another thread.
    pub(super) fn shared(&self) -> SharedWeights {
        let tensors = self.list.iter().map(|weight| (weight.name.clone(), weight.tensor.shallow_clone()));
        SharedWeights { config: self.config.clone(), tensors: tensors.collect() }
    }

    /// Whether the backbones get gradients.
    pub(super) fn train_backbones(&self, trained: bool) -> Result<()> {
        for weight in self.list.iter().filter(|weight| weight.group == Group::Backbones) {
            let _ = weight.tensor.f_set_requires_grad(trained)?;
        }
        Ok(())
    }

    /// Forgets all gradients.
    pub(super) fn clear_gradients(&self) -> Result<()> {
        for weight in &self.list {
            if let Some(mut gradient) = weight.gradient()? {
                let _ = gradient.f_detach_()?.f_zero_()?;
            }
        }
        Ok(())
    }

    /// Euclidean norm of all gradients together.
    pub(super) fn gradient_norm(&self) -> Result<f64> {
        let mut norms = Vec::new();
        for weight in &self.list {
            if let Some(gradient) = weight.gradient()? {
                norms.push(gradient.f_norm()?);
            }
        }
        if norms.is_empty() { Ok(0.0) } else { Ok(Tch::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?) }
    }

    /// Names and values.
    pub fn arrays(&self) -> impl Iterator<Item = Result<(&str, Array)>> {
        self.list.iter().map(|weight| Ok((weight.name.as_str(), download(&weight.tensor)?)))
    }

    /// The values of `name`.
    pub fn array(&self, name: &str) -> Result<Array> {
        match self.by_name.get(name) {
            Some(weight) => download(&weight.0),
            None => {
                let (expected, found) = ("a weight".to_owned(), "none".to_owned());
                Err(laps_model::Error::Parameter { name: name.to_owned(), expected, found }.into())
            }
        }
    }
}

/// The weights of a [`Weights`], to take into another thread.
pub(super) struct SharedWeights {
    config: ModelConfig,
    tensors: Vec<(String, Tch)>,
}

impl SharedWeights {
    /// As [`Weights::model`].
    pub(super) fn model(self, precision: Precision, mode: Mode) -> Result<Laps<Torch>> {
        let by_name = self.tensors.into_iter().map(|(name, tensor)| (name, Torch::new(tensor))).collect();
        model(&self.config, Rc::new(by_name), precision, mode)
    }
}

fn model(
    config: &ModelConfig,
    by_name: Rc<HashMap<String, Torch>>,
    precision: Precision,
    mode: Mode,
) -> Result<Laps<Torch>> {
    let path = Path::root(Rc::new(move |parameter: Parameter| {
        let Some(weight) = by_name.get(&parameter.name) else {
            let (expected, found) = ("a weight".to_owned(), "none".to_owned());
            return Err(laps_model::Error::Parameter { name: parameter.name, expected, found }.into());
        };
        if precision == Precision::F32 || parameter.name.starts_with("cross_net.") {
            return Ok(weight.clone());
        }
        Ok(Torch::new(weight.0.f_to_kind(precision.kind()).map_err(refused)?))
    }));
    Ok(Laps::new(config, &path.with_mode(mode))?)
}

pub(super) fn download(tensor: &Tch) -> Result<Array> {
    Ok(Torch::new(tensor.f_detach()?).download()?)
}
