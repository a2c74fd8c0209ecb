//! Reading shards straight into the buffers that they fill: several parts at once, each hashed where it landed.

use std::{
    iter, mem,
    ops::Range,
    panic::resume_unwind,
    sync::{atomic::Ordering, mpsc},
    thread,
    time::Instant,
};

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, FuturesUnordered},
};
use object_store::{GetOptions, GetResultPayload, ObjectStore, path::Path};

use crate::{
    CheckpointError, Failpoint, Manifest, Store,
    bucket::{Bucket, store_error},
    digest::InOrder,
    layout::manifest_path,
    shard::{check_header, header_len},
    words::{bytes_mut, reorder},
};

impl Store {
    /// Reads shard `index` of a checkpoint into `places`, one for each range that the manifest lists for it, in that
    /// order and of that length. Checks its size, its SHA-256, and that it holds these ranges; only if this succeeds
    /// can the values be trusted. Memory: what the places take.
    ///
    /// # Errors
    /// `Damaged`, `Store`; `Invalid` if there is no such shard or the places have other lengths.
    pub fn read_shard(
        &self,
        manifest: &Manifest,
        index: usize,
        mut places: Vec<&mut [f32]>,
    ) -> Result<(), CheckpointError> {
        let invalid = |reason| CheckpointError::Invalid { path: manifest_path(manifest.step).to_string(), reason };
        let missing = || invalid(format!("shard {index} was requested, but there are {}", manifest.world()));
        let entry = manifest.shards.get(index).ok_or_else(missing)?;
        let lens = entry.holds.iter().map(|hold| hold.end.saturating_sub(hold.start));
        if !lens.eq(places.iter().map(|place| place.len() as u64)) {
            return Err(invalid(format!("the places for shard {index} do not have the lengths of its ranges")));
        }
        let bucket = self.bucket.as_ref();
        let path = Path::from(entry.path.as_str());
        let damaged = |reason: String| bucket.damaged(&path, reason);
        // Before memory is allocated for what may not be there.
        self.block_on(bucket.check_size(entry))?;
        let mut header = vec![0; header_len(entry).map_err(damaged)?];
        let values = places.iter_mut().map(|place| bytes_mut(place));
        let parts = cut(iter::once(header.as_mut_slice()).chain(values), bucket.options.part_bytes);
        if self.fetch_hashed(&path, parts)? != entry.sha256 {
            return Err(damaged("its SHA-256 differs from the one in the manifest".into()));
        }
        check_header(&header, entry).map_err(damaged)?;
        places.into_iter().for_each(reorder);
        Failpoint::ShardRead.reach();
        Ok(())
    }

    /// One whole buffer of a checkpoint, assembled from the shards that hold it, each of which is fully verified.
    ///
    /// # Errors
    /// As [`read_shard`](Self::read_shard); `NotFound`, listing the existing names, if the checkpoint has no such
    /// buffer.
    pub fn load_buffer(&self, manifest: &Manifest, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let Some(buffer) = manifest.buffers.iter().find(|buffer| buffer.name == name) else {
            let names: Vec<_> = manifest.buffers.iter().map(|buffer| buffer.name.as_str()).collect();
            return Err(CheckpointError::NotFound {
                uri: self.uri().into(),
                path: format!("the buffer {name} of step {}", manifest.step),
                hint: format!(": it holds {}", names.join(", ")),
            });
        };
        let mut whole = vec![0.0; buffer.len as usize];
        for (index, entry) in manifest.shards.iter().enumerate() {
            let holds = &entry.holds;
            let wanted = holds.iter().position(|hold| hold.buffer == name && hold.start < hold.end);
            let Some(wanted) = wanted else { continue };
            // The other ranges are read as well, for the SHA-256 of the shard.
            let lens = holds
                .iter()
                .enumerate()
                .map(|(at, hold)| if at == wanted { 0 } else { hold.end.saturating_sub(hold.start) });
            let mut others: Vec<Vec<f32>> = lens.map(|len| vec![0.0; len as usize]).collect();
            let mut places: Vec<&mut [f32]> = others.iter_mut().map(Vec::as_mut_slice).collect();
            places[wanted] = &mut whole[holds[wanted].start as usize..holds[wanted].end as usize];
            self.read_shard(manifest, index, places)?;
        }
        Ok(whole)
    }

