//! Whether a classifier or a guide has been trained on the images and the noise of the model that it is to guide.

use crate::model::Model;

/// Maximum difference of `alphas_cumprod` at which two processes count as the same.
const SAME_NOISE: f64 = 1e-6;

/// What differs between the images and the noise schedules of a guide and of the model that it guides, if anything does.
pub(crate) fn disagreement(guide: &Model, model: &Model) -> Option<String> {
    let (known, drawn) = (guide.network.image(), model.network.image());
    if known != drawn {
        return Some(format!("it was trained on images of {known}, the model draws {drawn}"));
    }
    let (ours, theirs) = (&guide.diffusion.alphas_cumprod, &model.diffusion.alphas_cumprod);
    if ours.len() != theirs.len() {
        return Some(format!("it has {} timesteps, the model has {}", ours.len(), theirs.len()));
    }
    let t = (0..ours.len()).find(|&t| (ours[t] - theirs[t]).abs() > SAME_NOISE)?;
    Some(format!("at t = {t} it has alphas_cumprod {:.6}, the model has {:.6}", ours[t], theirs[t]))
}
