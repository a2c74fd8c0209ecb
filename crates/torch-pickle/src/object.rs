//! The objects that a pickle creates, in one table: they refer to each other by index, so that cycles and deep nesting
//! need no special care.

use crate::PickleError;
use crate::dtype::Dtype;

/// An object's index in the table.
pub(crate) type Id = u32;

/// The objects that a pickle may create.
#[derive(Debug)]
pub(crate) enum Object<'a> {
    /// None, a float, bytes, an integer of more than 64 bits: skipped, because nothing here depends on it.
    Opaque,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Box<View>),
}

/// The names that state dicts use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Global {
    OrderedDict,
    Size,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

impl Global {
    /// Resolves a name.
    pub(crate) fn named(module: &str, name: &str) -> Result<Self, PickleError> {
        let storage = |dtype| Ok(Self::Storage(dtype));
        match (module, name) {
            ("collections", "OrderedDict") => Ok(Self::OrderedDict),
            ("torch", "Size") => Ok(Self::Size),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Ok(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Ok(Self::RebuildParameter),
            ("torch", "DoubleStorage") => storage(Dtype::F64),
            ("torch", "FloatStorage") => storage(Dtype::F32),
            ("torch", "HalfStorage") => storage(Dtype::F16),
            ("torch", "BFloat16Storage") => storage(Dtype::BF16),
            ("torch", "LongStorage") => storage(Dtype::I64),
            ("torch", "IntStorage") => storage(Dtype::I32),
            ("torch", "ShortStorage") => storage(Dtype::I16),
            ("torch", "CharStorage") => storage(Dtype::I8),
            ("torch", "ByteStorage") => storage(Dtype::U8),
            ("torch", "BoolStorage") => storage(Dtype::Bool),
            _ => {
                // For the message: short, and on one line.
                let name: String = format!("{module}.{name}").chars().take(80).collect();
                Err(PickleError::Global(name.escape_debug().to_string()))
            }
        }
    }
}

/// A storage, whose data is outside of the pickle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storage {
    pub(crate) dtype: Dtype,
    /// The id of a text.
    pub(crate) key: Id,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) storage: Storage,
    /// In elements, as are the strides.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// The objects that a pickle created, and the index of its result.
pub(crate) struct Objects<'a> {
    pub(crate) table: Vec<Object<'a>>,
    pub(crate) root: Id,
}

impl<'a> Objects<'a> {
    pub(crate) fn get(&self, id: Id) -> &Object<'a> {
        &self.table[id as usize]
    }

    pub(crate) fn root(&self) -> &Object<'a> {
        self.get(self.root)
    }

    /// The text, if the object is one.
    pub(crate) fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }
}
