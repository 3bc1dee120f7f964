//! Compares every operation of the tensor trait with values computed by hand. Each implementation runs the same cases.
#![allow(clippy::unwrap_used)] // test helpers may panic

use laps_model::Result;
use laps_model::{array::Array, dim::Dim, tensor::DeviceTensor};

/// A tensor implementation on a device.
pub struct On<T: DeviceTensor>(pub T::Device);

impl<T: DeviceTensor> On<T> {
    fn tensor(&self, shape: &[usize], values: &[f32]) -> T {
        T::upload(&Array::new(shape, values.to_vec()).unwrap(), &self.0).unwrap()
    }

    /// `0, 1, 2, ...`
    fn counting(&self, shape: &[usize]) -> T {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|value| value as f32).collect();
        self.tensor(shape, &values)
    }
}

fn dims(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|&size| size.into()).collect()
}

/// Shape and values, the latter within `tolerance`.
#[track_caller]
pub fn same<T: DeviceTensor>(found: Result<T>, shape: &[usize], expected: &[f32], tolerance: f32) {
    let found = found.unwrap();
    assert_eq!(found.shape(), dims(shape));
    let found = found.download().unwrap();
    assert_eq!(found.dims(), shape);
    let near = |(&a, &b): (&f32, &f32)| a == b || (a - b).abs() <= tolerance;
    assert_eq!(found.values().len(), expected.len());
    assert!(found.values().iter().zip(expected).all(near), "{:?}, {expected:?}", found.values());
}

/// Exactly representable results.
const EXACT: f32 = 0.0;
/// Results of about 1 that were rounded a few times.
const ROUNDED: f32 = 1e-6;

pub fn arithmetic<T: DeviceTensor>(on: &On<T>) {
    let (a, b) = (on.tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), on.tensor(&[2, 2], &[8.0, 4.0, 2.0, 1.0]));
    same(a.add(&b), &[2, 2], &[9.0, 6.0, 5.0, 5.0], EXACT);
    same(a.sub(&b), &[2, 2], &[-7.0, -2.0, 1.0, 3.0], EXACT);
    same(a.mul(&b), &[2, 2], &[8.0, 8.0, 6.0, 4.0], EXACT);
    same(a.div(&b), &[2, 2], &[0.125, 0.5, 1.5, 4.0], EXACT);
    same(a.affine(2.0, -1.0), &[2, 2], &[1.0, 3.0, 5.0, 7.0], EXACT);
    same(a.affine(0.5, 0.0), &[2, 2], &[0.5, 1.0, 1.5, 2.0], EXACT);
    same(a.constant(&[7.0, 8.0], &[2, 1]), &[2, 1], &[7.0, 8.0], EXACT);
    assert!(a.constant(&[7.0, 8.0], &[3]).is_err());
}

