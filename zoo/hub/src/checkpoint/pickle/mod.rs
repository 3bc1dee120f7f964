//! Pickles, read and never run.
//!
//! A pickle is a program for a small stack machine, and one that asks for `os.system` runs it when Python loads it. This
//! reader knows plain data and the few names of `globals.rs`; any other name is refused where it is asked for, before
//! anything after it is looked at. Values lie in one flat table and refer to each other by index, so neither sharing nor
//! nesting costs memory or stack.
//!
//! Source of the opcodes: CPython `Lib/pickletools.py`, protocols 0 to 5.

mod globals;
mod machine;
mod stream;

use std::io::BufRead;

pub(super) use globals::Global;
pub(super) use stream::MAX_PICKLE_BYTES;

use super::dtype::Dtype;

/// Most opcodes in a file. A whole LAPS checkpoint takes about 15,000, with the state of its optimizer 60,000. As an
/// opcode makes at most one value, this bounds every table of the reader.
pub(super) const MAX_OPCODES: usize = 1 << 20;

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum PickleError {
    /// It asks for this name, which is not allowed.
    Global(String),
    /// It is no pickle, is cut off, or uses what no checkpoint uses.
    Malformed(String),
    /// It is whole, and no checkpoint.
    Foreign(String),
}

impl PickleError {
    fn malformed(reason: &str) -> Self {
        Self::Malformed(reason.to_owned())
    }
}

impl From<std::io::Error> for PickleError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::malformed("a pickle that ends early"),
            _ => Self::Malformed(format!("a pickle that can not be read: {error}")),
        }
    }
}

/// Place of a value in the table of its pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Pairs in the order of writing; of equal keys the last one counts.
    Dict(Vec<(Id, Id)>),
    /// With its dictionary, once that is set.
    Namespace(Option<Id>),
    NumpyType(String),
    Global(Global),
    Storage {
        dtype: Dtype,
        elements: u64,
    },
    Tensor {
        dtype: Dtype,
        shape: Vec<usize>,
        storage_elements: u64,
    },
}

impl Value {
    /// What Python calls its type.
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
            Self::NumpyType(_) => "numpy.dtype",
            Self::Global(_) => "type",
            Self::Storage { .. } => "torch.Storage",
            Self::Tensor { .. } => "torch.Tensor",
        }
    }
}

/// The values of one pickle.
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Reads `count` pickles that follow each other.
    pub(super) fn read(source: impl BufRead, count: usize) -> Result<Vec<Self>, PickleError> {
        machine::run(source, count)
    }

    /// The value that the pickle is of.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// The value at `id`; values refer only to places in their own table.
    pub(super) fn value(&self, id: Id) -> &Value {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
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

    /// What a dictionary or a namespace has under `key`.
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
        let pickle = Pickle::read(bytes, 1)?.remove(0);
        Ok(pickle.value(pickle.root()).clone())
    }

    #[test]
    fn plain_values_of_every_protocol() {
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
            (b"C\x01z.", Value::Bytes(b"z".to_vec())),
            (b"K\x01(K\x02K\x03t0.", Value::Int(1)),
            (b"K\x01(K\x02K\x031.", Value::Int(1)),
            (b"K\x01(0.", Value::Int(1)),
        ] {
            assert_eq!(read(bytes).unwrap(), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn programs_that_make_no_sense_are_errors() {
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
            b"X\x01\0\0\0\xff.",
            b"Iabc\n.",
            b"cos",
        ] {
            let error = read(bytes).expect_err(&bytes.escape_ascii().to_string());
            assert!(matches!(error, PickleError::Malformed(_)), "{}: {error:?}", bytes.escape_ascii());
        }
    }
}
