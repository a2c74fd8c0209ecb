//! A file of OpenAI's improved-diffusion or guided-diffusion, and what its user says about it.

use std::path::Path;

use ddpm_config::ModelDescription;
use ddpm_nn::{AttentionOrder, Heads, Network, OpenAiUNet, Weights};
use ddpm_spec::{BetaSchedule, Naming, Prediction, Variance};
use serde::Deserialize;
use tch::Device;

use crate::error::{Error, Remedy};
use crate::unsaid::Unsaid;

/// The noise schedules of that code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseSchedule {
    /// Betas evenly spaced, from 0.1/T to 20/T.
    Linear,
    /// Nichol & Dhariwal (2021, eq. 17).
    Cosine,
}

/// The arguments with which OpenAI's code built a model, as far as its weights do not reveal them. What is `None` was
/// not given; the others have the defaults of that code.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenAiArguments {
    /// Side of the square images.
    pub image_size: Option<usize>,
    /// `num_heads` or `num_head_channels`.
    pub heads: Option<Heads>,
    /// Number of timesteps T.
    pub diffusion_steps: Option<usize>,
    /// The noise schedule.
    pub noise_schedule: Option<NoiseSchedule>,
    /// Whether the network saw timesteps multiplied by 1000/T; of no effect if T is 1000.
    pub rescale_timesteps: Option<bool>,
    /// Whether `qkv` holds all queries first; of no effect for a single head. improved-diffusion never does.
    pub use_new_attention_order: Option<bool>,
    /// Whether the network predicts the image rather than the noise.
    pub predict_xstart: bool,
    /// Whether a variance that is not learned is the smaller one.
    pub sigma_small: bool,
}

/// The arguments, complete.
struct Complete {
    image_size: usize,
    heads: Heads,
    order: AttentionOrder,
    timesteps: usize,
    schedule: NoiseSchedule,
    time_scale: f64,
}

/// Names as in that code.
const NAMING: Naming = Naming(|field| {
    let name = match field {
        "image.height" | "image.width" => "image_size",
        "heads" => "num_heads",
        "head_dim" => "num_head_channels",
        other => other,
    };
    name.into()
});

/// Reads the model in the file `path`.
pub(super) fn open(path: &Path, arguments: &OpenAiArguments) -> Result<(ModelDescription, Network, Weights), Error> {
    let saved = OpenAiUNet::open(path)?;
    let within = |error: Error| error.within(path);
    let Complete { image_size, heads, order, timesteps, schedule, time_scale } = complete(arguments).map_err(within)?;
    let unet = saved.config(image_size, heads, time_scale);
    let channels = [unet.image.channels as i64, unet.out_channels];
    let variance = variance(channels, arguments.sigma_small).map_err(within)?;
    unet.validate(NAMING).map_err(|error| within(error.into()))?;
    let (network, weights) = saved.build(&unet, order, Device::Cpu)?;
    let description = ModelDescription {
        unet,
        prediction: if arguments.predict_xstart { Prediction::XStart } else { Prediction::Eps },
        variance,
        schedule: match schedule {
            NoiseSchedule::Linear => BetaSchedule::linear(timesteps),
            NoiseSchedule::Cosine => BetaSchedule::Cosine,
        },
        timesteps,
    };
    Ok((description, network, weights))
}

