//! The trainable weights of a model: f32 leaf tensors in two parameter groups.

use std::{collections::HashMap, ops::Range, rc::Rc};

use tch::{Kind, Tensor as Tch};

use super::precision::TorchPrecision;
use crate::{Result, Torch, TorchDevice, distributed::run_backward_early, error::model_error};
use laps_hub::registry::TrainPrecision;
use laps_model::{
    array::Array,
    models::{self, Laps, config::ModelConfig},
    params::{Mode, ParamPath, Parameter},
    tensor::DeviceTensor,
};

/// Parameter group: weights with the same learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamGroup {
    /// Projections and alignment.
    Heads,
    /// The two pretrained encoders.
    Backbones,
}

impl ParamGroup {
    /// The group of the parameter `name`.
    pub fn of(name: &str) -> Self {
        let backbones = ["img_enc.visual_encoder.", "txt_enc.bert.", "txt_enc.clip."];
        if backbones.iter().any(|prefix| name.starts_with(prefix)) { Self::Backbones } else { Self::Heads }
    }

    pub(super) fn index(self) -> usize {
        usize::from(self == Self::Backbones)
    }
}

/// One weight.
pub(super) struct Weight {
    pub(super) name: String,
    pub(super) group: ParamGroup,
    /// A leaf tensor with a gradient, unless it is a running statistic.
    pub(super) tensor: Tch,
    pub(super) is_running_statistic: bool,
}

impl Weight {
    /// The gradient, if there is one.
    pub(super) fn gradient(&self) -> Result<Option<Tch>> {
        let gradient = self.tensor.f_grad()?;
        Ok(gradient.defined().then_some(gradient))
    }
}

/// Weights of a group in one contiguous tensor, so that one operation updates all of them: on a GPU, launching many small
/// operations takes longer than computing them.
pub(super) struct ParamBucket {
    pub(super) group: ParamGroup,
    /// Range of the members in [`Weights::list`].
    pub(super) members: Range<usize>,
    /// Range of each member in the values.
    ranges: Vec<Range<usize>>,
    /// Values of all members. Each begins at a multiple of [`ALIGNMENT`], with 0 between them.
    pub(super) values: Tch,
}

/// Alignment in values: that of CPU vectors and of libtorch's tensors.
const ALIGNMENT: usize = 16;
/// Maximum number of values of a bucket, unless a single weight has more.
const MAX_BUCKET_VALUES: usize = 1 << 24;

impl ParamBucket {
    /// Concatenated gradients of all members, laid out as the values; None if a member has no gradient.
    pub(super) fn gradient(&self, list: &[Weight]) -> Result<Option<Tch>> {
        let mut parts = Vec::new();
        for (weight, range) in list[self.members.clone()].iter().zip(&self.ranges) {
            if !weight.tensor.requires_grad() {
                return Ok(None);
            }
            let Some(gradient) = weight.gradient()? else { return Ok(None) };
            let padding = range.end.next_multiple_of(ALIGNMENT) - range.end;
            parts.push(gradient.f_reshape([-1])?);
            if padding > 0 {
                parts.push(Tch::f_zeros([padding as i64], (Kind::Float, self.values.device()))?);
            }
        }
        Ok(Some(Tch::f_cat(&parts, 0)?))
    }

    /// Views of `flat`, a tensor laid out as [`values`](Self::values): one for each member, in its shape.
    pub(super) fn member_views(&self, flat: &Tch, list: &[Weight]) -> Result<Vec<Tch>> {
        let members = list[self.members.clone()].iter().zip(&self.ranges);
        members.map(|(weight, range)| view(flat, range, &weight.tensor.size())).collect()
    }
}

/// A view of the values `range` of `flat` in a shape.
fn view(flat: &Tch, range: &Range<usize>, shape: &[i64]) -> Result<Tch> {
    Ok(flat.f_narrow(0, range.start as i64, range.len() as i64)?.f_view(shape)?)
}

/// All weights of a model.
pub struct Weights {
    config: ModelConfig,
    device: TorchDevice,
    pub(super) list: Vec<Weight>,
    pub(super) buckets: Vec<ParamBucket>,
    by_name: Rc<HashMap<String, Torch>>,
}

