//! Samplers against data whose best network, and so the exact answer, is known.

mod common;

use common::{SPREAD, gaussian_model, linear, mean_square, noise};
use ddpm_diffusion::{
    Clip, Ddim, Diffusion, Direction, Langevin, NoiseInterval, SampleOptions, Sampler, Spacing, Stream, kept_timesteps,
    noise_batch, space_timesteps,
};
use tch::{Device, Kind, Tensor};

fn sample(process: &Diffusion, original: &Diffusion, sampler: Sampler, x: &Tensor, indices: &[u64]) -> Tensor {
    let options = SampleOptions { sampler, corrector: None, clip: Clip::None, seed: 7, indices, classifier: None };
    process.sample(&options, x.shallow_clone(), gaussian_model(original), |_| ()).unwrap()
}

const DDIM: Sampler = Sampler::Ddim(Ddim { eta: 0.0, direction: Direction::FromXStart(NoiseInterval::ALL) });

#[test]
fn an_image_is_the_same_in_any_batch() {
    let original = linear(100);
    let process = original.respaced(&space_timesteps(100, "10").unwrap()).unwrap();
    let x = noise_batch(7, Stream::Sample, &[0, 1, 2, 3], &[1, 4, 4]);
    let corrector = Some(Langevin { steps: 2, snr: 0.2 });
    let noisy = Sampler::Ddim(Ddim { eta: 0.7, direction: Direction::FromModel });
    for (sampler, corrector) in [(Sampler::Ancestral, corrector), (noisy, None), (Sampler::Heun, corrector)] {
        let draw = |x: &Tensor, indices: &[u64]| {
            let options =
                SampleOptions { sampler, corrector, clip: Clip::Dynamic(0.9), seed: 7, indices, classifier: None };
            process.sample(&options, x.shallow_clone(), gaussian_model(&original), |_| ()).unwrap()
        };
        let all = draw(&x, &[0, 1, 2, 3]);
        assert_eq!(all.narrow(0, 2, 2), draw(&x.narrow(0, 2, 2), &[2, 3]));
    }
}

#[test]
fn ancestral_samples_have_the_spread_of_the_data() {
    let process = linear(200);
    let x = noise_batch(7, Stream::Sample, &[0, 1, 2, 3], &[1, 40, 40]).to_kind(Kind::Double);
    let samples = sample(&process, &process, Sampler::Ancestral, &x, &[0, 1, 2, 3]);
    let ratio = mean_square(&samples) / (SPREAD * SPREAD);
    assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
}

#[test]
fn deterministic_samplers_follow_the_ode() {
    // For Gaussian data the ODE only rescales: x_0 = x_T SPREAD / sqrt(variance of x_T).
    let original = linear(1000);
    let abar = original.terminal_signal();
    let exact = SPREAD / (abar * SPREAD * SPREAD + 1.0 - abar).sqrt();
    let x = noise(1, 1, &[1, 8, 8]);
    let error = |spec: &str, sampler| {
        let process = original.respaced(&space_timesteps(1000, spec).unwrap()).unwrap();
        let found = sample(&process, &original, sampler, &x, &[0]);
        (mean_square(&(found - &x * exact)) / mean_square(&(&x * exact))).sqrt()
    };
    assert!(error("1000", DDIM) < 0.02);
    let (first, second) = (error("20", DDIM), error("20", Sampler::DpmSolver));
    assert!(second < first / 2.5, "first order {first}, second order {second}");
    let finer = error("80", Sampler::DpmSolver);
    assert!(finer < second / 4.0, "20 steps {second}, 80 steps {finer}");
    // Halving the steps' length quarters the error; in 39 evaluations it is smaller than DDIM's in 40 by far.
    let heun = ["20", "40", "80"].map(|spec| error(spec, Sampler::Heun));
    for pair in heun.windows(2) {
        assert!((3.5..5.5).contains(&(pair[0] / pair[1])), "not of second order: {heun:?}");
    }
    assert!(heun[0] < error("40", DDIM) / 3.0, "{heun:?}");
}

#[test]
fn encoding_is_undone_by_sampling() {
    let original = linear(1000);
    let x = noise(1, 2, &[1, 8, 8]) * SPREAD;
    let error = |steps: &str| {
        let process = original.respaced(&space_timesteps(1000, steps).unwrap()).unwrap();
        let latent = process.encode(&x, gaussian_model(&original)).unwrap();
        assert!((mean_square(&latent) - 1.0).abs() < 0.3);
        let back = sample(&process, &original, DDIM, &latent, &[0, 1]);
        (mean_square(&(back - &x)) / mean_square(&x)).sqrt()
    };
    // The steps up err with the square of their length against the steps down.
    let (coarse, fine) = (error("50"), error("100"));
    assert!(fine < coarse / 3.0 && fine < 0.02, "50 steps {coarse}, 100 steps {fine}");
}

