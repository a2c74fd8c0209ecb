//! Work that goes on in the background while the caller trains.

use std::{panic::resume_unwind, sync::Arc};

use tokio::{runtime::Runtime, task::JoinHandle};

use crate::CheckpointError;

/// Work under way on the store's own threads. Dropping it ends the work at its next step: an upload is aborted on the
/// store; whether an abandoned commit took place is open until the next resume looks.
#[derive(Debug)]
#[must_use = "dropping it ends the work"]
pub struct Pending<T> {
    /// `None` once the result was handed out.
    task: Option<JoinHandle<Result<T, CheckpointError>>>,
    /// Keeps the threads alive, whatever becomes of the store.
    runtime: Arc<Runtime>,
}

impl<T: Send + 'static> Pending<T> {
    pub(crate) fn spawn(
        runtime: &Arc<Runtime>,
        work: impl Future<Output = Result<T, CheckpointError>> + Send + 'static,
    ) -> Self {
        Self { task: Some(runtime.spawn(work)), runtime: Arc::clone(runtime) }
    }

    /// The result if the work has ended, at once and once; `None` while it goes on, and ever after the result.
    ///
    /// # Errors
    /// Those of the work.
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
