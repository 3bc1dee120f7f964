//! The tensor trait of laps-model, implemented by libtorch.

use std::rc::Rc;

use laps_model::{
    Result,
    array::Array,
    dim::Dim,
    encoder::Encoder,
    tensor::{DeviceTensor, Tensor},
};
use tch::{Kind, Tensor as Tch};

use crate::{TorchDevice, error::model_error};

/// A libtorch tensor. Clones share the values.
#[derive(Clone, Debug)]
pub struct Torch(pub(crate) Rc<Tch>);

impl Torch {
    pub(crate) fn new(tensor: Tch) -> Self {
        Self(Rc::new(tensor))
    }

    /// Converts to int64, the dtype of libtorch's indices.
    pub(crate) fn indices(&self) -> Result<Tch, tch::TchError> {
        self.0.f_to_kind(Kind::Int64)
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
        Ok(Self::new(constant.0.f_to_kind(self.0.kind()).map_err(model_error)?))
    }

    fn add(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_add(&other.0).map_err(model_error)?))
    }

    fn sub(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_sub(&other.0).map_err(model_error)?))
    }

    fn mul(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_mul(&other.0).map_err(model_error)?))
    }

    fn div(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_div(&other.0).map_err(model_error)?))
    }

    fn affine(&self, scale: f64, shift: f64) -> Result<Self> {
        let scaled = self.0.f_mul_scalar(scale).map_err(model_error)?;
        Ok(Self::new(if shift == 0.0 { scaled } else { scaled.f_add_scalar(shift).map_err(model_error)? }))
    }

    fn matmul(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_matmul(&other.0).map_err(model_error)?))
    }

    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        Ok(Self::new(self.0.f_linear(&weight.0, bias.map(|bias| &*bias.0)).map_err(model_error)?))
    }

    fn embedding(&self, input_ids: &Self) -> Result<Self> {
        Ok(Self::new(
            Tch::f_embedding(&self.0, &input_ids.indices().map_err(model_error)?, -1, false, false)
                .map_err(model_error)?,
        ))
    }

    fn reshape(&self, shape: &[Dim]) -> Result<Self> {
        Ok(Self::new(self.0.f_reshape(sizes(shape)?).map_err(model_error)?))
    }

    fn permute(&self, order: &[usize]) -> Result<Self> {
        let order: Vec<i64> = order.iter().map(|&axis| axis as i64).collect();
        Ok(Self::new(self.0.f_permute(order).map_err(model_error)?))
    }

    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        Ok(Self::new(self.0.f_narrow(axis as i64, start as i64, length as i64).map_err(model_error)?))
    }

    fn select(&self, axis: usize, indices: &[usize]) -> Result<Self> {
        // Out-of-range indices are a sticky CUDA error, so validate them first.
        let size = self.0.size().get(axis).map_or(0, |&size| size as usize);
        if let Some(invalid) = indices.iter().find(|&&index| index >= size) {
            let (expected, found) = (format!("indices below {size}"), invalid.to_string());
            return Err(laps_model::Error::Operation { operation: "select", expected, found });
        }
        let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        let indices =
            Tch::f_from_slice(&indices).map_err(model_error)?.f_to_device(self.0.device()).map_err(model_error)?;
        Ok(Self::new(self.0.f_index_select(axis as i64, &indices).map_err(model_error)?))
    }

    fn concat(parts: &[&Self], axis: usize) -> Result<Self> {
        let parts: Vec<&Tch> = parts.iter().map(|part| &*part.0).collect();
        Ok(Self::new(Tch::f_cat(&parts, axis as i64).map_err(model_error)?))
    }

    fn expand(&self, shape: &[Dim]) -> Result<Self> {
        Ok(Self::new(self.0.f_expand(sizes(shape)?, false).map_err(model_error)?))
    }

    fn softmax(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_softmax(-1, None).map_err(model_error)?))
    }

    fn layer_norm(&self, weight: &Self, bias: &Self, eps: f64) -> Result<Self> {
        let width = weight.0.size();
        Ok(Self::new(self.0.f_layer_norm(width, Some(&*weight.0), Some(&*bias.0), eps, true).map_err(model_error)?))
    }

    fn gelu(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_gelu("none").map_err(model_error)?))
    }

    fn exp(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_exp().map_err(model_error)?))
    }

    fn ln(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_log().map_err(model_error)?))
    }

    fn sqrt(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_sqrt().map_err(model_error)?))
    }

    fn tanh(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_tanh().map_err(model_error)?))
    }

    fn sort_descending(&self, axis: usize) -> Result<Self> {
        Ok(Self::new(self.0.f_sort(axis as i64, true).map_err(model_error)?.0))
    }

    fn leaky_relu(&self, slope: f64) -> Result<Self> {
        Ok(Self::new(self.0.f_maximum(&self.0.f_mul_scalar(slope).map_err(model_error)?).map_err(model_error)?))
    }

    fn normalize(&self, eps: f64) -> Result<Self> {
        let norm = self
            .0
            .f_norm_scalaropt_dim(2.0, [-1i64], true)
            .map_err(model_error)?
            .f_clamp_min(eps)
            .map_err(model_error)?;
        Ok(Self::new(self.0.f_div(&norm).map_err(model_error)?))
    }

    fn sum(&self, axis: usize) -> Result<Self> {
        Ok(Self::new(self.0.f_sum_dim_intlist(&[axis as i64][..], true, None).map_err(model_error)?))
    }

    fn max(&self, axis: usize) -> Result<Self> {
        Ok(Self::new(self.0.f_amax([axis as i64], true).map_err(model_error)?))
    }

    fn cumulative_sum(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_cumsum(-1, None).map_err(model_error)?))
    }

    fn top_k_mask(&self, count: usize) -> Result<Self> {
        let (_, indices) = self.0.f_topk(count as i64, -1, true, false).map_err(model_error)?;
        Ok(Self::new(
            self.0.f_zeros_like().map_err(model_error)?.f_scatter_value(-1, &indices, 1.0).map_err(model_error)?,
        ))
    }

    fn cast_like(&self, other: &Self) -> Result<Self> {
        Ok(Self::new(self.0.f_to_kind(other.0.kind()).map_err(model_error)?))
    }

    fn attention(query: &Self, key: &Self, value: &Self, bias: Option<&Self>) -> Result<Self> {
        let bias = bias.map(|bias| bias.cast_like(query)).transpose()?;
        let bias = bias.as_ref().map(|bias| &*bias.0);
        let output =
            Tch::f_scaled_dot_product_attention(&query.0, &key.0, &value.0, bias, 0.0, false, None::<f64>, false)
                .map_err(model_error)?;
        Ok(Self::new(output))
    }

    fn detach(&self) -> Result<Self> {
        Ok(Self::new(self.0.f_detach().map_err(model_error)?))
    }

    fn dropout(&self, share: f64) -> Result<Self> {
        Ok(Self::new(self.0.f_dropout(share, true).map_err(model_error)?))
    }

    fn lerp_in_place(&self, target: &Self, weight: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let _ = self.0.shallow_clone().f_lerp_(&target.0, weight).map_err(model_error)?;
        Ok(())
    }

    fn roll(&self, axis: usize, shift: usize) -> Result<Self> {
        Ok(Self::new(self.0.f_roll([-(shift as i64)], [axis as i64]).map_err(model_error)?))
    }
}

