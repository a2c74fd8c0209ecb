//! Work that may fail, because there is another way to do it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::TchError;

thread_local!(static ATTEMPTING: Cell<bool> = const { Cell::new(false) });

/// Whether this thread runs an [`attempt`]. Where an error of CUDA or a panic would end the process, it should not then.
pub fn is_attempt() -> bool {
    ATTEMPTING.get()
}

/// Runs `work`; a panic in it, by which operators of tensors fail, is an error.
///
/// # Errors
/// `work` fails or panics.
pub fn attempt<T, E: From<TchError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = ATTEMPTING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast::<String>().map_or_else(|_| "a panic".into(), |text| *text);
        // The lines of an error that was unwrapped are in one.
        let first = said.split("\\n").next().unwrap_or_default();
        Err(TchError::Torch(first.into()).into())
    });
    ATTEMPTING.set(before);
    outcome
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let three = Tensor::from_slice(&[1, 2, 3]);
        let tried = |work: &dyn Fn() -> Tensor| {
            let outcome = attempt(|| {
                assert!(is_attempt());
                Ok::<_, TchError>(work())
            });
            assert!(!is_attempt());
            outcome.map_err(|error| error.to_string())
        };
        assert_eq!(tried(&|| &three + 1).unwrap(), Tensor::from_slice(&[2, 3, 4]));
        let operator = tried(&|| &three + Tensor::from_slice(&[1, 2])).unwrap_err();
        assert!(operator.ends_with("must match the size of tensor b (2) at non-singleton dimension 0"), "{operator}");
        assert!(tried(&|| panic!("no")).unwrap_err().ends_with("a panic"));
    }

    #[test]
    fn attempts_nest() {
        let outer = attempt(|| {
            attempt(|| Ok::<_, TchError>(()))?;
            Ok::<_, TchError>(is_attempt())
        });
        assert!(outer.unwrap() && !is_attempt());
    }
}
