//! 3x3 convolutions by Winograd's algorithm against libtorch's own in f64: values and all gradients.

use std::process::Command;
use std::sync::Mutex;

use tch::{Device, Kind, Tensor};
use tch_ext::{allow_winograd, multiplies_bf16, winograd, winograd_planes, winograd_planes_for, winograd_with_planes};

/// The number of threads and the choice of the algorithm are process-wide, and the tests of a process run in parallel.
static SETTINGS: Mutex<()> = Mutex::new(());

/// x, weights, bias and the upstream gradient, all exact in f32.
fn case(batch: i64, size: [i64; 2], channels: [i64; 2]) -> [Tensor; 4] {
    let ([height, width], [input, output]) = (size, channels);
    tch::manual_seed(batch + height + 7 * width + input + output);
    let normal = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    [
        normal(&[batch, input, height, width]),
        normal(&[output, input, 3, 3]),
        normal(&[output]),
        normal(&[batch, output, height, width]),
    ]
}

/// y and the gradients of x, weights and bias, for images of this kind; weights and bias are f32 for those in bf16.
fn outcome(case: &[Tensor; 4], kind: Kind, convolve: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor) -> [Tensor; 4] {
    let of_weights = if kind == Kind::BFloat16 { Kind::Float } else { kind };
    let kinds = [kind, of_weights, of_weights];
    let leaves = [0, 1, 2].map(|i| case[i].to_kind(kinds[i]).copy().set_requires_grad(true));
    let [x, weights, bias] = &leaves;
    let y = convolve(x, weights, bias);
    (&y * case[3].to_kind(kind)).sum(Kind::Double).backward();
    [y.detach(), x.grad(), weights.grad(), bias.grad()]
}

fn ours(x: &Tensor, weights: &Tensor, bias: &Tensor) -> Tensor {
    winograd(x, weights, bias).unwrap()
}

fn reference(x: &Tensor, weights: &Tensor, bias: &Tensor) -> Tensor {
    x.conv2d(weights, Some(bias), 1, 1, 1, 1)
}

/// Odd sides, images smaller than a tile, one block of channels and several, of which the last is narrower.
const CASES: [(i64, [i64; 2], [i64; 2]); 6] = [
    (2, [8, 8], [16, 16]),
    (3, [7, 5], [32, 48]),
    (5, [1, 1], [16, 32]),
    (1, [2, 9], [112, 16]),
    (4, [16, 16], [64, 32]),
    (2, [4, 4], [208, 96]),
];

#[test]
fn values_and_gradients_equal_direct_convolution() {
    let _settings = SETTINGS.lock().unwrap();
    for (batch, size, channels) in CASES {
        let case = case(batch, size, channels);
        let exact = outcome(&case, Kind::Double, reference);
        for ((name, ours), exact) in ["y", "dx", "dw", "db"].iter().zip(outcome(&case, Kind::Float, ours)).zip(exact) {
            let scale = exact.square().mean(Kind::Double).sqrt().double_value(&[]);
            let error = (ours - &exact).abs().max().double_value(&[]) / scale;
            assert!(error < 2e-5, "{name} of {batch} images of {size:?}, {channels:?} channels: off by {error}");
        }
    }
}

/// A run is reproducible on a busy machine, where a rank has fewer threads.
#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let _settings = SETTINGS.lock().unwrap();
    let before = tch::get_num_threads();
    // A third of 80 channels is an odd number, and bf16 weights are stored in pairs.
    for (kind, channels) in [(Kind::Float, [208, 48]), (Kind::BFloat16, [80, 80])] {
        let case = case(6, [10, 6], channels);
        let on = |threads| {
            tch::set_num_threads(threads);
            // The gradient of the bias is libtorch's own sum.
            let [y, dx, dw, _] = outcome(&case, kind, ours);
            [y, dx, dw]
        };
        let alone = on(1);
        for threads in [2, 3, 16] {
            assert_eq!(on(threads), alone, "{kind:?} on {threads} threads");
        }
    }
    tch::set_num_threads(before);
}

/// Classifier guidance needs only the gradient with respect to the images.
#[test]
fn frozen_weights_cost_no_gradient() {
    let [x, weights, bias, upstream] = case(2, [8, 8], [32, 32]);
    let gradient = |frozen: bool| {
        let x = x.copy().set_requires_grad(true);
        let [weights, bias] = [&weights, &bias].map(|values| values.copy().set_requires_grad(!frozen));
        (ours(&x, &weights, &bias) * &upstream).sum(Kind::Double).backward();
        assert_ne!(weights.grad().defined(), frozen);
        x.grad()
    };
    assert_eq!(gradient(true), gradient(false));
}

