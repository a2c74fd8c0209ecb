//! Work that runs in the background while the caller trains.

use std::{panic::resume_unwind, sync::Arc};

use tokio::{runtime::Runtime, task::JoinHandle};

use crate::CheckpointError;

/// A task running on the store's own threads. Dropping it cancels the task at its next await point: an upload is
/// aborted on the store; whether a cancelled commit took effect is unknown until the next resume checks.
#[derive(Debug)]
#[must_use = "dropping it cancels the task"]
pub struct Pending<T> {
    /// `None` once the result has been returned.
    task: Option<JoinHandle<Result<T, CheckpointError>>>,
    /// Keeps the threads alive even if the store is dropped.
    runtime: Arc<Runtime>,
}

impl<T: Send + 'static> Pending<T> {
    pub(crate) fn spawn(
        runtime: &Arc<Runtime>,
        work: impl Future<Output = Result<T, CheckpointError>> + Send + 'static,
    ) -> Self {
        Self { task: Some(runtime.spawn(work)), runtime: Arc::clone(runtime) }
    }

    /// The result if the task has finished, without blocking; it is returned only once. `None` while the task is
    /// running, and after the result has been returned.
    ///
    /// # Errors
    /// Those of the task.
    pub fn poll(&mut self) -> Option<Result<T, CheckpointError>> {
        let task = self.task.take_if(|task| task.is_finished())?;
        Some(self.runtime.block_on(task).unwrap_or_else(|e| resume_unwind(e.into_panic())))
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
