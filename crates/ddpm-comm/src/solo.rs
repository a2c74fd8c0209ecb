//! The world with a single rank, without MPI: every collective is the identity.

use std::sync::atomic::AtomicBool;

use crate::{Bucket, Collective, DeviceSlice, Reduce};

pub(crate) struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _values: &mut [f32], _reduce: Reduce) {}

    fn sum_bucket(&self, _values: &mut [f32], _bucket: Bucket, _computing: &AtomicBool) {}

    fn reaches_gpus(&self) -> bool {
        true
    }

    fn sum_device_bucket(&self, _values: DeviceSlice<'_>, _bucket: Bucket) {}

    fn all_reduce_f64(&self, _values: &mut [f64], _reduce: Reduce) {}

    fn broadcast(&self, _values: &mut [f32], root: usize) {
        check_root(root);
    }

    fn broadcast_bytes(&self, bytes: Vec<u8>, root: usize) -> Vec<u8> {
        check_root(root);
        bytes
    }

    fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        vec![bytes.to_vec()]
    }

    fn gather_bytes_to(&self, bytes: Vec<u8>, root: usize) -> Vec<Vec<u8>> {
        check_root(root);
        vec![bytes]
    }

    fn barrier(&self) {}
}

fn check_root(root: usize) {
    assert!(root == 0, "the root {root} is not a rank of a world with one rank");
}