#[test]
fn an_observer_sees_every_step_with_the_networks_timesteps() {
    let process = linear(100).respaced(&kept_timesteps(Spacing::Leading, 100, 4).unwrap()).unwrap();
    let options =
        SampleOptions { sampler: DDIM, corrector: None, clip: Clip::Unit, seed: 0, indices: &[0], classifier: None };
    let mut seen = Vec::new();
    let mut given = Vec::new();
    let model = |x: &Tensor, t: &Tensor| {
        given.push(t.int64_value(&[0]));
        Ok(x.zeros_like())
    };
    let x = noise(1, 1, &[1, 2, 2]);
    let last = process.sample(&options, x, model, |step| seen.push((step.done, step.steps, step.t))).unwrap();
    assert_eq!(last.size(), [1, 1, 2, 2]);
    assert_eq!(seen, [(1, 4, 75), (2, 4, 50), (3, 4, 25), (4, 4, 0)]);
    assert_eq!(given, [75, 50, 25, 0]);
}

#[test]
fn heun_evaluates_twice_a_step_except_the_last() {
    let process = linear(100).respaced(&[0, 30, 60]).unwrap();
    let mut given = Vec::new();
    let model = |x: &Tensor, t: &Tensor| {
        given.push(t.int64_value(&[0]));
        Ok(x.zeros_like())
    };
    let options = SampleOptions {
        sampler: Sampler::Heun,
        corrector: None,
        clip: Clip::None,
        seed: 0,
        indices: &[0],
        classifier: None,
    };
    let last = process.sample(&options, noise(1, 1, &[1, 2, 2]), model, |_| ()).unwrap();
    assert_eq!(last.size(), [1, 1, 2, 2]);
    assert_eq!(given, [60, 30, 30, 0, 0]);
}

#[test]
fn corrector_steps_preserve_the_marginal() {
    // x_t of normal data, whose score is known: many corrections of exact draws must keep mean and variance.
    let process = linear(1000);
    let indices: Vec<u64> = (0..8).collect();
    let corrector = Langevin { steps: 60, snr: 0.1 };
    for t in [20i64, 300, 900] {
        let abar = process.alphas_cumprod[t as usize];
        let variance = abar * SPREAD * SPREAD + 1.0 - abar;
        let mut x = noise(5, 8, &[1, 40, 40]) * variance.sqrt();
        let first = x.shallow_clone();
        let t = Tensor::full([8], t, (Kind::Int64, Device::Cpu));
        let model = gaussian_model(&process);
        for step in 0..corrector.steps as u64 {
            let draw = noise_batch(3, Stream::Corrector { t: 0, step }, &indices, &[1, 40, 40]).to_kind(Kind::Double);
            x = process.langevin_step(&model(&x, &t).unwrap(), &x, &t, corrector, Clip::None, &draw).unwrap();
        }
        // 12,800 draws: four standard errors are 0.035 of the deviation and 0.05 of the variance; the finite step adds
        // r² to the latter.
        let mean = x.mean(Kind::Double).double_value(&[]) / variance.sqrt();
        let ratio = mean_square(&x) / variance;
        assert!(mean.abs() < 0.035, "t = {t:?}: mean {mean}");
        assert!((ratio - 1.0).abs() < 0.06, "t = {t:?}: variance off by {ratio}");
        // And they do move: what is left of the start is (1 - 2 r²)^60 = 0.3.
        let kept = (&x * &first).mean(Kind::Double).double_value(&[]) / variance;
        assert!((0.2..0.4).contains(&kept), "t = {t:?}: correlation {kept}");
    }
}

#[test]
fn a_corrector_improves_a_coarse_sampler() {
    let original = linear(1000);
    let process = original.respaced(&space_timesteps(1000, "20").unwrap()).unwrap();
    let x = noise_batch(7, Stream::Sample, &[0, 1, 2, 3], &[1, 40, 40]).to_kind(Kind::Double);
    let spread = |corrector| {
        let options = SampleOptions {
            sampler: DDIM,
            corrector,
            clip: Clip::None,
            seed: 7,
            indices: &[0, 1, 2, 3],
            classifier: None,
        };
        let found = process.sample(&options, x.shallow_clone(), gaussian_model(&original), |_| ()).unwrap();
        (mean_square(&found) / (SPREAD * SPREAD) - 1.0).abs()
    };
    let (alone, corrected) = (spread(None), spread(Some(Langevin { steps: 4, snr: 0.2 })));
    assert!(corrected < alone / 2.0, "the variance is off by {alone}, with corrections by {corrected}");
}
