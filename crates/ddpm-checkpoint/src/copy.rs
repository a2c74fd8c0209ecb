//! Copying checkpoints from one store to another.

use object_store::path::Path;

use crate::{CheckpointError, Manifest, Store, bucket::Bucket, manifest::seal, upload::Writer};

impl Store {
    /// Copies the checkpoint of `step` to another store: shards first, the manifest last; then the copy is read back
    /// and fully verified. The data is also verified while it is copied, so a damaged checkpoint is never committed
    /// there. Safe to repeat. Returns the manifest, which is the same in both stores.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Incompatible`, `Store`, each naming the store concerned; `Fenced` if the other store has
    /// a different checkpoint of this step.
    pub fn copy_checkpoint(&self, step: u64, to: &Store) -> Result<Manifest, CheckpointError> {
        self.block_on(copy(&self.bucket, step, &to.bucket))
    }
}

async fn copy(from: &Bucket, step: u64, to: &Bucket) -> Result<Manifest, CheckpointError> {
    let manifest = from.manifest(step).await?;
    for entry in &manifest.shards {
        let path = Path::from(entry.path.as_str());
        let unwritten = |e| to.failed("write", &path, e);
        let mut out = Writer::open(to, &path, entry.size).await.map_err(unwritten)?;
        from.scan(entry, async |block| out.write(block).await.map_err(unwritten)).await?;
        out.finish().await.map_err(unwritten)?;
    }
    to.put_manifest(&manifest, seal(&manifest).into(), None).await?;
    let faults = to.verify(step).await?.faults;
    match faults.is_empty() {
        true => Ok(manifest),
        false => Err(to.damaged(&Path::from(step.to_string()), faults.join("; "))),
    }
}
