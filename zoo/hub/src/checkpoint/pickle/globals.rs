//! The only Python names that a pickle may ask for, and the value that a call of each becomes.

use super::{Id, Pickle, PickleError, StorageRef, TensorView, Value};
use crate::checkpoint::dtype::Dtype;

/// Most bytes of a view that repeats elements of its storage, such as `torch.expand` makes. Without a limit a short file
/// could ask for any amount of memory. The largest matrix of a LAPS model has 94 MB.
const MAX_REPEATED_BYTES: u64 = 256 << 20;

/// The meaning of an allowed name. Nothing is ever looked up or called: each one is a way to combine values that were
/// already read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    /// A bag of named values.
    Namespace,
    /// A dictionary from a list of pairs or from a dictionary.
    Dict,
    /// A list from a list or a tuple.
    Sequence,
    /// A complex number.
    Complex,
    /// Bytes, from nothing, from bytes, or from Latin-1 text.
    Bytes,
    /// A storage class; it occurs in persistent ids and is never called.
    Storage(Dtype),
    /// A tensor over a storage with an element type.
    Tensor,
    /// A tensor over untyped bytes; the element type is an argument.
    TensorOfType,
    /// A tensor that is marked as trainable.
    Parameter,
    /// A device, as text.
    Device,
    /// An element type, as text; never called.
    ElementType,
    /// The dtype of a NumPy scalar, `f8`.
    NumpyDtype,
    /// A NumPy scalar, from its dtype and its bytes.
    NumpyScalar,
    /// A NumPy array, whose data are not needed.
    NumpyArray,
    /// The class of NumPy arrays; never called.
    NumpyArrayClass,
}

/// Every allowed name: those that `torch.save` writes for a state dict, its options and its training progress. Plain data
/// needs no name, so the list is short. NumPy values are in it because metrics are often left as such.
const ALLOWED: &[(&str, &str, Global)] = &[
    ("argparse", "Namespace", Global::Namespace),
    ("collections", "OrderedDict", Global::Dict),
    ("collections", "Counter", Global::Dict),
    ("builtins", "set", Global::Sequence),
    ("__builtin__", "set", Global::Sequence),
    ("builtins", "frozenset", Global::Sequence),
    ("__builtin__", "frozenset", Global::Sequence),
    ("builtins", "complex", Global::Complex),
    ("__builtin__", "complex", Global::Complex),
    ("builtins", "bytes", Global::Bytes),
    ("__builtin__", "bytes", Global::Bytes),
    ("builtins", "bytearray", Global::Bytes),
    ("__builtin__", "bytearray", Global::Bytes),
    ("_codecs", "encode", Global::Bytes),
    ("torch", "Size", Global::Sequence),
    ("torch", "device", Global::Device),
    ("torch", "float64", Global::ElementType),
    ("torch", "float32", Global::ElementType),
    ("torch", "float16", Global::ElementType),
    ("torch", "bfloat16", Global::ElementType),
    ("torch", "complex64", Global::ElementType),
    ("torch", "complex128", Global::ElementType),
    ("torch", "int64", Global::ElementType),
    ("torch", "int32", Global::ElementType),
    ("torch", "int16", Global::ElementType),
    ("torch", "int8", Global::ElementType),
    ("torch", "uint64", Global::ElementType),
    ("torch", "uint32", Global::ElementType),
    ("torch", "uint16", Global::ElementType),
    ("torch", "uint8", Global::ElementType),
    ("torch", "bool", Global::ElementType),
    ("torch", "DoubleStorage", Global::Storage(Dtype::F64)),
    ("torch", "FloatStorage", Global::Storage(Dtype::F32)),
    ("torch", "HalfStorage", Global::Storage(Dtype::F16)),
    ("torch", "BFloat16Storage", Global::Storage(Dtype::Bf16)),
    ("torch", "ComplexFloatStorage", Global::Storage(Dtype::C64)),
    ("torch", "ComplexDoubleStorage", Global::Storage(Dtype::C128)),
    ("torch", "LongStorage", Global::Storage(Dtype::I64)),
    ("torch", "IntStorage", Global::Storage(Dtype::I32)),
    ("torch", "ShortStorage", Global::Storage(Dtype::I16)),
    ("torch", "CharStorage", Global::Storage(Dtype::I8)),
    ("torch", "ByteStorage", Global::Storage(Dtype::U8)),
    ("torch", "BoolStorage", Global::Storage(Dtype::Bool)),
    ("torch.storage", "UntypedStorage", Global::Storage(Dtype::U8)),
    ("torch._utils", "_rebuild_tensor", Global::Tensor),
    ("torch._utils", "_rebuild_tensor_v2", Global::Tensor),
    ("torch._utils", "_rebuild_tensor_v3", Global::TensorOfType),
    ("torch._utils", "_rebuild_parameter", Global::Parameter),
    ("numpy", "dtype", Global::NumpyDtype),
    ("numpy", "ndarray", Global::NumpyArrayClass),
    ("numpy.core.multiarray", "scalar", Global::NumpyScalar),
    ("numpy._core.multiarray", "scalar", Global::NumpyScalar),
    ("numpy.core.multiarray", "_reconstruct", Global::NumpyArray),
    ("numpy._core.multiarray", "_reconstruct", Global::NumpyArray),
];

