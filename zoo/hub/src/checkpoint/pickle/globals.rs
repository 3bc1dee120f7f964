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
    /// A tensor class. It occurs as an argument of [`Global::TensorOfClass`]; a call makes a tensor of the given one, or an
    /// empty one.
    TensorClass,
    /// A tensor with attributes, from a rebuild function, a class and the arguments of the function.
    TensorOfClass,
    /// A tensor that is not a strided view of a storage. The name of its kind is all that is kept.
    OtherTensor(&'static str),
    /// A memory layout, as text.
    Layout,
    /// A device, as text.
    Device,
    /// The dtype of a NumPy scalar, `f8`.
    NumpyDtype,
    /// A NumPy scalar, from its dtype and its bytes.
    NumpyScalar,
    /// A NumPy array, whose data are not needed.
    NumpyArray,
    /// The class of NumPy arrays; never called.
    NumpyArrayClass,
}

/// Kind of a tensor that a legacy pickle makes empty and fills afterwards.
pub(super) const EMPTY_TENSOR: &str = "an empty torch.Tensor";

/// Every allowed name of a class or function, by its module: what `torch.load(weights_only=True)` of PyTorch 2.13 allows,
/// and what the options and the training progress of LAPS need besides: `Namespace`, frozen sets and NumPy values.
const ALLOWED: &[(&str, &[(&str, Global)])] = &[
    ("argparse", &[("Namespace", Global::Namespace)]),
    ("collections", &[("OrderedDict", Global::Dict), ("Counter", Global::Dict)]),
    ("builtins", BUILTINS),
    ("__builtin__", BUILTINS),
    ("_codecs", &[("encode", Global::Bytes)]),
    (
        "torch",
        &[
            ("Size", Global::Sequence),
            ("device", Global::Device),
            ("DoubleStorage", Global::Storage(Dtype::F64)),
            ("FloatStorage", Global::Storage(Dtype::F32)),
            ("HalfStorage", Global::Storage(Dtype::F16)),
            ("BFloat16Storage", Global::Storage(Dtype::Bf16)),
            ("ComplexFloatStorage", Global::Storage(Dtype::C64)),
            ("ComplexDoubleStorage", Global::Storage(Dtype::C128)),
            ("LongStorage", Global::Storage(Dtype::I64)),
            ("IntStorage", Global::Storage(Dtype::I32)),
            ("ShortStorage", Global::Storage(Dtype::I16)),
            ("CharStorage", Global::Storage(Dtype::I8)),
            ("ByteStorage", Global::Storage(Dtype::U8)),
            ("BoolStorage", Global::Storage(Dtype::Bool)),
            // Storages of quantised tensors, whose elements have these sizes.
            ("QInt32Storage", Global::Storage(Dtype::I32)),
            ("QInt8Storage", Global::Storage(Dtype::I8)),
            ("QUInt8Storage", Global::Storage(Dtype::U8)),
            ("QUInt4x2Storage", Global::Storage(Dtype::U8)),
            ("QUInt2x4Storage", Global::Storage(Dtype::U8)),
            ("Tensor", Global::TensorClass),
            ("DoubleTensor", Global::TensorClass),
            ("FloatTensor", Global::TensorClass),
            ("HalfTensor", Global::TensorClass),
            ("BFloat16Tensor", Global::TensorClass),
            ("LongTensor", Global::TensorClass),
            ("IntTensor", Global::TensorClass),
            ("ShortTensor", Global::TensorClass),
            ("CharTensor", Global::TensorClass),
            ("ByteTensor", Global::TensorClass),
            ("BoolTensor", Global::TensorClass),
        ],
    ),
    ("torch.nn.parameter", &[("Parameter", Global::TensorClass)]),
    ("torch.storage", &[("UntypedStorage", Global::Storage(Dtype::U8))]),
    ("torch.serialization", &[("_get_layout", Global::Layout)]),
    ("torch._tensor", &[("_rebuild_from_type_v2", Global::TensorOfClass)]),
    (
        "torch._utils",
        &[
            ("_rebuild_tensor", Global::Tensor),
            ("_rebuild_tensor_v2", Global::Tensor),
            ("_rebuild_tensor_v3", Global::TensorOfType),
            ("_rebuild_parameter", Global::Parameter),
            ("_rebuild_parameter_with_state", Global::Parameter),
            ("_rebuild_sparse_tensor", Global::OtherTensor("a sparse tensor")),
            ("_rebuild_qtensor", Global::OtherTensor("a quantised tensor")),
            ("_rebuild_nested_tensor", Global::OtherTensor("a nested tensor")),
            ("_rebuild_meta_tensor_no_storage", Global::OtherTensor("a tensor without values")),
            ("_rebuild_wrapper_subclass", Global::OtherTensor("a wrapped tensor")),
            ("_rebuild_device_tensor_from_cpu_tensor", Global::OtherTensor("a tensor of another device")),
            ("_rebuild_device_tensor_from_numpy", Global::OtherTensor("a tensor of another device")),
            ("_rebuild_xla_tensor", Global::OtherTensor("a tensor of another device")),
        ],
    ),
    ("numpy", &[("dtype", Global::NumpyDtype), ("ndarray", Global::NumpyArrayClass)]),
    ("numpy.core.multiarray", NUMPY),
    ("numpy._core.multiarray", NUMPY),
    ("numpy.core.numeric", &[("_frombuffer", Global::NumpyArray)]),
    ("numpy._core.numeric", &[("_frombuffer", Global::NumpyArray)]),
];

