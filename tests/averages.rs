//! Averages of any width after training: from snapshots of power-function averages.

use std::fs;
use std::path::Path;

use ddpm_checkpoint::Store;
use tempfile::TempDir;

use crate::common::golden::{largest_distance, tensor};
use crate::common::{Outcome, buffers, check_same_bits, mpirun, program, run, succeed, train_on};

const STEPS: u64 = 60;

/// `train` of the smoke preset with these averages, and a learning rate with which the weights move far.
fn training(ranks: usize, dir: &Path, steps: u64, widths: &str, more: &[&str]) -> std::process::Command {
    let widths = format!("ema.widths={widths}");
    let common = [
        "train.lr=3e-3",
        "ema.snapshot_every=5",
        "checkpoint.when_busy=wait",
        "monitor.sample_every=0",
        "monitor.tensorboard=false",
        &widths,
    ];
    let sets: Vec<&str> = common.iter().chain(more).flat_map(|option| ["--set", option]).collect();
    train_on(Some(ranks), dir, steps, &sets)
}

fn trained(ranks: usize, dir: &Path, steps: u64, widths: &str, more: &[&str]) -> Outcome {
    succeed(&mut training(ranks, dir, steps, widths, more))
}

fn values(bits: &[u32]) -> Vec<f64> {
    bits.iter().map(|bits| f64::from(f32::from_bits(*bits))).collect()
}

fn distance(ours: &[f64], theirs: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    norm(&mut ours.iter().zip(theirs).map(|(a, b)| a - b)) / norm(&mut theirs.iter().copied())
}

fn snapshots(dir: &Path) -> Vec<u64> {
    Store::open_existing(dir.join("checkpoints/snapshots").to_str().unwrap()).unwrap().list().unwrap()
}

/// What a run's checkpoint says of its data set: images, fingerprint, and where their order begins.
fn data_record(dir: &Path) -> [serde_json::Value; 4] {
    let store = Store::open_existing(dir.join("checkpoints").to_str().unwrap()).unwrap();
    let state = store.read_manifest(STEPS).unwrap().state;
    ["images", "fingerprint", "order_start", "order_epoch"].map(|key| state[key].clone())
}

/// A run with the average of `width` of another run.
fn average(source: &Path, width: f64, out: &Path) -> Outcome {
    let mut command = program();
    command.arg("ema").arg("--model").arg(source).args(["--width", &width.to_string()]).arg("--out").arg(out);
    succeed(&mut command)
}

#[test]
fn a_reconstructed_average_is_the_one_that_was_tracked() {
    let dir = TempDir::new().unwrap();
    let [two, one, tracked] = ["two", "one", "tracked"].map(|name| dir.path().join(name));
    trained(2, &two, STEPS, "[0.05,0.1]", &[]);
    trained(1, &one, STEPS, "[0.05,0.1]", &[]);
    trained(1, &tracked, STEPS, "[0.05,0.075,0.1]", &["ema.rates=[]"]);
    assert_eq!(snapshots(&one), (1..=STEPS / 5).rev().map(|n| 5 * n).collect::<Vec<_>>());
    let (on_two, on_one) = (buffers(&two, STEPS), buffers(&one, STEPS));
    let kept = buffers(&tracked, STEPS);
    assert_eq!(on_one["ema/width-0.05"], kept["ema/width-0.05"], "other averages change nothing");
    for name in ["ema/width-0.05", "ema/width-0.1"] {
        assert!(distance(&values(&on_two[name]), &values(&on_one[name])) < 1e-3, "{name}");
    }

    let direct = values(&kept["ema/width-0.075"]);
    for (source, name) in [(&two, "two"), (&one, "one")] {
        let out = dir.path().join(format!("{name}-average"));
        let outcome = average(source, 0.075, &out);
        assert!(outcome.stdout.contains("holds the average of width 0.075 of "), "{}", outcome.stdout);
        let held = buffers(&out, STEPS);
        assert_eq!(held["weights"], held["ema/0.9"]);
        let [ours, theirs] = [&out, source].map(|run| data_record(run));
        assert!(ours == theirs && ours[0].as_u64() == Some(512) && ours[1].is_string(), "{ours:?}, {theirs:?}");
        let off = distance(&values(&held["weights"]), &direct);
        println!("{name}: off by {off:e}");
        assert!(off < 1e-3, "{name} is off by {off}");
        // The widths around it are far from it, compared with that.
        assert!(distance(&values(&on_one["ema/width-0.05"]), &direct) > 10.0 * off.max(1e-4));
    }

    // The same images from the average in place, from the run that holds it, and from its export.
    let [exported, of_run] = ["exported", "one-average"].map(|name| dir.path().join(name));
    let export = ["export", "--weights", "width=0.075", "--no-grid", "--out"];
    succeed(program().args(export).arg(&exported).arg(&one));
    let card = fs::read_to_string(exported.join("README.md")).unwrap();
    assert!(card.contains("power-function average of width 0.075"), "{card}");
    let drawn = |ranks: usize, source: &Path, more: &[&str]| {
        let out = dir.path().join("samples.safetensors");
        let mut command = mpirun(ranks);
        command.args(["sample", "-n", "4", "--steps", "4"]).args(more).arg("--model").arg(source);
        succeed(command.arg("--out").arg(&out));
        tensor(&out, "samples").1
    };
    let in_place = drawn(1, &one, &["--weights", "width=0.075"]);
    assert!(drawn(1, &of_run, &[]) == in_place, "from the run that holds it");
    assert!(drawn(1, &exported, &[]) == in_place, "from its export");
    // Images share a batch with others on each rank.
    assert!(largest_distance(&drawn(2, &one, &["--weights", "width=0.075"]), &in_place) < 1e-4);
    // Stored widths need no snapshots.
    fs::remove_dir_all(one.join("checkpoints/snapshots")).unwrap();
    drawn(1, &one, &["--weights", "width=0.1"]);
    let eval = ["eval", "nll", "--timesteps", "3", "-n", "4", "--weights", "width=0.075", "--model"];
    succeed(program().args(eval).arg(&two));
    let config = of_run.join("config.toml");
    succeed(program().args(["train", "--steps", &(STEPS + 2).to_string(), "--config"]).arg(config));
}