/// The type in which a convolution of `x` multiplies.
fn multiplied_in(x: &Tensor, channels: [i64; 2]) -> Kind {
    winograd_planes_for(x, channels[0], channels[1]).unwrap_or(Kind::Float)
}

/// If bf16 only saves memory, the result is that of f32, rounded once. If it is multiplied, results are off by a percent. The
/// gradient of the weights is that of f32 in any case.
#[test]
fn bf16_images_have_sums_in_f32() {
    let _settings = SETTINGS.lock().unwrap();
    for (batch, size, channels) in CASES {
        let [x, weights, bias, upstream] = case(batch, size, channels);
        let [x, upstream] = [x, upstream].map(|images| images.to_kind(Kind::BFloat16));
        let (rounded_once, bound) = match multiplied_in(&x, channels) {
            Kind::BFloat16 => (false, 0.015),
            _ => (true, 4e-3),
        };
        let leaves = [&x, &weights, &bias].map(|values| values.copy().set_requires_grad(true));
        let y = ours(&leaves[0], &leaves[1], &leaves[2]);
        (&y * &upstream).sum(Kind::Float).backward();
        if rounded_once {
            assert_eq!(y, ours(&x.to_kind(Kind::Float), &weights, &bias).to_kind(Kind::BFloat16));
        }
        let exact = outcome(&[x, weights, bias, upstream], Kind::Double, reference);
        let found = [y.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()];
        for ((name, found), (exact, bound)) in
            ["y", "dx", "dw", "db"].iter().zip(found).zip(exact.iter().zip([bound, bound, 1e-5, 1e-5]))
        {
            let error = ((found.to_kind(Kind::Double) - exact).norm() / exact.norm()).double_value(&[]);
            assert!(error < bound, "{name} of {batch} images of {size:?}, {channels:?} channels: off by {error}");
        }
    }
}

/// Where no gradient is needed, weights are transformed once, and a residual is added in the same pass.
#[test]
fn transformed_weights_give_the_same_bits() {
    let _settings = SETTINGS.lock().unwrap();
    for (batch, size, channels) in CASES {
        let [x, weights, bias, plus] = case(batch, size, channels);
        let planes = winograd_planes(&weights, Kind::Float).unwrap();
        let [y, planned] = [winograd(&x, &weights, &bias), winograd_with_planes(&x, &planes, &bias, None)];
        let (y, planned) = (y.unwrap(), planned.unwrap());
        assert_eq!(planned, y, "{batch} images of {size:?}, {channels:?} channels");
        assert_eq!(winograd_with_planes(&x, &planes, &bias, Some(&plus)).unwrap(), &y + &plus);
        let half = x.to_kind(Kind::BFloat16);
        let planes = winograd_planes(&weights, multiplied_in(&half, channels)).unwrap();
        let rounded = winograd_with_planes(&half, &planes, &bias, None).unwrap();
        assert_eq!(rounded, winograd(&half, &weights, &bias).unwrap());
    }
}

/// What is multiplied is rounded to 8 bits, and sums are not: one percent of the result.
#[test]
fn planes_in_bf16_round_what_is_multiplied() {
    let _settings = SETTINGS.lock().unwrap();
    for (batch, size, channels) in CASES {
        let [x, weights, bias, plus] = case(batch, size, channels);
        let [x, plus] = [x, plus].map(|images| images.to_kind(Kind::BFloat16));
        let planes = winograd_planes(&weights, Kind::BFloat16);
        if !multiplies_bf16() {
            assert!(planes.unwrap_err().to_string().contains("no kernels"), "refused without instructions");
            continue;
        }
        let found = winograd_with_planes(&x, &planes.unwrap(), &bias, Some(&plus)).unwrap();
        assert_eq!(found.kind(), Kind::BFloat16);
        let [x, weights, bias, plus] = [x, weights, bias, plus].map(|values| values.to_kind(Kind::Double));
        let exact = reference(&x, &weights, &bias) + plus;
        let error = ((found.to_kind(Kind::Double) - &exact).norm() / exact.norm()).double_value(&[]);
        assert!(error < 0.015, "{batch} images of {size:?}, {channels:?} channels: off by {error}");
    }
}

