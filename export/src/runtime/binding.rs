//! InputTensor and output buffers of a graph that are reused from run to run.

use ort::{
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, Session},
    value::{DynTensor, Tensor, TensorElementType},
};

use super::InputTensor;

/// CPU buffers for inputs of certain shapes and for the output of a graph with one output. They are not pinned for a GPU:
/// ONNX Runtime 1.31.1 copies a pinned output onto itself and fails.
pub(super) struct Binding {
    inner: IoBinding,
    inputs: Vec<(String, DynTensor)>,
    output: String,
    /// True once the output has a buffer; its shape is known after the first run.
    output_is_bound: bool,
}

impl Binding {
    /// Allocates buffers for inputs like `inputs`, in the order of the graph.
    pub(super) fn new(session: &Session, inputs: &[InputTensor<'_>]) -> ort::Result<Self> {
        let expected = session.inputs().len();
        if expected != inputs.len() {
            return Err(ort::Error::new(format!("the graph has {expected} inputs, not {}", inputs.len())));
        }
        let allocator = Allocator::default();
        let tensors = session.inputs().iter().zip(inputs).map(|(outlet, input)| {
            let tensor = match *input {
                InputTensor::F32(shape, _) => Tensor::<f32>::new(&allocator, shape.to_vec())?.upcast(),
                InputTensor::I64(shape, _) => Tensor::<i64>::new(&allocator, shape.to_vec())?.upcast(),
            };
            Ok((outlet.name().to_owned(), tensor))
        });
        let tensors = tensors.collect::<ort::Result<_>>()?;
        let output = session.outputs().first().ok_or_else(|| ort::Error::new("the graph has no output"))?;
        let output = output.name().to_owned();
        let mut inner = session.create_binding()?;
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        inner.bind_output_to_device(&output, &memory)?;
        Ok(Self { inner, inputs: tensors, output, output_is_bound: false })
    }

    /// Returns true if the buffers have the types and shapes of `inputs`.
    pub(super) fn fits(&self, inputs: &[InputTensor<'_>]) -> bool {
        let matches = |((_, tensor), input): (&(String, DynTensor), &InputTensor<'_>)| {
            let (element, shape) = match *input {
                InputTensor::F32(shape, _) => (TensorElementType::Float32, shape),
                InputTensor::I64(shape, _) => (TensorElementType::Int64, shape),
            };
            *tensor.data_type() == element && tensor.shape().iter().map(|&size| size as usize).eq(shape.iter().copied())
        };
        self.inputs.len() == inputs.len() && self.inputs.iter().zip(inputs).all(matches)
    }

    /// Runs the graph on `inputs`; returns shape and values of its output.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        inputs: &[InputTensor<'_>],
    ) -> ort::Result<(Vec<usize>, Vec<f32>)> {
        for ((name, tensor), input) in self.inputs.iter_mut().zip(inputs) {
            match *input {
                InputTensor::F32(_, values) => tensor.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(values),
                InputTensor::I64(_, values) => tensor.try_extract_tensor_mut::<i64>()?.1.copy_from_slice(values),
            }
            // Binding copies the input to the device.
            self.inner.bind_input(&*name, tensor)?;
        }
        self.inner.synchronize_inputs()?;
        let found = {
            let outputs = session.run_binding(&self.inner)?;
            self.inner.synchronize_outputs()?;
            let output = outputs.get(&self.output).ok_or_else(|| ort::Error::new("the graph has no output"))?;
            let (shape, values) = output.try_extract_tensor::<f32>()?;
            (shape.iter().map(|&size| usize::try_from(size).unwrap_or_default()).collect::<Vec<_>>(), values.to_vec())
        };
        if !self.output_is_bound {
            self.inner.bind_output(&self.output, Tensor::<f32>::new(&Allocator::default(), found.0.clone())?)?;
            self.output_is_bound = true;
        }
        Ok(found)
    }
}