#[test]
fn a_resumed_run_forgets_the_snapshots_that_it_overtakes() {
    let dir = TempDir::new().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
    let every = ["checkpoint.every=10", "checkpoint.keep_last=9"];
    trained(1, &whole, 40, "[0.05,0.1]", &every);
    trained(1, &parts, 30, "[0.05,0.1]", &every);
    let mut again = training(2, &parts, 40, "[0.05,0.1]", &every);
    let outcome = succeed(again.args(["--resume", "10"]));
    assert!(outcome.stderr.contains("resuming from step 10"), "{}", outcome.stderr);
    assert_eq!(snapshots(&parts), (1..=8).rev().map(|n| 5 * n).collect::<Vec<_>>());
    let aside = fs::read_dir(parts.join("checkpoints/snapshots/aside")).unwrap().count();
    assert_eq!(aside, 4, "of steps 15, 20, 25 and 30");
    trained(1, &parts, 40, "[0.05,0.1]", &every);
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    average(&parts, 0.08, &ours);
    average(&whole, 0.08, &theirs);
    let weights = |run: &Path| values(&buffers(run, 40)["weights"]);
    assert!(distance(&weights(&ours), &weights(&theirs)) < 1e-3);

    // A restart on the same number of ranks continues bit for bit.
    let [straight, broken] = ["straight", "broken"].map(|name| dir.path().join(name));
    trained(1, &straight, 20, "[0.05,0.1]", &[]);
    for steps in [7, 20] {
        trained(1, &broken, steps, "[0.05,0.1]", &[]);
    }
    check_same_bits("a restart", &buffers(&broken, 20), &buffers(&straight, 20));
}

#[test]
fn snapshots_are_thinned_out_by_a_rule_of_their_own() {
    let dir = TempDir::new().unwrap();
    let more = ["ema.keep_snapshots=4", "checkpoint.every=50", "ema.snapshot_every=2"];
    trained(2, dir.path(), 50, "[0.05,0.1]", &more);
    // The interval was doubled from 2 to 16: at most four multiples, and the newest.
    let kept = snapshots(dir.path());
    assert_eq!(kept, [50, 48, 32, 16], "{kept:?}");
    succeed(program().args(["checkpoints", "prune", "--keep-last", "1"]).arg(dir.path()));
    assert_eq!(snapshots(dir.path()), kept, "pruning checkpoints leaves them alone");
    let listed = succeed(program().args(["checkpoints", "list"]).arg(dir.path()));
    assert!(listed.stdout.contains("4 snapshots of averages, of steps 16 to 50"), "{}", listed.stdout);
}

#[test]
fn a_copy_has_the_snapshots_and_a_damaged_one_is_left_out() {
    let dir = TempDir::new().unwrap();
    let [run, copy] = ["run", "copy"].map(|name| dir.path().join(name));
    trained(1, &run, STEPS, "[0.05,0.1]", &["ema.snapshot_every=4", "checkpoint.every=30"]);
    succeed(program().args(["checkpoints", "copy"]).arg(&run).arg("--to").arg(&copy));
    let held = |name: &str| buffers(&dir.path().join(name), STEPS)["weights"].clone();
    average(&run, 0.075, &dir.path().join("whole"));
    average(&copy, 0.075, &dir.path().join("copied"));
    assert_eq!(held("copied"), held("whole"));

    let store = Store::open_existing(copy.join("snapshots").to_str().unwrap()).unwrap();
    let shard = copy.join("snapshots").join(&store.read_manifest(56).unwrap().shards[0].path);
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
    let outcome = average(&copy, 0.075, &dir.path().join("rest"));
    assert!(outcome.stderr.contains("a snapshot is left out: ckpt/000000000056-"), "{}", outcome.stderr);
    let off = distance(&values(&held("rest")), &values(&held("whole")));
    assert!(0.0 < off && off < 1e-2, "{off}");
    // So it is by another copy; the checkpoint is copied all the same.
    let again = dir.path().join("again");
    let outcome = succeed(program().args(["checkpoints", "copy"]).arg(&copy).arg("--to").arg(&again));
    assert!(outcome.stderr.contains("a snapshot was not copied: ckpt/000000000056-"), "{}", outcome.stderr);
    average(&again, 0.075, &dir.path().join("again-average"));
    assert_eq!(held("again-average"), held("rest"));
}

