//! The images of many shards as one data set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ddpm_spec::{ShardFormat, ShardLabels, ShardSpec};

use super::cache::Cache;
use super::data::Data;
use super::fault::Fault;
use super::find::find;
use super::format::{Memory, noun, scan};
use super::labels::unite;
use super::progress::Progress;
use super::record::{NO_LABEL, Records};
use super::unpack::plain;
use crate::classes::Class;
use crate::findings::Findings;
use crate::hash::Fingerprint;
use crate::pack::class_names;
use crate::pixels::Reader;
use crate::ranges::Ranges;
use crate::remote::{Bucket, is_address};
use crate::skip::Skips;
use crate::source::{Encoded, Traffic, check_request};
use crate::{DataError, Depth, ImageShape, OnCorrupt, Source, Split, parallel};

/// How many files in a store are scanned at once, however many processors there are: a scan waits for the store most of
/// the time, and reads up to 4 MiB ahead, which all together must stay in memory.
const SCANS: usize = 8;

/// A file that is read, and its records.
struct Shard {
    /// As the user knows it; `data` may be its decompressed copy.
    path: PathBuf,
    data: Data,
    records: Records,
    memory: Memory,
}

/// Images in Parquet, WebDataset or ZIP files: file after file, in the order inside each.
pub(crate) struct Sharded {
    root: PathBuf,
    format: ShardFormat,
    split: Option<Split>,
    shards: Vec<Shard>,
    /// Where they are, if not on this machine.
    bucket: Option<Arc<Bucket>>,
    /// The id of the first image of each shard, and the number of all images at the end.
    starts: Vec<u64>,
    classes: Vec<Class>,
    reader: Reader,
    skips: Option<Skips>,
    fingerprint: u64,
    findings: Findings,
}

impl Sharded {
    pub(crate) fn open(spec: &ShardSpec, reader: Reader, on_corrupt: OnCorrupt) -> Result<Self, DataError> {
        let &ShardSpec { format, path: ref root, split, ref labels, ref cache, cache_bytes } = spec;
        let cache = Cache::at(cache.as_deref());
        let bucket = match is_address(root) {
            true => Some(Arc::new(Bucket::of(root, cache.blocks(), cache_bytes)?)),
            false => None,
        };
        let found = find(root, format, bucket.as_deref())?.of_split(split, format)?;
        let progress = Progress::of(root, found.files.len());
        let open_one =
            |path: &PathBuf| open(format, path, labels, &cache, bucket.as_ref()).inspect(|_| progress.one_more());
        let opened = match &bucket {
            Some(_) => parallel::map_on(SCANS, &found.files, open_one)?,
            None => parallel::map(&found.files, open_one)?,
        };
        let (mut parts, data): (Vec<_>, Vec<_>) =
            opened.into_iter().map(|(path, data, records)| ((path, records), data)).unzip();
        let folder = found.files[0].parent().unwrap_or(root);
        let classes = unite(&mut parts, || class_names(folder, bucket.as_ref()))?;
        let shards: Vec<Shard> = parts
            .into_iter()
            .zip(data)
            .map(|((path, records), data)| Shard { path, data, records, memory: Memory::default() })
            .collect();
        let (mut starts, mut fingerprint, mut findings) = (vec![0], Fingerprint::default(), Findings::default());
        findings.warnings = found.warnings;
        for shard in &shards {
            starts.push(starts[starts.len() - 1] + shard.records.places.len() as u64);
            fingerprint.add(&shard.records.identity.to_le_bytes());
            // Their identities know the labels by the names of their own only.
            shard.records.labels.iter().for_each(|label| fingerprint.add(&label.to_le_bytes()));
            for (extension, count) in &shard.records.ignored.0 {
                *findings.ignored.0.entry(extension.clone()).or_default() += count;
            }
        }
        classes.iter().for_each(|class| fingerprint.add(class.name.as_bytes()));
        Ok(Sharded {
            root: root.clone(),
            format,
            split: found.split,
            shards,
            bucket,
            starts,
            classes,
            reader,
            skips: (on_corrupt == OnCorrupt::Skip).then(Skips::default),
            fingerprint: fingerprint.value(),
            findings,
        })
    }

    /// The shard of an image, and its number inside.
    fn locate(&self, id: u64) -> (&Shard, usize) {
        let (shard, record) = self.place(id);
        (&self.shards[shard], record)
    }

    /// The number of the shard of an image, and its number inside.
    fn place(&self, id: u64) -> (usize, usize) {
        let shard = self.starts.partition_point(|start| *start <= id) - 1;
        (shard, (id - self.starts[shard]) as usize)
    }
}

impl Shard {
    /// The image file of a record, after checking that the shard is still the one that was indexed, and that `reader`
    /// takes files of this size.
    fn file(&self, record: usize, reader: &Reader) -> Result<Vec<u8>, DataError> {
        let file = self.data.open(&self.path)?;
        let place = self.records.places[record];
        let checked = reader.check_file(place.bytes()).map_err(Fault::Record);
        checked.and_then(|()| self.memory.read(file, place)).map_err(|fault| match fault {
            Fault::Io(error) => DataError::io(&self.path)(error),
            Fault::Record(reason) => DataError::Image { path: self.name(record), reason },
        })
    }

