//! The sinusoidal embedding of the timestep.

use tch::{Kind, Tensor};

/// Sinusoids of timesteps `t` (`[B]`, 0-based) as f32 `[B, width]`, `width` even: half sines, half cosines, of
/// frequencies `10000^(-i / (width/2 - freq_shift))` (Vaswani et al. 2017, section 3.5, with the two halves side by
/// side as in Ho et al. 2020). `cos_first` puts the cosines in front, as Nichol & Dhariwal (2021) do.
pub fn sinusoidal_embedding(t: &Tensor, width: i64, cos_first: bool, freq_shift: f64) -> Tensor {
    let half = width / 2;
    let exponent = Tensor::arange(half, (Kind::Float, t.device())) * (-(10000f64.ln()) / (half as f64 - freq_shift));
    let angles = t.to_kind(Kind::Float).unsqueeze(1) * exponent.exp().unsqueeze(0);
    let (sin, cos) = (angles.sin(), angles.cos());
    Tensor::cat(&if cos_first { [cos, sin] } else { [sin, cos] }, 1)
}
