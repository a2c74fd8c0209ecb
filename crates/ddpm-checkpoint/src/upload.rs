//! Uploads: sends a shard to the store in parts of equal size, from the memory that holds it, and hashes it meanwhile.

use std::{iter, mem, ops::Range, panic::resume_unwind, sync::Arc, time::Instant};

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload, path::Path};
use tokio::{
    runtime::Handle,
    task::{JoinSet, spawn_blocking},
};

use crate::{
    Attempt, CheckpointError, Failpoint, Pending, ShardEntry, ShardRange, Store, bucket::Bucket, digest::hash_beside,
    layout::shard_path, pace::Pace, shard::header, words::Words,
};

/// S3's limit on the number of parts.
const MAX_PARTS: u64 = 10_000;

/// A range of a named flat buffer with its values, owned by the upload that writes them.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedSlice {
    /// The buffer's name.
    pub name: String,
    /// Where in the buffer the values belong, in elements.
    pub range: Range<usize>,
    /// The values; as many as the range is long.
    pub data: Vec<f32>,
}

/// Provides the values of a shard when the upload begins, on a thread that may block, such as until a GPU has copied them.
pub type Values = Box<dyn FnOnce() -> Result<Vec<OwnedSlice>, Box<dyn std::error::Error + Send + Sync>> + Send>;

/// The upload of one rank's shard; its result is the shard's entry in the manifest.
pub type Upload = Pending<ShardEntry>;

impl Store {
    /// Writes the shard of `rank` of `world` for one attempt at saving `step`, in the background. They are written
    /// bit for bit, including NaNs; nothing takes effect until the commit. Memory: the values, from which the parts are
    /// sent, until the upload has finished. A failed upload has no effect; save again under a new [`Attempt`].
    ///
    /// # Errors
    /// Returned by the [`Upload`]: `Store` if the store failed, `NoValues` if `values` failed, `Invalid` if a range and
    /// its values differ in length, a name occurs twice, or `rank` is not below `world`.
    pub fn start_upload(&self, step: u64, attempt: &Attempt, rank: usize, world: usize, values: Values) -> Upload {
        let (bucket, attempt) = (Arc::clone(&self.bucket), *attempt);
        self.spawn(async move {
            let path = || shard_path(step, &attempt, rank, world).to_string();
            let taken = spawn_blocking(values).await.unwrap_or_else(|e| resume_unwind(e.into_panic()));
            let buffers = taken.map_err(|source| CheckpointError::NoValues { path: path(), source })?;
            bucket.write_shard(step, &attempt, rank, world, buffers).await
        })
    }
}

impl Bucket {
    async fn write_shard(
        &self,
        step: u64,
        attempt: &Attempt,
        rank: usize,
        world: usize,
        buffers: Vec<OwnedSlice>,
    ) -> Result<ShardEntry, CheckpointError> {
        let path = shard_path(step, attempt, rank, world);
        let header = match rank < world {
            true => header_of(&buffers),
            false => Err(format!("rank {rank} is not one of {world}")),
        };
        let header = header.map_err(|reason| CheckpointError::Invalid { path: path.to_string(), reason })?;
        let hold = |buffer: &OwnedSlice| ShardRange {
            buffer: buffer.name.clone(),
            start: buffer.range.start as u64,
            end: buffer.range.end as u64,
        };
        let holds = buffers.iter().map(hold).collect();
        let values = buffers.into_iter().map(|buffer| Bytes::from_owner(Words::new(buffer.data)));
        let file: PutPayload = iter::once(Bytes::from(header)).chain(values).collect();
        let size = file.content_length() as u64;
        let sha256 = hash_beside(file.clone());
        self.send(&path, file).await.map_err(|e| self.failed("write", &path, e))?;
        // It is dropped without a result if the runtime shuts down.
        let unhashed = |_| {
            let source = "the program ended before its checksum was computed".into();
            self.failed("write", &path, object_store::Error::Generic { store: "checkpoint", source })
        };
        let sha256 = sha256.await.map_err(unhashed)?;
        Ok(ShardEntry { path: path.to_string(), size, sha256, holds })
    }

    async fn send(&self, path: &Path, file: PutPayload) -> object_store::Result<()> {
        let mut out = Writer::open(self, path, file.content_length() as u64).await?;
        for piece in file {
            out.write(piece).await?;
        }
        out.finish().await
    }
}

