//! Passing over shards without keeping them, to verify or copy them.

use std::{
    panic::resume_unwind,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, path::Path};
use sha2::{Digest, Sha256};
use tokio::spawn;

use crate::{CheckpointError, Manifest, ShardEntry, bucket::Bucket, manifest::hex, pace::FIRST};

impl Bucket {
    /// Checks that every shard exists and has the right size; the cheap half of verification.
    pub async fn check_sizes(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let checks: Vec<_> = manifest.shards.iter().map(|entry| self.check_size(entry)).collect();
        stream::iter(checks).buffered(self.options.concurrency).try_collect().await
    }

    pub async fn check_size(&self, entry: &ShardEntry) -> Result<(), CheckpointError> {
        let path = Path::from(entry.path.as_str());
        match self.objects.head(&path).await {
            Ok(found) if found.size == entry.size => Ok(()),
            Ok(found) => Err(self.damaged(&path, format!("it has {} bytes instead of {}", found.size, entry.size))),
            Err(object_store::Error::NotFound { .. }) => Err(self
                .damaged(&path, "it is missing (ranks on several machines need a store that all of them can access)")),
            Err(e) => Err(self.failed("read", &path, e)),
        }
    }

    /// Reads a shard block by block in order, with a few blocks in memory, and checks its size and SHA-256. The data
    /// passed to `each` can be trusted only if this succeeds.
    pub async fn scan(
        &self,
        entry: &ShardEntry,
        mut each: impl AsyncFnMut(Bytes) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        self.check_size(entry).await?;
        let path = Path::from(entry.path.as_str());
        let block = self.options.part_bytes;
        // By tasks of their own, which go on while a block is hashed.
        let fetch = |start: u64| {
            let (objects, path, end) = (Arc::clone(&self.objects), path.clone(), entry.size.min(start + block as u64));
            spawn(async move { objects.get_range(&path, start..end).await })
        };
        let at_once = self.options.concurrency.min(FIRST);
        let mut blocks = stream::iter((0..entry.size).step_by(block)).map(fetch).buffered(at_once);
        let mut hash = Sha256::new();
        while let Some(block) = blocks.next().await {
            let block = block.unwrap_or_else(|e| resume_unwind(e.into_panic()));
            let block = block.map_err(|e| self.failed("read", &path, e))?;
            hash.update(&block);
            self.read.fetch_add(block.len() as u64, Ordering::Relaxed);
            each(block).await?;
        }
        match hex(&hash.finalize()) == entry.sha256 {
            true => Ok(()),
            false => Err(self.damaged(&path, "its SHA-256 differs from the one in the manifest")),
        }
    }
}
