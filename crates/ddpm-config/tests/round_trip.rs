//! What is written as TOML or JSON reads back equal, whatever the settings.

use ddpm_config::{ModelDescription, Prediction, Settings, Variance};
use ddpm_spec::{Architecture, BetaSchedule, Heads, ImageShape, MidAttention, UNetSpec};
use proptest::prelude::*;

/// Any one override that is valid on top of the `digits` preset, whatever the others are.
fn override_() -> impl Strategy<Value = String> {
    let unit = 0.0..0.999_999_f64;
    prop_oneof![
        (0..=i64::MAX).prop_map(|n| format!("seed={n}")),
        // A folder goes by it, and those do not end in spaces.
        "[a-z]([a-zA-Z0-9 _./'\"\\\\é-]{0,20}[a-z])?".prop_map(|text| format!("run.name={}", toml::Value::from(text))),
        "[a-z0-9][a-z0-9/.]{0,20}".prop_map(|text| format!("checkpoint.uri=\"s3://{text}\"")),
        prop_oneof![Just("data.kind=synthetic"), Just("data.kind=idx"), Just("data.kind=folder")].prop_map(Into::into),
        prop_oneof![Just("none"), Just("auto")].prop_map(|labels| format!("data.labels={labels}")),
        (0..200_u32).prop_map(|crop| format!("data.crop={crop}")),
        (1..64_u32).prop_map(|n| format!("data.image_size={}", 2 * n)),
        (1..64_u32, 1..64_u32).prop_map(|(h, w)| format!("data.image_size=[{}, {}]", 2 * h, 2 * w)),
        prop_oneof![Just("crop"), Just("pad"), Just("stretch")].prop_map(|fit| format!("data.fit={fit}")),
        prop_oneof![Just("black"), Just("white"), Just("[1, 2, 3]")].prop_map(|alpha| format!("data.alpha={alpha}")),
        any::<bool>().prop_map(|flip| format!("data.flip={flip}")),
        (1..4_u32, 1..4_u32).prop_map(|(a, b)| format!("model.channels=[{}, {}]", 32 * a, 32 * b)),
        any::<[bool; 2]>().prop_map(|attention| format!("model.attention={attention:?}")),
        (0..6_u32).prop_map(|power| format!("model.head_dim={}", (1 << power) & !1)),
        any::<bool>().prop_map(|residual| format!("model.residual_resampling={residual}")),
        (1e-3..1e3_f64).prop_map(|scale| format!("model.time_scale={scale:e}")),
        "[a-z0-9][a-z0-9/.@]{0,20}".prop_map(|text| format!("train.init_from=\"s3://{text}\"")),
        unit.clone().prop_map(|rate| format!("model.dropout={rate:?}")),
        prop_oneof![Just("eps"), Just("x_start"), Just("v")].prop_map(|p| format!("diffusion.predict={p}")),
        prop_oneof![Just("simple"), Just("vlb"), Just("kl")].prop_map(|loss| format!("diffusion.loss={loss}")),
        (50..4000_u32).prop_map(|n| format!("diffusion.timesteps={n}")),
        (1..=u64::MAX >> 1).prop_map(|n| format!("train.steps={n}")),
        (1e-300..1e300_f64).prop_map(|lr| format!("train.lr={lr:e}")),
        prop::array::uniform2(unit.clone()).prop_map(|betas| format!("train.betas={betas:?}")),
        (0..8_usize).prop_map(|n| format!("train.micro_batch={n}")),
        prop::collection::hash_set(1..9999_u32, 0..4).prop_map(|rates| {
            let rates: Vec<f64> = rates.into_iter().map(|rate| f64::from(rate) / 1e4).collect();
            format!("ema.rates={rates:?}")
        }),
        prop_oneof![Just("auto"), Just("solo"), Just("mpi"), Just("nccl")].prop_map(|b| format!("comm.backend={b}")),
        (0..1000_u64).prop_map(|n| format!("checkpoint.keep_every={n}")),
    ]
}

