//! Dropout whose mask depends on the run's position, not on a generator's state.

use tch::{Kind, TchError, Tensor};

/// One key per sample of a batch; each layer derives its masks from them, so a sample's masks are the same on any
/// rank, in any micro-batch and after any resume.
#[derive(Debug)]
pub struct DropoutKeys {
    keys: Tensor,
}

// Odd multipliers of a 64-bit finaliser (Steele, Lea, Flood 2014, SplitMix), as signed numbers; libtorch's integer
// products wrap around.
const MIX_1: i64 = 0xbf58_476d_1ce4_e5b9_u64 as i64;
const MIX_2: i64 = 0x94d0_49bb_1331_11eb_u64 as i64;
const STEP: i64 = 0x9e37_79b9_7f4a_7c15_u64 as i64;

fn mix(h: Tensor) -> Result<Tensor, TchError> {
    // `>>` on signed numbers copies the sign bit down: mask it away.
    let mask = |by: i64| (1_i64 << (64 - by)) - 1;
    let folded = |h: &Tensor, by: i64| {
        h.f_bitwise_xor_tensor(&h.f_bitwise_right_shift_tensor_scalar(by)?.f_bitwise_and(mask(by))?)
    };
    let h = folded(&h, 30)?.f_mul_scalar(MIX_1)?;
    let h = folded(&h, 27)?.f_mul_scalar(MIX_2)?;
    folded(&h, 31)
}

impl DropoutKeys {
    /// `keys`: i64 `[B]`, one per sample, drawn by (seed, stream, position).
    pub fn new(keys: Tensor) -> Self {
        Self { keys }
    }

    /// The same keys under another handle.
    pub(crate) fn shallow_clone(&self) -> Self {
        Self { keys: self.keys.shallow_clone() }
    }

    /// `x` (`[B, ...]`) with each element kept with probability `1 - rate` and scaled by its inverse; `layer` distinguishes
    /// the layers of a network.
    pub(crate) fn apply(&self, x: &Tensor, rate: f64, layer: u64) -> Result<Tensor, TchError> {
        let size = x.size();
        let per_sample: i64 = size[1..].iter().product();
        let index = Tensor::f_arange(per_sample, (Kind::Int64, x.device()))?.f_mul_scalar(STEP)?;
        let keys = mix(self.keys.f_add_scalar((layer as i64).wrapping_mul(STEP))?)?.f_unsqueeze(1)?;
        let bits = mix(keys.f_add(&index.f_unsqueeze(0)?)?)?.f_bitwise_and((1 << 24) - 1)?;
        let keep = bits.f_ge((rate * f64::from(1 << 24)) as i64)?;
        x.f_mul(&keep.f_to_kind(x.kind())?.f_div_scalar(1.0 - rate)?.f_view(size.as_slice())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_sample_is_dropped_out_alike_in_any_batch() {
        let ones = Tensor::ones([3, 2, 40, 40], (Kind::Float, Device::Cpu));
        let keys = Tensor::from_slice(&[5i64, -9, i64::MAX]);
        let all = DropoutKeys::new(keys.shallow_clone()).apply(&ones, 0.25, 3).unwrap();
        let last = DropoutKeys::new(keys.narrow(0, 2, 1)).apply(&ones.narrow(0, 2, 1), 0.25, 3).unwrap();
        assert_eq!(all.narrow(0, 2, 1), last);
        let kept = all.gt(0.0).to_kind(Kind::Float).mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
        for share in Vec::<f32>::try_from(kept).unwrap() {
            assert!((share - 0.75).abs() < 0.03, "kept {share}");
        }
        assert!((all.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.03);
    }

    #[test]
    fn layers_and_samples_differ() {
        let ones = Tensor::ones([2, 500], (Kind::Float, Device::Cpu));
        let keys = DropoutKeys::new(Tensor::from_slice(&[1i64, 2]));
        let (a, b) = (keys.apply(&ones, 0.5, 0).unwrap(), keys.apply(&ones, 0.5, 1).unwrap());
        assert_ne!(a, b);
        assert_ne!(a.get(0), a.get(1));
    }
}
