//! The stack machine of a pickle.

use std::{collections::HashMap, io::BufRead};

use super::{Id, MAX_OPCODES, Pickle, PickleError, Value, globals, stream::Stream};

type Result<T = (), E = PickleError> = std::result::Result<T, E>;

/// Reads `count` pickles that follow each other, and returns them with their length in bytes. All of them share the limits.
pub(super) fn run(source: impl BufRead, count: usize) -> Result<(Vec<Pickle>, u64)> {
    let mut stream = Stream::new(source);
    let mut opcodes = MAX_OPCODES;
    let pickles = (0..count).map(|_| PickleMachine::new().run(&mut stream, &mut opcodes)).collect::<Result<_>>()?;
    Ok((pickles, stream.position()))
}

struct PickleMachine {
    pickle: Pickle,
    stack: Vec<Id>,
    /// Height of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl PickleMachine {
    fn new() -> Self {
        let pickle = Pickle { values: Vec::new(), root: Id(0) };
        Self { pickle, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    fn run(mut self, stream: &mut Stream<impl BufRead>, opcodes: &mut usize) -> Result<Pickle> {
        loop {
            let too_many = || PickleError::Malformed(format!("a pickle of more than {MAX_OPCODES} operations"));
            *opcodes = opcodes.checked_sub(1).ok_or_else(too_many)?;
            match stream.byte()? {
                b'.' => break,
                opcode => {
                    let done = self.scalar(opcode, stream)? || self.container(opcode)? || self.memo(opcode, stream)?;
                    if !done {
                        self.object(opcode, stream)?;
                    }
                }
            }
        }
        self.pickle.root = self.pop()?;
        Ok(self.pickle)
    }

    /// Opcodes that push one plain value.
    fn scalar(&mut self, opcode: u8, stream: &mut Stream<impl BufRead>) -> Result<bool> {
        let value = match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'I' => match stream.line()?.as_str() {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                line => integer(line)?,
            },
            b'L' => integer(stream.line()?.trim_end_matches('L'))?,
            b'J' => Value::Int(i32::from_le_bytes(stream.array()?).into()),
            b'K' => Value::Int(stream.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(stream.array()?).into()),
            0x8a => {
                let length = stream.byte()?;
                long(&stream.bytes(length.into())?)
            }
            0x8b => {
                let length = u32::from_le_bytes(stream.array()?);
                long(&stream.bytes(length.into())?)
            }
            b'F' => {
                let line = stream.line()?;
                Value::Float(line.parse().map_err(|_| PickleError::malformed("a number that is not valid"))?)
            }
            b'G' => Value::Float(f64::from_be_bytes(stream.array()?)),
            b'S' => Value::Text(quoted(&stream.line()?)?),
            b'V' => Value::Text(raw_unicode(&stream.line_bytes()?)?),
            b'U' | 0x8c => {
                let length = stream.byte()?;
                Value::Text(stream.text(length.into())?)
            }
            b'T' | b'X' => {
                let length = u32::from_le_bytes(stream.array()?);
                Value::Text(stream.text(length.into())?)
            }
            0x8d => {
                let length = u64::from_le_bytes(stream.array()?);
                Value::Text(stream.text(length)?)
            }
            b'C' => {
                let length = stream.byte()?;
                Value::Bytes(stream.bytes(length.into())?)
            }
            b'B' => {
                let length = u32::from_le_bytes(stream.array()?);
                Value::Bytes(stream.bytes(length.into())?)
            }
            0x8e | 0x96 => {
                let length = u64::from_le_bytes(stream.array()?);
                Value::Bytes(stream.bytes(length)?)
            }
            _ => return Ok(false),
        };
        self.push(value);
        Ok(true)
    }

    /// Opcodes that make or fill lists, tuples and dictionaries, or move the stack.
    fn container(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let mut items = (0x85..=opcode).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                items.reverse();
                self.push(Value::Tuple(items));
            }
            b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                let pairs = pairs(&items)?;
                self.push(Value::Dict(pairs));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.insert(&items)?;
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opcodes that store the top of the stack in the memo, or fetch it back.
    fn memo(&mut self, opcode: u8, stream: &mut Stream<impl BufRead>) -> Result<bool> {
        let index = match opcode {
            b'p' | b'g' => {
                stream.line()?.parse().map_err(|_| PickleError::malformed("a memo index that is not a number"))?
            }
            b'q' | b'h' => stream.byte()?.into(),
            b'r' | b'j' => u32::from_le_bytes(stream.array()?),
            0x94 => self.memo.len() as u32,
            _ => return Ok(false),
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let absent =
                || PickleError::Malformed(format!("a reference to the memo entry {index}, which was never stored"));
            let id = *self.memo.get(&index).ok_or_else(absent)?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.insert(index, top);
        }
        Ok(true)
    }

    /// Opcodes that name, make or fill an object.
    fn object(&mut self, opcode: u8, stream: &mut Stream<impl BufRead>) -> Result {
        match opcode {
            0x80 => match stream.byte()? {
                0..=5 => {}
                version => return Err(PickleError::Malformed(format!("a pickle of protocol {version}, of at most 5"))),
            },
            // Length of a frame, which is for readers that fetch ahead.
            0x95 => drop(stream.array::<8>()?),
            b'c' => {
                let (module, name) = (stream.line()?, stream.line()?);
                self.push(globals::find(&module, &name)?);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (self.pickle.value(module), self.pickle.value(name))
                else {
                    return Err(PickleError::malformed("a global name that is not a text"));
                };
                let global = globals::find(module, name)?;
                self.push(global);
            }
            // Makes an object of a named class. The name is checked first, so that a hostile one is reported as such.
            b'i' => {
                globals::find(&stream.line()?, &stream.line()?)?;
                return Err(unsupported(opcode));
            }
            b'Q' => {
                let persistent_id = self.pop()?;
                let storage = globals::storage(&self.pickle, persistent_id)?;
                self.push(storage);
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                let value = globals::call(&self.pickle, callable, arguments)?;
                self.push(value);
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            _ => return Err(unsupported(opcode)),
        }
        Ok(())
    }

    /// Sets the attributes of the object on top of the stack.
    fn build(&mut self, state: Id) -> Result {
        let top = self.top()?;
        if *self.pickle.value(top) == Value::Opaque(globals::EMPTY_TENSOR)
            && let Some(tensor) = globals::fill_tensor(&self.pickle, state)
        {
            self.pickle.values[top.0 as usize] = tensor;
            return Ok(());
        }
        let is_dict = matches!(self.pickle.value(state), Value::Dict(_));
        let byte_order = match self.pickle.value(state) {
            Value::Tuple(fields) => fields.get(1).map(|&field| self.pickle.value(field).clone()),
            _ => None,
        };
        match self.pickle.values.get_mut(top.0 as usize) {
            Some(Value::Namespace(dict @ None)) if is_dict => *dict = Some(state),
            Some(Value::NumpyDtype { is_big_endian, .. }) => {
                *is_big_endian = matches!(byte_order, Some(Value::Text(order)) if order == ">");
            }
            // A state dict has the versions of its layers as the attribute `_metadata`; an array has its data; a parameter
            // has whatever was set on it.
            Some(Value::Dict(_) | Value::Opaque(_) | Value::Tensor(_)) => {}
            _ => return Err(PickleError::malformed("attributes for a value that has none")),
        }
        Ok(())
    }

    fn push(&mut self, value: Value) {
        let id = self.pickle.push(value);
        self.stack.push(id);
    }

    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[Id]>::last).copied().ok_or_else(empty)
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| PickleError::malformed("a missing mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn append(&mut self, items: &[Id]) -> Result {
        let top = self.top()?;
        match self.pickle.values.get_mut(top.0 as usize) {
            Some(Value::List(list)) => list.extend(items),
            _ => return Err(PickleError::malformed("items for a value that is not a list")),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result {
        let (top, added) = (self.top()?, pairs(items)?);
        match self.pickle.values.get_mut(top.0 as usize) {
            Some(Value::Dict(dict)) => dict.extend(added),
            _ => return Err(PickleError::malformed("entries for a value that is not a dictionary")),
        }
        Ok(())
    }
}

fn empty() -> PickleError {
    PickleError::malformed("an operation on an empty stack")
}

fn unsupported(opcode: u8) -> PickleError {
    PickleError::Malformed(format!("the byte 0x{opcode:02x}, which is not an operation of a checkpoint"))
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err(PickleError::malformed("a dictionary key without a value")),
    }
}

fn integer(text: &str) -> Result<Value> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match text.parse::<i128>() {
        Ok(value) => Ok(Value::Int(value)),
        Err(error) if matches!(error.kind(), PosOverflow | NegOverflow) => Ok(Value::WideInt),
        Err(_) => Err(PickleError::malformed("an integer that is not valid")),
    }
}

/// A little-endian integer in two's complement.
fn long(bytes: &[u8]) -> Value {
    let mut wide = match bytes.last() {
        Some(last) if last & 0x80 != 0 => [0xff; 16],
        _ => [0; 16],
    };
    match wide.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Value::Int(i128::from_le_bytes(wide))
        }
        None => Value::WideInt,
    }
}

/// A quoted text as Python 2 writes it; escapes do not occur in checkpoints.
fn quoted(line: &str) -> Result<String> {
    let inner = ['\'', '"'].iter().find_map(|&quote| line.strip_prefix(quote)?.strip_suffix(quote));
    match inner {
        Some(text) if !text.contains('\\') => Ok(text.to_owned()),
        _ => Err(PickleError::malformed("a quoted text that is not valid")),
    }
}

/// A text of protocol 0 in `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`. Lone surrogates become U+FFFD.
fn raw_unicode(line: &[u8]) -> Result<String> {
    let mut text = String::new();
    let mut rest = line;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = match (first, tail.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(first));
                rest = tail;
                continue;
            }
        };
        let code = tail.get(1..=digits).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| PickleError::malformed("an escape that is not valid"))?;
        text.push(char::from_u32(code).unwrap_or('\u{fffd}'));
        rest = &tail[1 + digits..];
    }
    Ok(text)
}
