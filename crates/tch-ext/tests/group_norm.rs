//! The group norm, fused and composed, against libtorch's own operations in f64: values and all gradients.

use tch::{Device, Kind, Tensor};
use tch_ext::{Activation, PerChannel, group_norm};

/// x, offset, gain, bias and the gradient that arrives from above.
struct Case {
    inputs: [Tensor; 4],
    upstream: Tensor,
    groups: i64,
    activation: Activation,
}

fn case(shape: [i64; 4], rows: i64, groups: i64, activation: Activation) -> Case {
    tch::manual_seed(shape.iter().sum::<i64>() + rows);
    let normal = |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu));
    // As in a U-Net: what is added differs from sample to sample, or what follows does, or neither.
    let (table, other) = ([rows, shape[1]], [1, shape[1]]);
    Case {
        // A mean far from zero would lose digits in a sum of squares.
        inputs: [normal(&shape) * 2.0 + 30.0, normal(&table), normal(&other) + 1.0, normal(&table)],
        upstream: normal(&shape),
        groups,
        activation,
    }
}

/// The result and the gradients of all inputs, as f64: of images in one kind and tables in another.
fn outcome(case: &Case, images: Kind, tables: Kind, forward: impl Fn(&[Tensor]) -> Tensor) -> Vec<Tensor> {
    let leaf = |(i, input): (usize, &Tensor)| {
        input.to_kind(if i == 0 { images } else { tables }).copy().set_requires_grad(true)
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

/// What `group_norm` makes of images of this kind.
fn ours(case: &Case, kind: Kind) -> Vec<Tensor> {
    outcome(case, kind, Kind::Float, |inputs| {
        let [x, offset, gain, bias] = inputs else { unreachable!() };
        group_norm(x, PerChannel { offset, gain, bias }, case.groups, 1e-5, case.activation).unwrap()
    })
}

/// Holds images to one tolerance, and what is summed up for the tables to another.
fn compare(case: &Case, found: Vec<Tensor>, exact: Vec<Tensor>, images: f64, tables: f64) {
    for (i, ((name, found), exact)) in
        ["y", "dx", "d offset", "d gain", "d bias"].iter().zip(found).zip(exact).enumerate()
    {
        let scale = exact.square().mean(Kind::Double).sqrt().double_value(&[]).max(0.1);
        let error = (found - exact).abs().max().double_value(&[]) / scale;
        let size = case.inputs[0].size();
        let tolerance = if i < 2 { images } else { tables };
        assert!(error < tolerance, "{name} of {size:?}, {:?}: off by {error}", case.activation);
    }
}

fn check(case: &Case, kind: Kind, tolerance: f64) {
    let exact = outcome(case, Kind::Double, Kind::Double, |inputs| reference(case, inputs));
    compare(case, ours(case, kind), exact, tolerance, tolerance);
}

/// The same with images, and the gradient from above, that `kind` can hold: about 0, not 30.
fn representable(mut case: Case, kind: Kind) -> Case {
    case.inputs[0] = (&case.inputs[0] - 30.0).to_kind(kind).to_kind(Kind::Double);
    case.upstream = case.upstream.to_kind(kind).to_kind(Kind::Double);
    case
}

#[test]
fn values_and_gradients_are_those_of_the_separate_operations() {
    for activation in [Activation::Identity, Activation::Silu] {
        for (shape, rows, groups) in
            [([2, 8, 5, 3], 2, 4), ([3, 24, 4, 4], 1, 3), ([1, 6, 1, 7], 1, 6), ([2, 64, 16, 16], 2, 32)]
        {
            check(&case(shape, rows, groups, activation), Kind::Float, 1e-4);
        }
    }
}

#[test]
fn bf16_rounds_the_images_but_not_the_sums() {
    for activation in [Activation::Identity, Activation::Silu] {
        // d offset is all but zero, a sum of what cancels.
        check(&representable(case([2, 32, 8, 8], 2, 8, activation), Kind::BFloat16), Kind::BFloat16, 0.05);
    }
}

/// f16 and f64 have no kernel: they go the way that every kind goes on a GPU.
#[test]
fn what_is_composed_of_libtorchs_operations_is_what_the_fused_kernel_gives() {
    for activation in [Activation::Identity, Activation::Silu] {
        for (shape, rows, groups) in [([2, 32, 8, 8], 2, 8), ([3, 24, 4, 4], 1, 3)] {
            let case = representable(case(shape, rows, groups, activation), Kind::Half);
            let fused = || ours(&case, Kind::Float);
            compare(&case, ours(&case, Kind::Double), fused(), 1e-4, 1e-4);
            // Images are rounded to f16 once, at the end; what the tables get never is.
            compare(&case, ours(&case, Kind::Half), fused(), 3e-3, 1e-4);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
    let refused = |x: &Tensor, table: &Tensor, groups| {
        let tables = PerChannel { offset: table, gain: table, bias: table };
        group_norm(x, tables, groups, 1e-5, Activation::Silu).is_err()
    };
    let (x, table) = (ones(&[2, 8, 2, 2]), ones(&[1, 8]));
    assert!(!refused(&x, &table, 4));
    assert!(refused(&x, &table, 3));
    assert!(refused(&x, &ones(&[3, 8]), 4));
    assert!(refused(&x, &table.to_kind(Kind::Double), 4));
    assert!(refused(&ones(&[2, 8]), &table, 4));
}