/// The meaning of `module.name`, or an error that names it.
pub(super) fn find(module: &str, name: &str) -> Result<Value, PickleError> {
    match ALLOWED.iter().find(|(allowed, of, _)| (*allowed, *of) == (module, name)) {
        Some((_, name, Global::ElementType)) => Ok(Value::Text((*name).to_owned())),
        Some((_, _, global)) => Ok(Value::Global(*global)),
        None => Err(PickleError::Global(format!("{module}.{name}"))),
    }
}

/// The value of `callable(*arguments)`.
pub(super) fn call(pickle: &Pickle, callable: Id, arguments: Id) -> Result<Value, PickleError> {
    let (Value::Global(global), Value::Tuple(arguments)) = (pickle.value(callable), pickle.value(arguments)) else {
        return Err(PickleError::malformed("a call of something that is not callable"));
    };
    let argument = |index: usize| arguments.get(index).map(|&id| pickle.value(id));
    let value = match global {
        Global::Namespace if arguments.is_empty() => Some(Value::Namespace(None)),
        Global::Dict => dict(pickle, arguments).map(Value::Dict),
        Global::Sequence => match argument(0) {
            None => Some(Value::List(Vec::new())),
            Some(Value::List(items) | Value::Tuple(items)) => Some(Value::List(items.clone())),
            _ => None,
        },
        Global::Complex => Some(Value::Opaque("complex")),
        Global::Bytes => bytes(argument(0), argument(1)).map(Value::Bytes),
        Global::Tensor => tensor(pickle, arguments, None),
        Global::TensorOfType => match argument(6) {
            Some(Value::Text(name)) => Dtype::from_torch(name).and_then(|dtype| tensor(pickle, arguments, Some(dtype))),
            _ => None,
        },
        Global::Parameter => match argument(0) {
            Some(tensor @ Value::Tensor(_)) => Some(tensor.clone()),
            _ => None,
        },
        Global::Device => match (argument(0), argument(1)) {
            (Some(Value::Text(kind)), Some(Value::Int(index))) => Some(Value::Text(format!("{kind}:{index}"))),
            (Some(Value::Text(kind)), None) => Some(Value::Text(kind.clone())),
            _ => None,
        },
        Global::NumpyDtype => match argument(0) {
            Some(Value::Text(name)) => Some(Value::NumpyDtype { name: name.clone(), is_big_endian: false }),
            _ => None,
        },
        Global::NumpyScalar => match (argument(0), argument(1)) {
            (Some(Value::NumpyDtype { name, is_big_endian }), Some(Value::Bytes(bytes))) => {
                numpy_scalar(name, *is_big_endian, bytes)
            }
            (Some(Value::NumpyDtype { .. }), Some(_)) => Some(Value::Opaque("numpy.generic")),
            _ => None,
        },
        Global::NumpyArray => Some(Value::Opaque("numpy.ndarray")),
        Global::Namespace | Global::Storage(_) | Global::ElementType | Global::NumpyArrayClass => None,
    };
    value.ok_or_else(|| PickleError::Malformed(format!("a call of {global:?} with arguments that torch never writes")))
}

fn dict(pickle: &Pickle, arguments: &[Id]) -> Option<Vec<(Id, Id)>> {
    let Some(&items) = arguments.first() else { return Some(Vec::new()) };
    let items = match pickle.value(items) {
        Value::Dict(pairs) => return Some(pairs.clone()),
        Value::List(items) | Value::Tuple(items) => items,
        _ => return None,
    };
    let pair = |&item: &Id| match pickle.value(item) {
        Value::List(pair) | Value::Tuple(pair) => {
            <[Id; 2]>::try_from(pair.as_slice()).ok().map(|[key, value]| (key, value))
        }
        _ => None,
    };
    items.iter().map(pair).collect()
}

/// Protocol 2 has no bytes and spells them as Latin-1 text.
fn bytes(value: Option<&Value>, encoding: Option<&Value>) -> Option<Vec<u8>> {
    match (value, encoding) {
        (None, None) => Some(Vec::new()),
        (Some(Value::Bytes(bytes)), None) => Some(bytes.clone()),
        (Some(Value::Text(text)), Some(Value::Text(encoding))) if encoding == "latin1" || encoding == "latin-1" => {
            text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect()
        }
        _ => None,
    }
}