const BUILTINS: &[(&str, Global)] = &[
    ("set", Global::Sequence),
    ("frozenset", Global::Sequence),
    ("complex", Global::Complex),
    ("bytes", Global::Bytes),
    ("bytearray", Global::Bytes),
];

const NUMPY: &[(&str, Global)] = &[("scalar", Global::NumpyScalar), ("_reconstruct", Global::NumpyArray)];

/// Constants of the module `torch`, which stand for their names: element types and schemes of quantisation.
#[rustfmt::skip]
const CONSTANTS: &[&str] = &[
    "float64", "float32", "float16", "bfloat16", "complex128", "complex64", "complex32", "int64", "int32", "int16", "int8",
    "uint64", "uint32", "uint16", "uint8", "bool", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu", "float4_e2m1fn_x2", "int1", "int2", "int3", "int4", "int5", "int6", "int7", "uint1", "uint2",
    "uint3", "uint4", "uint5", "uint6", "uint7", "quint8", "qint8", "qint32", "quint4x2", "quint2x4", "bits1x8", "bits2x4",
    "bits4x2", "bits8", "bits16", "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine",
    "per_channel_symmetric", "per_channel_affine_float_qparams",
];

/// The meaning of `module.name`, or an error that names it.
pub(super) fn find(module: &str, name: &str) -> Result<Value, PickleError> {
    if module == "torch" && CONSTANTS.contains(&name) {
        return Ok(Value::Text(name.to_owned()));
    }
    let names = ALLOWED.iter().find(|(allowed, _)| *allowed == module).map(|(_, names)| *names);
    match names.unwrap_or_default().iter().find(|(allowed, _)| *allowed == name) {
        Some((_, global)) => Ok(Value::Global(*global)),
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
        Global::TensorClass if arguments.is_empty() => Some(Value::Opaque(EMPTY_TENSOR)),
        Global::TensorOfClass => match (argument(0), argument(2)) {
            (Some(Value::Global(function)), Some(Value::Tuple(arguments))) => tensor_of(pickle, *function, arguments),
            _ => None,
        },
        Global::Layout => match argument(0) {
            Some(layout @ Value::Text(_)) => Some(layout.clone()),
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
        Global::Tensor | Global::TensorOfType | Global::Parameter | Global::TensorClass | Global::OtherTensor(_) => {
            tensor_of(pickle, *global, arguments)
        }
        Global::Namespace | Global::Storage(_) | Global::NumpyArrayClass => None,
    };
    value.ok_or_else(|| PickleError::Malformed(format!("a call of {global:?} with arguments that torch never writes")))
}

/// The tensor that the rebuild function `global` makes of `arguments`.
fn tensor_of(pickle: &Pickle, global: Global, arguments: &[Id]) -> Option<Value> {
    let argument = |index: usize| arguments.get(index).map(|&id| pickle.value(id));
    match global {
        Global::Tensor => tensor(pickle, arguments, None, arguments.get(6)),
        Global::TensorOfType => match argument(6) {
            Some(Value::Text(name)) => match Dtype::from_torch(name) {
                Some(dtype) => tensor(pickle, arguments, Some(dtype), arguments.get(7)),
                None => Some(Value::Opaque("a tensor of another element type")),
            },
            _ => None,
        },
        // Of a parameter that is not a strided tensor, the kind remains.
        Global::Parameter | Global::TensorClass => match argument(0) {
            Some(tensor @ (Value::Tensor(_) | Value::Opaque(_))) => Some(tensor.clone()),
            _ => None,
        },
        Global::OtherTensor(kind) => Some(Value::Opaque(kind)),
        _ => None,
    }
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

/// The tensor that `state`, (storage, offset, sizes, strides), makes of an empty one.
pub(super) fn fill_tensor(pickle: &Pickle, state: Id) -> Option<Value> {
    match pickle.value(state) {
        Value::Tuple(fields) => tensor(pickle, fields, None, None),
        _ => None,
    }
}

/// Arguments are (storage, offset, sizes, strides, ...). `dtype` is the element type over an untyped storage. `metadata` is
/// a dictionary that says whether the view is conjugate (`conj`) or negative (`neg`).
fn tensor(pickle: &Pickle, arguments: &[Id], dtype: Option<Dtype>, metadata: Option<&Id>) -> Option<Value> {
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
    let is_set = |key: &str| {
        let flag = metadata.and_then(|&metadata| pickle.get(metadata, key)).map(|flag| pickle.value(flag));
        flag == Some(&Value::Bool(true))
    };
    let (is_conjugate, is_negative) = (is_set("conj"), is_set("neg"));
    let view = TensorView { storage: storage.clone(), dtype, offset, shape, strides, is_conjugate, is_negative };
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
