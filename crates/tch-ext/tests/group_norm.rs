//! The fused group norm against libtorch's own operations in f64: values and all gradients.

use std::process::Command;

use tch::{Device, Kind, Tensor};
use tch_ext::{Activation, NormOnCpu, Normed, PerChannel, count_operations, group_norm, processor, with_group_norm};

/// x, offset, gain, bias and the upstream gradient.
struct Case {
    inputs: [Tensor; 4],
    upstream: Tensor,
    groups: i64,
    activation: Activation,
}

fn case(shape: [i64; 4], rows: i64, groups: i64, activation: Activation) -> Case {
    tch::manual_seed(shape.iter().sum::<i64>() + rows);
    // Exact in f32.
    let normal = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(Kind::Double);
    // As in a U-Net: the offset and the bias may differ between samples.
    let (table, other) = ([rows, shape[1]], [1, shape[1]]);
    Case {
        // With a mean far from zero, a sum of squares would lose digits.
        inputs: [normal(&shape) * 2.0 + 30.0, normal(&table), normal(&other) + 1.0, normal(&table)],
        upstream: normal(&shape),
        groups,
        activation,
    }
}

/// The result and the gradients of all inputs, as f64; images and tables have these types.
fn outcome(case: &Case, kinds: [Kind; 2], forward: impl Fn(&[Tensor]) -> Tensor) -> Vec<Tensor> {
    let leaf = |(i, input): (usize, &Tensor)| {
        let kind = kinds[i.min(1)];
        input.to_kind(kind).copy().set_requires_grad(true)
    };
    let inputs: Vec<Tensor> = case.inputs.iter().enumerate().map(leaf).collect();
    let y = forward(&inputs);
    (&y * case.upstream.to_kind(y.kind())).sum(Kind::Double).backward();
    let mut all = vec![y.detach()];
    all.extend(inputs.iter().map(Tensor::grad));
    all.iter().map(|tensor| tensor.to_kind(Kind::Double)).collect()
}

fn reference(case: &Case, inputs: &[Tensor]) -> Tensor {
    let image = |table: &Tensor| table.unsqueeze(-1).unsqueeze(-1);
    let [x, offset, gain, bias] = inputs else { unreachable!() };
    let none = None::<&Tensor>;
    let z = (x + image(offset)).group_norm(case.groups, none, none, 1e-5, false) * image(gain) + image(bias);
    if case.activation == Activation::Silu { z.silu() } else { z }
}

fn check(case: &Case, kind: Kind, tolerance: f64) {
    let fused = outcome(case, [kind, Kind::Float], |inputs| {
        let [x, offset, gain, bias] = inputs else { unreachable!() };
        group_norm([x], PerChannel { offset: Some(offset), gain, bias }, case.groups, 1e-5, case.activation).unwrap().y
    });
    let exact = outcome(case, [Kind::Double; 2], |inputs| reference(case, inputs));
    for ((name, ours), theirs) in ["y", "dx", "d offset", "d gain", "d bias"].iter().zip(fused).zip(exact) {
        let scale = theirs.square().mean(Kind::Double).sqrt().double_value(&[]).max(0.1);
        let error = (ours - theirs).abs().max().double_value(&[]) / scale;
        let size = case.inputs[0].size();
        assert!(error < tolerance, "{name} of {size:?}, {:?}, {kind:?}: off by {error}", case.activation);
    }
}

#[test]
fn values_and_gradients_equal_the_separate_operations() {
    for activation in [Activation::Identity, Activation::Silu] {
        for (shape, rows, groups) in
            [([2, 8, 5, 3], 2, 4), ([3, 24, 4, 4], 1, 3), ([1, 6, 1, 7], 1, 6), ([2, 64, 16, 16], 2, 32)]
        {
            check(&case(shape, rows, groups, activation), Kind::Float, 2e-4);
        }
    }
}

#[test]
fn sums_over_many_pixels_are_accurate() {
    check(&case([1, 2, 512, 512], 1, 1, Activation::Identity), Kind::Float, 2e-4);
}

