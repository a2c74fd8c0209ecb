//! Wrong input of every sort is refused with the key, where it stands, and how to fix it.

use std::fs;

use ddpm_config::Settings;
use tempfile::TempDir;

/// Loads `config` with `sets` and asserts that the message contains every fragment.
fn check(config: &str, sets: &[&str], fragments: &[&str]) {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let message = match Settings::load(config, &sets) {
        Ok(_) => panic!("{config} {sets:?} was accepted"),
        Err(error) => error.to_string(),
    };
    for fragment in fragments {
        assert!(message.contains(fragment), "{config} {sets:?}\n  said: {message}\n  not:  {fragment}");
    }
    assert!(message.ends_with(['.', '?']) && message.contains(". "), "two sentences: {message}");
}

/// The same for the text of a file, which stands as FILE in the fragments.
fn check_file(text: &str, fragments: &[&str]) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("mine.toml").display().to_string();
    fs::write(&file, text).unwrap();
    let fragments: Vec<String> = fragments.iter().map(|fragment| fragment.replace("FILE", &file)).collect();
    check(&file, &[], &fragments.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn misspelt_keys_name_key_file_and_nearest() {
    check_file("[train]\nstpes = 5", &["unknown key `train.stpes` in FILE", "Did you mean `train.steps`?"]);
    check_file("[trian]\nsteps = 5", &["unknown key `trian` in FILE", "Did you mean `train`?"]);
    check_file("sede = 1", &["unknown key `sede`", "`seed`"]);
    check_file("[data]\nknd = 'idx'", &["`data.knd`", "`data.kind`"]);
    check("smoke", &["model.chanels=[8]"], &["`model.chanels` in --set model.chanels=[8]", "`model.channels`"]);
    check("smoke", &["lr=1e-3"], &["unknown key `lr`", "Did you mean `train.lr`?"]);
    check("smoke", &["train.zzzzzz=1"], &["`train.zzzzzz`", "Use one of train.adam_eps, train.betas"]);
    check("smoke", &["data.cache=ram"], &["unknown key `data.cache`"]);
}

#[test]
fn a_fault_is_traced_to_the_layer_it_came_from() {
    let folder = TempDir::new().unwrap();
    let (base, top) = (folder.path().join("base.toml"), folder.path().join("top.toml"));
    fs::write(&base, "[data]\nkind = 'synthetic'\n[train]\nlr = 'fast'").unwrap();
    fs::write(&top, "extends = 'base.toml'\n[train]\nsteps = 1").unwrap();
    check(&top.display().to_string(), &[], &["`train.lr` in ", "base.toml is \"fast\""]);
    check(&top.display().to_string(), &["train.lr=slow"], &["in --set train.lr=slow is \"slow\""]);
}

#[test]
fn misspelt_words_name_the_choices_and_the_nearest() {
    check_file(
        "[data]\nkind = 'foldr'",
        &["`data.kind` in FILE is \"foldr\"", "\"folder\"", "Did you mean \"folder\"?"],
    );
    check("smoke", &["diffusion.schedule=cosin"], &["Did you mean \"cosine\"?", "\"linear\", \"quadratic\""]);
    check("smoke", &["diffusion.variance=fixedsmall"], &["Did you mean \"fixed_small\"?"]);
    check("smoke", &["train.device=gpu"], &["`train.device`", "\"auto\", \"cpu\", \"cuda\""]);
    check("smoke", &["train.precision=16"], &["`train.precision`", "is 16", "\"fp32\", \"bf16\""]);
    check("smoke", &["data.labels=attribut"], &["\"attribute:NAME\""]);
    check("smoke", &["comm.backend=gloo"], &["\"auto\", \"solo\", \"mpi\", \"nccl\""]);
}

#[test]
fn keys_that_exclude_each_other_are_refused_together() {
    check("smoke", &["model.heads=2", "model.head_dim=4"], &["model.heads and model.head_dim are both set"]);
    check("smoke", &["model.heads=3"], &["model.heads = 3 does not divide the 8 channels", "Use 1, 2, 4 or 8."]);
    check("smoke", &["model.mid_norm_groups=3"], &["model.mid_norm_groups = 3 does not divide the 16 channels"]);
    check(
        "smoke",
        &["model.mid_norm_groups=4", "model.mid_attention=absent"],
        &["this model.mid_attention has no norm"],
    );
    check("smoke", &["model.time_scale=0"], &["model.time_scale = 0 is out of range", "above 0"]);
    check("smoke", &["train.init_skip_mismatched=true"], &["train.init_from names no model"]);
    check("smoke", &["data.kind=unknown", "data.channels=17"], &["data.channels = 17", "from 1 to 16"]);
    check("smoke", &["data.channels=4"], &["data.channels = 4", "1 (grey) or 3 (RGB) for this kind of data"]);
    check(
        "smoke",
        &["data.range=[0,255]"],
        &["data.range is set, but this kind of data has 8 bits. Remove data.range."],
    );
    check("celeba64", &["data.channels=17"], &["data.channels = 17 is out of range. It must be from 1 to 16."]);
    check(
        "celeba64",
        &["data.alpha=keep"],
        &["data.alpha = keep needs data.channels = 2 (grey) or 4 (RGB), and it is 3"],
    );
    check(
        "celeba64",
        &["data.alpha=[255,0,0]", "data.channels=5"],
        &["data.alpha = [255, 0, 0] needs data.channels = 1 (grey) or 3 (RGB), and it is 5", "data.alpha to black"],
    );
    check("celeba64", &["data.range=[1,0]"], &["data.range = [1, 0] is out of range", "[0, 65535]"]);
}

#[test]
fn wrong_types_name_the_type_wanted_and_the_value_found() {
    check_file("[train]\nlr = 'fast'", &["`train.lr` in FILE is \"fast\", but must be a number"]);
    check("smoke", &["train.steps=1e4"], &["is 10000.0", "must be a whole number, 0 or more", "Write 10000."]);
    check("smoke", &["train.steps=-1"], &["`train.steps`", "is -1", "must be a whole number"]);
    check("smoke", &["data.image_size=99999999999"], &["a whole number from 0 to 4294967295"]);
    for size in ["big", "[32]", "[32,16,3]", "[32,'16']", "-1", "1.5"] {
        check("smoke", &[&format!("data.image_size={size}")], &["`data.image_size", "must be a"]);
    }
    check("celeba64", &["data.range=[0]"], &["`data.range`", "must be a list of 2"]);
    check("celeba64", &["data.alpha=[0,0,256]"], &["`data.alpha[2]`", "is 256"]);
    check("celeba64", &["data.alpha=blue"], &["`data.alpha`", "\"black\", \"white\", \"keep\""]);
    check("celeba64", &["data.fit=squeeze"], &["`data.fit`", "\"crop\", \"pad\", \"stretch\""]);
    check("smoke", &["data.flip=1"], &["is 1, but must be true or false"]);
    check("smoke", &["model.channels=32"], &["is 32, but must be a list"]);
    check("smoke", &["model.channels=[8, wide]"], &["not valid TOML"]);
    check("smoke", &["model.channels=[8, 'wide']"], &["`model.channels[1]`", "is \"wide\""]);
    check("smoke", &["train.betas=[0.9]"], &["must be a list of 2"]);
    check("smoke", &["train.betas=[0.9,0.99,0.999]"], &["must be a list of 2"]);
    check("smoke", &["run.name=2026"], &["is 2026, but must be a string", "--set 'run.name=\"2026\"'"]);
    check("smoke", &["train=5"], &["`train` in --set train=5 is 5, but must be a table"]);
    check("smoke", &["train=[5]"], &["`train`", "must be a table"]);
    check("smoke", &["seed.x=5"], &["`seed` in --set seed.x=5 is a table"]);
    check("smoke", &["run.name=2026-01-01"], &["but must be a string"]);
}

#[test]
fn invalid_toml_and_missing_files_are_refused() {
    check_file("[train]\nlr = = 3", &["FILE is not valid TOML: line 2, column 6"]);
    check_file("[train]\nlr = 1\nlr = 2", &["FILE is not valid TOML: line 3"]);
    check_file("seed = 1", &["`data.kind` is not set in FILE", "\"idx\", \"folder\" or \"synthetic\""]);
    check("mnits", &[], &["no configuration file or preset `mnits`", "Did you mean the preset `mnist`?", "celeba64"]);
    check("no/such/thing.toml", &[], &["no/such/thing.toml", "one of the presets smoke, digits"]);
    check_file("extends = 'nowhere.toml'", &["`nowhere.toml`, which FILE extends"]);
    check_file("extends = 3", &["`extends` in FILE is 3, but must be a string"]);
    check("smoke", &["train.lr"], &["--set train.lr does not name a key and a value"]);
    check("smoke", &["train..lr=1"], &["Write it as --set a.b=value"]);
    check("smoke", &["extends=mnist"], &["`extends`", "Write it in a configuration file."]);
}

#[test]
fn whole_numbers_beyond_toml_name_the_range() {
    let range = "is out of range, and whole numbers go from -9223372036854775808 to 9223372036854775807";
    for number in [
        "9223372036854775808",
        "18446744073709551615",
        "-9223372036854775809",
        "99_999_999_999_999_999_999_999",
        "99999999999999999999999999999999999999999999999999",
        "0xffffffffffffffff",
    ] {
        let said = format!("{number} {range}");
        check("smoke", &[&format!("seed={number}")], &[&format!("--set seed={number} is not valid TOML: {said}")]);
        check_file(&format!("seed = {number}\n[data]\nkind = 'synthetic'"), &["FILE", "line 1, column 8: ", &said]);
        check("smoke", &[&format!("ema.rates=[{number}]")], &[&said]);
        check("smoke", &[&format!("train.steps={number}")], &[&said]);
    }
    check("smoke", &["seed=-1"], &["`seed`", "is -1, but must be a whole number, 0 or more"]);
    check("smoke", &["seed=1e9"], &["is 1000000000.0", "Write 1000000000."]);
    for number in ["1e19", "-1e9", "-1.0"] {
        check("smoke", &[&format!("seed={number}")], &["must be a whole number", "Change the value."]);
    }
    check("smoke", &["data.image_size=5e9"], &["from 0 to 4294967295", "Change the value."]);
    assert_eq!(Settings::load("smoke", &["seed=9223372036854775807".into()]).unwrap().seed, i64::MAX as u64);
    assert_eq!(Settings::load("smoke", &["run.name=007".into()]).unwrap().run.name, "007", "a bare word");
}

#[test]
fn files_that_extend_each_other_are_refused() {
    let folder = TempDir::new().unwrap();
    let (a, b) = (folder.path().join("a.toml"), folder.path().join("b.toml"));
    fs::write(&a, "extends = 'b.toml'").unwrap();
    fs::write(&b, "extends = './a.toml'").unwrap();
    check(&a.display().to_string(), &[], &["in a circle", "a.toml -> ", "b.toml -> "]);
    check_file("extends = 'mine.toml'", &["FILE -> FILE"]);
}

#[test]
fn values_out_of_range_name_key_and_range() {
    for (set, key, wanted) in [
        ("train.steps=0", "train.steps = 0", "at least 1"),
        ("train.lr=0", "train.lr = 0", "above 0"),
        ("train.lr=nan", "train.lr = NaN", "above 0"),
        ("train.lr=inf", "train.lr = inf", "above 0"),
        ("train.grad_clip=-1.0", "train.grad_clip = -1", "0 for none"),
        ("train.betas=[0.9,1.0]", "train.betas = 1", "below 1"),
        ("train.global_batch=0", "train.global_batch = 0", "at least 1"),
        ("train.micro_batch=17", "train.micro_batch = 17", "at most train.global_batch = 16"),
        ("train.weight_decay=-0.1", "train.weight_decay", "0 or above"),
        ("ema.rates=[1.0]", "ema.rates = 1", "below 1"),
        ("ema.rates=[0.9,0.9]", "ema.rates = 0.9", "once only"),
        ("ema.every=0", "ema.every = 0", "at least 1"),
        ("checkpoint.keep_last=1", "checkpoint.keep_last = 1", "at least 2"),
        ("checkpoint.part_mb=5", "checkpoint.part_mb = 5", "at least 8"),
        ("checkpoint.retry_s=3601", "checkpoint.retry_s = 3601", "at most 3600"),
        ("checkpoint.uri=", "checkpoint.uri is empty", "leave the key out"),
        ("monitor.peak_tflops=-1", "monitor.peak_tflops = -1", "above 0"),
        ("monitor.sample_steps=101", "monitor.sample_steps = 101", "diffusion.timesteps = 100"),
        ("data.channels=2", "data.channels = 2", "1 (grey) or 3 (RGB)"),
        ("data.workers=0", "data.workers = 0", "at least 1"),
        ("data.max_megapixels=0", "data.max_megapixels = 0", "at least 1"),
        ("model.dropout=1.0", "model.dropout = 1", "below 1"),
        ("model.freq_shift=2", "model.freq_shift = 2", "0 or 1"),
        ("model.channels=[]", "model.channels = []", "1 to 12 widths"),
        ("diffusion.timesteps=1", "diffusion.timesteps = 1", "from 2 to 1000000"),
        ("diffusion.timesteps=4294967295", "diffusion.timesteps = 4294967295", "from 2 to 1000000"),
        ("model.channels=[8,4294967292]", "model.channels = 4294967292", "at most 65536"),
        ("diffusion.label_dropout=1.5", "diffusion.label_dropout = 1.5", "below 1"),
        ("comm.bucket_mb=0", "comm.bucket_mb = 0", "above 0"),
        ("comm.timeout_s=0", "comm.timeout_s = 0", "at least 1"),
        ("comm.straggler_factor=1", "comm.straggler_factor = 1", "above 1"),
    ] {
        check("smoke", &[set], &[key, wanted]);
    }
}

#[test]
fn conflicting_values_name_what_works() {
    check("smoke", &["data.kind=packed"], &["packed", "parquet"]);
    for (kind, labels, wanted) in [
        ("parquet", "folder", "field:COLUMN"),
        ("webdataset", "./labels", "field: and an extension"),
        ("zip", "field:label", "auto, none or folder"),
        ("idx", "field:label", "path of a label file"),
        ("folder", "field:label", "attribute:NAME"),
    ] {
        let kind = format!("data.kind={kind}");
        check("smoke", &[&kind, "data.path=x", &format!("data.labels={labels}")], &["data.labels", wanted]);
    }
    check("smoke", &["data.kind=idx"], &["data.path is not set"]);
    check(
        "mnist",
        &["data.labels=attribute:Smiling"],
        &["data.labels = \"attribute:Smiling\"", "path of a label file"],
    );
    check("celeba64", &["data.labels=./list.txt"], &["data.labels", "attribute:NAME"]);
    check("celeba64", &["model.classes=2"], &["model.classes is set", "\"attribute:NAME\""]);
    check("smoke", &["diffusion.label_dropout=0.1"], &["no labels to drop", "model.classes"]);
    check("smoke", &["model.kind=classifier"], &["a classifier needs model.classes", "such as 10"]);
    check("smoke", &["data.image_size=17"], &["data.image_size = 17 is not a multiple of 2", "Use 16 or 18"]);
    check("smoke", &["data.image_size=[16,17]"], &["data.image_size = 17 is not a multiple of 2", "Use 16 or 18"]);
    check("mnist-small", &["data.image_size=28"], &["data.image_size = 28", "Use 16 or 32"]);
    check("smoke", &["model.channels=[8,18]"], &["18 in model.channels", "Use 16 or 20, or model.norm_groups = 2"]);
    check("smoke", &["model.attention=[true]"], &["model.attention has 1 entries for the 2 levels", "Give 2"]);
    check(
        "smoke",
        &["model.checkpoint_activations=[true]"],
        &["model.checkpoint_activations has 1 entries for the 2 levels", "Give 2"],
    );
    check("smoke", &["model.checkpoint_activations=true"], &["model.checkpoint_activations", "a list"]);
    check(
        "mnist-small",
        &["model.checkpoint_activations=[true,true,true,true]"],
        &["model.checkpoint_activations is set", "model.kind = \"unet\""],
    );
    check("smoke", &["model.head_dim=3"], &["model.head_dim = 3 does not divide the 8", "Use 1, 2, 4 or 8."]);
    check("mnist-small", &["model.dropout=0.1"], &["model.dropout is set", "model.kind = \"unet\""]);
    check("smoke", &["diffusion.loss=hybrid"], &["\"learned_range\""]);
    check("smoke", &["diffusion.variance=learned_range"], &["diffusion.loss = \"hybrid\""]);
    let zero = "diffusion.zero_terminal_snr=true";
    check("smoke", &[zero], &["diffusion.predict = \"eps\" does not work", "Set diffusion.predict = \"v\""]);
    check(
        "smoke",
        &[zero, "diffusion.predict=v", "diffusion.weighting=min_snr"],
        &["every diffusion.weighting is 0 at the last timestep", "Set diffusion.weighting = \"none\""],
    );
    check("smoke", &["diffusion.beta_end=0.5"], &["diffusion.beta_end is set", "set it to 0"]);
    check("smoke", &["diffusion.schedule=list", "diffusion.betas=[0.1]"], &["1 entries for diffusion.timesteps = 100"]);
    check(
        "smoke",
        &["diffusion.schedule=linear", "diffusion.timesteps=10"],
        &["the default diffusion.beta_end for 10"],
    );
    check(
        "tutorial",
        &["diffusion.beta_start=0.03"],
        &["diffusion.beta_start = 0.03", "at most diffusion.beta_end = 0.02"],
    );
}

#[test]
fn a_batch_that_does_not_divide_names_the_nearest_that_do() {
    let world = |sets: &[&str], world: usize| {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        Settings::load("smoke", &sets).unwrap().check_world(world).unwrap_err().to_string()
    };
    assert_eq!(
        world(&["train.global_batch=100"], 3),
        "train.global_batch = 100 does not divide among 3 ranks. Use 99 or 102, or run on 1, 2, 4, 5 or 10 ranks."
    );
    assert_eq!(
        world(&["train.global_batch=1"], 2),
        "train.global_batch = 1 does not divide among 2 ranks. Use 2, or run on 1 rank."
    );
    assert_eq!(
        world(&["train.micro_batch=3"], 2),
        "train.micro_batch = 3 does not divide the 8 images of each of 2 ranks. Use 1, 2, 4 or 8, or 0 for the whole slice."
    );
    assert_eq!(
        world(&["comm.backend=solo"], 2),
        "comm.backend = \"solo\" cannot join 2 ranks. Set it to \"auto\", or run on 1 rank."
    );
}
