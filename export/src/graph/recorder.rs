//! The tensor that records what is done with it.

use std::{cell::RefCell, fmt, rc::Rc};

use laps_model::{Error, Result};
use laps_model::{
    array::Array,
    dim::Dim,
    params::{Parameter, Path},
    tensor::Tensor,
};

use super::{Element, Fact, Graph, Id, Operator, arithmetic, attention, layout, shapes::refused};

/// No GELU is less: it is least at -0.7518, and there -0.16997.
const LEAST_GELU: f32 = -0.17;

/// A value of a graph that is being recorded; cloning it names the same value.
#[derive(Clone)]
pub struct Value {
    pub(super) graph: Rc<RefCell<Graph>>,
    pub(super) id: Id,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fact = self.fact();
        write!(f, "`{}` {:?}", fact.name, fact.shape)
    }
}

impl Value {
    /// An input of `graph`.
    ///
    /// # Errors
    /// [`Error::Operation`] if the name is taken.
    pub fn input(graph: &Rc<RefCell<Graph>>, name: &str, element: Element, shape: &[Dim]) -> Result<Self> {
        let id = graph.borrow_mut().input(name, element, shape)?;
        Ok(Self { graph: Rc::clone(graph), id })
    }

    /// Makes this an output of its graph.
    ///
    /// # Errors
    /// [`Error::Operation`] if the name is taken, or if no node makes this value.
    pub fn output(&self, name: &str) -> Result<()> {
        self.graph.borrow_mut().output(name, self.id)
    }

    /// The root of a model's parameters, which `read` gives and which become constants of `graph`.
    pub fn parameters(graph: &Rc<RefCell<Graph>>, read: impl Fn(&Parameter) -> Result<Array> + 'static) -> Path<Self> {
        let graph = Rc::clone(graph);
        Path::root(Rc::new(move |parameter: Parameter| {
            let array = read(&parameter)?;
            if array.dims() != parameter.shape {
                return Err(Error::Parameter {
                    name: parameter.name,
                    expected: format!("shape {:?}", parameter.shape),
                    found: format!("shape {:?}", array.dims()),
                });
            }
            let id = graph.borrow_mut().parameter(&parameter.name, array)?;
            Ok(Self { graph: Rc::clone(&graph), id })
        }))
    }

    /// The same values as f32.
    pub fn to_float(&self) -> Self {
        self.cast(Element::F32)
    }

    /// 1 where this is at most `other`, 0 elsewhere, as f32; they broadcast.
    ///
    /// # Errors
    /// [`Error::Operation`] where the shapes do not fit.
    pub fn at_most(&self, other: &Self) -> Result<Self> {
        let shape = super::shapes::broadcast("at_most", &self.shape(), &other.shape())?;
        let operator = Operator::new("LessOrEqual");
        Ok(self.apply(operator, &[self, other], (Element::Bool, shape), "at_most").to_float())
    }

    pub(super) fn cast(&self, element: Element) -> Self {
        if self.fact().element == element {
            return self.clone();
        }
        let operator = Operator::cast(element);
        self.apply(operator, &[self], (element, self.shape()), "cast")
    }

    pub(super) fn fact(&self) -> Fact {
        self.graph.borrow().fact(self.id).clone()
    }

    pub(super) fn at(&self, id: Id) -> Self {
        Self { graph: Rc::clone(&self.graph), id }
    }

    /// A constant of whole numbers in the same graph.
    pub(super) fn whole(&self, values: &[i64]) -> Self {
        let mut graph = self.graph.borrow_mut();
        let label = graph.label("whole");
        self.at(graph.whole(&label, values))
    }

    /// A constant number in the same graph.
    pub(super) fn number(&self, value: f64) -> Result<Self> {
        self.constant(&[value as f32], &[])
    }

    /// The numbers of a constant.
    pub(super) fn known(&self) -> Option<Array> {
        self.graph.borrow().fact(self.id).known().cloned()
    }

    /// Applies an operator; the result is named `label` in the module that is being recorded.
    pub(super) fn apply(
        &self,
        operator: Operator,
        operands: &[&Self],
        (element, shape): (Element, Vec<Dim>),
        label: &str,
    ) -> Self {
        let mut graph = self.graph.borrow_mut();
        let label = graph.label(label);
        let inputs: Vec<Option<Id>> = operands.iter().map(|value| Some(value.id)).collect();
        self.at(graph.apply(operator, &inputs, (element, shape), &label))
    }

    /// Applies an operator whose result is f32 of `shape`, or computes it now, by `eager`, where every operand is constant.
    pub(super) fn float(
        &self,
        (operator, label): (Operator, &str),
        operands: &[&Self],
        shape: Vec<Dim>,
        eager: impl FnOnce(&[Array]) -> Result<Array>,
    ) -> Result<Self> {
        match operands.iter().map(|value| value.known()).collect::<Option<Vec<_>>>() {
            Some(arrays) => self.folded(&operator, operands, label, || eager(&arrays)),
            None => Ok(self.apply(operator, operands, (Element::F32, shape), label)),
        }
    }

