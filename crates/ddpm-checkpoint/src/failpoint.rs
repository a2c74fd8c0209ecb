//! Failpoints: the steps of the protocol at which a test may have a process killed.
//!
//! Built with the feature `failpoints`, which only tests switch on, `DDPM_FAILPOINT=NAME:RANK:N` makes rank RANK kill
//! itself with SIGKILL when it comes to NAME for the N-th time. Built without it, nothing is left of them.

macro_rules! failpoints {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A step of the protocol, right after which a process may die. The name in `DDPM_FAILPOINT` is the variant's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failpoint { $($(#[$doc])* $name,)* }

        impl Failpoint {
            /// All there are, in the order of the protocol.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

failpoints! {
    /// The next thing is to write the lease; for a directory, its lock is held.
    LeaseLocked,
    /// The lease is taken.
    LeaseAcquired,
    /// The run's identity is written.
    RunWritten,
    /// A rank knows which checkpoint to go on from.
    ResumeChosen,
    /// A rank has read and verified a shard.
    ShardRead,
    /// A manifest newer than the checkpoint to go on from is set aside.
    SetAside,
    /// A rank has copied its share of the state.
    SnapshotTaken,
    /// The store knows of a rank's upload.
    UploadBegun,
    /// A part of a shard is on the store.
    PartSent,
    /// All parts are there; the next thing is to complete the upload (for a directory, to rename the file).
    PartsSent,
    /// The upload is complete.
    UploadCompleted,
    /// Every rank has been told of a rank's shard.
    ShardReported,
    /// The lease is renewed.
    LeaseRenewed,
    /// All is ready; the next thing is to create the manifest.
    CommitReady,
    /// The manifest is there.
    ManifestCreated,
    /// Retention is about to choose what it deletes.
    RetentionBegun,
    /// The manifest of an old checkpoint is deleted, its shards are not.
    ManifestDeleted,
    /// One shard of an old checkpoint is deleted.
    ShardDeleted,
    /// A rank knows that the save is committed.
    SaveDone,
    /// The lease is given back.
    LeaseReleased,
}

impl Failpoint {
    /// Whether every rank comes here, or rank 0 alone.
    pub fn on_every_rank(self) -> bool {
        use Failpoint::*;
        matches!(
            self,
            ResumeChosen
                | ShardRead
                | SnapshotTaken
                | UploadBegun
                | PartSent
                | PartsSent
                | UploadCompleted
                | ShardReported
                | SaveDone
        )
    }

    /// Dies here, if `DDPM_FAILPOINT` says so.
    #[cfg(feature = "failpoints")]
    pub fn reach(self) {
        use std::{
            env,
            sync::{
                LazyLock,
                atomic::{AtomicU64, Ordering},
            },
        };

        // The rank as Open MPI's launcher tells it: this crate knows of none.
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

    /// Nothing: this build has no failpoints.
    #[cfg(not(feature = "failpoints"))]
    #[inline(always)]
    pub fn reach(self) {}
}
