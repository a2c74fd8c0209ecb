//! The pickle machine: the instructions that state dicts use.

use std::collections::HashMap;

use crate::PickleError;
use crate::object::{Global, Id, Object, Objects, Storage, View};
use crate::reader::Reader;

/// The maximum length of a program. That of a state dict has about a hundred bytes per tensor.
const MAX_PROGRAM_LEN: usize = 16 << 20;

/// More dimensions than the weights of any layer have.
const MAX_DIMENSIONS: usize = 8;

/// Reads the pickle at the start of `bytes`: the objects that it creates, and its length.
pub(crate) fn read(bytes: &[u8]) -> Result<(Objects<'_>, usize), PickleError> {
    let input = Reader::new(&bytes[..bytes.len().min(MAX_PROGRAM_LEN)]);
    let mut machine =
        Machine { input, table: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), memoised: 0 };
    let root = machine.run()?;
    let length = machine.input.at();
    Ok((Objects { table: machine.table, root }, length))
}

struct Machine<'a> {
    input: Reader<'a>,
    table: Vec<Object<'a>>,
    stack: Vec<Id>,
    /// The height of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    memoised: u64,
}

impl<'a> Machine<'a> {
    /// Runs up to STOP.
    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            match self.input.u8()? {
                b'.' => return self.pop(),
                opcode => self.step(opcode)?,
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // PROTO, FRAME
            0x80 => self.input.u8().map(drop),
            0x95 => self.input.u64().map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' | 0x88 | 0x89 | b'I' | b'J' | b'K' | b'M' | b'L' | 0x8a | 0x8b | b'F' | b'G' => self.number(opcode),
            b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => self.text(opcode),
            b']' | b'a' | b'e' | b'l' | b')' | b't' | 0x85..=0x87 | b'}' | b'd' | b's' | b'u' => self.collect(opcode),
            b'g' | b'h' | b'j' | b'p' | b'q' | b'r' | 0x94 => self.memoise(opcode),
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.push(Object::Global(Global::named(module, name)?))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.get(module), self.get(name)) {
                    (Object::Text(module), Object::Text(name)) => {
                        let global = Global::named(module, name)?;
                        self.push(Object::Global(global))
                    }
                    _ => Err(PickleError::damaged("a name in its pickle is not text")),
                }
            }
            b'Q' => self.storage_reference(),
            b'R' => self.reduce(),
            b'b' => {
                // Attributes of an OrderedDict, in which torch stores module versions.
                self.pop()?;
                let target = self.top()?;
                match self.get(target) {
                    Object::Dict(_) => Ok(()),
                    _ => Err(PickleError::Unsupported(
                        "its pickle sets attributes of an object that is not a dict".into(),
                    )),
                }
            }
            other => Err(PickleError::Unsupported(format!(
                "its pickle has the instruction {other:#04x} at byte {}, which no state dict uses",
                self.input.at() - 1
            ))),
        }
    }

    fn number(&mut self, opcode: u8) -> Result<(), PickleError> {
        let not_a_number = || PickleError::damaged("a number in its pickle contains characters other than digits");
        let object = match opcode {
            b'N' => Object::Opaque,
            0x88 => Object::Bool(true),
            0x89 => Object::Bool(false),
            b'I' => match self.input.line()? {
                "00" => Object::Bool(false),
                "01" => Object::Bool(true),
                digits => Object::Int(digits.parse().map_err(|_| not_a_number())?),
            },
            b'J' => Object::Int(i64::from(self.input.u32()? as i32)),
            b'K' => Object::Int(i64::from(self.input.u8()?)),
            b'M' => Object::Int(i64::from(self.input.u16()?)),
            b'L' => Object::Int(self.input.line()?.trim_end_matches('L').parse().map_err(|_| not_a_number())?),
            0x8a | 0x8b => {
                let length = if opcode == 0x8a { u32::from(self.input.u8()?) } else { self.input.u32()? };
                let bytes = self.input.take(length as usize)?;
                if bytes.len() > 8 {
                    Object::Opaque
                } else {
                    // Sign-extended.
                    let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
                    let mut wide = [fill; 8];
                    wide[..bytes.len()].copy_from_slice(bytes);
                    Object::Int(i64::from_le_bytes(wide))
                }
            }
            b'F' => self.input.line().map(|_| Object::Opaque)?,
            _ => self.input.take(8).map(|_| Object::Opaque)?,
        };
        self.push(object)
    }

    fn text(&mut self, opcode: u8) -> Result<(), PickleError> {
        let length = match opcode {
            b'S' => {
                let line = self.input.line()?;
                return self.push(Object::Text(line.trim_matches(['\'', '"'])));
            }
            b'V' => {
                let line = self.input.line()?;
                return self.push(Object::Text(line));
            }
            b'U' | 0x8c | b'C' => u64::from(self.input.u8()?),
            b'T' | b'X' | b'B' => u64::from(self.input.u32()?),
            _ => self.input.u64()?,
        };
        let object = match opcode {
            b'B' | b'C' | 0x8e | 0x96 => {
                self.input.take(usize::try_from(length).unwrap_or(usize::MAX))?;
                Object::Opaque
            }
            _ => Object::Text(self.input.text(length)?),
        };
        self.push(object)
    }

    fn collect(&mut self, opcode: u8) -> Result<(), PickleError> {
        let object = match opcode {
            b']' => Object::List(Vec::new()),
            b'l' => Object::List(self.pop_to_mark()?),
            b')' => Object::Tuple(Vec::new()),
            b't' => Object::Tuple(self.pop_to_mark()?),
            0x85..=0x87 => {
                let mut items = (0x85..=opcode).map(|_| self.pop()).collect::<Result<Vec<Id>, _>>()?;
                items.reverse();
                Object::Tuple(items)
            }
            b'}' => Object::Dict(Vec::new()),
            b'd' => Object::Dict(pairs(&self.pop_to_mark()?)?),
            b'a' | b'e' => {
                let items = if opcode == b'a' { vec![self.pop()?] } else { self.pop_to_mark()? };
                let list = self.top()?;
                return match &mut self.table[list as usize] {
                    Object::List(list) => {
                        list.extend(items);
                        Ok(())
                    }
                    _ => Err(PickleError::damaged("its pickle appends to an object that is not a list")),
                };
            }
            _ => {
                let items = if opcode == b's' {
                    let value = self.pop()?;
                    vec![self.pop()?, value]
                } else {
                    self.pop_to_mark()?
                };
                let items = pairs(&items)?;
                let dict = self.top()?;
                return match &mut self.table[dict as usize] {
                    Object::Dict(dict) => {
                        dict.extend(items);
                        Ok(())
                    }
                    _ => Err(PickleError::damaged("its pickle sets items of an object that is not a dict")),
                };
            }
        };
        self.push(object)
    }

    /// Stores to the memo, or loads from it.
    fn memoise(&mut self, opcode: u8) -> Result<(), PickleError> {
        let index = match opcode {
            b'g' | b'p' => {
                let line = self.input.line()?;
                line.parse().map_err(|_| PickleError::damaged("an index into its memo is not a number"))?
            }
            b'h' | b'q' => u64::from(self.input.u8()?),
            b'j' | b'r' => u64::from(self.input.u32()?),
            _ => self.memoised,
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let id = self.memo.get(&index).copied();
            self.stack.push(id.ok_or_else(|| PickleError::damaged("its pickle loads an object that it never stored"))?);
        } else {
            let top = self.top()?;
            if self.memo.insert(index, top).is_none() {
                self.memoised += 1;
            }
        }
        Ok(())
    }

    /// A reference to a storage: `("storage", type, key, location, elements)`, followed by None in old files.
    fn storage_reference(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let Object::Tuple(parts) = self.get(id) else {
            return Err(PickleError::damaged("it refers to a storage by something other than a tuple"));
        };
        let [tag, kind, key, _, _, view @ ..] = parts.as_slice() else {
            return Err(PickleError::damaged("it refers to a storage by a tuple that is too short"));
        };
        if view.iter().any(|view| !matches!(self.get(*view), Object::Opaque)) {
            return Err(PickleError::Unsupported("its storages are views of one another".into()));
        }
        match (self.get(*tag), self.get(*kind), self.get(*key)) {
            (Object::Text("storage"), Object::Global(Global::Storage(dtype)), Object::Text(_)) => {
                let storage = Storage { dtype: *dtype, key: *key };
                self.push(Object::Storage(storage))
            }
            _ => Err(PickleError::damaged("it refers to something other than a storage")),
        }
    }

    /// Applies one of the known functions to its arguments.
    fn reduce(&mut self) -> Result<(), PickleError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Object::Global(global), Object::Tuple(arguments)) = (self.get(function), self.get(arguments)) else {
            return Err(PickleError::damaged("its pickle calls an object that is not a function"));
        };
        match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.push(Object::Dict(Vec::new())),
            (Global::Size | Global::RebuildParameter, [inner, ..]) => {
                let inner = *inner;
                self.stack.push(inner);
                Ok(())
            }
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let view = self.view([*storage, *offset, *shape, *strides])?;
                self.push(Object::Tensor(Box::new(view)))
            }
            (global, arguments) => Err(PickleError::Unsupported(format!(
                "its pickle passes {} arguments to {global:?}, which torch.save never does",
                arguments.len()
            ))),
        }
    }

    fn view(&self, [storage, offset, shape, strides]: [Id; 4]) -> Result<View, PickleError> {
        let malformed = || PickleError::damaged("a tensor's shape is not a list of non-negative integers");
        let integer = |id: Id| match self.get(id) {
            Object::Int(value) => u64::try_from(*value).map_err(|_| malformed()),
            _ => Err(malformed()),
        };
        let integers = |id: Id| match self.get(id) {
            Object::Tuple(parts) if parts.len() <= MAX_DIMENSIONS => parts.iter().map(|part| integer(*part)).collect(),
            _ => Err(malformed()),
        };
        let Object::Storage(storage) = self.get(storage) else {
            return Err(PickleError::damaged("a tensor is not made from a storage"));
        };
        let (shape, strides): (Vec<u64>, Vec<u64>) = (integers(shape)?, integers(strides)?);
        if shape.len() != strides.len() {
            return Err(malformed());
        }
        Ok(View { storage: *storage, offset: integer(offset)?, shape, strides })
    }

    fn get(&self, id: Id) -> &Object<'a> {
        &self.table[id as usize]
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), PickleError> {
        // There are fewer objects than bytes.
        self.stack.push(self.table.len() as Id);
        self.table.push(object);
        Ok(())
    }

    /// The start of the part of the stack above the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, PickleError> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| PickleError::damaged("its pickle's stack is empty"))
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| PickleError::damaged("its pickle needs a mark that it never set"))?;
        Ok(self.stack.split_off(mark))
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(PickleError::damaged("a key of a dict in its pickle has no value"));
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}