    /// A constant that `compute` makes of constants, once.
    pub(super) fn folded(
        &self,
        operator: &Operator,
        operands: &[&Self],
        label: &str,
        compute: impl FnOnce() -> Result<Array>,
    ) -> Result<Self> {
        let mut graph = self.graph.borrow_mut();
        let label = match self.id {
            // A parameter in another form keeps its name.
            id if graph.producer(id).is_none() => format!("{}.{label}", graph.fact(id).name),
            _ => graph.label(label),
        };
        let ids: Vec<Id> = operands.iter().map(|value| value.id).collect();
        let id = graph.folded(operator, &ids, &label, compute)?;
        drop(graph);
        Ok(self.at(id))
    }
}

impl Tensor for Value {
    fn shape(&self) -> Vec<Dim> {
        self.graph.borrow().fact(self.id).shape.clone()
    }

    fn constant(&self, values: &[f32], shape: &[usize]) -> Result<Self> {
        let mut graph = self.graph.borrow_mut();
        let label = graph.label("constant");
        Ok(self.at(graph.constant(&label, Array::new(shape, values.to_vec())?)))
    }

    fn add(&self, other: &Self) -> Result<Self> {
        arithmetic::binary(("Add", "add"), self, other, Array::add)
    }
    fn sub(&self, other: &Self) -> Result<Self> {
        arithmetic::binary(("Sub", "sub"), self, other, Array::sub)
    }
    fn mul(&self, other: &Self) -> Result<Self> {
        arithmetic::binary(("Mul", "mul"), self, other, Array::mul)
    }
    fn div(&self, other: &Self) -> Result<Self> {
        arithmetic::binary(("Div", "div"), self, other, Array::div)
    }
    fn affine(&self, scale: f64, shift: f64) -> Result<Self> {
        arithmetic::affine(self, scale, shift)
    }
    fn matmul(&self, other: &Self) -> Result<Self> {
        arithmetic::matmul(self, other, "matmul")
    }
    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        arithmetic::linear(self, weight, bias)
    }
    fn embedding(&self, identifiers: &Self) -> Result<Self> {
        arithmetic::embedding(self, identifiers)
    }

    fn reshape(&self, shape: &[Dim]) -> Result<Self> {
        layout::reshape(self, shape)
    }
    fn permute(&self, order: &[usize]) -> Result<Self> {
        layout::permute(self, order)
    }
    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        layout::narrow(self, axis, start, length)
    }
    fn select(&self, axis: usize, indices: &[usize]) -> Result<Self> {
        layout::select(self, axis, indices)
    }
    fn concatenate(parts: &[&Self], axis: usize) -> Result<Self> {
        layout::concatenate(parts, axis)
    }
    fn expand(&self, shape: &[Dim]) -> Result<Self> {
        layout::expand(self, shape)
    }
    fn roll(&self, axis: usize, shift: usize) -> Result<Self> {
        layout::roll(self, axis, shift)
    }

    fn softmax(&self) -> Result<Self> {
        let operator = Operator::new("Softmax").with_int("axis", -1);
        self.float((operator, "softmax"), &[self], self.shape(), |known| known[0].softmax())
    }
    fn layer_norm(&self, weight: &Self, bias: &Self, epsilon: f64) -> Result<Self> {
        arithmetic::layer_norm(self, (weight, bias), epsilon)
    }
    fn gelu(&self) -> Result<Self> {
        let made = self.float((Operator::new("Gelu"), "gelu"), &[self], self.shape(), |known| known[0].gelu())?;
        self.graph.borrow_mut().floors.insert(made.id, LEAST_GELU);
        Ok(made)
    }
    fn leaky_relu(&self, slope: f64) -> Result<Self> {
        let operator = Operator::new("LeakyRelu").with("alpha", super::Attribute::Float(slope as f32));
        self.float((operator, "leaky_relu"), &[self], self.shape(), |known| known[0].leaky_relu(slope))
    }
    fn normalize(&self, epsilon: f64) -> Result<Self> {
        arithmetic::normalize(self, epsilon)
    }
    fn sum(&self, axis: usize) -> Result<Self> {
        arithmetic::reduce(("ReduceSum", "sum"), self, axis, Array::sum)
    }
    fn max(&self, axis: usize) -> Result<Self> {
        arithmetic::reduce(("ReduceMax", "max"), self, axis, Array::max)
    }
    fn cumulative_sum(&self) -> Result<Self> {
        let Some(axis) = self.shape().len().checked_sub(1) else { return refused("cumulative_sum", "an axis", self) };
        let axis = {
            let mut graph = self.graph.borrow_mut();
            let label = graph.label("axis");
            self.at(graph.index(&label, axis as i64))
        };
        let shape = self.shape();
        Ok(self.apply(Operator::new("CumSum"), &[self, &axis], (Element::F32, shape), "cumulative_sum"))
    }
    fn top_mask(&self, count: usize) -> Result<Self> {
        arithmetic::top_mask(self, count)
    }
    fn attention(query: &Self, key: &Self, value: &Self, bias: Option<&Self>) -> Result<Self> {
        attention::attention(query, key, value, bias)
    }
    fn padding_bias(&self) -> Result<Self> {
        attention::padding_bias(self)
    }

    fn module<R>(&self, name: &str, body: impl FnOnce() -> Result<R>) -> Result<R> {
        self.graph.borrow_mut().enter(name);
        let result = body();
        self.graph.borrow_mut().leave();
        result.map_err(|error| match error {
            Error::Module { .. } => error,
            error => Error::Module { name: name.to_owned(), source: Box::new(error) },
        })
    }
}
