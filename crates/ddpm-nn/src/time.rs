//! The sinusoidal embedding of the timestep.

use tch::{Kind, TchError, Tensor};

/// Sinusoids of timesteps `t` (`[B]`, 0-based) as f32 `[B, width]`, `width` even: half sines, half cosines, of
/// frequencies `10000^(-i / (width/2 - freq_shift))` (Vaswani et al. 2017, section 3.5, with the two halves side by
/// side as in Ho et al. 2020). `cos_first` puts the cosines in front, as Nichol & Dhariwal (2021) do.
///
/// # Errors
/// Memory runs out.
pub fn sinusoidal_embedding(t: &Tensor, width: i64, cos_first: bool, freq_shift: f64) -> Result<Tensor, TchError> {
    let half = width / 2;
    let step = -(10000f64.ln()) / (half as f64 - freq_shift);
    let frequencies = Tensor::f_arange(half, (Kind::Float, t.device()))?.f_mul_scalar(step)?.f_exp()?;
    let angles = t.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&frequencies.f_unsqueeze(0)?)?;
    let (sin, cos) = (angles.f_sin()?, angles.f_cos()?);
    Tensor::f_cat(&if cos_first { [cos, sin] } else { [sin, cos] }, 1)
}