/// Two inputs, and a residual from each: y, then the gradients of inputs and tables.
fn joined(case: &Case, split: i64, kind: Kind, fused: bool) -> Vec<Tensor> {
    let tables = if fused { Kind::Float } else { Kind::Double };
    let leaf = |(i, input): (usize, &Tensor)| {
        let kind = if i < 2 { kind } else { tables };
        input.to_kind(kind).copy().set_requires_grad(true)
    };
    let [x, offset, gain, bias] = &case.inputs;
    let channels = x.size()[1];
    let parts = [x.narrow(1, 0, split), x.narrow(1, split, channels - split)];
    let leaves: Vec<Tensor> = parts.iter().chain([offset, gain, bias]).enumerate().map(leaf).collect();
    let [first, second, offset, gain, bias] = &leaves[..] else { unreachable!() };
    let tables = PerChannel { offset: Some(offset), gain, bias };
    let (y, [a, b]) = if fused {
        let Normed { y, inputs } = group_norm([first, second], tables, case.groups, 1e-5, case.activation).unwrap();
        (y, inputs)
    } else {
        let x = Tensor::cat(&[first, second], 1);
        let tables = [&x, offset, gain, bias].map(Tensor::shallow_clone);
        (reference(case, &tables), [first.shallow_clone(), second.shallow_clone()])
    };
    let upstream = case.upstream.to_kind(y.kind());
    let loss = (&y * &upstream).sum(Kind::Double)
        + (a * upstream.narrow(1, 0, split)).sum(Kind::Double)
        + (b * upstream.narrow(1, split, channels - split) * 0.5).sum(Kind::Double);
    loss.backward();
    std::iter::once(y.detach()).chain(leaves.iter().map(Tensor::grad)).map(|t| t.to_kind(Kind::Double)).collect()
}

#[test]
fn two_inputs_are_concatenated_and_accumulate_the_residual_gradient() {
    // Groups across the border between the inputs, parts that are not multiples of the vector length, more than one
    // block of rows.
    for (shape, split, groups) in [([2, 12, 3, 3], 5, 4), ([2, 96, 6, 7], 64, 32), ([2, 40, 5, 5], 17, 1)] {
        let mut case = case(shape, 2, groups, Activation::Silu);
        case.inputs[0] = (&case.inputs[0] - 30.0).to_kind(Kind::BFloat16).to_kind(Kind::Double);
        case.upstream = case.upstream.to_kind(Kind::BFloat16).to_kind(Kind::Double);
        let exact = joined(&case, split, Kind::Double, false);
        for (kind, tolerance) in [(Kind::Float, 1e-4), (Kind::BFloat16, 0.05), (Kind::Double, 1e-6)] {
            let ours = joined(&case, split, kind, true);
            for (i, (ours, exact)) in ours.iter().zip(&exact).enumerate() {
                let scale = exact.square().mean(Kind::Double).sqrt().double_value(&[]).max(0.1);
                let error = (ours - exact).abs().max().double_value(&[]) / scale;
                assert!(error < tolerance, "result {i} of {shape:?} in {kind:?}: off by {error}");
            }
        }
    }
}

/// The strides of a single image are ambiguous unless they are exactly those of channels last; otherwise libtorch's
/// convolutions would assume the other layout, which is slower and gives different bits.
#[test]
fn the_residual_around_the_norm_of_one_image_stays_channels_last() {
    let case = case([1, 8, 4, 4], 1, 4, Activation::Silu);
    let [x, offset, gain, bias] = case.inputs.each_ref().map(|input| input.to_kind(Kind::Float));
    for requires_grad in [false, true] {
        let x = tch_ext::channels_last(&x).unwrap().set_requires_grad(requires_grad).alias();
        let tables = PerChannel { offset: Some(&offset), gain: &gain, bias: &bias };
        let Normed { y, inputs: [residual] } = group_norm([&x], tables, 4, 1e-5, Activation::Silu).unwrap();
        for (name, tensor) in [("y", y), ("x", residual)] {
            assert_eq!(tensor.stride(), [128, 1, 32, 8], "{name}, requires_grad {requires_grad}");
        }
    }
}

#[test]
fn other_types_use_libtorchs_own_operations() {
    for activation in [Activation::Identity, Activation::Silu] {
        check(&case([2, 8, 5, 3], 2, 4, activation), Kind::Double, 1e-6);
    }
}

#[test]
fn bf16_rounds_the_images_but_not_the_sums() {
    for activation in [Activation::Identity, Activation::Silu] {
        let mut case = case([2, 32, 8, 8], 2, 8, activation);
        // Both use x rounded to bf16; d offset is nearly zero, a sum of terms that cancel.
        case.inputs[0] = (&case.inputs[0] - 30.0).to_kind(Kind::BFloat16).to_kind(Kind::Double);
        case.upstream = case.upstream.to_kind(Kind::BFloat16).to_kind(Kind::Double);
        check(&case, Kind::BFloat16, 0.05);
    }
}

/// As on a GPU: composed of libtorch's operations in the type of the images, with tables for all samples or for each.
#[test]
fn the_composed_norm_equals_the_fused_one() {
    for (rows, activation) in [(1, Activation::Silu), (2, Activation::Silu), (2, Activation::Identity)] {
        let mut case = case([2, 32, 8, 8], rows, 8, activation);
        case.inputs[0] = (&case.inputs[0] - 30.0).to_kind(Kind::BFloat16).to_kind(Kind::Double);
        case.upstream = case.upstream.to_kind(Kind::BFloat16).to_kind(Kind::Double);
        // The tables and the statistics are rounded too.
        with_group_norm(NormOnCpu::Composed, || {
            [(Kind::Float, 2e-4), (Kind::BFloat16, 0.12)].map(|(kind, most)| check(&case, kind, most))
        });
    }
}