#[test]
fn transformed_weights_that_do_not_fit_are_refused() {
    let [x, weights, bias, plus] = case(2, [8, 8], [32, 48]);
    let planes = winograd_planes(&weights, Kind::Float).unwrap();
    let halved = planes.to_kind(Kind::BFloat16);
    for (what, refused) in [
        ("narrow weights", winograd_planes(&weights.narrow(0, 0, 8), Kind::Float)),
        ("weights of one pixel", winograd_planes(&weights.narrow(2, 0, 1), Kind::Float)),
        ("other channels", winograd_with_planes(&x.narrow(1, 0, 16), &planes, &bias, None)),
        ("another bias", winograd_with_planes(&x, &planes, &bias.narrow(0, 0, 16), None)),
        ("f32 images, bf16 planes", winograd_with_planes(&x, &halved, &bias, None)),
        ("another type to add", winograd_with_planes(&x, &planes, &bias, Some(&plus.to_kind(Kind::BFloat16)))),
        ("another shape to add", winograd_with_planes(&x, &planes, &bias, Some(&x))),
    ] {
        assert!(refused.is_err(), "{what}");
    }
}

#[test]
fn it_applies_where_it_is_fastest() {
    let _settings = SETTINGS.lock().unwrap();
    let [x, weights, bias, _] = case(2, [8, 8], [32, 32]);
    assert_eq!(winograd_planes_for(&x, 32, 32), Some(Kind::Float));
    assert_eq!((winograd_planes_for(&x, 3, 32), winograd_planes_for(&x, 32, 1)), (None, None), "few channels");
    assert_eq!(winograd_planes_for(&x.to_kind(Kind::Double), 32, 32), None, "f64");
    let in_half = winograd_planes_for(&x.to_kind(Kind::BFloat16), 32, 32);
    assert_eq!(in_half == Some(Kind::Float), !multiplies_bf16(), "{in_half:?}");
    allow_winograd(false);
    let forbidden = winograd_planes_for(&x, 32, 32);
    allow_winograd(true);
    assert_eq!(forbidden, None, "it is forbidden");
    for (what, result) in [
        ("other channels", winograd(&x.narrow(1, 0, 16), &weights, &bias)),
        ("another bias", winograd(&x, &weights, &bias.narrow(0, 0, 16))),
        ("narrow weights", winograd(&x, &weights.narrow(0, 0, 8), &bias.narrow(0, 0, 8))),
        ("f64", winograd(&x.to_kind(Kind::Double), &weights, &bias)),
        ("bf16 weights", winograd(&x, &weights.to_kind(Kind::BFloat16), &bias)),
    ] {
        assert!(result.is_err(), "{what}");
    }
}

/// Run by the test below, with limits on the instruction set.
#[test]
#[ignore = "run by `limits_of_libtorch_and_onednn_are_respected`, with limits"]
fn bf16_is_not_multiplied() {
    assert!(!multiplies_bf16());
}

#[test]
fn limits_of_libtorch_and_onednn_are_respected() {
    for (variable, limit) in
        [("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "avx512_core"), ("DNNL_MAX_CPU_ISA", "AVX2")]
    {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "--ignored", "bf16_is_not_multiplied"]).env(variable, limit);
        let printed = again.output().unwrap().stdout;
        let printed = String::from_utf8_lossy(&printed);
        assert!(printed.contains("1 passed"), "{variable}={limit}: {printed}");
    }
    let limited = ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"];
    #[cfg(target_arch = "x86_64")]
    if limited.iter().all(|variable| std::env::var_os(variable).is_none()) {
        assert_eq!(multiplies_bf16(), is_x86_feature_detected!("avx512bf16"));
    }
}

/// There are kernels for several instruction sets, selected by libtorch's own setting when a process starts.
#[test]
fn the_kernels_of_other_instruction_sets_compute_the_same() {
    for level in ["avx2", "default"] {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let tests =
            ["values_and_gradients_equal_direct_convolution", "the_result_does_not_depend_on_the_number_of_threads"];
        let outcome = again.arg("--exact").args(tests).env("ATEN_CPU_CAPABILITY", level).output().unwrap();
        let printed = String::from_utf8_lossy(&outcome.stdout);
        assert!(printed.contains("2 passed"), "{level}: {printed}{}", String::from_utf8_lossy(&outcome.stderr));
    }
}
