//! Checkpoints on object stores: shards, manifests, discovery and retention.
