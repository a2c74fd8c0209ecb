//! `scheduler_config.json`: a scheduler of diffusers that runs a model's own process.

use ddpm_diffusion::{BetaSchedule, Diffusion, Prediction, Variance, betas};
use serde_json::{Value, json};

use super::contents::DIFFUSERS_VERSION;
use crate::error::{Error, Remedy};
use crate::model::Model;

/// The arguments of `DDPMScheduler`. With all timesteps it samples as ancestral sampling does here.
pub(super) fn ddpm(model: &Model) -> Result<Value, Error> {
    let variance = match model.diffusion.spec().variance {
        Variance::FixedSmall => "fixed_small",
        Variance::FixedLarge => "fixed_large",
        Variance::LearnedRange => "learned_range",
    };
    config(model, "DDPMScheduler", json!({ "variance_type": variance }))
}

/// The arguments of `DDIMScheduler`, which leads to x_0 itself as DDIM does here.
pub(super) fn ddim(model: &Model) -> Result<Value, Error> {
    config(model, "DDIMScheduler", json!({ "set_alpha_to_one": true }))
}

/// The arguments that all schedulers have, and `own` ones of this class.
fn config(model: &Model, class: &str, own: Value) -> Result<Value, Error> {
    let process = &model.diffusion;
    check_single_precision(process)?;
    let (schedule, rescaled) = match &model.schedule {
        BetaSchedule::ZeroTerminalSnr(schedule) => (schedule.as_ref(), true),
        schedule => (schedule, false),
    };
    // Where the ends have no effect, they are diffusers' defaults.
    let unused = [0.0001, 0.02];
    let (name, [start, end], list) = match schedule {
        BetaSchedule::Linear { start, end } => ("linear", [*start, *end], None),
        BetaSchedule::Quadratic { start, end } => ("scaled_linear", [*start, *end], None),
        BetaSchedule::Cosine => ("squaredcos_cap_v2", unused, None),
        BetaSchedule::Constant(beta) => ("linear", [*beta, *beta], None),
        // `sigmoid` is known to DDPMScheduler only, which other schedulers are often made from.
        BetaSchedule::Sigmoid { .. } | BetaSchedule::List(_) | BetaSchedule::ZeroTerminalSnr(_) => {
            ("linear", unused, Some(betas(schedule, process.timesteps())?))
        }
    };
    let prediction = match process.spec().prediction {
        Prediction::Eps => "epsilon",
        Prediction::XStart => "sample",
        Prediction::V => "v_prediction",
    };
    let mut config = json!({
        "_class_name": class,
        "_diffusers_version": DIFFUSERS_VERSION,
        "beta_end": end,
        "beta_schedule": name,
        "beta_start": start,
        "clip_sample": model.clips,
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": process.timesteps(),
        "prediction_type": prediction,
        "rescale_betas_zero_snr": rescaled,
        "sample_max_value": 1.0,
        "steps_offset": 0,
        "thresholding": false,
        "timestep_spacing": if rescaled { "trailing" } else { "leading" },
        "trained_betas": list,
    });
    if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
        config.extend(own);
    }
    Ok(config)
}

/// Refuses a process that diffusers, which computes schedules in f32, would divide by zero on. An exact 0 at the last
/// timestep is none of these: there it divides by nothing unless eps is predicted.
fn check_single_precision(process: &Diffusion) -> Result<(), Error> {
    let mut product = 1f32;
    for (t, beta) in process.betas.iter().enumerate() {
        product *= 1.0 - *beta as f32;
        let exact = process.alphas_cumprod[t];
        if exact > 0.0 && !(f32::MIN_POSITIVE..1.0).contains(&product) {
            return Err(Error::config(format!(
                "diffusers computes alphas_cumprod in f32, where the {exact:e} of t = {t} becomes {product:e} and \
                 sampling divides by zero; train with betas that are further from 0 and 1"
            ))
            .or(Remedy::ExportTensors));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ddpm_diffusion::{DiffusionSpec, Loss, Weighting};
    use tch::Device;

    use super::*;

    fn process(schedule: &BetaSchedule, timesteps: usize) -> Diffusion {
        let spec = DiffusionSpec {
            prediction: Prediction::Eps,
            variance: Variance::FixedSmall,
            loss: Loss::Simple,
            weighting: Weighting::None,
        };
        Diffusion::new(betas(schedule, timesteps).unwrap(), spec, Device::Cpu).unwrap()
    }

    #[test]
    fn schedules_that_single_precision_cannot_represent() {
        for timesteps in [2, 100, 1000, 4000, 100_000] {
            check_single_precision(&process(&BetaSchedule::Cosine, timesteps)).unwrap();
            check_single_precision(&process(&BetaSchedule::linear(timesteps.max(100)), timesteps.max(100))).unwrap();
        }
        let first = check_single_precision(&process(&BetaSchedule::Constant(1e-9), 10)).unwrap_err();
        assert!(first.to_string().contains("of t = 0 becomes 1e0 "), "{first}");
        let last = check_single_precision(&process(&BetaSchedule::Constant(0.999), 20)).unwrap_err();
        assert!(last.to_string().contains("of t = 12 becomes "), "{last}");
    }
}
