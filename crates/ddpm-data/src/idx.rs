//! IDX files, the format of MNIST and Fashion-MNIST, plain or gzip, held in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::classes::{self, Class};
use crate::gzip::{self, Members};
use crate::hash::Fingerprint;
use crate::pixels::{Notices, Pixels, Placement, Rect, cropped, draw, margin, size};
use crate::source::check_request;
use crate::{Alpha, DataError, DataSpec, Fit, IdxLabels, ImageShape, Source, Split, pixels};

/// Unsigned bytes in three dimensions: count, rows, columns.
const IMAGES: u32 = 0x0803;
/// Unsigned bytes in one dimension.
const LABELS: u32 = 0x0801;

/// Grey images of one size from an IDX file.
pub(crate) struct Idx {
    path: PathBuf,
    pixels: Vec<u8>,
    labels: Option<Vec<u8>>,
    width: usize,
    height: usize,
    placement: Placement,
    alpha: Alpha,
    image: ImageShape,
}

impl Idx {
    pub(crate) fn open(images: &Path, labels: &IdxLabels, split: Split, spec: &DataSpec) -> Result<Self, DataError> {
        let path = find(images, "images", 3, split)?;
        let labels = match labels {
            IdxLabels::At(labels) => Some(find(labels, "labels", 1, split)?),
            IdxLabels::Beside if images.is_dir() => find(images, "labels", 1, split).ok(),
            IdxLabels::Beside | IdxLabels::None => None,
        };
        let (pixels, dims) = load(&path, IMAGES)?;
        let (count, height, width) = (dims[0], dims[1], dims[2]);
        if count == 0 || height == 0 || width == 0 {
            return Err(DataError::format(
                &path,
                format!(
                    "the header announces {count} images of {height}x{width}, so the file is empty; download it again"
                ),
            ));
        }
        let &DataSpec { image, crop, fit, alpha, .. } = spec;
        Notices::default().converted(&path, 1, image.channels);
        let labels = labels
            .map(|file| {
                let (labels, dims) = load(&file, LABELS)?;
                if dims[0] == count {
                    return Ok(labels);
                }
                let reason = format!(
                    "{} labels for the {count} images of {}; use the label file of the same split, or set data.labels = \"none\"",
                    dims[0],
                    path.display()
                );
                Err(DataError::format(&file, reason))
            })
            .transpose()?;
        let part = cropped((width as u32, height as u32), crop).map_err(|_| {
            let side = crop.unwrap_or_default();
            let reason = format!(
                "its images of {width}x{height} are smaller than data.crop = {side}; lower data.crop or remove it"
            );
            DataError::format(&path, reason)
        })?;
        let placement = place(part, size(image), fit);
        Ok(Idx { path, pixels, labels, width, height, placement, alpha, image })
    }
}

/// Where the used part of an image goes. What has room is not enlarged, unless it is to be stretched.
fn place(part: Rect, to: (u32, u32), fit: Fit) -> Placement {
    let has_room = |part: Rect| part.width <= to.0 && part.height <= to.1;
    let placed = Placement::of(part, to, fit);
    let used = if has_room(part) { part } else { placed.from };
    if fit != Fit::Stretch && has_room(used) { Placement::unscaled(used, to) } else { placed }
}

impl Source for Idx {
    fn len(&self) -> u64 {
        (self.pixels.len() / (self.width * self.height)) as u64
    }

    fn image(&self) -> ImageShape {
        self.image
    }

    fn classes(&self) -> Option<usize> {
        let labels = self.labels.as_ref()?;
        labels.iter().max().map(|&last| usize::from(last) + 1)
    }

    fn class_table(&self) -> Vec<Class> {
        let labels = self.labels.iter().flatten().map(|&label| u32::from(label));
        classes::count((0..self.classes().unwrap_or(0)).map(|class| class.to_string()), labels)
    }

