//! Starting a network from the weights of a trained model, tensor by tensor.

use std::fmt;

use ddpm_comm::{Collective, agree};
use ddpm_config::{ModelSettings, Settings};
use ddpm_nn::{Layout, LayoutEntry, Network, Weights};
use tch::{Device, TchError};

use crate::error::{Error, Failure, Remedy};
use crate::learner::Learner;
use crate::model::Model;
use crate::weights::WeightChoice;

/// Keys of `[model]` that may differ from the trained model's: dropout and checkpointing have no weights, and the table
/// of classes is compared as a tensor.
const FREE: [&str; 3] = ["model.classes", "model.dropout", "model.checkpoint_activations"];

/// The weights that a run starts from at step 0: random ones, or with `train.init_from` those of that model, all ranks
/// together. A tensor that does not fit the model's is refused, or with `train.init_skip_mismatched` drawn at random,
/// with a warning that names it.
///
/// # Errors
/// The model cannot be opened, or its network computes something else than `network`.
pub fn initial_weights(
    comm: &dyn Collective,
    settings: &Settings,
    network: &Network,
    device: Device,
) -> Result<Weights, Failure> {
    let drawn = Weights::initialise(network.layout(), settings.seed, device).map_err(Error::from);
    let weights = agree::unanimous(comm, drawn)?;
    let Some(source) = &settings.train.init_from else { return Ok(weights) };
    let model = Model::open_as(Learner::of(settings), comm, source, WeightChoice::SlowestAverage, Device::Cpu)?;
    let fitted = fit(settings, &model, network, &weights);
    let mismatches = agree::unanimous(comm, fitted)?;
    if comm.rank() == 0 {
        tracing::info!("starting from the weights of {}", model.description);
        warn_of_another_process(settings, &model);
        for mismatch in &mismatches {
            tracing::warn!("not taken from {source}: {mismatch}");
        }
    }
    Ok(weights)
}

/// Copies what fits from `model` to `weights`; returns what does not.
fn fit(settings: &Settings, model: &Model, network: &Network, weights: &Weights) -> Result<Vec<Mismatch>, Error> {
    check_same_network(settings, &model.network_settings, &model.description)?;
    let mismatches = mismatches(model.network.layout(), network.layout());
    if let (Some(first), false) = (mismatches.first(), settings.train.init_skip_mismatched) {
        let more = match mismatches.len() - 1 {
            0 => String::new(),
            more => {
                let names: Vec<&str> = mismatches[1..].iter().map(|mismatch| mismatch.name.as_str()).collect();
                format!(", nor {} ({more} more)", names.join(", "))
            }
        };
        let message = format!("the weights of {} do not fit this run: {first}{more}", model.description);
        return Err(Error::config(message)
            .or(Remedy::Do(
                "set model.classes, diffusion.label_dropout, diffusion.variance and data.channels to that model's"
                    .into(),
            ))
            .or(Remedy::SkipMismatched));
    }
    copy(model, network.layout(), weights)?;
    Ok(mismatches)
}

/// Refuses a network that differs from the trained model's in more than single tensors.
fn check_same_network(settings: &Settings, theirs: &ModelSettings, model: &str) -> Result<(), Error> {
    let theirs = Settings { model: theirs.clone(), ..settings.clone() };
    let differences = settings.diff(&theirs).into_iter().filter(|d| !FREE.contains(&d.key.as_str()));
    let (described, keys): (Vec<String>, Vec<_>) = differences
        .map(|d| {
            // 0 stands for a key that is not set.
            let value = if d.theirs == "null" { "0".into() } else { d.theirs };
            (format!("{} ({value} there, {} here)", d.key, d.ours), (d.key, value))
        })
        .unzip();
    if keys.is_empty() {
        return Ok(());
    }
    let message = format!("{model} has another network than this run: {}", described.join(", "));
    Err(Error::config(message).or(Remedy::Set(keys)))
}

