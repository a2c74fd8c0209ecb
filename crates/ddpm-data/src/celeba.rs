//! CelebA's list files: which split an image is in, and which attributes it has.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::{DataError, Split};

/// The folder below the root that holds the aligned images.
pub(crate) const IMAGES: &str = "img_align_celeba";
const PARTITION: &str = "list_eval_partition.txt";
const ATTRIBUTES: &str = "list_attr_celeba.txt";

/// What the list files below a root say, keyed by file name without its ending (so that images converted to PNG are
/// found too). For a folder without lists every image is in, without a label.
pub(crate) struct Lists {
    partition: Option<List<Split>>,
    attribute: Option<List<u32>>,
    split: Split,
}

struct List<T> {
    name: &'static str,
    rows: HashMap<String, T>,
}

impl Lists {
    /// Reads the lists that `split` and `attribute` call for.
    pub(crate) fn load(root: &Path, split: Split, attribute: Option<&str>) -> Result<Self, DataError> {
        let path = root.join(PARTITION);
        let partition = match path.is_file() {
            true => Some(List { name: PARTITION, rows: partition(&path)? }),
            false if split == Split::Train => None,
            false => {
                let reason = format!(
                    "the {split} split is asked for, but there is no {PARTITION} here that says which images are in it; \
                     point data.path at a folder of {split} images and ask for the train split"
                );
                return Err(DataError::format(root, reason));
            }
        };
        let attribute = attribute
            .map(|name| Ok(List { name: ATTRIBUTES, rows: attributes(&root.join(ATTRIBUTES), name)? }))
            .transpose()?;
        Ok(Lists { partition, attribute, split })
    }

    /// The label of an image of the split; `Ok(None)` where the image is in another split.
    pub(crate) fn look_up(&self, file: &Path) -> Result<Option<Option<u32>>, DataError> {
        if let Some(partition) = &self.partition
            && partition.get(file)? != self.split
        {
            return Ok(None);
        }
        let label = self.attribute.as_ref().map(|list| list.get(file)).transpose()?;
        Ok(Some(label))
    }
}

impl<T: Copy> List<T> {
    fn get(&self, file: &Path) -> Result<T, DataError> {
        self.rows.get(&stem(file)).copied().ok_or_else(|| {
            let reason = format!("this image is not in {}; add it there or set data.on_corrupt = \"skip\"", self.name);
            DataError::format(file, reason)
        })
    }
}

fn partition(path: &Path) -> Result<HashMap<String, Split>, DataError> {
    let text = read(path)?;
    let mut rows = HashMap::new();
    for (number, line) in lines(&text) {
        let mut fields = line.split_whitespace();
        let (name, split) = match (fields.next(), fields.next(), fields.next()) {
            (Some(name), Some("0"), None) => (name, Split::Train),
            (Some(name), Some("1"), None) => (name, Split::Valid),
            (Some(name), Some("2"), None) => (name, Split::Test),
            _ => return Err(malformed(path, number, "a file name and 0, 1 or 2")),
        };
        rows.insert(stem(Path::new(name)), split);
    }
    Ok(rows)
}

fn attributes(path: &Path, name: &str) -> Result<HashMap<String, u32>, DataError> {
    let text = read(path)?;
    let mut lines = lines(&text);
    let count = lines.next().and_then(|(_, line)| line.trim().parse::<usize>().ok());
    let count = count.ok_or_else(|| malformed(path, 1, "the number of images"))?;
    let names: Vec<&str> = lines.next().map(|(_, line)| line.split_whitespace().collect()).unwrap_or_default();
    let column = names.iter().position(|known| *known == name).ok_or_else(|| unknown(path, name, &names))?;
    let mut rows = HashMap::with_capacity(count);
    for (number, line) in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let label = match fields.get(1 + column) {
            Some(&"1") if fields.len() == 1 + names.len() => 1,
            Some(&"-1") if fields.len() == 1 + names.len() => 0,
            _ => return Err(malformed(path, number, &format!("a file name and {} times 1 or -1", names.len()))),
        };
        rows.insert(stem(Path::new(fields[0])), label);
    }
    if rows.len() != count {
        let reason = format!("the first line promises {count} images, {} follow; fetch the file again", rows.len());
        return Err(DataError::format(path, reason));
    }
    Ok(rows)
}

fn read(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(DataError::io(path))
}

/// Non-blank lines with their numbers, 1-based.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty())
}

fn malformed(path: &Path, line: usize, expected: &str) -> DataError {
    DataError::format(path, format!("line {line} is not {expected}; fetch the file again"))
}

fn unknown(path: &Path, name: &str, names: &[&str]) -> DataError {
    let likeness = |known: &str| strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase());
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let hint = nearest.map_or("fetch the file again".into(), |nearest| format!("perhaps '{nearest}' is meant"));
    DataError::format(path, format!("the second line names no attribute '{name}'; {hint}"))
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
