//! A pickle reader that executes nothing.
//!
//! A pickle is a program for a small stack machine, and one that asks for `os.system` runs it when Python loads it. This
//! reader knows plain data and the names in `globals.rs`. Any other name is refused where the pickle asks for it, before
//! the reader looks at anything that follows. Values lie in one flat table and refer to each other by index, so neither
//! sharing nor nesting costs memory or stack.
//!
//! Source of the opcodes: CPython `Lib/pickletools.py`, protocols 0 to 5. `pytorch-reader` was considered and is not used:
//! it refuses archives whose directory its offset detection misplaces, NumPy scalars and expanded tensors that
//! `torch.load` reads, and it drops the options, so that a second reader was needed beside it.

mod globals;
mod machine;
mod stream;

use std::{io::BufRead, sync::Arc};

pub(super) use globals::Global;
pub(super) use stream::MAX_PICKLE_BYTES;

use super::dtype::Dtype;

/// Most opcodes in a file. A whole LAPS checkpoint takes about 15,000, and 60,000 with its optimizer state. An opcode makes
/// at most one value, so this bounds every table of the reader.
pub(super) const MAX_OPCODES: usize = 1 << 20;

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum PickleError {
    /// It asks for this name, which is not allowed.
    Global(String),
    /// It is not a pickle, is truncated, or uses operations that no checkpoint uses.
    Malformed(String),
    /// It is complete but not a checkpoint.
    Foreign(ForeignFile),
}

/// Description of a file that is not a checkpoint.
#[derive(Debug, Default)]
pub(super) struct ForeignFile {
    /// Its kind, in words.
    pub(super) found: String,
    /// Suggested fix, where it depends on the file.
    pub(super) hint: Option<String>,
}

impl PickleError {
    fn malformed(reason: &str) -> Self {
        Self::Malformed(reason.to_owned())
    }
}

impl From<std::io::Error> for PickleError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::malformed("a truncated pickle"),
            _ => Self::Malformed(format!("a pickle that cannot be read: {error}")),
        }
    }
}

/// Index of a value in the table of its pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(u32);

/// One value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    /// The magic number of the legacy container needs 77 bits.
    Int(i128),
    /// An integer of more than 128 bits.
    WideInt,
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// Pairs in the order of the file; of equal keys the last one counts.
    Dict(Vec<(Id, Id)>),
    /// With its dictionary, once that is set.
    Namespace(Option<Id>),
    NumpyDtype {
        name: String,
        is_big_endian: bool,
    },
    Global(Global),
    Storage(StorageRef),
    Tensor(Box<TensorView>),
    /// A value that has no plain form: the name of its Python type.
    Opaque(&'static str),
}

/// A storage that lies outside the pickle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StorageRef {
    /// Name of the storage in its container.
    pub(super) key: Arc<str>,
    /// Element type; `U8` for an untyped storage.
    pub(super) dtype: Dtype,
    /// Elements of the whole storage.
    pub(super) elements: u64,
    /// Element at which the view of it begins; 0 since PyTorch 0.4.
    pub(super) first: u64,
}

impl StorageRef {
    /// Size of the whole storage in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.elements.saturating_mul(self.dtype.size().unwrap_or(1) as u64)
    }
}

/// A tensor as a strided view of a storage. Offset and strides are in elements of `dtype`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorView {
    pub(super) storage: StorageRef,
    pub(super) dtype: Dtype,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// Whether the elements are the conjugates of the stored ones, as `Tensor.conj` leaves them.
    pub(super) is_conjugate: bool,
    /// Whether the elements are the stored ones with the other sign.
    pub(super) is_negative: bool,
}

impl TensorView {
    /// Number of elements; none where it overflows.
    pub(super) fn count(&self) -> Option<u64> {
        self.shape.iter().try_fold(1_u64, |count, &size| count.checked_mul(size as u64))
    }

    /// Elements of the storage from the first to the last one of the view; none where it overflows or where the numbers
    /// of sizes and strides differ.
    pub(super) fn span(&self) -> Option<u64> {
        if self.shape.len() != self.strides.len() {
            return None;
        }
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape.iter().zip(&self.strides).try_fold(1_u64, |span, (&size, &stride)| {
            (size as u64 - 1).checked_mul(stride as u64).and_then(|step| span.checked_add(step))
        })
    }
}

impl Value {
    /// The name of its Python type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::WideInt => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Namespace(_) => "argparse.Namespace",
            Self::NumpyDtype { .. } => "numpy.dtype",
            Self::Global(_) => "type",
            Self::Storage(_) => "torch.Storage",
            Self::Tensor(_) => "torch.Tensor",
            Self::Opaque(name) => name,
        }
    }
}