/// The header of a shard with these buffers.
fn header_of(buffers: &[OwnedSlice]) -> Result<Vec<u8>, String> {
    for OwnedSlice { name, range, data } in buffers {
        if data.len() != range.len() {
            return Err(format!("{} values were given for the range {range:?} of {name}", data.len()));
        }
    }
    let given: Vec<_> = buffers.iter().map(|buffer| (buffer.name.as_str(), buffer.data.len())).collect();
    header(&given)
}

/// An object being written in parts. If dropped before it is finished, it aborts the upload on the store; a process
/// that dies before that leaves the parts to the bucket's lifecycle rule.
pub(crate) struct Writer<'a> {
    bucket: &'a Bucket,
    path: &'a Path,
    /// `None` once the object is complete.
    upload: Option<Box<dyn MultipartUpload>>,
    part_bytes: usize,
    /// The pieces of the next part, and their total length.
    part: Vec<Bytes>,
    filled: usize,
    /// Parts being sent; the result is their length.
    in_flight: JoinSet<object_store::Result<u64>>,
    pace: Pace,
    begun: Instant,
    /// Bytes written so far.
    at: u64,
}

impl<'a> Writer<'a> {
    /// Begins an object of `size` bytes.
    pub async fn open(bucket: &'a Bucket, path: &'a Path, size: u64) -> object_store::Result<Self> {
        let part_bytes = bucket.options.part_bytes.max(size.div_ceil(MAX_PARTS) as usize);
        let upload = bucket.objects.put_multipart(path).await?;
        Failpoint::UploadBegun.reach();
        Ok(Self {
            bucket,
            path,
            upload: Some(upload),
            part_bytes,
            part: Vec::new(),
            filled: 0,
            in_flight: JoinSet::new(),
            pace: bucket.sending.begin(),
            begun: Instant::now(),
            at: 0,
        })
    }

    /// Appends to the object, without copying, and waits while too many parts are in flight.
    pub async fn write(&mut self, mut bytes: Bytes) -> object_store::Result<()> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(self.part_bytes - self.filled));
            self.filled += piece.len();
            self.at += piece.len() as u64;
            self.part.push(piece);
            if self.filled == self.part_bytes {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Sends the rest and completes the object.
    pub async fn finish(mut self) -> object_store::Result<()> {
        if self.filled > 0 {
            self.send_part().await?;
        }
        self.land(0).await?;
        self.bucket.sending.keep(self.pace.clone());
        Failpoint::PartsSent.reach();
        let Some(upload) = &mut self.upload else { unreachable!("the upload is taken below, once") };
        if let Err(error) = upload.complete().await {
            // The response may have been lost, so that the retry failed with "no such upload": check the object.
            match self.bucket.objects.head(self.path).await {
                Ok(found) if found.size == self.at => {
                    tracing::info!(path = %self.path, "upload is complete despite the error: {error}")
                }
                _ => return Err(error),
            }
        }
        Failpoint::UploadCompleted.reach();
        self.upload = None;
        Ok(())
    }

    async fn send_part(&mut self) -> object_store::Result<()> {
        self.land(self.pace.limit() - 1).await?;
        if let Some(upload) = &mut self.upload {
            let part = upload.put_part(mem::take(&mut self.part).into_iter().collect());
            let len = mem::take(&mut self.filled) as u64;
            self.in_flight.spawn(async move { part.await.map(|()| len) });
        }
        Ok(())
    }

    /// Waits until at most `limit` parts are in flight.
    async fn land(&mut self, limit: usize) -> object_store::Result<()> {
        while self.in_flight.len() > limit {
            match self.in_flight.join_next().await {
                Some(part) => {
                    let len = part.unwrap_or_else(|e| resume_unwind(e.into_panic()))?;
                    self.pace.landed(len, self.begun.elapsed());
                }
                None => break,
            }
            Failpoint::PartSent.reach();
        }
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) = (self.upload.take(), Handle::try_current()) {
            let mut in_flight = mem::take(&mut self.in_flight);
            runtime.spawn(async move {
                in_flight.shutdown().await;
                if let Err(e) = upload.abort().await {
                    tracing::warn!("an upload could not be aborted, so its parts remain on the store: {e}");
                }
            });
        }
    }
}