    /// How messages name a record: as if the shard were a folder.
    fn name(&self, record: usize) -> PathBuf {
        self.path.join(self.records.name(record).trim_start_matches('/'))
    }

    /// Begins to fetch what says where a record is, if the shard is elsewhere and that is not known; returns how many
    /// bytes this requests.
    fn announce_places(&self, record: usize) -> u64 {
        let Data::Remote(object) = &self.data else { return 0 };
        object.announce(self.memory.missing(object.version().length, self.records.places[record]))
    }

    /// Begins to fetch these records if the shard is elsewhere; returns how many bytes this requests. What goes wrong
    /// is reported when they are read.
    fn announce(&self, records: &[usize]) -> u64 {
        let Data::Remote(object) = &self.data else { return 0 };
        let parts = records.iter().flat_map(|record| {
            let name = self.records.names.get(*record).unwrap_or_default();
            self.memory.parts(Arc::clone(object) as Arc<dyn Ranges>, self.records.places[*record], name)
        });
        object.announce(parts)
    }

    fn label(&self, record: usize) -> Option<u32> {
        Some(self.records.labels[record]).filter(|label| *label != NO_LABEL)
    }
}

impl Source for Sharded {
    fn len(&self) -> u64 {
        self.starts[self.shards.len()]
    }

    fn image(&self) -> ImageShape {
        self.reader.image
    }

    fn depth(&self) -> Depth {
        self.reader.depth()
    }

    fn classes(&self) -> Option<usize> {
        (!self.classes.is_empty()).then_some(self.classes.len())
    }

    fn class_table(&self) -> Vec<Class> {
        self.classes.clone()
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn files(&self) -> Option<Vec<u64>> {
        Some(self.starts.clone())
    }

    fn findings(&self) -> Findings {
        self.findings.clone()
    }

    fn skips(&self) -> Option<&Skips> {
        self.skips.as_ref()
    }

    fn read(&self, id: u64, out: &mut [u8]) -> Result<Option<u32>, DataError> {
        check_request(self, id, out)?;
        let (shard, record) = self.locate(id);
        let bytes = shard.file(record, &self.reader)?;
        self.reader.read(&shard.name(record), &bytes[..], out)?;
        Ok(shard.label(record))
    }

    fn encoded(&self, id: u64) -> Result<Option<Encoded>, DataError> {
        let (shard, record) = self.locate(id);
        let name = shard.records.names.get(record).unwrap_or_default().to_owned();
        Ok(Some(Encoded { bytes: shard.file(record, &self.reader)?, name, class: shard.label(record) }))
    }

    fn horizon(&self) -> u64 {
        self.bucket.as_ref().map_or(0, |bucket| bucket.horizon())
    }

    fn announce(&self, ids: &[u64]) -> u64 {
        let mut wanted: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for id in ids {
            let (shard, record) = self.place(*id);
            wanted.entry(shard).or_default().push(record);
        }
        // Of all files at once, because the next line waits for them.
        let places: u64 = wanted.iter().map(|(shard, records)| self.shards[*shard].announce_places(records[0])).sum();
        places + wanted.into_iter().map(|(shard, records)| self.shards[shard].announce(&records)).sum::<u64>()
    }

    fn traffic(&self) -> Option<Traffic> {
        self.bucket.as_ref().map(|bucket| bucket.traffic())
    }

    fn describe(&self) -> String {
        let classes = self.classes().map_or("no labels".into(), |n| format!("{n} classes"));
        let split = self.split.map_or(String::new(), |split| format!(" of the {split} split"));
        let plural = |n: u64| if n == 1 { "" } else { "s" };
        let (images, files) = (self.len(), self.shards.len() as u64);
        let (root, format) = (self.root.display(), noun(self.format));
        let (s, t) = (plural(images), plural(files));
        format!("{images} image{s}{split} in {files} {format} file{t} at {root}, {classes}")
    }
}

/// Opens one file: decompresses it if necessary, and gets its records from its index or by scanning it.
fn open(
    format: ShardFormat,
    path: &Path,
    labels: &ShardLabels,
    cache: &Cache,
    bucket: Option<&Arc<Bucket>>,
) -> Result<(PathBuf, Data, Records), DataError> {
    let mut data = Data::find(path, bucket)?;
    let mut at = path.to_path_buf();
    if format == ShardFormat::Webdataset
        && let Some(copy) = plain(path, data.open(path)?, data.stamp(), cache)?
    {
        data = Data::find(&copy, None)?;
        at = copy;
    }
    let records = cache.records(&at, data.stamp(), &format!("{format:?} {labels:?}"), || {
        scan(format, path, data.open(path)?, labels)
    })?;
    Ok((path.to_path_buf(), data, records))
}