/// Any model that could be imported.
fn model() -> impl Strategy<Value = ModelDescription> {
    let heads = prop_oneof![Just(Heads::One), Just(Heads::Width(16)), Just(Heads::Number(4))];
    let mid = prop_oneof![
        Just(MidAttention::Absent),
        Just(MidAttention::Unnormed),
        Just(MidAttention::Normed { groups: 32 }),
        Just(MidAttention::Normed { groups: 8 }),
    ];
    let network = (prop::collection::vec((1..4_i64, any::<bool>()), 1..4), 1..4_i64, heads, mid, any::<[bool; 3]>());
    let schedule = prop_oneof![
        (50..5000_usize).prop_map(|timesteps| (BetaSchedule::linear(timesteps), timesteps)),
        (2..5000_usize).prop_map(|timesteps| (BetaSchedule::Cosine, timesteps)),
        (2..5000_usize).prop_map(|t| (BetaSchedule::Quadratic { start: 0.001, end: 0.01 }, t)),
        prop::collection::vec(1e-4..0.02_f64, 2..9).prop_map(|betas| (BetaSchedule::List(betas.clone()), betas.len())),
    ];
    let process = (schedule, any::<[bool; 2]>(), prop::option::of(1..1000_i64), 1e-3..10.0_f64);
    (network, process).prop_map(
        |((levels, layers_per_block, heads, mid_attention, flags), (schedule, kinds, classes, scale))| {
            let variance = if kinds[0] { Variance::LearnedRange } else { Variance::FixedLarge };
            let unet = UNetSpec {
                image: ImageShape { channels: 3, height: 8, width: 16 },
                out_channels: variance.model_channels(3),
                channels: levels.iter().map(|(width, _)| 32 * width).collect(),
                layers_per_block,
                attention: levels.iter().map(|(_, attends)| *attends).collect(),
                residual_resampling: flags[0],
                heads,
                norm_groups: 32,
                norm_eps: 1e-6,
                mid_attention,
                dropout: 0.25,
                time_scale_shift: flags[1],
                downsample_padding: i64::from(kinds[1]),
                time_channels: classes.map(|classes| 2 * classes + 2),
                time_scale: scale,
                flip_sin_to_cos: flags[2],
                freq_shift: i64::from(!kinds[1]),
                classes,
            };
            let prediction = if kinds[1] { Prediction::Eps } else { Prediction::XStart };
            let (schedule, timesteps) = schedule;
            // Noise cannot be predicted from what is noise only.
            let zero = flags[2] && prediction != Prediction::Eps;
            let schedule = if zero { BetaSchedule::ZeroTerminalSnr(Box::new(schedule)) } else { schedule };
            ModelDescription { unet, prediction, variance, schedule, timesteps }
        },
    )
}

proptest! {
    #[test]
    fn settings_of_a_model_describe_it(model in model()) {
        let settings = Settings::of_model("runs/imported", &model).expect("numbers are small");
        let settings = Settings::from_toml(&settings.to_toml(), "imported", &[]).expect("valid settings");
        prop_assert_eq!(settings.run.name.as_str(), "imported");
        prop_assert_eq!(settings.architecture(), Architecture::UNet(model.unet));
        prop_assert_eq!(settings.diffusion.beta_schedule(), model.schedule);
        let process = (settings.diffusion.predict, settings.diffusion.variance, settings.diffusion.timesteps as usize);
        prop_assert_eq!(process, (model.prediction, model.variance, model.timesteps));
    }

    #[test]
    fn toml_and_json_give_back_the_same_settings(mut sets in prop::collection::vec(override_(), 0..12)) {
        sets.insert(0, "data.path=data".into());
        let settings = Settings::load("digits", &sets).expect("valid overrides");
        let text = settings.to_toml();
        let again = Settings::from_toml(&text, "config.toml", &[]).expect("valid text");
        prop_assert_eq!(&again, &settings);
        prop_assert_eq!(again.to_toml(), text);
        let json = serde_json::to_string(&settings).expect("JSON");
        prop_assert_eq!(&serde_json::from_str::<Settings>(&json).expect("settings"), &settings);
        prop_assert_eq!(again.fingerprint(), settings.fingerprint());
        prop_assert!(settings.diff(&again).is_empty());
    }
}

#[test]
fn hyperparameters_are_what_is_learned_from_and_not_where_results_go() {
    let settings =
        Settings::load("smoke", &["run.dir=elsewhere".into(), "train.lr=0.5".into()]).expect("valid overrides");
    let keys = settings.hyperparameters();
    let value = |key: &str| keys.iter().find(|(known, _)| known == key).map(|(_, value)| value.to_string());
    assert_eq!(value("train.lr").as_deref(), Some("0.5"));
    for key in ["seed", "data.kind", "model.channels", "diffusion.timesteps", "ema.rates"] {
        assert!(value(key).is_some(), "{key}");
    }
    for key in ["run.dir", "comm.backend", "checkpoint.every", "monitor.log_every"] {
        assert_eq!(value(key), None, "{key}");
    }
}
