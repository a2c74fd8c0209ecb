//! The classes of a data set, with their names and numbers of images.

use std::path::Path;

use crate::findings::{MAX_LISTED, some_of};

/// A class of a data set; its number is its index in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The name of the folder, the attribute and its value, or the label itself.
    pub name: String,
    /// The number of images of this class in the split.
    pub images: u64,
}

/// The table of the classes called `names`, counted from these labels.
pub(crate) fn count(names: impl IntoIterator<Item = String>, labels: impl IntoIterator<Item = u32>) -> Vec<Class> {
    let mut table: Vec<Class> = names.into_iter().map(|name| Class { name, images: 0 }).collect();
    for label in labels {
        table[label as usize].images += 1;
    }
    table
}

/// One phrase per class: `0 cat: 12`, or just the number if that is the name.
pub fn class_phrases(table: &[Class]) -> impl Iterator<Item = String> {
    table.iter().enumerate().map(|(number, Class { name, images })| match *name == number.to_string() {
        true => format!("{number}: {images}"),
        false => format!("{number} {name}: {images}"),
    })
}

/// Possible mistakes in a table made from the folders below `home`.
pub(crate) fn warnings(home: &Path, table: &[Class]) -> Vec<String> {
    [empty_classes(table), misordered_numbers(table)]
        .into_iter()
        .flatten()
        .map(|warning| format!("{}: {warning}", home.display()))
        .collect()
}

fn empty_classes(table: &[Class]) -> Option<String> {
    let empty = table.iter().enumerate().filter(|(_, class)| class.images == 0);
    let names = some_of(empty.map(|(number, class)| format!("{number} ({})", class.name)), MAX_LISTED);
    (!names.is_empty()).then(|| {
        format!(
            "classes without usable images, which keep their numbers: {names}. Add images, or remove the folders before \
             the first training."
        )
    })
}

/// Warns of names that are numbers but do not sort in numerical order.
fn misordered_numbers(table: &[Class]) -> Option<String> {
    let numbers: Vec<u64> = table.iter().map(|class| class.name.parse()).collect::<Result<_, _>>().ok()?;
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    let number = numbers.iter().zip(&sorted).position(|(number, sorted)| number != sorted)?;
    Some(format!(
        "classes are numbered in alphabetical order of their names, so folder {} is class {number}. For numerical order, \
         write all names with the same number of digits (02, 10).",
        table[number].name
    ))
}
