//! Inputs and output of a graph in memory that stays from run to run.

use ort::{
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, RunOptions, Session},
    value::{DynTensor, Tensor, TensorElementType},
};

use super::Input;

/// Memory of the processor for inputs of certain shapes, and for what a graph with one output makes of them. It is not pinned
/// for a GPU: of an output that is, ONNX Runtime 1.31.1 makes a copy onto itself, which it refuses.
pub(super) struct Binding {
    inner: IoBinding,
    inputs: Vec<(String, DynTensor)>,
    output: String,
    /// Whether the output has memory of its own already; its shape shows in the first run.
    kept: bool,
}

impl Binding {
    /// Memory for inputs like `inputs`, in the order of the graph.
    pub(super) fn new(session: &Session, inputs: &[Input<'_>]) -> ort::Result<Self> {
        let wanted = session.inputs().len();
        if wanted != inputs.len() {
            return Err(ort::Error::new(format!("{} inputs for a graph of {wanted}", inputs.len())));
        }
        let allocator = Allocator::default();
        let tensors = session.inputs().iter().zip(inputs).map(|(outlet, input)| {
            let tensor = match *input {
                Input::Float(shape, _) => Tensor::<f32>::new(&allocator, shape.to_vec())?.upcast(),
                Input::Whole(shape, _) => Tensor::<i64>::new(&allocator, shape.to_vec())?.upcast(),
            };
            Ok((outlet.name().to_owned(), tensor))
        });
        let tensors = tensors.collect::<ort::Result<_>>()?;
        let output = session.outputs().first().ok_or_else(|| ort::Error::new("it has no output"))?;
        let output = output.name().to_owned();
        let mut inner = session.create_binding()?;
        let anywhere = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        inner.bind_output_to_device(&output, &anywhere)?;
        Ok(Self { inner, inputs: tensors, output, kept: false })
    }

    /// Whether this memory is for inputs like `inputs`.
    pub(super) fn fits(&self, inputs: &[Input<'_>]) -> bool {
        let like = |((_, tensor), input): (&(String, DynTensor), &Input<'_>)| {
            let (element, shape) = match *input {
                Input::Float(shape, _) => (TensorElementType::Float32, shape),
                Input::Whole(shape, _) => (TensorElementType::Int64, shape),
            };
            *tensor.data_type() == element && tensor.shape().iter().map(|&size| size as usize).eq(shape.iter().copied())
        };
        self.inputs.len() == inputs.len() && self.inputs.iter().zip(inputs).all(like)
    }

    /// Runs the graph on `inputs`: shape and values of its output.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        inputs: &[Input<'_>],
        options: &RunOptions,
    ) -> ort::Result<(Vec<usize>, Vec<f32>)> {
        for ((name, tensor), input) in self.inputs.iter_mut().zip(inputs) {
            match *input {
                Input::Float(_, values) => tensor.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(values),
                Input::Whole(_, values) => tensor.try_extract_tensor_mut::<i64>()?.1.copy_from_slice(values),
            }
            // Binding is what copies to a device.
            self.inner.bind_input(&*name, tensor)?;
        }
        self.inner.synchronize_inputs()?;
        let found = {
            let outputs = session.run_binding_with_options(&self.inner, options)?;
            self.inner.synchronize_outputs()?;
            let output = outputs.get(&self.output).ok_or_else(|| ort::Error::new("it has no output"))?;
            let (shape, values) = output.try_extract_tensor::<f32>()?;
            (shape.iter().map(|&size| usize::try_from(size).unwrap_or_default()).collect::<Vec<_>>(), values.to_vec())
        };
        if !self.kept {
            self.inner.bind_output(&self.output, Tensor::<f32>::new(&Allocator::default(), found.0.clone())?)?;
            self.kept = true;
        }
        Ok(found)
    }
}
