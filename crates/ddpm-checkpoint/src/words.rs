//! Values in memory as the bytes of a file, without a copy.

/// Values that are sent from where they are.
pub(crate) struct Words(Vec<f32>);

impl Words {
    pub fn new(mut values: Vec<f32>) -> Self {
        reorder(&mut values);
        Self(values)
    }
}

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The memory of values that are read from a file; [`reorder`] makes values of what was read.
pub(crate) fn bytes_mut(values: &mut [f32]) -> &mut [u8] {
    bytemuck::cast_slice_mut(values)
}

/// Changes between the byte order of the machine and that of the file, which is little-endian. Most machines have the
/// same, and nothing is done.
pub(crate) fn reorder(values: &mut [f32]) {
    if cfg!(target_endian = "big") {
        for value in values {
            *value = f32::from_bits(value.to_bits().swap_bytes());
        }
    }
}
