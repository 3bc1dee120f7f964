//! libtorch behind the tensor trait. Nothing else in this crate names `tch`.
//!
//! Only the fallible `f_*` methods are called: the plain ones panic.

mod device;
pub mod similarity;
pub mod train;

use std::rc::Rc;

use tch::{Kind, Tensor as Tch};

pub use self::device::{TorchDevice, cuda_devices, has_cuda, set_threads, threads, version};
use crate::{
    Error, Result,
    array::Array,
    dim::Dim,
    encoder::Encoder,
    tensor::{Eager, Tensor},
};

/// A libtorch tensor; cloning shares it.
#[derive(Clone, Debug)]
pub struct Torch(Rc<Tch>);

impl Torch {
    fn new(tensor: Tch) -> Self {
        Self(Rc::new(tensor))
    }

    /// Whole numbers as libtorch indexes with.
    fn indices(&self) -> Result<Tch> {
        Ok(self.0.f_to_kind(Kind::Int64)?)
    }
}

fn sizes(shape: &[Dim]) -> Result<Vec<i64>> {
    shape.iter().map(|size| Ok(size.fixed()? as i64)).collect()
}

impl Tensor for Torch {
    fn shape(&self) -> Vec<Dim> {
        self.0.size().iter().map(|&size| (size as usize).into()).collect()
    }

    fn constant(&self, values: &[f32], shape: &[usize]) -> Result<Self> {
        let constant = Self::upload(&Array::new(shape, values.to_vec())?, &TorchDevice::of(&self.0))?;
        Ok(Self::new(constant.0.f_to_kind(self.0.kind())?))
    }

