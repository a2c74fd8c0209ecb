//! Classifier guidance: the shift of the mean and of eps by their formulas, and where guided samples end up.

use ddpm_diffusion::{
    BetaSchedule, ClassGradient, Clip, Ddim, Diffusion, DiffusionSpec, Direction, Loss, ModelError, Prediction,
    SampleOptions, Sampler, Stream, Variance, Weighting, betas, noise_batch,
};
use tch::{Device, Kind, Tensor};

fn process(timesteps: usize, prediction: Prediction, variance: Variance) -> Diffusion {
    let settings = DiffusionSpec { prediction, variance, loss: Loss::Vlb, weighting: Weighting::None };
    Diffusion::new(betas(&BetaSchedule::linear(timesteps), timesteps).unwrap(), settings, Device::Cpu).unwrap()
}

fn noise(seed: u64, batch: u64, shape: &[i64]) -> Tensor {
    let positions: Vec<u64> = (0..batch).collect();
    noise_batch(seed, Stream::Noise, &positions, shape).to_kind(Kind::Double)
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// A logistic classifier log p(y | x) = log sigmoid(<w, x> + 1): its gradient by autograd, and by hand.
fn logistic(x: &Tensor, w: &Tensor) -> [Tensor; 2] {
    let leaf = x.detach().set_requires_grad(true);
    let score = (&leaf * w).flatten(1, -1).sum_dim_intlist(1, false, None) + 1.0;
    let by_autograd = Tensor::run_backward(&[score.log_sigmoid().sum(Kind::Double)], &[&leaf], false, false).remove(0);
    let miss: Tensor = 1.0 - score.detach().sigmoid();
    [by_autograd, miss.view([-1, 1, 1, 1]) * w]
}

#[test]
fn the_mean_moves_by_variance_times_gradient() {
    let (x, w) = (noise(1, 3, &[1, 2, 2]), noise(2, 1, &[1, 2, 2]));
    let [gradient, by_hand] = logistic(&x, &w);
    assert!(distance(&gradient, &by_hand) < 1e-12);
    let t = Tensor::from_slice(&[0i64, 5, 49]);
    let kinds = [(Variance::FixedSmall, 1), (Variance::FixedLarge, 1), (Variance::LearnedRange, 2)];
    for (variance, channels) in kinds {
        let process = process(50, Prediction::Eps, variance);
        let output = noise(3, 3, &[channels, 2, 2]) * 0.3;
        let posterior = process.p_mean_variance(&output, &x, &t, Clip::None).unwrap();
        let scale = 2.5;
        let guided = process.p_sample(&output, &x, &t, Clip::None, None, Some(&(&gradient * scale))).unwrap();
        let expected = &posterior.mean + &posterior.variance * by_hand.shallow_clone() * scale;
        assert!(distance(&guided.sample, &expected) < 1e-12, "{variance:?}");
        assert!(distance(&guided.pred_x_start, &posterior.pred_x_start) == 0.0, "{variance:?}");
    }
}

#[test]
fn every_prediction_moves_by_the_same_eps() {
    let (x_start, eps, gradient) = (noise(1, 3, &[1, 2, 2]), noise(2, 3, &[1, 2, 2]), noise(3, 3, &[1, 2, 2]));
    let t = Tensor::from_slice(&[0i64, 20, 49]);
    for prediction in [Prediction::Eps, Prediction::XStart, Prediction::V] {
        let process = process(50, prediction, Variance::LearnedRange);
        let x = process.q_sample(&x_start, &t, &eps);
        let variance = noise(4, 3, &[1, 2, 2]);
        let output = Tensor::cat(&[process.target(prediction, &x_start, &eps, &t), variance.shallow_clone()], 1);
        let guided = process.guide_by_classifier(&output, &gradient, &t).unwrap();
        assert!(distance(&guided.narrow(1, 1, 1), &variance) == 0.0, "the variance is left alone");
        let found = process.eps_from(prediction, &guided.narrow(1, 0, 1), &x, &t);
        let abar = Tensor::from_slice(&process.alphas_cumprod).index_select(0, &t).view([-1, 1, 1, 1]);
        let one_minus: Tensor = 1.0 - abar;
        assert!(distance(&found, &(&eps - one_minus.sqrt() * &gradient)) < 1e-9, "{prediction:?}");
    }
}

/// Data are normal with mean 0 and this standard deviation.
const SPREAD: f64 = 0.5;

/// Data weighted by exp(w x_0) are normal with mean w SPREAD²: so far must guidance by log p(y | x_0) = w x_0 + const
/// carry the samples, whose noisy gradient is w d E[x_0 | x_t] / d x_t.
#[test]
fn a_linear_classifier_shifts_gaussian_samples_by_bayes_rule() {
    let process = process(1000, Prediction::Eps, Variance::FixedSmall);
    let abar = Tensor::from_slice(&process.alphas_cumprod);
    let at = |t: &Tensor| abar.index_select(0, t).view([-1, 1, 1, 1]);
    let total = |abar: &Tensor| abar * (SPREAD * SPREAD - 1.0) + 1.0;
    let model = |x: &Tensor, t: &Tensor| -> Result<Tensor, ModelError> {
        let one_minus: Tensor = 1.0 - at(t);
        Ok(x * one_minus.sqrt() / total(&at(t)))
    };
    let w = 1.5;
    let gradient = |x: &Tensor, t: &Tensor| -> Result<Tensor, ModelError> {
        Ok((at(t).sqrt() * (w * SPREAD * SPREAD) / total(&at(t))).expand_as(x))
    };
    let indices: Vec<u64> = (0..4).collect();
    let ddim = Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromModel });
    for sampler in [Sampler::Ancestral, ddim, Sampler::DpmSolver] {
        let draw = |classifier| {
            let options =
                SampleOptions { sampler, corrector: None, clip: Clip::None, seed: 7, indices: &indices, classifier };
            process.sample(&options, noise(5, 4, &[1, 4, 4]), model, |_| ()).unwrap()
        };
        // From the same noise, so that the shift is not hidden in the spread.
        let moved = draw(Some(ClassGradient(&gradient))) - draw(None);
        let wanted = w * SPREAD * SPREAD;
        let error = distance(&moved, &moved.full_like(wanted)) / wanted;
        assert!(error < 0.05, "{sampler:?} moves the samples by {error} too much or little");
    }
}