/// The values of one pickle.
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Reads `count` pickles that follow each other, and returns them with their length in bytes.
    pub(super) fn read(source: impl BufRead, count: usize) -> Result<(Vec<Self>, u64), PickleError> {
        machine::run(source, count)
    }

    /// The pickled value.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// The value at `id`. Values refer only to their own table.
    pub(super) fn value(&self, id: Id) -> &Value {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    /// Every storage that the pickle refers to, once for each reference.
    pub(super) fn storages(&self) -> impl Iterator<Item = &StorageRef> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The pairs of a dictionary or a namespace.
    pub(super) fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.value(id) {
            Value::Dict(pairs) => Some(pairs),
            Value::Namespace(None) => Some(&[]),
            Value::Namespace(Some(dict)) => match self.value(*dict) {
                Value::Dict(pairs) => Some(pairs),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value under `key` in a dictionary or a namespace.
    pub(super) fn get(&self, id: Id, key: &str) -> Option<Id> {
        let is_key = |&&(candidate, _): &&(Id, Id)| matches!(self.value(candidate), Value::Text(text) if text == key);
        self.pairs(id)?.iter().rev().find(is_key).map(|&(_, value)| value)
    }

    fn push(&mut self, value: Value) -> Id {
        // The table has at most MAX_OPCODES values, far below 2^32.
        let id = Id(self.values.len() as u32);
        self.values.push(value);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::{Pickle, PickleError, Value};

    fn read(bytes: &[u8]) -> Result<Value, PickleError> {
        let pickle = Pickle::read(bytes, 1)?.0.remove(0);
        Ok(pickle.value(pickle.root()).clone())
    }

    #[test]
    fn plain_values_of_every_protocol_are_read() {
        let wide = [&b"\x8a\x11"[..], &[1; 17], b"."].concat();
        for (bytes, expected) in [
            (&b"I-5\n."[..], Value::Int(-5)),
            (b"I01\n.", Value::Bool(true)),
            (b"L12345678901234567890L\n.", Value::Int(12_345_678_901_234_567_890)),
            (b"L9999999999999999999999999999999999999999L\n.", Value::WideInt),
            (b"\x8a\x00.", Value::Int(0)),
            (b"\x8a\x01\xff.", Value::Int(-1)),
            (b"\x8a\x02\xff\x00.", Value::Int(255)),
            (&wide, Value::WideInt),
            (b"J\xfe\xff\xff\xff.", Value::Int(-2)),
            (b"F1.5\n.", Value::Float(1.5)),
            (b"G\x3f\xf8\0\0\0\0\0\0.", Value::Float(1.5)),
            (b"S'a b'\n.", Value::Text("a b".to_owned())),
            (b"Va b\n.", Value::Text("a b".to_owned())),
            (b"V\\u00e9\xe9\\U0001f600\\ud800\n.", Value::Text("\u{e9}\u{e9}\u{1f600}\u{fffd}".to_owned())),
            (b"X\x04\0\0\0/\xed\xb2\x80.", Value::Text("/\u{fffd}\u{fffd}\u{fffd}".to_owned())),
            (b"C\x01z.", Value::Bytes(b"z".to_vec())),
            (b"K\x01(K\x02K\x03t0.", Value::Int(1)),
            (b"K\x01(K\x02K\x031.", Value::Int(1)),
            (b"K\x01(0.", Value::Int(1)),
        ] {
            assert_eq!(read(bytes).unwrap(), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn invalid_programs_are_rejected() {
        for bytes in [
            &b"."[..],
            b"t.",
            b"(.",
            b"K\x01(s.",
            b"}K\x01K\x02K\x03(u.",
            b"}(K\x01u.",
            b"K\x01(K\x02e.",
            b"h\0.",
            b"Na.",
            b"NNb.",
            b"N)R.",
            b"NQ.",
            b"NN\x93.",
            b"\x80\x09N.",
            b"\x82\x01.",
            b"\x97.",
            b"\xff.",
            b"K",
            b"X\x05\0\0\0abc",
            b"V\\u12\n.",
            b"Iabc\n.",
            b"cos",
        ] {
            let error = read(bytes).expect_err(&bytes.escape_ascii().to_string());
            assert!(matches!(error, PickleError::Malformed(_)), "{}: {error:?}", bytes.escape_ascii());
        }
    }
}
