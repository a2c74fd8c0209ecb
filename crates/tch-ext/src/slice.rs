//! A tensor's memory as a slice.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use tch::{Kind, TchError, Tensor};

/// Passes the memory of a contiguous tensor of `T`, f32 or u8, on the CPU to `body`, to be reduced or filled in place.
///
/// `body` must not access the tensor or its views in any other way.
///
/// # Errors
/// If the tensor is not of `T`, not on the CPU, not contiguous, or shares memory with one that is already borrowed.
pub fn with_slice_mut<T: Lent, R>(tensor: &mut Tensor, body: impl FnOnce(&mut [T]) -> R) -> Result<R, TchError> {
    contiguous(tensor, T::KIND, "the CPU", |device| device == tch::Device::Cpu)?;
    let len = tensor.numel();
    if len == 0 {
        return Ok(body(&mut []));
    }
    let first = tensor.data_ptr().cast::<T>();
    let loan = Loan::of(first as usize..first as usize + len * size_of::<T>())?;
    // SAFETY: the tensor is contiguous, so its storage holds `len` values from data_ptr on, and any bits are a value;
    // it lives as long as the borrow; and the loan is the only one of this memory, so no other slice overlaps it.
    let values = unsafe { std::slice::from_raw_parts_mut(first, len) };
    let result = body(values);
    drop(loan);
    Ok(result)
}

/// The same for f32, which the gradients are in.
///
/// # Errors
/// Those of [`with_slice_mut`].
pub fn with_f32_mut<R>(tensor: &mut Tensor, body: impl FnOnce(&mut [f32]) -> R) -> Result<R, TchError> {
    with_slice_mut(tensor, body)
}

/// The same for several tensors at once, in their order.
///
/// # Errors
/// Those of [`with_slice_mut`], which apply if two of the tensors share memory.
pub fn with_f32_slices<R>(tensors: &mut [Tensor], body: impl FnOnce(Vec<&mut [f32]>) -> R) -> Result<R, TchError> {
    lend_all(tensors, Vec::new(), body)
}

fn lend_all<R, B: FnOnce(Vec<&mut [f32]>) -> R>(
    tensors: &mut [Tensor],
    lent: Vec<&mut [f32]>,
    body: B,
) -> Result<R, TchError> {
    let Some((first, others)) = tensors.split_first_mut() else { return Ok(body(lent)) };
    with_f32_mut(first, |values| {
        let mut lent: Vec<&mut [f32]> = lent;
        lent.push(values);
        lend_all(others, lent, body)
    })?
}

/// A type whose tensors are lent as slices.
pub trait Lent: sealed::Sealed {
    /// The kind of such tensors.
    const KIND: Kind;
}

impl Lent for f32 {
    const KIND: Kind = Kind::Float;
}

impl Lent for u8 {
    const KIND: Kind = Kind::Uint8;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u8 {}
}

/// Refuses a tensor that is not contiguous, of `wanted` kind, and on `place`.
pub(crate) fn contiguous(
    tensor: &Tensor,
    wanted: Kind,
    place: &str,
    there: impl Fn(tch::Device) -> bool,
) -> Result<(), TchError> {
    let (kind, device) = (tensor.kind(), tensor.device());
    if kind == wanted && there(device) && tensor.is_contiguous() {
        return Ok(());
    }
    Err(TchError::Kind(format!("a contiguous {wanted:?} tensor on {place} is required, not {kind:?} on {device:?}")))
}

/// Memory that is borrowed as a slice: two tensors may share memory, two slices must not.
struct Loan(Range<usize>);

static LOANS: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

impl Loan {
    fn of(memory: Range<usize>) -> Result<Self, TchError> {
        let mut loans = LOANS.lock().unwrap_or_else(PoisonError::into_inner);
        if loans.iter().any(|other| other.start < memory.end && memory.start < other.end) {
            return Err(TchError::Kind("the tensor's memory is already borrowed".into()));
        }
        loans.push(memory.clone());
        Ok(Self(memory))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        LOANS.lock().unwrap_or_else(PoisonError::into_inner).retain(|memory| *memory != self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_lent_in_place_and_only_if_contiguous() {
        let mut flat = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]);
        with_f32_mut(&mut flat.narrow(0, 1, 2), |v| v.iter_mut().for_each(|v| *v *= 10.0)).unwrap();
        assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), [1.0, 20.0, 30.0, 4.0]);
        let mut view = flat.narrow(0, 2, 2);
        let twice = with_f32_mut(&mut flat, |_| with_f32_mut(&mut view, |_| ()).is_err());
        assert!(twice.unwrap(), "memory was borrowed twice");
        let mut halves = [flat.narrow(0, 2, 2), flat.narrow(0, 0, 0), flat.narrow(0, 0, 2)];
        with_f32_slices(&mut halves, |halves| {
            let [to, _, from] = halves.try_into().unwrap();
            to.copy_from_slice(from);
        })
        .unwrap();
        assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), [1.0, 20.0, 1.0, 20.0]);
        assert!(with_f32_slices(&mut [flat.narrow(0, 0, 3), flat.narrow(0, 2, 1)], |_| ()).is_err());
        assert!(with_f32_mut(&mut flat.view([2, 2]).transpose(0, 1), |_| ()).is_err());
        assert!(with_f32_mut(&mut flat.to_kind(Kind::Double), |_| ()).is_err());
    }
}
