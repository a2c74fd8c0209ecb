//! Classes by name, with the number of images of each.

use std::path::Path;

use crate::findings::{SHOWN, some_of};

/// A class of a data set; its number is its place in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The folder's name, the attribute and its value, or the label itself.
    pub name: String,
    /// How many images of the split are of this class.
    pub images: u64,
}

/// The table of the classes that are called `names`, with these labels.
pub(crate) fn count(names: impl IntoIterator<Item = String>, labels: impl IntoIterator<Item = u32>) -> Vec<Class> {
    let mut table: Vec<Class> = names.into_iter().map(|name| Class { name, images: 0 }).collect();
    for label in labels {
        table[label as usize].images += 1;
    }
    table
}

/// A phrase per class: `0 cat: 12`, or the number alone where that is the name.
pub fn class_phrases(table: &[Class]) -> impl Iterator<Item = String> {
    table.iter().enumerate().map(|(number, Class { name, images })| match *name == number.to_string() {
        true => format!("{number}: {images}"),
        false => format!("{number} {name}: {images}"),
    })
}

/// What may be a mistake in a table made of the folders below `home`.
pub(crate) fn warnings(home: &Path, table: &[Class]) -> Vec<String> {
    [without_images(table), out_of_number(table)]
        .into_iter()
        .flatten()
        .map(|warning| format!("{}: {warning}", home.display()))
        .collect()
}

fn without_images(table: &[Class]) -> Option<String> {
    let empty = table.iter().enumerate().filter(|(_, class)| class.images == 0);
    let names = some_of(empty.map(|(number, class)| format!("{number} ({})", class.name)), SHOWN);
    (!names.is_empty()).then(|| {
        format!(
            "classes without an image that is used, which keep their numbers: {names}. Add images, or remove the folders \
             before the first training."
        )
    })
}

/// Names that are numbers, but not in the order of the numbers.
fn out_of_number(table: &[Class]) -> Option<String> {
    let numbers: Vec<u64> = table.iter().map(|class| class.name.parse()).collect::<Result<_, _>>().ok()?;
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    let number = numbers.iter().zip(&sorted).position(|(number, sorted)| number != sorted)?;
    Some(format!(
        "classes are numbered in the order of their names as text, so folder {} is class {number}. For the order of the numbers \
         write all names with as many digits (02, 10).",
        table[number].name
    ))
}