/// The arithmetic of a GPU's kernels, run on the CPU from the same source.
#[test]
fn a_gpu_s_kernels_equal_the_separate_operations() {
    let ((), counted) = count_operations(|| {
        with_group_norm(NormOnCpu::AsGpuKernels, || {
            values_and_gradients_equal_the_separate_operations();
            sums_over_many_pixels_are_accurate();
            two_inputs_are_concatenated_and_accumulate_the_residual_gradient();
            the_residual_around_the_norm_of_one_image_stays_channels_last();
            bf16_rounds_the_images_but_not_the_sums();
        })
    })
    .unwrap();
    for kernel in ["group_norm_sums", "group_norm_apply", "group_norm_backward_finish", "group_norm_backward_apply"] {
        assert!(counted.launches[&format!("tch_ext::{kernel}")] > 5, "{:?}", counted.launches);
    }
}

#[test]
fn no_offset_is_an_offset_of_zero() {
    let case = case([2, 8, 5, 3], 2, 4, Activation::Silu);
    let [x, offset, gain, bias] = case.inputs.each_ref().map(|input| input.to_kind(Kind::Float));
    let y =
        |offset| group_norm([&x], PerChannel { offset, gain: &gain, bias: &bias }, 4, 1e-5, case.activation).unwrap().y;
    let zero = offset.zeros_like();
    assert_eq!(y(None), y(Some(&zero)));
    for way in [NormOnCpu::Composed, NormOnCpu::AsGpuKernels] {
        with_group_norm(way, || assert_eq!(y(None), y(Some(&zero)), "{way:?}"));
    }
    assert_ne!(y(None), y(Some(&offset)));
}

#[test]
fn the_kernels_use_the_instruction_set_of_libtorch() {
    #[cfg(target_arch = "x86_64")]
    let [avx2, avx512] = [
        is_x86_feature_detected!("avx2"),
        is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq"),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let [avx2, avx512] = [false; 2];
    let expected = match std::env::var("ATEN_CPU_CAPABILITY").as_deref() {
        Ok("default") => "any",
        Err(_) if avx512 => "avx512",
        _ if avx2 => "avx2",
        _ => "any",
    };
    assert_eq!(processor(), expected);
}

/// There are kernels for several instruction sets, selected by libtorch's own setting when a process starts.
#[test]
fn the_kernels_of_other_instruction_sets_compute_the_same() {
    let tests = [
        "the_kernels_use_the_instruction_set_of_libtorch",
        "values_and_gradients_equal_the_separate_operations",
        "sums_over_many_pixels_are_accurate",
        "two_inputs_are_concatenated_and_accumulate_the_residual_gradient",
        "bf16_rounds_the_images_but_not_the_sums",
    ];
    for level in ["avx2", "default"] {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let outcome = again.arg("--exact").args(tests).env("ATEN_CPU_CAPABILITY", level).output().unwrap();
        let output = String::from_utf8_lossy(&outcome.stdout);
        assert!(output.contains("5 passed"), "{level}: {output}{}", String::from_utf8_lossy(&outcome.stderr));
    }
}

#[test]
fn mismatched_inputs_are_refused() {
    let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
    let refused = |x: &Tensor, table: &Tensor, groups| {
        let tables = PerChannel { offset: Some(table), gain: table, bias: table };
        group_norm([x], tables, groups, 1e-5, Activation::Silu).is_err()
    };
    let (x, table) = (ones(&[2, 8, 2, 2]), ones(&[1, 8]));
    assert!(!refused(&x, &table, 4));
    assert!(refused(&x, &table, 3));
    assert!(refused(&x, &ones(&[3, 8]), 4));
    assert!(refused(&x, &table.to_kind(Kind::Double), 4));
    assert!(refused(&ones(&[2, 8]), &table, 4));
    let tables = || PerChannel { offset: Some(&table), gain: &table, bias: &table };
    let half = ones(&[2, 4, 2, 2]);
    assert!(group_norm([&half, &half], tables(), 4, 1e-5, Activation::Silu).is_ok());
    assert!(group_norm([&half, &ones(&[2, 4, 2, 1])], tables(), 4, 1e-5, Activation::Silu).is_err());
    assert!(group_norm([&half, &half.to_kind(Kind::BFloat16)], tables(), 4, 1e-5, Activation::Silu).is_err());
}