/// The arguments, or what is missing.
fn complete(arguments: &OpenAiArguments) -> Result<Complete, Error> {
    let OpenAiArguments { image_size, heads, diffusion_steps, noise_schedule, .. } = arguments;
    // The network saw t * 1000/T, which is t itself if T is 1000.
    let is_same = diffusion_steps.is_none_or(|steps| steps == 1000);
    let rescales = arguments.rescale_timesteps.or(is_same.then_some(false));
    let is_single = heads.is_none_or(|heads| heads == Heads::Number(1));
    let queries_first = arguments.use_new_attention_order.or(is_single.then_some(false));
    let missing: Vec<Unsaid> = [
        (Unsaid::ImageSize, image_size.is_none()),
        (Unsaid::Heads, heads.is_none()),
        (Unsaid::AttentionOrder, queries_first.is_none()),
        (Unsaid::DiffusionSteps, diffusion_steps.is_none()),
        (Unsaid::NoiseSchedule, noise_schedule.is_none()),
        (Unsaid::RescaleTimesteps, rescales.is_none()),
    ]
    .into_iter()
    .filter_map(|(unsaid, is_missing)| is_missing.then_some(unsaid))
    .collect();
    let (Some(image_size), Some(heads), Some(queries_first), Some(timesteps), Some(schedule), Some(rescales)) =
        (*image_size, *heads, queries_first, *diffusion_steps, *noise_schedule, rescales)
    else {
        let reasons: Vec<&str> = missing.iter().map(|unsaid| unsaid.reason()).collect();
        let reasons = match reasons.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => reasons.concat(),
        };
        return Err(Error::config(format!("the weights do not reveal {reasons}")).or(Remedy::Describe(missing)));
    };
    let time_scale = if rescales { 1000.0 / timesteps.max(1) as f64 } else { 1.0 };
    let order = if queries_first { AttentionOrder::HeadsLast } else { AttentionOrder::HeadsFirst };
    Ok(Complete { image_size, heads, order, timesteps, schedule, time_scale })
}

/// The variance of a network that takes and gives these channels.
fn variance([taken, given]: [i64; 2], small: bool) -> Result<Variance, Error> {
    if !matches!(taken, 1 | 3) {
        return Err(Error::config(format!(
            "the network takes {taken} channels, as one that enlarges images; only networks for grey (1) and RGB (3) \
             images can be imported"
        )));
    }
    match (given == taken, given == 2 * taken, small) {
        (true, _, true) => Ok(Variance::FixedSmall),
        (true, _, false) => Ok(Variance::FixedLarge),
        (_, true, false) => Ok(Variance::LearnedRange),
        (_, true, true) => Err(Error::config("the network has learned its variance; leave sigma_small out")),
        _ => Err(Error::config(format!(
            "the network takes {taken} channels and gives {given}; it must give as many, or twice as many with a \
             learned variance"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> OpenAiArguments {
        OpenAiArguments {
            image_size: Some(64),
            heads: Some(Heads::Width(64)),
            diffusion_steps: Some(4000),
            noise_schedule: Some(NoiseSchedule::Cosine),
            rescale_timesteps: Some(true),
            use_new_attention_order: Some(true),
            ..OpenAiArguments::default()
        }
    }

    fn missing(arguments: &OpenAiArguments) -> Vec<Remedy> {
        complete(arguments).err().map_or(Vec::new(), |error| error.remedies().to_vec())
    }

    #[test]
    fn what_is_missing_is_named_if_it_matters() {
        assert_eq!(complete(&all()).ok().map(|complete| complete.time_scale), Some(0.25));
        let unknown = OpenAiArguments { rescale_timesteps: None, ..all() };
        assert_eq!(missing(&unknown), [Remedy::Describe(vec![Unsaid::RescaleTimesteps])]);
        assert_eq!(missing(&OpenAiArguments { diffusion_steps: Some(1000), ..unknown }), []);
        let many = OpenAiArguments { use_new_attention_order: None, ..all() };
        assert_eq!(missing(&many), [Remedy::Describe(vec![Unsaid::AttentionOrder])]);
        assert_eq!(missing(&OpenAiArguments { heads: Some(Heads::Number(1)), ..many }), []);
        let all = vec![Unsaid::ImageSize, Unsaid::Heads, Unsaid::DiffusionSteps, Unsaid::NoiseSchedule];
        assert_eq!(missing(&OpenAiArguments::default()), [Remedy::Describe(all)]);
    }

    #[test]
    fn the_variance_follows_from_the_channels() {
        assert_eq!(variance([3, 6], false).ok(), Some(Variance::LearnedRange));
        assert_eq!(variance([3, 3], false).ok(), Some(Variance::FixedLarge));
        assert_eq!(variance([1, 1], true).ok(), Some(Variance::FixedSmall));
        for (channels, small) in [([3, 6], true), ([3, 4], false), ([6, 6], false), ([6, 3], false)] {
            assert!(variance(channels, small).is_err(), "{channels:?}");
        }
    }
}
