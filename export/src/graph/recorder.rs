//! The tensor that records operations as graph nodes.

use std::{cell::RefCell, fmt, rc::Rc};

use laps_model::{Error, Result};
use laps_model::{
    array::Array,
    dim::Dim,
    params::{ParamPath, Parameter},
    tensor::Tensor,
};

use super::{ElementType, Fact, Graph, Operator, ValueId, arithmetic, attention, layout, shapes::refused};

/// Lower bound of GELU, whose minimum is -0.16997 at x = -0.7518.
const GELU_LOWER_BOUND: f32 = -0.17;

/// A value of a graph that is being recorded. A clone refers to the same value.
#[derive(Clone)]
pub struct GraphTensor {
    pub(super) graph: Rc<RefCell<Graph>>,
    pub(super) id: ValueId,
}

impl fmt::Debug for GraphTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fact = self.fact();
        write!(f, "`{}` {:?}", fact.name, fact.shape)
    }
}

impl GraphTensor {
    /// Adds an input to `graph`.
    ///
    /// # Errors
    /// [`Error::Operation`] if the name is already in use.
    pub fn input(graph: &Rc<RefCell<Graph>>, name: &str, element: ElementType, shape: &[Dim]) -> Result<Self> {
        let id = graph.borrow_mut().input(name, element, shape)?;
        Ok(Self { graph: Rc::clone(graph), id })
    }

    /// Makes this value an output of its graph.
    ///
    /// # Errors
    /// [`Error::Operation`] if the name is already in use, or if no node computes this value.
    pub fn output(&self, name: &str) -> Result<()> {
        self.graph.borrow_mut().output(name, self.id)
    }

    /// The root of a model's parameters, which become constants of `graph`; `read` returns their values.
    pub fn parameters(
        graph: &Rc<RefCell<Graph>>,
        read: impl Fn(&Parameter) -> Result<Array> + 'static,
    ) -> ParamPath<Self> {
        let graph = Rc::clone(graph);
        ParamPath::root(Rc::new(move |parameter: Parameter| {
            let array = read(&parameter)?;
            parameter.check_shape(&array)?;
            let id = graph.borrow_mut().parameter(&parameter.name, array)?;
            Ok(Self { graph: Rc::clone(&graph), id })
        }))
    }

    /// Casts to f32.
    pub fn to_float(&self) -> Self {
        self.cast(ElementType::F32)
    }

    /// 1.0 where this is at most `other`, else 0.0; the operands broadcast.
    ///
    /// # Errors
    /// [`Error::Operation`] if the shapes do not broadcast.
    pub fn at_most(&self, other: &Self) -> Result<Self> {
        let shape = super::shapes::broadcast("at_most", &self.shape(), &other.shape())?;
        let operator = Operator::new("LessOrEqual");
        Ok(self.apply(operator, &[self, other], (ElementType::Bool, shape), "at_most").to_float())
    }

    pub(super) fn cast(&self, element: ElementType) -> Self {
        if self.fact().element == element {
            return self.clone();
        }
        let operator = Operator::cast(element);
        self.apply(operator, &[self], (element, self.shape()), "cast")
    }

    pub(super) fn fact(&self) -> Fact {
        self.graph.borrow().fact(self.id).clone()
    }

    pub(super) fn at(&self, id: ValueId) -> Self {
        Self { graph: Rc::clone(&self.graph), id }
    }

    /// Adds an i64 constant to the same graph.
    pub(super) fn i64_vector(&self, values: &[i64]) -> Self {
        let mut graph = self.graph.borrow_mut();
        let label = graph.label("whole");
        self.at(graph.i64_vector(&label, values))
    }

    /// Adds a scalar constant to the same graph.
    pub(super) fn f32_scalar(&self, value: f64) -> Result<Self> {
        self.constant(&[value as f32], &[])
    }

    /// The array of a constant.
    pub(super) fn constant_array(&self) -> Option<Array> {
        self.graph.borrow().fact(self.id).constant_array().cloned()
    }

    /// Records an operator; the result is named `label` in the current module.
    pub(super) fn apply(
        &self,
        operator: Operator,
        operands: &[&Self],
        (element, shape): (ElementType, Vec<Dim>),
        label: &str,
    ) -> Self {
        let mut graph = self.graph.borrow_mut();
        let label = graph.label(label);
        let inputs: Vec<Option<ValueId>> = operands.iter().map(|value| Some(value.id)).collect();
        self.at(graph.apply(operator, &inputs, (element, shape), &label))
    }

