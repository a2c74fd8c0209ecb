//! Uploads: streams a shard to the store in parts of equal size and hashes it on the way.

use std::{mem, ops::Range, panic::resume_unwind, sync::Arc};

use object_store::{MultipartUpload, ObjectStoreExt, path::Path};
use sha2::{Digest, Sha256};
use tokio::{
    runtime::Handle,
    task::{JoinSet, spawn_blocking},
};

use crate::{
    Attempt, BufferSlice, CheckpointError, Failpoint, Pending, ShardEntry, ShardRange, Store, bucket::Bucket,
    layout::shard_path, manifest::hex, shard::header,
};

/// Elements serialised at a time.
const CHUNK: usize = 1 << 16;
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

impl OwnedSlice {
    fn as_slice(&self) -> BufferSlice<'_> {
        BufferSlice { name: &self.name, range: self.range.clone(), data: &self.data }
    }
}

/// Provides the values of a shard when the upload begins, on a thread that may block, such as until a GPU has copied them.
pub type Values = Box<dyn FnOnce() -> Result<Vec<OwnedSlice>, Box<dyn std::error::Error + Send + Sync>> + Send>;

/// The upload of one rank's shard; its result is the shard's entry in the manifest.
pub type Upload = Pending<ShardEntry>;

impl Store {
    /// Writes the shard of `rank` of `world` for one attempt at saving `step`, in the background. They are written
    /// bit for bit, including NaNs; nothing takes effect until the commit. Memory: the values, until the upload has
    /// finished, and the parts in flight. A failed upload has no effect; save again under a new [`Attempt`].
    ///
    /// # Errors
    /// Returned by the [`Upload`]: `Store` if the store failed, `NoValues` if `values` failed, `Invalid` if a range and its values differ in length, a
    /// name occurs twice, or `rank` is not below `world`.
    pub fn start_upload(&self, step: u64, attempt: &Attempt, rank: usize, world: usize, values: Values) -> Upload {
        let (bucket, attempt) = (Arc::clone(&self.bucket), *attempt);
        self.spawn(async move {
            let path = || shard_path(step, &attempt, rank, world).to_string();
            let taken = spawn_blocking(values).await.unwrap_or_else(|e| resume_unwind(e.into_panic()));
            let buffers = taken.map_err(|source| CheckpointError::NoValues { path: path(), source })?;
            let slices: Vec<_> = buffers.iter().map(OwnedSlice::as_slice).collect();
            bucket.write_shard(step, &attempt, rank, world, &slices).await
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
        buffers: &[BufferSlice<'_>],
    ) -> Result<ShardEntry, CheckpointError> {
        let path = shard_path(step, attempt, rank, world);
        let header = match rank < world {
            true => header(buffers),
            false => Err(format!("rank {rank} is not one of {world}")),
        };
        let header = header.map_err(|reason| CheckpointError::Invalid { path: path.to_string(), reason })?;
        let (size, sha256) = self.send(&path, &header, buffers).await.map_err(|e| self.failed("write", &path, e))?;
        let hold = |b: &BufferSlice<'_>| ShardRange {
            buffer: b.name.into(),
            start: b.range.start as u64,
            end: b.range.end as u64,
        };
        Ok(ShardEntry { path: path.to_string(), size, sha256, holds: buffers.iter().map(hold).collect() })
    }

    /// Streams header and values to `path`; returns the size and the SHA-256 of what was sent.
    async fn send(
        &self,
        path: &Path,
        header: &[u8],
        buffers: &[BufferSlice<'_>],
    ) -> object_store::Result<(u64, String)> {
        let size = header.len() + buffers.iter().map(|buffer| 4 * buffer.data.len()).sum::<usize>();
        let mut out = Writer::open(self, path, size as u64).await?;
        out.write(header).await?;
        let mut scratch = vec![0; 4 * CHUNK];
        for values in buffers.iter().flat_map(|buffer| buffer.data.chunks(CHUNK)) {
            let bytes = &mut scratch[..4 * values.len()];
            for (place, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *place = value.to_le_bytes();
            }
            out.write(bytes).await?;
        }
        out.finish().await
    }
}

/// An object being written in parts. If dropped before it is finished, it aborts the upload on the store; a process
/// that dies before that leaves the parts to the bucket's lifecycle rule.
pub(crate) struct Writer<'a> {
    bucket: &'a Bucket,
    path: &'a Path,
    /// `None` once the object is complete.
    upload: Option<Box<dyn MultipartUpload>>,
    part_bytes: usize,
    part: Vec<u8>,
    in_flight: JoinSet<object_store::Result<()>>,
    hash: Sha256,
    /// Bytes written so far, and in total.
    at: u64,
    size: u64,
}

impl<'a> Writer<'a> {
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
            in_flight: JoinSet::new(),
            hash: Sha256::new(),
            at: 0,
            size,
        })
    }

    /// Appends to the object, and waits while too many parts are in flight.
    pub async fn write(&mut self, mut bytes: &[u8]) -> object_store::Result<()> {
        self.hash.update(bytes);
        while !bytes.is_empty() {
            if self.part.is_empty() {
                self.part.reserve_exact(self.part_bytes.min((self.size - self.at) as usize));
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.part_bytes - self.part.len()));
            self.part.extend_from_slice(now);
            self.at += now.len() as u64;
            bytes = later;
            if self.part.len() == self.part_bytes {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Sends the rest and completes the object; returns its size and SHA-256.
    pub async fn finish(mut self) -> object_store::Result<(u64, String)> {
        if !self.part.is_empty() {
            self.send_part().await?;
        }
        self.land(0).await?;
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
        Ok((self.at, hex(&mem::take(&mut self.hash).finalize())))
    }

    async fn send_part(&mut self) -> object_store::Result<()> {
        self.land(self.bucket.options.concurrency - 1).await?;
        if let Some(upload) = &mut self.upload {
            self.in_flight.spawn(upload.put_part(mem::take(&mut self.part).into()));
        }
        Ok(())
    }

    /// Waits until at most `limit` parts are in flight.
    async fn land(&mut self, limit: usize) -> object_store::Result<()> {
        while self.in_flight.len() > limit {
            match self.in_flight.join_next().await {
                Some(part) => part.unwrap_or_else(|e| resume_unwind(e.into_panic()))?,
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