    fn fingerprint(&self) -> u64 {
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(&self.pixels);
        self.labels.iter().for_each(|labels| fingerprint.add(labels));
        fingerprint.value()
    }

    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError> {
        check_request(self, id, out)?;
        let id = id as usize;
        let bytes = self.width * self.height;
        let stored = &self.pixels[id * bytes..][..bytes];
        let grey = Pixels::new(stored.to_vec(), self.width as u32, self.height as u32, 1, false);
        draw(&grey, self.placement, &margin(self.alpha, self.image.channels), self.image, out)
            .map_err(|reason| DataError::Image { path: self.path.clone(), reason })?;
        Ok(self.labels.as_ref().map(|labels| u32::from(labels[id])))
    }

    fn describe(&self) -> String {
        let classes = self.classes().map_or("no labels".into(), |n| format!("{n} classes"));
        let (w, h) = (self.width, self.height);
        format!("{} grey images of {w}x{h} from {}, {classes}", self.len(), self.path.display())
    }
}

/// `path` itself or, if it is a folder, the standard file of `split` for `what`, in any of its usual spellings.
fn find(path: &Path, what: &str, dims: u32, split: Split) -> Result<PathBuf, DataError> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        // Opening a pipe without a writer would block forever.
        Ok(metadata) if !metadata.is_file() => {
            return Err(DataError::format(path, "this is neither a file nor a folder; give one of these"));
        }
        _ => return Ok(path.to_path_buf()),
    }
    let prefix = match split {
        Split::Train => "train",
        Split::Test => "t10k",
        Split::Valid => {
            return Err(DataError::format(path, "IDX data sets have no valid split; request train or test"));
        }
    };
    let names = ["-", "."].map(|dash| format!("{prefix}-{what}{dash}idx{dims}-ubyte"));
    // Kaggle's archives unpack to one folder per file.
    let mut spellings =
        names.iter().flat_map(|name| [path.join(name), path.join(format!("{name}.gz")), path.join(name).join(name)]);
    let missing = || DataError::MissingFile { path: path.to_path_buf(), name: names[0].clone() };
    spellings.find(|file| file.is_file()).ok_or_else(missing)
}

/// The payload and the dimensions of one IDX file, whose length must match its header exactly.
fn load(path: &Path, magic: u32) -> Result<(Vec<u8>, Vec<usize>), DataError> {
    let mut file = BufReader::new(File::open(path).map_err(DataError::io(path))?);
    let start = file.fill_buf().map_err(DataError::io(path))?;
    let (gzip, kind) = (start.starts_with(&gzip::MAGIC), pixels::name(start));
    let mut reader: Box<dyn Read> = Box::new(file);
    if gzip {
        let mut packed = Vec::new();
        reader.read_to_end(&mut packed).map_err(DataError::io(path))?;
        reader = Box::new(Members::new(packed));
    }
    let read_error = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            DataError::format(path, "the file ends early; it is truncated, download it again")
        }
        _ if gzip => DataError::format(path, format!("the gzip stream is damaged ({error}); download the file again")),
        _ => DataError::io(path)(error),
    };
    let mut word = || -> Result<u32, DataError> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).map_err(read_error)?;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = word()?;
    if found != magic {
        let holds = if magic == IMAGES { "images" } else { "labels" };
        let reason = match kind.filter(|_| !gzip) {
            Some(kind) => format!("this is {kind}, not an IDX file; download it again, or give the file of {holds}"),
            None => format!(
                "an IDX file of {holds} starts with {magic:#010x}, this one with {found:#010x}; give the file of {holds}"
            ),
        };
        return Err(DataError::format(path, reason));
    }
    let dims = (0..magic & 0xff).map(|_| Ok(word()? as usize)).collect::<Result<Vec<_>, DataError>>()?;
    let announced = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim)).ok_or_else(|| {
        DataError::format(
            path,
            format!("the header announces {dims:?} bytes, more than can exist; download the file again"),
        )
    })?;
    let mut payload = Vec::new();
    // One byte more than announced: detects trailing bytes, and makes gzip verify its checksum.
    reader.take((announced as u64).saturating_add(1)).read_to_end(&mut payload).map_err(read_error)?;
    if payload.len() == announced {
        return Ok((payload, dims));
    }
    let reason = if payload.len() < announced {
        format!(
            "the header announces {announced} bytes but only {} follow; the file is truncated, download it again",
            payload.len()
        )
    } else {
        format!("the file is longer than the {announced} bytes that the header announces; download it again")
    };
    Err(DataError::format(path, reason))
}