impl Weights {
    /// Creates the weights from the values that `read` returns for each parameter.
    ///
    /// # Errors
    /// Those of `read`, and values of another shape.
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
            parameter.check_shape(&array)?;
            let kind = |parameter: &Parameter| (ParamGroup::of(&parameter.name), parameter.is_running_statistic());
            let same_group = |(first, _): &(Parameter, Array)| kind(first) == kind(&parameter);
            let elements: usize = members.iter().map(|(member, _)| member.elements()).sum();
            if !members.first().is_none_or(same_group) || elements + parameter.elements() > MAX_BUCKET_VALUES {
                weights.push_bucket(std::mem::take(&mut members), &mut by_name)?;
            }
            members.push((parameter, array));
        }
        weights.push_bucket(members, &mut by_name)?;
        weights.by_name = Rc::new(by_name);
        Ok(weights)
    }

    /// Adds a bucket of weights of one group.
    fn push_bucket(&mut self, members: Vec<(Parameter, Array)>, by_name: &mut HashMap<String, Torch>) -> Result<()> {
        let Some((first, _)) = members.first() else { return Ok(()) };
        let group = ParamGroup::of(&first.name);
        let (mut values, mut ranges) = (Vec::new(), Vec::with_capacity(members.len()));
        for (_, array) in &members {
            ranges.push(values.len()..values.len() + array.values().len());
            values.extend_from_slice(array.values());
            values.resize(values.len().next_multiple_of(ALIGNMENT), 0.0);
        }
        let values = Torch::upload(&Array::new(&[values.len()], values)?, &self.device)?.0.shallow_clone();
        let start = self.list.len();
        for ((parameter, _), range) in members.into_iter().zip(&ranges) {
            let shape: Vec<i64> = parameter.shape.iter().map(|&size| size as i64).collect();
            let is_running_statistic = parameter.is_running_statistic();
            let tensor = view(&values, range, &shape)?.f_detach()?.f_set_requires_grad(!is_running_statistic)?;
            by_name.insert(parameter.name.clone(), Torch::new(tensor.shallow_clone()));
            self.list.push(Weight { group, name: parameter.name, tensor, is_running_statistic });
        }
        self.buckets.push(ParamBucket { group, members: start..self.list.len(), ranges, values });
        Ok(())
    }

    /// Configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Device of the weights.
    pub fn device(&self) -> TorchDevice {
        self.device
    }

    /// The model on these weights, with encoders in `precision`. In f32 it shares the leaf tensors; in half precision it holds
    /// recorded casts of their current values.
    pub(super) fn model(&self, precision: TrainPrecision, mode: Mode) -> Result<Laps<Torch>> {
        model(&self.config, Rc::clone(&self.by_name), precision, mode)
    }

    /// The weight of `parameter`, which may be a running statistic.
    pub(super) fn tensor(&self, parameter: &Parameter) -> laps_model::Result<Torch> {
        find(&self.by_name, &parameter.name).cloned()
    }

    /// The same weights, for use in another thread.
    pub(super) fn shared(&self) -> SharedWeights {
        let tensors = self.list.iter().map(|weight| (weight.name.clone(), weight.tensor.shallow_clone()));
        SharedWeights { config: self.config.clone(), tensors: tensors.collect() }
    }

    /// Enables or disables the gradients of the backbones.
    pub(super) fn train_backbones(&self, trainable: bool) -> Result<()> {
        for weight in self.list.iter().filter(|weight| weight.group == ParamGroup::Backbones) {
            let _ = weight.tensor.f_set_requires_grad(trainable)?;
        }
        Ok(())
    }

    /// Sets all gradients to 0.
    pub(super) fn clear_gradients(&self) -> Result<()> {
        for weight in &self.list {
            if let Some(mut gradient) = weight.gradient()? {
                let _ = gradient.f_detach_()?.f_zero_()?;
            }
        }
        Ok(())
    }

    /// Euclidean norm of all gradients.
    pub(super) fn gradient_norm(&self) -> Result<f64> {
        let mut norms = Vec::new();
        for weight in &self.list {
            if let Some(gradient) = weight.gradient()? {
                norms.push(gradient.f_norm()?);
            }
        }
        if norms.is_empty() { Ok(0.0) } else { Ok(Tch::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?) }
    }

    /// Names and values of all weights.
    pub fn arrays(&self) -> impl Iterator<Item = Result<(&str, Array)>> {
        self.list.iter().map(|weight| Ok((weight.name.as_str(), download(&weight.tensor)?)))
    }

    /// Values of the weight `name`.
    pub fn array(&self, name: &str) -> Result<Array> {
        download(&find(&self.by_name, name)?.0)
    }
}

fn find<'a>(by_name: &'a HashMap<String, Torch>, name: &str) -> laps_model::Result<&'a Torch> {
    by_name.get(name).ok_or_else(|| {
        let (expected, found) = ("a weight".to_owned(), "none".to_owned());
        laps_model::Error::Parameter { name: name.to_owned(), expected, found }
    })
}

/// [`Weights`] that can be sent to another thread.
pub(super) struct SharedWeights {
    config: ModelConfig,
    tensors: Vec<(String, Tch)>,
}

impl SharedWeights {
    /// See [`Weights::model`].
    pub(super) fn model(self, precision: TrainPrecision, mode: Mode) -> Result<Laps<Torch>> {
        let by_name = self.tensors.into_iter().map(|(name, tensor)| (name, Torch::new(tensor))).collect();
        model(&self.config, Rc::new(by_name), precision, mode)
    }
}

fn model(
    config: &ModelConfig,
    by_name: Rc<HashMap<String, Torch>>,
    precision: TrainPrecision,
    mode: Mode,
) -> Result<Laps<Torch>> {
    let path = ParamPath::root(Rc::new(move |parameter: Parameter| {
        let weight = find(&by_name, &parameter.name)?;
        if precision == TrainPrecision::F32 || parameter.name.starts_with("cross_net.") {
            return Ok(weight.clone());
        }
        let cast = weight.0.f_to_kind(precision.kind()).map_err(model_error)?;
        // All casts are recorded before the forward pass, so their gradients would be the last of the backward pass.
        run_backward_early(&cast).map_err(model_error)?;
        Ok(Torch::new(cast))
    }));
    Ok(Laps::new(config, &path.with_mode(mode))?)
}

pub(crate) fn download(tensor: &Tch) -> Result<Array> {
    Ok(Torch::new(tensor.f_detach()?).download()?)
}
