//! The only Python names that a pickle may ask for, and what stands for a call of each.

use super::{Id, Pickle, PickleError, Value};
use crate::checkpoint::dtype::Dtype;

/// What an allowed name means to the reader. Nothing is ever looked up or called: each stands for a way to combine values
/// that were already read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    /// A bag of named values.
    Namespace,
    /// A dictionary from a list of pairs.
    Dict,
    /// A list or a tuple, from one.
    Sequence,
    /// A storage class; it is named in persistent identifiers and never called.
    Storage(Dtype),
    /// A tensor over a storage.
    Tensor,
    /// A tensor with the note that it was trained.
    Parameter,
    /// A device, as text.
    Device,
    /// An element type, as text; never called.
    ElementType,
    /// The type of a NumPy scalar, `f8`.
    NumpyType,
    /// A NumPy scalar, from its type and its bytes.
    NumpyScalar,
    /// Bytes spelled as Latin-1 text, as protocol 2 writes them.
    Latin1,
}

/// Every name that is allowed. What `torch.save` writes for a state dict, its options and its training facts: plain data
/// needs no name, so the list is short. NumPy scalars are in it because metrics are often left as such.
const ALLOWED: &[(&str, &str, Global)] = &[
    ("argparse", "Namespace", Global::Namespace),
    ("collections", "OrderedDict", Global::Dict),
    ("builtins", "set", Global::Sequence),
    ("__builtin__", "set", Global::Sequence),
    ("builtins", "frozenset", Global::Sequence),
    ("__builtin__", "frozenset", Global::Sequence),
    ("torch", "Size", Global::Sequence),
    ("torch", "device", Global::Device),
    ("torch", "float64", Global::ElementType),
    ("torch", "float32", Global::ElementType),
    ("torch", "float16", Global::ElementType),
    ("torch", "bfloat16", Global::ElementType),
    ("torch", "DoubleStorage", Global::Storage(Dtype::F64)),
    ("torch", "FloatStorage", Global::Storage(Dtype::F32)),
    ("torch", "HalfStorage", Global::Storage(Dtype::F16)),
    ("torch", "BFloat16Storage", Global::Storage(Dtype::Bf16)),
    ("torch", "LongStorage", Global::Storage(Dtype::I64)),
    ("torch", "IntStorage", Global::Storage(Dtype::I32)),
    ("torch", "ShortStorage", Global::Storage(Dtype::I16)),
    ("torch", "CharStorage", Global::Storage(Dtype::I8)),
    ("torch", "ByteStorage", Global::Storage(Dtype::U8)),
    ("torch", "BoolStorage", Global::Storage(Dtype::Bool)),
    ("torch._utils", "_rebuild_tensor", Global::Tensor),
    ("torch._utils", "_rebuild_tensor_v2", Global::Tensor),
    ("torch._utils", "_rebuild_parameter", Global::Parameter),
    ("numpy", "dtype", Global::NumpyType),
    ("numpy.core.multiarray", "scalar", Global::NumpyScalar),
    ("numpy._core.multiarray", "scalar", Global::NumpyScalar),
    ("_codecs", "encode", Global::Latin1),
];

/// The meaning of `module.name`, or an error that names it.
pub(super) fn find(module: &str, name: &str) -> Result<Value, PickleError> {
    match ALLOWED.iter().find(|(allowed, of, _)| (*allowed, *of) == (module, name)) {
        Some((_, name, Global::ElementType)) => Ok(Value::Text((*name).to_owned())),
        Some((_, _, global)) => Ok(Value::Global(*global)),
        None => Err(PickleError::Global(format!("{module}.{name}"))),
    }
}

