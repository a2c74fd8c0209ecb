//! From the objects of a pickle to named tensors.

use std::collections::BTreeMap;

use crate::PickleError;
use crate::object::{Object, Objects};
use crate::tensor::{Region, Tensor};

/// The tensors of the dictionary that is the pickle's result; `region` finds the data of a storage by its key.
pub(crate) fn tensors<'a>(
    objects: &Objects<'a>,
    region: impl Fn(&str) -> Result<Region<'a>, PickleError>,
) -> Result<BTreeMap<String, Tensor<'a>>, PickleError> {
    let Object::Dict(items) = objects.root() else {
        return Err(PickleError::Unsupported("it does not contain a dictionary of tensors".into()));
    };
    let mut found = BTreeMap::new();
    for (key, value) in items {
        let name = objects.text(*key);
        let name = name.ok_or_else(|| PickleError::Unsupported("its tensors are not named by text".into()))?;
        let Object::Tensor(view) = objects.get(*value) else {
            let shown: String = name.chars().take(60).collect();
            return Err(PickleError::Unsupported(format!(
                "its entry `{}` is not a tensor: it is a training checkpoint, not a state dict",
                shown.escape_debug()
            )));
        };
        let storage = objects.text(view.storage.key).expect("a storage's key is text");
        found.insert(name.to_owned(), Tensor::new(name, view, region(storage)?)?);
    }
    Ok(found)
}
