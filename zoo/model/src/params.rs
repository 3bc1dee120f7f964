//! Named parameters: where a layer gets its tensors from.

use std::rc::Rc;

use crate::Result;

/// Name and shape of one tensor that a model owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Full name, exactly as in the checkpoint.
    pub name: String,
    /// Sizes.
    pub shape: Vec<usize>,
    /// How a fresh one is made.
    pub init: Init,
}

impl Parameter {
    /// How many numbers it holds.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// How a fresh parameter is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// All zero: biases.
    Zeros,
    /// All one: norm weights and scales.
    Ones,
    /// Normal with standard deviation 0.02: weights of pretrained-style encoders.
    Normal,
    /// Uniform in +-1 / sqrt(inputs), as PyTorch makes weights and biases of a linear layer: projections and aggregation.
    Uniform {
        /// Inputs of the layer.
        inputs: usize,
    },
}

/// What a model is built for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mode {
    /// Gives the same values every time. Exports and evaluation take no other.
    #[default]
    Evaluation,
    /// Leaves parts out at random.
    Training(Regularization),
}

/// Shares of a model that are left out at random while it trains, from 0 to below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regularization {
    /// Of the hidden values and the attention weights of the text encoder.
    pub dropout: f64,
    /// Of the attention of the last Swin block for a whole sample; that of the blocks before it rises from 0 linearly.
    pub drop_path: f64,
}

/// Something that has a tensor for each name.
pub trait Parameters<T> {
    /// The tensor `name` of `shape`; an error that names it where there is none.
    fn get(&self, parameter: Parameter) -> Result<T>;
}

impl<T, F: Fn(Parameter) -> Result<T>> Parameters<T> for F {
    fn get(&self, parameter: Parameter) -> Result<T> {
        self(parameter)
    }
}

/// A place in the tree of parameter names.
pub struct Path<T> {
    prefix: String,
    parameters: Rc<dyn Parameters<T>>,
    mode: Mode,
}

impl<T> Clone for Path<T> {
    fn clone(&self) -> Self {
        Self { prefix: self.prefix.clone(), parameters: Rc::clone(&self.parameters), mode: self.mode }
    }
}

impl<T> Path<T> {
    /// The root of the tree of a model that is built for evaluation.
    pub fn root(parameters: Rc<dyn Parameters<T>>) -> Self {
        Self { prefix: String::new(), parameters, mode: Mode::Evaluation }
    }

    /// The same place in a model that is built for `mode`.
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// What the model is built for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Full name of this place, steps joined by dots; empty at the root.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    /// The place `name` below this one; `name` may hold several steps, `attention.self`.
    pub fn sub(&self, name: impl std::fmt::Display) -> Self {
        let prefix = if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Self { prefix, parameters: Rc::clone(&self.parameters), mode: self.mode }
    }

    /// The tensor `name` of `shape` at this place.
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<T> {
        let name = self.sub(name).prefix;
        self.parameters.get(Parameter { name, shape: shape.to_vec(), init })
    }
}

/// Every parameter that `build` asks for, in the order of asking. Needs no weights and no native library.
pub fn list<M>(build: impl FnOnce(&Path<Parameter>) -> Result<M>) -> Result<Vec<Parameter>> {
    let seen = Rc::new(std::cell::RefCell::new(Vec::new()));
    let recorder = Rc::clone(&seen);
    build(&Path::root(Rc::new(move |parameter: Parameter| {
        recorder.borrow_mut().push(parameter.clone());
        Ok(parameter)
    })))?;
    Ok(seen.take())
}

#[cfg(test)]
mod tests {
    use super::{Init, list};

    #[test]
    fn names_are_joined_by_dots_in_the_order_of_asking() {
        let parameters = list(|path| {
            path.sub("encoder").sub(0).get("weight", &[2, 3], Init::Normal)?;
            path.get("scale", &[1], Init::Ones)
        })
        .unwrap();
        let names: Vec<_> = parameters.iter().map(|p| (p.name.as_str(), p.elements())).collect();
        assert_eq!(names, [("encoder.0.weight", 6), ("scale", 1)]);
    }
}