/// What `callable(*arguments)` stands for.
pub(super) fn call(pickle: &mut Pickle, callable: Id, arguments: Id) -> Result<Value, PickleError> {
    let (Value::Global(global), Value::Tuple(arguments)) = (pickle.value(callable), pickle.value(arguments)) else {
        return Err(PickleError::malformed("a call of what can not be called"));
    };
    let (global, arguments) = (*global, arguments.clone());
    let argument = |index: usize| arguments.get(index).map(|&id| pickle.value(id));
    let value = match global {
        Global::Namespace if arguments.is_empty() => Some(Value::Namespace(None)),
        Global::Dict => pairs(pickle, &arguments).map(Value::Dict),
        Global::Sequence => match argument(0) {
            None => Some(Value::List(Vec::new())),
            Some(Value::List(items) | Value::Tuple(items)) => Some(Value::List(items.clone())),
            _ => None,
        },
        Global::Tensor => tensor(pickle, &arguments),
        Global::Parameter => match argument(0) {
            Some(tensor @ Value::Tensor { .. }) => Some(tensor.clone()),
            _ => None,
        },
        Global::Device => match (argument(0), argument(1)) {
            (Some(Value::Text(kind)), Some(Value::Int(index))) => Some(Value::Text(format!("{kind}:{index}"))),
            (Some(Value::Text(kind)), None) => Some(Value::Text(kind.clone())),
            _ => None,
        },
        Global::NumpyType => match argument(0) {
            Some(Value::Text(name)) => Some(Value::NumpyType(name.clone())),
            _ => None,
        },
        Global::NumpyScalar => match (argument(0), argument(1)) {
            (Some(Value::NumpyType(name)), Some(Value::Bytes(bytes))) => scalar(name, bytes),
            _ => None,
        },
        Global::Latin1 => match (argument(0), argument(1)) {
            (Some(Value::Text(text)), Some(Value::Text(codec))) if codec == "latin1" => {
                text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect::<Option<_>>().map(Value::Bytes)
            }
            _ => None,
        },
        Global::Namespace | Global::Storage(_) | Global::ElementType => None,
    };
    value
        .ok_or_else(|| PickleError::Malformed(format!("a call of {global:?} with other arguments than torch gives it")))
}

fn pairs(pickle: &Pickle, arguments: &[Id]) -> Option<Vec<(Id, Id)>> {
    let Some(&items) = arguments.first() else { return Some(Vec::new()) };
    let (Value::List(items) | Value::Tuple(items)) = pickle.value(items) else { return None };
    let pair = |&item: &Id| match pickle.value(item) {
        Value::List(pair) | Value::Tuple(pair) => {
            <[Id; 2]>::try_from(pair.as_slice()).ok().map(|[key, value]| (key, value))
        }
        _ => None,
    };
    items.iter().map(pair).collect()
}

/// Arguments are (storage, offset, sizes, strides, ...).
fn tensor(pickle: &Pickle, arguments: &[Id]) -> Option<Value> {
    let [storage, _, sizes, _, ..] = arguments else { return None };
    let (Value::Storage { dtype, elements }, Value::Tuple(sizes) | Value::List(sizes)) =
        (pickle.value(*storage), pickle.value(*sizes))
    else {
        return None;
    };
    let size = |&size: &Id| match pickle.value(size) {
        Value::Int(size) => usize::try_from(*size).ok(),
        _ => None,
    };
    let shape = sizes.iter().map(size).collect::<Option<Vec<_>>>()?;
    // A view that repeats elements of its storage would let a short file ask for any amount of memory.
    let count = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))?;
    (count as u64 <= *elements).then_some(Value::Tensor { dtype: *dtype, shape, storage_elements: *elements })
}

fn scalar(name: &str, bytes: &[u8]) -> Option<Value> {
    Some(match name {
        "f8" => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        "f4" => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        "i8" => Value::Int(i64::from_le_bytes(bytes.try_into().ok()?).into()),
        "i4" => Value::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        "b1" => Value::Bool(*bytes.first()? != 0),
        _ => return None,
    })
}

/// The storage that a persistent identifier ('storage', class, key, location, elements, ...) names.
pub(super) fn storage(pickle: &Pickle, identifier: Id) -> Result<Value, PickleError> {
    if let Value::Tuple(fields) = pickle.value(identifier)
        && let [tag, class, _key, _location, elements, ..] = fields.as_slice()
        && let (Value::Text(tag), Value::Global(Global::Storage(dtype)), Value::Int(elements)) =
            (pickle.value(*tag), pickle.value(*class), pickle.value(*elements))
        && let ("storage", Ok(elements)) = (tag.as_str(), u64::try_from(*elements))
    {
        return Ok(Value::Storage { dtype: *dtype, elements });
    }
    Err(PickleError::malformed("a persistent identifier that names no storage"))
}