pub fn broadcasting<T: DeviceTensor>(on: &On<T>) {
    let matrix = on.tensor(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let row = on.tensor(&[3], &[10.0, 20.0, 30.0]);
    let column = on.tensor(&[2, 1], &[100.0, 200.0]);
    let number = on.tensor(&[1], &[1.0]);
    same(matrix.add(&row), &[2, 3], &[10.0, 21.0, 32.0, 13.0, 24.0, 35.0], EXACT);
    same(matrix.sub(&column), &[2, 3], &[-100.0, -99.0, -98.0, -197.0, -196.0, -195.0], EXACT);
    same(column.add(&row), &[2, 3], &[110.0, 120.0, 130.0, 210.0, 220.0, 230.0], EXACT);
    same(row.mul(&number), &[3], &[10.0, 20.0, 30.0], EXACT);
    let deep = on.tensor(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
    let wide = on.tensor(&[3, 1], &[0.0, 10.0, 20.0]);
    let expected = [1.0, 2.0, 11.0, 12.0, 21.0, 22.0, 3.0, 4.0, 13.0, 14.0, 23.0, 24.0];
    same(deep.add(&wide), &[2, 3, 2], &expected, EXACT);
    same(row.expand(&dims(&[2, 3])), &[2, 3], &[10.0, 20.0, 30.0, 10.0, 20.0, 30.0], EXACT);
    same(column.expand(&dims(&[2, 2])), &[2, 2], &[100.0, 100.0, 200.0, 200.0], EXACT);

    let pair = on.tensor(&[2], &[1.0, 2.0]);
    for refused in [matrix.add(&pair), matrix.sub(&pair), matrix.mul(&pair), matrix.div(&pair)] {
        assert!(refused.is_err());
    }
    assert!(row.expand(&dims(&[2, 4])).is_err());
    assert!(matrix.expand(&dims(&[3])).is_err());
    assert!(row.expand(&[Dim::symbol("batch"), 3.into()]).is_err());
}

pub fn products<T: DeviceTensor>(on: &On<T>) {
    let a = on.tensor(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let b = on.tensor(&[3, 2], &[7.0, 8.0, 9.0, 10.0, 11.0, 12.0]);
    same(a.matmul(&b), &[2, 2], &[58.0, 64.0, 139.0, 154.0], EXACT);
    // Two matrices by one, and by two.
    let stack = on.counting(&[2, 1, 2]);
    let square = on.tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    same(stack.matmul(&square), &[2, 1, 2], &[3.0, 4.0, 11.0, 16.0], EXACT);
    let squares = on.tensor(&[2, 2, 2], &[1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    same(stack.matmul(&squares), &[2, 1, 2], &[0.0, 1.0, 3.0, 2.0], EXACT);
    assert!(a.matmul(&a).is_err());
    assert!(squares.matmul(&on.counting(&[3, 2, 2])).is_err());

    let weight = on.tensor(&[2, 3], &[1.0, 0.0, -1.0, 0.5, 0.5, 0.5]);
    let bias = on.tensor(&[2], &[10.0, 20.0]);
    same(a.linear(&weight, Some(&bias)), &[2, 2], &[8.0, 23.0, 8.0, 27.5], EXACT);
    same(a.linear(&weight, None), &[2, 2], &[-2.0, 3.0, -2.0, 7.5], EXACT);
    same(on.counting(&[1, 2, 3]).linear(&weight, None), &[1, 2, 2], &[-2.0, 1.5, -2.0, 6.0], EXACT);
    assert!(a.linear(&b, None).is_err());
    assert!(a.linear(&weight, Some(&on.counting(&[3]))).is_err());
}

pub fn patches<T: DeviceTensor>(on: &On<T>) {
    // Two channels of 2x4; patches of 2: a sum over the first channel, and the last corner of the second.
    let image = on.counting(&[1, 2, 2, 4]);
    let weight =
        on.tensor(&[2, 2, 2, 2], &[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    let bias = on.tensor(&[2], &[0.5, -1.0]);
    same(image.embed_patches(&weight, Some(&bias), 2), &[1, 2, 2], &[10.5, 12.0, 18.5, 14.0], EXACT);
    // Another number of channels, half a patch, no batch.
    for shape in [&[1, 3, 2, 4][..], &[1, 2, 2, 3], &[2, 2, 4]] {
        assert!(on.counting(shape).embed_patches(&weight, Some(&bias), 2).is_err(), "{shape:?}");
    }
}

pub fn embedding_looks_up_rows<T: DeviceTensor>(on: &On<T>) {
    let table = on.tensor(&[3, 2], &[0.0, 1.0, 10.0, 11.0, 20.0, 21.0]);
    let input_ids = on.tensor(&[2, 2], &[2.0, 0.0, 1.0, 2.0]);
    let expected = [20.0, 21.0, 0.0, 1.0, 10.0, 11.0, 20.0, 21.0];
    same(table.embedding(&input_ids), &[2, 2, 2], &expected, EXACT);
}

/// Not run on a GPU, where it is a sticky CUDA error; encoders check ids before the upload.
pub fn out_of_range_ids_are_rejected<T: DeviceTensor>(on: &On<T>) {
    if crate::support::device() != laps_model::encoder::Device::Cpu {
        return println!("not run: on a GPU");
    }
    let table = on.counting(&[3, 2]);
    for id in [3.0, -1.0] {
        assert!(table.embedding(&on.tensor(&[1], &[id])).is_err(), "{id}");
    }
}

pub fn rearrangements<T: DeviceTensor>(on: &On<T>) {
    let block = on.counting(&[2, 3]);
    same(block.reshape(&dims(&[3, 2])), &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], EXACT);
    assert!(block.reshape(&dims(&[4])).is_err());
    same(block.permute(&[1, 0]), &[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0], EXACT);
    // A permuted tensor keeps its own order when it is reshaped.
    let turned = block.permute(&[1, 0]).unwrap();
    same(turned.reshape(&dims(&[6])), &[6], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0], EXACT);
    same(on.counting(&[1, 2, 2]).permute(&[2, 0, 1]), &[2, 1, 2], &[0.0, 2.0, 1.0, 3.0], EXACT);
    for order in [&[0][..], &[0, 0], &[0, 2]] {
        assert!(block.permute(order).is_err(), "{order:?}");
    }
    same(block.narrow(1, 1, 2), &[2, 2], &[1.0, 2.0, 4.0, 5.0], EXACT);
    same(block.narrow(0, 1, 1), &[1, 3], &[3.0, 4.0, 5.0], EXACT);
    assert!(block.narrow(1, 2, 2).is_err());
    assert!(block.narrow(2, 0, 1).is_err());
    same(block.select(1, &[2, 0, 2]), &[2, 3], &[2.0, 0.0, 2.0, 5.0, 3.0, 5.0], EXACT);
    assert!(block.select(0, &[2]).is_err());
    let other = on.tensor(&[2, 1], &[7.0, 8.0]);
    same(T::concat(&[&block, &other], 1), &[2, 4], &[0.0, 1.0, 2.0, 7.0, 3.0, 4.0, 5.0, 8.0], EXACT);
    same(T::concat(&[&other, &other], 0), &[4, 1], &[7.0, 8.0, 7.0, 8.0], EXACT);
    assert!(T::concat(&[&block, &other], 0).is_err());
    assert!(T::concat(&[], 0).is_err());
    same(block.roll(1, 1), &[2, 3], &[1.0, 2.0, 0.0, 4.0, 5.0, 3.0], EXACT);
    same(block.roll(0, 1), &[2, 3], &[3.0, 4.0, 5.0, 0.0, 1.0, 2.0], EXACT);
    same(block.roll(1, 3), &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], EXACT);
}

pub fn reductions<T: DeviceTensor>(on: &On<T>) {
    let block = on.tensor(&[2, 3], &[1.0, -2.0, 3.0, 0.5, 4.0, 0.25]);
    same(block.sum(1), &[2, 1], &[2.0, 4.75], EXACT);
    same(block.sum(0), &[1, 3], &[1.5, 2.0, 3.25], EXACT);
    same(block.mean(0), &[1, 3], &[0.75, 1.0, 1.625], EXACT);
    same(block.max(1), &[2, 1], &[3.0, 4.0], EXACT);
    same(block.max(0), &[1, 3], &[1.0, 4.0, 3.0], EXACT);
    same(on.tensor(&[2], &[-3.0, -5.0]).max(0), &[1], &[-3.0], EXACT);
    same(block.cumulative_sum(), &[2, 3], &[1.0, -1.0, 2.0, 0.5, 4.5, 4.75], EXACT);
    same(block.top_k_mask(2), &[2, 3], &[1.0, 0.0, 1.0, 1.0, 1.0, 0.0], EXACT);
    same(block.top_k_mask(0), &[2, 3], &[0.0; 6], EXACT);
    same(block.top_k_mask(3), &[2, 3], &[1.0; 6], EXACT);
    assert!(block.top_k_mask(4).is_err());
    assert!(block.sum(2).is_err() && block.max(2).is_err() && block.mean(2).is_err());
}

pub fn functions<T: DeviceTensor>(on: &On<T>) {
    // exp(0), exp(ln 3): a quarter and three; equal logits so large that their exponentials overflow.
    let logits = on.tensor(&[2, 2], &[0.0, 3.0_f32.ln(), 1000.0, 1000.0]);
    same(logits.softmax(), &[2, 2], &[0.25, 0.75, 0.5, 0.5], ROUNDED);
    // A masked logit has weight 0.
    same(on.tensor(&[1, 2], &[0.0, f32::MIN]).softmax(), &[1, 2], &[1.0, 0.0], EXACT);
    // Mean 2, variance 1; eps 3 makes the divisor 2.
    let row = on.tensor(&[1, 2], &[1.0, 3.0]);
    let (weight, bias) = (on.tensor(&[2], &[2.0, 4.0]), on.tensor(&[2], &[0.0, 1.0]));
    same(row.layer_norm(&weight, &bias, 3.0), &[1, 2], &[-1.0, 3.0], ROUNDED);
    same(row.layer_norm(&weight, &bias, 0.0), &[1, 2], &[-2.0, 5.0], ROUNDED);
    assert!(row.layer_norm(&on.counting(&[3]), &on.counting(&[3]), 0.0).is_err());
    // x Phi(x) with Phi(1) = 0.841344746 and Phi(-2) = 0.022750132; far out it is x or nothing.
    let points = on.tensor(&[5], &[0.0, 1.0, -2.0, 20.0, -20.0]);
    same(points.gelu(), &[5], &[0.0, 0.841_344_7, -0.045_500_264, 20.0, 0.0], ROUNDED);
    // x / (1 + exp(-1.702 x)).
    same(points.quick_gelu(), &[5], &[0.0, 0.845_795_8, -0.064_341_38, 20.0, 0.0], ROUNDED);
    same(points.sigmoid(), &[5], &[0.5, 0.731_058_6, 0.119_202_92, 1.0, 0.0], ROUNDED);
    same(points.leaky_relu(0.1), &[5], &[0.0, 1.0, -0.2, 20.0, -2.0], ROUNDED);
    let vectors = on.tensor(&[3, 2], &[3.0, -4.0, 0.0, 0.0, 0.003, 0.004]);
    same(vectors.normalize(1e-12), &[3, 2], &[0.6, -0.8, 0.0, 0.0, 0.6, 0.8], ROUNDED);
    // A norm below eps is replaced by eps.
    same(vectors.narrow(0, 2, 1).unwrap().normalize(0.01), &[1, 2], &[0.3, 0.4], ROUNDED);
}

pub fn attention<T: DeviceTensor>(on: &On<T>) {
    // One head of size 4, so logits are halved: the query sees keys with logits 0 and ln 3.
    let query = on.tensor(&[1, 1, 1, 4], &[2.0, 0.0, 0.0, 0.0]);
    let key = on.tensor(&[1, 1, 2, 4], &[0.0, 5.0, 0.0, 0.0, 3.0_f32.ln(), 0.0, 7.0, 0.0]);
    let value = on.tensor(&[1, 1, 2, 4], &[4.0, 0.0, 1.0, 0.0, 8.0, 4.0, 1.0, 0.0]);
    same(T::attention(&query, &key, &value, None), &[1, 1, 1, 4], &[7.0, 3.0, 1.0, 0.0], 1e-5);
    // A bias that takes the difference away again, and one that masks the second key.
    let level = on.tensor(&[1, 1, 1, 2], &[3.0_f32.ln(), 0.0]);
    same(T::attention(&query, &key, &value, Some(&level)), &[1, 1, 1, 4], &[6.0, 2.0, 1.0, 0.0], 1e-5);
    let mask = on.tensor(&[1, 1, 1, 2], &[0.0, f32::MIN]);
    same(T::attention(&query, &key, &value, Some(&mask)), &[1, 1, 1, 4], &[4.0, 0.0, 1.0, 0.0], 1e-5);
    assert!(T::attention(&query, &on.counting(&[1, 1, 2, 3]), &value, None).is_err());
}

pub fn shapes<T: DeviceTensor>(on: &On<T>) {
    let block = on.counting(&[2, 3]);
    assert_eq!(block.sizes::<2>().unwrap(), [Dim::from(2), Dim::from(3)]);
    assert!(block.sizes::<3>().is_err());
}

/// A test of every case on the tensor `$tensor` and the device `$device`.
macro_rules! test_operations {
    ($tensor:ty, $device:expr) => {
        test_operations!(@ $tensor, $device;
                arithmetic,
                broadcasting,
                products,
                patches,
                embedding_looks_up_rows,
                out_of_range_ids_are_rejected,
                rearrangements,
                reductions,
                functions,
                attention,
                shapes);
    };
    (@ $tensor:ty, $device:expr; $($case:ident),* $(,)?) => {
        $(#[test] fn $case() { $crate::cases::$case::<$tensor>(&$crate::cases::On($device)); })*
    };
}