/// Arguments are (storage, offset, sizes, strides, ...). `dtype` is the element type over an untyped storage.
fn tensor(pickle: &Pickle, arguments: &[Id], dtype: Option<Dtype>) -> Option<Value> {
    let [storage, offset, shape, strides, ..] = arguments else { return None };
    let (Value::Storage(storage), Value::Int(offset)) = (pickle.value(*storage), pickle.value(*offset)) else {
        return None;
    };
    let numbers = |id: Id| {
        let (Value::Tuple(items) | Value::List(items)) = pickle.value(id) else { return None };
        let number = |&item: &Id| match pickle.value(item) {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        };
        items.iter().map(number).collect::<Option<Vec<_>>>()
    };
    let (shape, strides) = (numbers(*shape)?, numbers(*strides)?);
    let dtype = dtype.unwrap_or(storage.dtype);
    let size = dtype.size()? as u64;
    let elements = storage.bytes() / size;
    let offset =
        (storage.first.checked_mul(storage.dtype.size()? as u64)? / size).checked_add(u64::try_from(*offset).ok()?)?;
    let view = TensorView { storage: storage.clone(), dtype, offset, shape, strides };
    let (count, span) = (view.count()?, view.span()?);
    let is_inside = offset.checked_add(span)? <= elements;
    let is_bounded = count <= elements || count.checked_mul(size)? <= MAX_REPEATED_BYTES;
    (is_inside && is_bounded).then(|| Value::Tensor(Box::new(view)))
}

/// A NumPy scalar as plain data; types without a plain form, such as dates, become opaque.
fn numpy_scalar(dtype: &str, is_big_endian: bool, bytes: &[u8]) -> Option<Value> {
    let width = if dtype.starts_with('U') { 4 } else { bytes.len().max(1) };
    let mut bytes = bytes.to_vec();
    if is_big_endian && !dtype.starts_with('S') {
        bytes.chunks_mut(width).for_each(<[u8]>::reverse);
    }
    let bytes = bytes.as_slice();
    macro_rules! number {
        ($type:ty) => {
            <$type>::from_le_bytes(bytes.try_into().ok()?).into()
        };
    }
    Some(match dtype {
        "f8" => Value::Float(number!(f64)),
        "f4" => Value::Float(number!(f32)),
        "f2" => Value::Float(number!(half::f16)),
        "i8" => Value::Int(number!(i64)),
        "i4" => Value::Int(number!(i32)),
        "i2" => Value::Int(number!(i16)),
        "i1" => Value::Int(number!(i8)),
        "u8" => Value::Int(number!(u64)),
        "u4" => Value::Int(number!(u32)),
        "u2" => Value::Int(number!(u16)),
        "u1" => Value::Int(number!(u8)),
        "b1" => Value::Bool(*bytes.first()? != 0),
        _ if dtype.starts_with('U') => {
            let letters = bytes.as_chunks().0.iter().map(|&letter| u32::from_le_bytes(letter));
            let text: String = letters.map(|letter| char::from_u32(letter).unwrap_or('\u{fffd}')).collect();
            Value::Text(text.trim_end_matches('\0').to_owned())
        }
        _ if dtype.starts_with('S') => Value::Bytes(bytes.to_vec()),
        _ => Value::Opaque("numpy.generic"),
    })
}

/// The storage that a persistent id ('storage', class, key, location, elements, view) names. Until PyTorch 0.4 a view
/// (key, offset, elements) of a shared storage could follow.
pub(super) fn storage(pickle: &Pickle, persistent_id: Id) -> Result<Value, PickleError> {
    let malformed = || PickleError::malformed("a persistent id that names no storage");
    let Value::Tuple(fields) = pickle.value(persistent_id) else { return Err(malformed()) };
    let [tag, class, key, _location, elements, rest @ ..] = fields.as_slice() else { return Err(malformed()) };
    let (Value::Text(tag), Value::Global(Global::Storage(dtype)), Value::Text(key), Value::Int(elements)) =
        (pickle.value(*tag), pickle.value(*class), pickle.value(*key), pickle.value(*elements))
    else {
        return Err(malformed());
    };
    let first = match rest.first().map(|&view| pickle.value(view)) {
        None | Some(Value::None) => Some(0),
        Some(Value::Tuple(view)) => match view.get(1).map(|&offset| pickle.value(offset)) {
            Some(Value::Int(offset)) => u64::try_from(*offset).ok(),
            _ => None,
        },
        Some(_) => None,
    };
    match (tag.as_str(), u64::try_from(*elements), first) {
        ("storage", Ok(elements), Some(first)) => {
            Ok(Value::Storage(StorageRef { key: key.as_str().into(), dtype: *dtype, elements, first }))
        }
        _ => Err(malformed()),
    }
}