    fn add(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_add(&other.0)?))
    }

    fn sub(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_sub(&other.0)?))
    }

    fn mul(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_mul(&other.0)?))
    }

    fn div(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_div(&other.0)?))
    }

    fn affine(&self, scale: f64, shift: f64) -> Result<Self> {
        let scaled = self.0.f_mul_scalar(scale)?;
        Ok(Self::new(if shift == 0.0 { scaled } else { scaled.f_add_scalar(shift)? }))
    }

    fn matmul(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_matmul(&other.0)?))
    }

    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        Ok(Self::new(self.0.f_linear(&weight.0, bias.map(|bias| &*bias.0))?))
    }

    fn embedding(&self, identifiers: &Self) -> Result<Self> {
        Ok(Self::new(Tch::f_embedding(&self.0, &identifiers.indices()?, -1, false, false)?))
    }

    fn reshape(&self, shape: &[Dim]) -> Result<Self> {
        Ok(Self::new(self.0.f_reshape(sizes(shape)?)?))
    }

    fn permute(&self, order: &[usize]) -> Result<Self> {
        let order: Vec<i64> = order.iter().map(|&axis| axis as i64).collect();
        Ok(Self::new(self.0.f_permute(order)?))
    }

    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        Ok(Self::new(self.0.f_narrow(axis as i64, start as i64, length as i64)?))
    }

    fn select(&self, axis: usize, indices: &[usize]) -> Result<Self> {
        // A GPU that is told to take what is not there takes no further orders.
        let size = self.0.size().get(axis).map_or(0, |&size| size as usize);
        if let Some(beyond) = indices.iter().find(|&&index| index >= size) {
            let (expected, found) = (format!("indices below {size}"), beyond.to_string());
            return Err(Error::Operation { operation: "select", expected, found });
        }
        let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        let indices = Tch::f_from_slice(&indices)?.f_to_device(self.0.device())?;
        Ok(Self::new(self.0.f_index_select(axis as i64, &indices)?))
    }

    fn concatenate(parts: &[&Self], axis: usize) -> Result<Self> {
        let parts: Vec<&Tch> = parts.iter().map(|part| &*part.0).collect();
        Ok(Self::new(Tch::f_cat(&parts, axis as i64)?))
    }

    fn expand(&self, shape: &[Dim]) -> Result<Self> {
        Ok(Self::new(self.0.f_expand(sizes(shape)?, false)?))
    }

    fn softmax(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_softmax(-1, None)?))
    }

    fn layer_norm(&self, weight: &Self, bias: &Self, epsilon: f64) -> Result<Self> {
        let width = weight.0.size();
        Ok(Self::new(self.0.f_layer_norm(width, Some(&*weight.0), Some(&*bias.0), epsilon, true)?))
    }

    fn gelu(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_gelu("none")?))
    }

    fn leaky_relu(&self, slope: f64) -> Result<Self> {
        Ok(Self::new(self.0.f_maximum(&self.0.f_mul_scalar(slope)?)?))
    }

    fn normalize(&self, epsilon: f64) -> Result<Self> {
        let norm = self.0.f_norm_scalaropt_dim(2.0, [-1i64], true)?.f_clamp_min(epsilon)?;
        Ok(Self::new(self.0.f_div(&norm)?))
    }

    fn sum(&self, axis: usize) -> Result<Self> {
        Ok(Self::new(self.0.f_sum_dim_intlist(&[axis as i64][..], true, None)?))
    }

    fn max(&self, axis: usize) -> Result<Self> {
        Ok(Self::new(self.0.f_amax([axis as i64], true)?))
    }

    fn cumulative_sum(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_cumsum(-1, None)?))
    }

    fn top_mask(&self, count: usize) -> Result<Self> {
        let (_, indices) = self.0.f_topk(count as i64, -1, true, false)?;
        Ok(Self::new(self.0.f_zeros_like()?.f_scatter_value(-1, &indices, 1.0)?))
    }

    fn in_type_of(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_to_kind(other.0.kind())?))
    }

    fn attention(query: &Self, key: &Self, value: &Self, bias: Option<&Self>) -> Result<Self> {
        let bias = bias.map(|bias| bias.in_type_of(query)).transpose()?;
        let bias = bias.as_ref().map(|bias| &*bias.0);
        let output =
            Tch::f_scaled_dot_product_attention(&query.0, &key.0, &value.0, bias, 0.0, false, None::<f64>, false)?;
        Ok(Self::new(output))
    }

    fn detach(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_detach()?))
    }

    fn dropout(&self, share: f64) -> Result<Self> {
        Ok(Self::new(self.0.f_dropout(share, true)?))
    }

    fn roll(&self, axis: usize, shift: usize) -> Result<Self> {
        Ok(Self::new(self.0.f_roll([-(shift as i64)], [axis as i64])?))
    }
}

impl Eager for Torch {
    type Device = TorchDevice;

    fn upload(array: &Array, device: &TorchDevice) -> Result<Self> {
        let shape: Vec<i64> = array.dims().iter().map(|&size| size as i64).collect();
        Ok(Self::new(Tch::f_from_slice(array.values())?.f_reshape(shape)?.f_to_device(device.device())?))
    }

    fn download(&self) -> Result<Array> {
        let shape: Vec<usize> = self.0.size().iter().map(|&size| size as usize).collect();
        let mut values = vec![0f32; shape.iter().product()];
        let elements = values.len();
        let host = self.0.f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        host.f_copy_data(&mut values, elements)?;
        Array::new(&shape, values)
    }
}

/// An encoder that records no gradients.
pub struct Unrecorded<E>(pub E);

impl<E: Encoder> Encoder for Unrecorded<E> {
    fn encode_images(&self, pixels: &Array) -> Result<Array> {
        let _guard = tch::no_grad_guard();
        self.0.encode_images(pixels)
    }

    fn encode_captions(&self, captions: &[&[u32]]) -> Result<Vec<Array>> {
        let _guard = tch::no_grad_guard();
        self.0.encode_captions(captions)
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        // Behind the reason libtorch lists where in its code it was found.
        let reason = |text: String| text.split("\nException raised from").next().unwrap_or_default().to_owned();
        let error = match error {
            tch::TchError::Torch(text) => tch::TchError::Torch(reason(text)),
            other => other,
        };
        Self::Torch(Box::new(error))
    }
}