/// A tensor that the two networks do not share.
#[derive(Debug, PartialEq)]
struct Mismatch {
    name: String,
    /// Its shape in the trained model, if it is there.
    theirs: Option<Vec<i64>>,
    /// Its shape in the new network, if it is there.
    ours: Option<Vec<i64>>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, theirs, ours } = self;
        match (theirs, ours) {
            (Some(theirs), Some(ours)) => write!(f, "{name} is {theirs:?} there and {ours:?} here"),
            (Some(theirs), None) => write!(f, "{name} is {theirs:?} there and does not exist here"),
            (None, _) => write!(f, "{name} does not exist there"),
        }
    }
}

fn find<'a>(layout: &'a Layout, name: &str) -> Option<&'a LayoutEntry> {
    layout.entries().iter().find(|entry| entry.name == name)
}

/// The tensors that the networks do not share: those of ours in their order, then those that only theirs has.
fn mismatches(theirs: &Layout, ours: &Layout) -> Vec<Mismatch> {
    let shape = |layout, name: &str| find(layout, name).map(|entry| entry.shape.clone());
    let lacking = theirs.entries().iter().filter(|entry| find(ours, &entry.name).is_none());
    let all = ours.entries().iter().chain(lacking).map(|entry| Mismatch {
        theirs: shape(theirs, &entry.name),
        ours: shape(ours, &entry.name),
        name: entry.name.clone(),
    });
    all.filter(|mismatch| mismatch.theirs != mismatch.ours).collect()
}

/// Copies the tensors that both networks have, in the same shape.
fn copy(model: &Model, layout: &Layout, weights: &Weights) -> Result<(), TchError> {
    tch::no_grad(|| {
        for entry in layout.entries() {
            let Some(theirs) = find(model.network.layout(), &entry.name) else { continue };
            if theirs.shape == entry.shape {
                let values = model.weights.flat().f_narrow(0, theirs.offset, theirs.len())?;
                weights.flat().f_narrow(0, entry.offset, entry.len())?.f_copy_(&values)?;
            }
        }
        Ok(())
    })
}

/// Warns if the network has learned to predict something else, or at other timesteps: it has to learn that anew.
fn warn_of_another_process(settings: &Settings, model: &Model) {
    let (theirs, ours) = (model.diffusion.spec().prediction, settings.diffusion.predict);
    if theirs != ours {
        tracing::warn!("{} predicts {theirs:?}, and this run {ours:?}", model.description);
    }
    let (theirs, ours) = (model.diffusion.timesteps(), settings.diffusion.timesteps as usize);
    if theirs != ours {
        tracing::warn!("{} has {theirs} timesteps, and this run {ours}", model.description);
    } else if model.schedule != settings.diffusion.beta_schedule() {
        tracing::warn!("{} was trained with another noise schedule than this run's", model.description);
    }
    let (theirs, ours) = (model.null_class, settings.null_class());
    if theirs != ours && model.classes.is_some() {
        let row = |row: Option<i64>| row.map_or("no row".into(), |row| format!("row {row}"));
        tracing::warn!(
            "in the class table of {}, {} means \"no class\", and in this run's {}",
            model.description,
            row(theirs),
            row(ours)
        );
    }
}

#[cfg(test)]
mod tests {
    use ddpm_nn::Init;

    use super::*;

    fn layout(tensors: &[(&str, &[i64])]) -> Layout {
        let mut layout = Layout::default();
        for (name, shape) in tensors {
            layout.declare((*name).into(), shape, Init::Zeros);
        }
        layout
    }

    #[test]
    fn tensors_that_do_not_fit_are_named_with_both_shapes() {
        let theirs = layout(&[("conv_in", &[4, 3]), ("classes", &[10, 4]), ("middle", &[4])]);
        let ours = layout(&[("conv_in", &[4, 1]), ("middle", &[4]), ("head", &[2])]);
        let named: Vec<String> = mismatches(&theirs, &ours).iter().map(ToString::to_string).collect();
        assert_eq!(
            named,
            [
                "conv_in is [4, 3] there and [4, 1] here",
                "head does not exist there",
                "classes is [10, 4] there and does not exist here"
            ]
        );
    }
}