impl DeviceTensor for Torch {
    type Device = TorchDevice;

    fn upload(array: &Array, device: &TorchDevice) -> Result<Self> {
        let shape: Vec<i64> = array.dims().iter().map(|&size| size as i64).collect();
        Ok(Self::new(
            Tch::f_from_slice(array.values())
                .map_err(model_error)?
                .f_reshape(shape)
                .map_err(model_error)?
                .f_to_device(device.device())
                .map_err(model_error)?,
        ))
    }

    fn download(&self) -> Result<Array> {
        let shape: Vec<usize> = self.0.size().iter().map(|&size| size as usize).collect();
        let mut values = vec![0f32; shape.iter().product()];
        let elements = values.len();
        let host = self
            .0
            .f_to_kind(Kind::Float)
            .map_err(model_error)?
            .f_to_device(tch::Device::Cpu)
            .map_err(model_error)?
            .f_contiguous()
            .map_err(model_error)?;
        host.f_copy_data(&mut values, elements).map_err(model_error)?;
        Array::new(&shape, values)
    }
}

/// An encoder that runs without recording gradients.
pub struct NoGradEncoder<E>(pub E);

impl<E: Encoder> Encoder for NoGradEncoder<E> {
    fn encode_images(&self, pixels: &Array) -> Result<Array> {
        let _guard = tch::no_grad_guard();
        self.0.encode_images(pixels)
    }

    fn encode_captions(&self, captions: &[&[u32]]) -> Result<Vec<Array>> {
        let _guard = tch::no_grad_guard();
        self.0.encode_captions(captions)
    }

    fn encode_padded(&self, captions: &[&[u32]]) -> Result<Vec<Array>> {
        let _guard = tch::no_grad_guard();
        self.0.encode_padded(captions)
    }
}
