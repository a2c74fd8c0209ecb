//! Failpoints: the steps of the protocol at which a test can kill a process.
//!
//! With the feature `failpoints`, which only tests enable, `DDPM_FAILPOINT=NAME:RANK:N` makes rank RANK kill itself
//! with SIGKILL when it reaches NAME for the N-th time. Without it they compile to nothing.

macro_rules! failpoints {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A step of the protocol, right after which a process may die. `DDPM_FAILPOINT` uses the name of the variant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failpoint { $($(#[$doc])* $name,)* }

        impl Failpoint {
            /// All failpoints, in the order of the protocol.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

failpoints! {
    /// About to write the lease; for a directory, its lock is held.
    LeaseLocked,
    /// The lease has been acquired.
    LeaseAcquired,
    /// The run's identity has been written.
    RunWritten,
    /// A rank knows which checkpoint to resume from.
    ResumeChosen,
    /// A rank has read and verified a shard.
    ShardRead,
    /// A manifest newer than the checkpoint to resume from has been set aside.
    SetAside,
    /// A rank has copied its share of the state.
    SnapshotTaken,
    /// The store has registered a rank's upload.
    UploadBegun,
    /// A part of a shard has been stored.
    PartSent,
    /// All parts have been stored; about to complete the upload (for a directory, to rename the file).
    PartsSent,
    /// The upload is complete.
    UploadCompleted,
    /// Every rank has learned of a rank's shard.
    ShardReported,
    /// The lease has been renewed.
    LeaseRenewed,
    /// About to create the manifest.
    CommitReady,
    /// The manifest has been created.
    ManifestCreated,
    /// Retention is about to choose what to delete.
    RetentionBegun,
    /// The manifest of an old checkpoint has been deleted, its shards have not.
    ManifestDeleted,
    /// One shard of an old checkpoint has been deleted.
    ShardDeleted,
    /// A rank knows that the save has been committed.
    SaveDone,
    /// The lease has been released.
    LeaseReleased,
}

impl Failpoint {
    /// Kills the process here if `DDPM_FAILPOINT` says so.
    #[cfg(feature = "failpoints")]
    pub fn reach(self) {
        use std::{
            env,
            sync::{
                LazyLock,
                atomic::{AtomicU64, Ordering},
            },
        };

        // The rank from Open MPI's launcher: this crate has no notion of ranks.
        static NAMED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
            let asked = env::var("DDPM_FAILPOINT").ok()?;
            let mut words = asked.split(':');
            let (name, rank, nth) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
            let ours = env::var("OMPI_COMM_WORLD_RANK").unwrap_or_else(|_| "0".into());
            (rank == ours).then(|| (name.into(), nth))
        });
        static REACHED: AtomicU64 = AtomicU64::new(0);
        let Some((name, nth)) = &*NAMED else { return };
        if *name == format!("{self:?}") && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *nth {
            let _ = signal_hook::low_level::raise(signal_hook::consts::SIGKILL);
        }
    }

    /// Does nothing: this build has no failpoints.
    #[cfg(not(feature = "failpoints"))]
    #[inline(always)]
    pub fn reach(self) {}
}
