//! Named parameters. A layer asks a [`ParamPath`] for its tensors, as it asks a `VarBuilder` in candle.

use std::rc::Rc;

use crate::{Error, Result, array::Array};

/// Name, shape and initialisation of one tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Full name, exactly as in the checkpoint.
    pub name: String,
    /// Size of each axis.
    pub shape: Vec<usize>,
    /// Initialisation for training from scratch.
    pub init: Init,
}

impl Parameter {
    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it is a running statistic of a batch norm: training moves it without a gradient.
    pub fn is_running_statistic(&self) -> bool {
        matches!(self.name.rsplit('.').next(), Some("running_mean" | "running_var"))
    }

    /// Checks that `values` have the shape of this parameter.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    pub fn check_shape(&self, values: &Array) -> Result<()> {
        if values.dims() == self.shape {
            return Ok(());
        }
        Err(Error::Parameter {
            name: self.name.clone(),
            expected: format!("shape {:?}", self.shape),
            found: format!("shape {:?}", values.dims()),
        })
    }
}

/// Initialisation of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// All zero: biases.
    Zeros,
    /// All one: norm weights and scales.
    Ones,
    /// Normal with standard deviation 0.02: weights of the encoders.
    Normal,
    /// Uniform in `±1 / sqrt(inputs)`, PyTorch's default for a linear layer: the projections and the aggregation.
    Uniform {
        /// Number of inputs of the layer.
        inputs: usize,
    },
    /// Uniform in `±sqrt(6 / (inputs + outputs))` (Glorot, Bengio, AISTATS 2010): weights of `sgr`.
    Xavier {
        /// Number of inputs of the layer.
        inputs: usize,
        /// Number of its outputs.
        outputs: usize,
    },
}

/// Whether a model is built for evaluation or for training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mode {
    /// Deterministic. Exports and evaluation accept no other mode.
    #[default]
    Evaluation,
    /// With dropout.
    Training(Regularization),
}

/// Dropout probabilities during training, from 0 to below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regularization {
    /// For the hidden values and the attention weights of the text encoder.
    pub dropout: f64,
    /// For the attention branch of the last Swin block, a whole sample at a time. The probability of the blocks before it
    /// rises linearly from 0.
    pub drop_path: f64,
    /// For the head; None for the probability of its original.
    pub head_dropout: Option<f64>,
}

/// A source of tensors by name.
pub trait Parameters<T> {
    /// Returns the tensor of `parameter`.
    ///
    /// # Errors
    /// An error that names the parameter if there is no such tensor.
    fn get(&self, parameter: Parameter) -> Result<T>;
}

impl<T, F: Fn(Parameter) -> Result<T>> Parameters<T> for F {
    fn get(&self, parameter: Parameter) -> Result<T> {
        self(parameter)
    }
}

/// A prefix of parameter names, with the source of the tensors below it.
///
/// ```
/// use laps_model::params::{self, Init};
///
/// let parameters = params::list(|path| path.sub("encoder.layer").sub(0).get("weight", &[2, 3], Init::Normal))?;
/// assert_eq!(parameters[0].name, "encoder.layer.0.weight");
/// assert_eq!(parameters[0].elements(), 6);
/// # Ok::<(), laps_model::Error>(())
/// ```
pub struct ParamPath<T> {
    prefix: String,
    parameters: Rc<dyn Parameters<T>>,
    mode: Mode,
}

impl<T> Clone for ParamPath<T> {
    fn clone(&self) -> Self {
        Self { prefix: self.prefix.clone(), parameters: Rc::clone(&self.parameters), mode: self.mode }
    }
}

impl<T> ParamPath<T> {
    /// The empty path, for a model in evaluation mode.
    pub fn root(parameters: Rc<dyn Parameters<T>>) -> Self {
        Self { prefix: String::new(), parameters, mode: Mode::Evaluation }
    }

    /// The same path for a model in `mode`.
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The mode of the model.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The path: names joined by dots, empty at the root.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    /// The path `name` below this one. `name` may have several components, such as `attention.self`.
    pub fn sub(&self, name: impl std::fmt::Display) -> Self {
        let prefix = if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Self { prefix, parameters: Rc::clone(&self.parameters), mode: self.mode }
    }

    /// The tensor `name` below this path.
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<T> {
        let name = self.sub(name).prefix;
        self.parameters.get(Parameter { name, shape: shape.to_vec(), init })
    }
}

/// The parameters that `build` requests, in that order. Needs no weights.
pub fn list<M>(build: impl FnOnce(&ParamPath<Parameter>) -> Result<M>) -> Result<Vec<Parameter>> {
    let seen = Rc::new(std::cell::RefCell::new(Vec::new()));
    let recorder = Rc::clone(&seen);
    build(&ParamPath::root(Rc::new(move |parameter: Parameter| {
        recorder.borrow_mut().push(parameter.clone());
        Ok(parameter)
    })))?;
    Ok(seen.take())
}

#[cfg(test)]
mod tests {
    use super::{Init, list};

    #[test]
    fn names_are_joined_by_dots_in_the_order_of_requests() {
        let parameters = list(|path| {
            path.sub("encoder").sub(0).get("weight", &[2, 3], Init::Normal)?;
            path.get("scale", &[1], Init::Ones)
        })
        .unwrap();
        let names: Vec<_> = parameters.iter().map(|p| (p.name.as_str(), p.elements())).collect();
        assert_eq!(names, [("encoder.0.weight", 6), ("scale", 1)]);
    }
}