    /// Records an operator whose result is f32 of `shape`. If every operand is constant, `compute` gives the result instead.
    pub(super) fn float(
        &self,
        (operator, label): (Operator, &str),
        operands: &[&Self],
        shape: Vec<Dim>,
        compute: impl FnOnce(&[Array]) -> Result<Array>,
    ) -> Result<Self> {
        match operands.iter().map(|value| value.constant_array()).collect::<Option<Vec<_>>>() {
            Some(arrays) => self.folded(&operator, operands, label, || compute(&arrays)),
            None => Ok(self.apply(operator, operands, (ElementType::F32, shape), label)),
        }
    }

    /// A constant that `compute` derives from constants, computed once.
    pub(super) fn folded(
        &self,
        operator: &Operator,
        operands: &[&Self],
        label: &str,
        compute: impl FnOnce() -> Result<Array>,
    ) -> Result<Self> {
        let mut graph = self.graph.borrow_mut();
        let label = match self.id {
            // A transformed parameter keeps the parameter's name as prefix.
            id if graph.producer(id).is_none() => format!("{}.{label}", graph.fact(id).name),
            _ => graph.label(label),
        };
        let ids: Vec<ValueId> = operands.iter().map(|value| value.id).collect();
        let id = graph.folded(operator, &ids, &label, compute)?;
        drop(graph);
        Ok(self.at(id))
    }
}

impl Tensor for GraphTensor {
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
    fn matmul_each(&self, other: &Self) -> Result<Self> {
        arithmetic::matmul_broadcast(self, other)
    }
    fn matmul_shared(&self, other: &Self) -> Result<Self> {
        arithmetic::matmul_broadcast(self, other)
    }
    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        arithmetic::linear(self, weight, bias)
    }
    fn embedding(&self, input_ids: &Self) -> Result<Self> {
        arithmetic::embedding(self, input_ids)
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
    fn concat(parts: &[&Self], axis: usize) -> Result<Self> {
        layout::concat(parts, axis)
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
    fn layer_norm(&self, weight: &Self, bias: &Self, eps: f64) -> Result<Self> {
        arithmetic::layer_norm(self, weight, bias, eps)
    }
    fn gelu(&self) -> Result<Self> {
        let made = self.float((Operator::new("Gelu"), "gelu"), &[self], self.shape(), |known| known[0].gelu())?;
        self.graph.borrow_mut().floors.insert(made.id, GELU_LOWER_BOUND);
        Ok(made)
    }
    fn exp(&self) -> Result<Self> {
        self.float((Operator::new("Exp"), "exp"), &[self], self.shape(), |known| known[0].exp())
    }
    fn ln(&self) -> Result<Self> {
        self.float((Operator::new("Log"), "ln"), &[self], self.shape(), |known| known[0].ln())
    }
    fn sqrt(&self) -> Result<Self> {
        self.float((Operator::new("Sqrt"), "sqrt"), &[self], self.shape(), |known| known[0].sqrt())
    }
    fn tanh(&self) -> Result<Self> {
        self.float((Operator::new("Tanh"), "tanh"), &[self], self.shape(), |known| known[0].tanh())
    }
    fn sigmoid(&self) -> Result<Self> {
        self.float((Operator::new("Sigmoid"), "sigmoid"), &[self], self.shape(), |known| known[0].sigmoid())
    }
    fn sort_descending(&self, axis: usize) -> Result<Self> {
        arithmetic::sort_descending(self, axis)
    }
    fn leaky_relu(&self, slope: f64) -> Result<Self> {
        let operator = Operator::new("LeakyRelu").with("alpha", super::Attribute::Float(slope as f32));
        self.float((operator, "leaky_relu"), &[self], self.shape(), |known| known[0].leaky_relu(slope))
    }
    fn normalize(&self, eps: f64) -> Result<Self> {
        arithmetic::normalize(self, eps)
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
            self.at(graph.i64_scalar(&label, axis as i64))
        };
        let shape = self.shape();
        Ok(self.apply(Operator::new("CumSum"), &[self, &axis], (ElementType::F32, shape), "cumulative_sum"))
    }
    fn top_k_mask(&self, count: usize) -> Result<Self> {
        arithmetic::top_k_mask(self, count)
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