    /// Fetches an object in parts to their places; returns its SHA-256, computed by another thread meanwhile.
    fn fetch_hashed(&self, path: &Path, parts: Vec<Part<'_>>) -> Result<String, CheckpointError> {
        let bucket = self.bucket.as_ref();
        let (landed, landing) = mpsc::channel::<Part<'_>>();
        let hash = move || {
            let mut digest = InOrder::default();
            landing.into_iter().for_each(|part| digest.land(part.index, part.places));
            digest.finish()
        };
        thread::scope(|scope| {
            let hashing = thread::Builder::new().name("checkpoint-hash".into()).spawn_scoped(scope, hash);
            let hashing = hashing.map_err(|e| store_error(&bucket.uri, "read", path.as_ref(), e))?;
            let fetched = self.block_on(bucket.fetch(path, parts, landed));
            let sha256 = hashing.join().unwrap_or_else(|panic| resume_unwind(panic));
            fetched.map(|()| sha256).map_err(|e| bucket.failed("read", path, e))
        })
    }
}

impl Bucket {
    /// Fetches the parts of an object, several at once, and passes each on when it is in its places.
    async fn fetch<'a>(
        &self,
        path: &Path,
        parts: Vec<Part<'a>>,
        landed: mpsc::Sender<Part<'a>>,
    ) -> object_store::Result<()> {
        let (begun, mut pace) = (Instant::now(), self.receiving.begin());
        let mut parts = parts.into_iter();
        let mut in_flight = FuturesUnordered::new();
        loop {
            while in_flight.len() < pace.limit()
                && let Some(part) = parts.next()
            {
                in_flight.push(part.fetch(self.objects.as_ref(), path));
            }
            let Some(part) = in_flight.next().await else { break };
            let part = part?;
            self.read.fetch_add(part.len() as u64, Ordering::Relaxed);
            pace.landed(part.len() as u64, begun.elapsed());
            // Refused only if the receiver has panicked, which its join reports.
            let _ = landed.send(part);
        }
        self.receiving.keep(pace);
        Ok(())
    }
}

/// A part of an object, and the places of its bytes.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub index: usize,
    pub range: Range<u64>,
    /// None of them is empty; together they are as long as the range.
    pub places: Vec<&'a mut [u8]>,
}

/// The parts of an object whose bytes belong into these places, one after the other. All parts but the last have
/// `part_bytes`.
pub(crate) fn cut<'a>(places: impl IntoIterator<Item = &'a mut [u8]>, part_bytes: usize) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut part = Part { index: 0, range: 0..0, places: Vec::new() };
    for mut place in places {
        while !place.is_empty() {
            let len = place.len().min(part_bytes - part.len());
            let (now, later) = mem::take(&mut place).split_at_mut(len);
            part.range.end += len as u64;
            part.places.push(now);
            place = later;
            if part.len() == part_bytes {
                let (index, end) = (part.index + 1, part.range.end);
                parts.push(mem::replace(&mut part, Part { index, range: end..end, places: Vec::new() }));
            }
        }
    }
    if part.len() > 0 {
        parts.push(part);
    }
    parts
}

impl Part<'_> {
    pub fn len(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }

    /// Requests the part, and copies it into its places as it arrives.
    async fn fetch(mut self, objects: &dyn ObjectStore, path: &Path) -> object_store::Result<Self> {
        let options = GetOptions::new().with_range(Some(self.range.clone()));
        let found = objects.get_opts(path, options).await?;
        // As a stream, a file would be read in pieces of 8 KiB.
        let mut chunks = match matches!(found.payload, GetResultPayload::File(..)) {
            true => stream::once(found.bytes()).boxed(),
            false => found.into_stream(),
        };
        let mut landed = 0;
        let mut places = self.places.iter_mut().map(|place| &mut **place);
        let mut place: &mut [u8] = &mut [];
        while let Some(chunk) = chunks.try_next().await? {
            landed += chunk.len();
            let mut chunk: &[u8] = chunk.as_ref();
            while !chunk.is_empty() {
                if place.is_empty() {
                    let Some(next) = places.next() else { break };
                    place = next;
                }
                let len = chunk.len().min(place.len());
                let (now, later) = mem::take(&mut place).split_at_mut(len);
                now.copy_from_slice(&chunk[..len]);
                (place, chunk) = (later, &chunk[len..]);
            }
        }
        match landed == self.len() {
            true => Ok(self),
            false => Err(object_store::Error::Generic {
                store: "response",
                source: format!("a response has {landed} bytes instead of the {} requested", self.len()).into(),
            }),
        }
    }
}