#[test]
fn averages_of_other_weights_are_not_combined() {
    let dir = TempDir::new().unwrap();
    let run = dir.path().join("run");
    let every = ["ema.snapshot_every=1", "checkpoint.every=10", "checkpoint.keep_last=9"];
    trained(1, &run, 10, "[0.05]", &every);
    // A second width: both begin anew, and the snapshots until then do not count.
    succeed(training(1, &run, 20, "[0.05,0.1]", &every).args(["--allow-change", "ema.widths"]));
    let outcome = average(&run, 0.075, &dir.path().join("out"));
    assert!(outcome.stderr.contains("combined from 9 snapshots and step 20"), "{}", outcome.stderr);
    // A resume discards the snapshots after its step even if it takes none itself.
    let without = ["checkpoint.every=10", "checkpoint.keep_last=9", "ema.keep_snapshots=32"];
    succeed(training(1, &run, 15, "[]", &without).args(["--resume", "10", "--allow-change", "ema.widths"]));
    assert_eq!(snapshots(&run), (1..=10).rev().collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_reconstructed() {
    let dir = TempDir::new().unwrap();
    let [wide, few, plain, early, single, rare] =
        ["wide", "few", "plain", "early", "single", "rare"].map(|name| dir.path().join(name));
    trained(1, &wide, 10, "[0.05,0.1]", &["ema.snapshot_every=1"]);
    trained(1, &few, 10, "[0.05,0.1]", &[]);
    trained(1, &plain, 2, "[]", &[]);
    trained(1, &early, 4, "[0.05,0.1]", &[]);
    trained(1, &single, 10, "[0.1]", &[]);
    // Averages that were never updated.
    trained(1, &rare, 10, "[0.05,0.1]", &["ema.every=100"]);
    let taken = dir.path().join("taken");
    average(&wide, 0.07, &taken);
    let cases = [
        (
            &wide,
            "0.2",
            &plain,
            2,
            "0.2 is not between the widths that the run keeps, 0.05 to 0.1",
            "Choose a width in between",
        ),
        (&wide, "nan", &plain, 2, "is not between the widths", "Choose a width in between"),
        (&wide, "wide", &plain, 2, "invalid value 'wide' for '--width <W>'", "invalid float"),
        (&plain, "0.07", &plain, 2, "holds no power-function averages", "ema.widths=[0.05,0.1]"),
        (&early, "0.07", &plain, 4, "there are no snapshots before step 4", "set ema.snapshot_every lower"),
        (
            &few,
            "0.075",
            &plain,
            4,
            "(1) for width 0.075, whose profile would be off by ",
            "set ema.snapshot_every lower",
        ),
        (&single, "0.07", &plain, 2, "the run keeps one width, 0.1", "Train with two, such as"),
        (&wide, "0.07", &taken, 2, "holds a run already", "give another directory"),
        (&rare, "0.07", &plain, 4, "there are no snapshots before step 10", "train further"),
    ];
    for (source, width, out, code, wrong, fix) in cases {
        let mut command = program();
        command.arg("ema").arg("--model").arg(source).args(["--width", width]).arg("--out").arg(out);
        let outcome = run(&mut command);
        let said = outcome.stderr.contains(wrong) && outcome.stderr.contains(fix);
        assert!(outcome.code == code && said, "{width}: {} {}", outcome.code, outcome.stderr);
    }
    for (set, wrong) in [
        ("ema.widths=[0.3]", "ema.widths = 0.3 is out of range. It must be from 0.01 to 0.28"),
        ("ema.widths=[0.1,0.1]", "listed once only"),
        ("ema.keep_snapshots=1", "ema.keep_snapshots = 1 is out of range. It must be at least 2"),
    ] {
        let outcome = run(program().args(["train", "--config", "smoke", "--dry-run", "--set", set]));
        assert!(outcome.code == 2 && outcome.stderr.contains(wrong), "{set}: {}", outcome.stderr);
    }
    let outcome = run(program().args(["sample", "--weights", "width=x", "--out", "x.png", "--model"]).arg(&wide));
    assert!(outcome.code == 2 && outcome.stderr.contains("a width such as width=0.1"), "{}", outcome.stderr);
}
