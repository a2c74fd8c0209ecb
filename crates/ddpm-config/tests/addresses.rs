//! Paths and addresses: invalid ones are refused with the spelling that works, and recorded paths mean the same from any
//! folder.

use std::env;
use std::path::Path;

use ddpm_config::{DifferenceKind, Labels, Settings, check_address, check_path};

/// The settings, or the message of their error.
fn load(sets: &[&str]) -> Result<Settings, String> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    Settings::load("mnist", &sets).map_err(|error| error.to_string())
}

/// Asserts that each text is refused as an address, and that the fix is "Write" with the spelling beside it.
fn respelt(cases: &[(&str, &str)]) {
    for (text, wanted) in cases {
        let misspelt = check_address(text).expect_err(text);
        let fix = misspelt.fix.strip_prefix("Write ").unwrap_or_else(|| panic!("{text}: {}", misspelt.fix));
        let spelling = fix.split(", ").next().unwrap();
        assert_eq!(spelling, *wanted, "{text}");
        check_address(spelling).unwrap_or_else(|e| panic!("{text}: the remedy {spelling} is refused: {e}"));
        assert!(check_path(text).is_err(), "{text} is taken for a path");
    }
}

#[test]
fn misspelt_addresses_are_refused_with_the_right_spelling() {
    respelt(&[
        ("s3:/bkt/x", "s3://bkt/x"),
        ("s3//bkt/x", "s3://bkt/x"),
        ("s3:bkt", "s3://bkt"),
        ("s3:bkt/x", "s3://bkt/x"),
        ("s3:///bkt/x", "s3://bkt/x"),
        ("S3://bkt/x", "s3://bkt/x"),
        (" s3://bkt/x ", "s3://bkt/x"),
        ("s3://bkt/x\n", "s3://bkt/x"),
        ("s3a://bkt/x", "s3://bkt/x"),
        ("arn:aws:s3:::bkt/x", "s3://bkt/x"),
        ("gs:/b", "gs://b"),
        ("gcs://b/x", "gs://b/x"),
        ("GS//b", "gs://b"),
        ("azure://c/x", "az://c/x"),
        ("abfss:/c/x", "az://c/x"),
        ("file:/abs", "/abs"),
        ("file://localhost/abs", "/abs"),
        ("file://relative/x", "relative/x"),
        ("FILE:///abs", "/abs"),
        ("https://bkt.s3.amazonaws.com/x/y", "s3://bkt/x/y"),
        ("https://bkt.s3.eu-west-1.amazonaws.com/x", "s3://bkt/x"),
        ("https://s3.eu-west-1.amazonaws.com/bkt/x", "s3://bkt/x"),
        ("https://storage.googleapis.com/b/x", "gs://b/x"),
        ("https://acc.blob.core.windows.net/c/x", "az://c/x"),
        ("http://127.0.0.1:9000/bkt/x", "s3://bkt/x"),
    ]);
    assert!(
        check_address("http://127.0.0.1:9000/bkt").unwrap_err().fix.contains("AWS_ENDPOINT_URL=http://127.0.0.1:9000")
    );
}

#[test]
fn shell_variables_are_expanded_in_the_fix() {
    let home = env::var("HOME").unwrap();
    respelt(&[
        ("~/ck", &format!("{home}/ck")),
        ("$HOME/ck", &format!("{home}/ck")),
        ("${HOME}/ck", &format!("{home}/ck")),
        ("/data/$CARGO_PKG_NAME/ck", &format!("/data/{}/ck", env!("CARGO_PKG_NAME"))),
    ]);
    for text in
        ["~other/ck", "~", "$NOT_SET_ANYWHERE/ck", "${NOT_SET_ANYWHERE}/ck", "$(pwd)/ck", "s3://$BUCKET_NOT_SET/x"]
    {
        assert!(check_address(text).is_err() && check_path(text).is_err(), "{text}");
    }
}

#[test]
fn places_on_other_machines_are_not_folders() {
    for text in
        ["nas:/export/x", "me@host:/x", "C:/runs", "C:\\runs", "hdfs://host/x", "ftp://host/x", "hf://user/model"]
    {
        assert!(check_address(text).is_err() && check_path(text).is_err(), "{text}");
    }
}

#[test]
fn plain_paths_and_addresses_pass() {
    let paths = [
        "runs/x",
        "/abs/x",
        "./~x",
        "./$x",
        "../s3:/x",
        "/data/./$x",
        "a b",
        "lr=1e-4:v2",
        "runs//x",
        "s3/x",
        "x~",
        "é",
    ];
    for text in paths {
        check_path(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        check_address(text).unwrap();
    }
    for text in ["s3://b", "s3://b/x/", "gs://b/x", "az://c/x", "file:///abs/x", "memory://"] {
        check_address(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(check_path(text).is_err(), "{text} is taken for a path");
    }
}

#[test]
fn every_path_among_the_settings_is_checked() {
    for set in [
        "run.dir=~/runs/x",
        "run.dir=s3://b/x",
        "data.path=$HOME/mnist",
        "data.path=s3://b/mnist",
        "data.labels=~/labels.gz",
        "checkpoint.uri=s3:/b/x",
    ] {
        let message = load(&[set]).expect_err(set);
        assert!(message.starts_with(set.split('=').next().unwrap()), "{message}");
    }
    let error = Settings::load("~/mine.toml", &[]).unwrap_err().to_string();
    assert!(error.contains("no configuration file") && error.contains("/mine.toml."), "{error}");
}

#[test]
fn anchored_settings_mean_the_same_from_any_folder() {
    let typed = load(&["run.dir=runs/x", "data.path=../d", "data.labels=./l.gz", "checkpoint.uri=ck/x"]).unwrap();
    let anchored = typed.clone().anchored(Path::new("/home/me"));
    assert_eq!(anchored.run.dir, "/home/me/runs/x");
    assert_eq!(anchored.data.path, "/home/me/../d");
    assert_eq!(anchored.data.labels, Labels::Path("/home/me/./l.gz".into()));
    assert_eq!(anchored.checkpoint.uri.as_deref(), Some("/home/me/ck/x"));
    assert_eq!(anchored.clone().anchored(Path::new("/other")), anchored);
    let absent = load(&["checkpoint.uri=s3://b/x"]).unwrap().anchored(Path::new("/home/me"));
    assert_eq!(absent.checkpoint.uri.as_deref(), Some("s3://b/x"));
    // Read again as a configuration, it is valid.
    assert_eq!(Settings::from_toml(&anchored.to_toml(), "config.toml", &[]).unwrap(), anchored);
}

#[test]
fn relative_and_absolute_paths_of_data_are_equal() {
    let learned = |ours: &Settings, theirs: &Settings| {
        let differences = ours.diff(theirs).into_iter().filter(|d| d.kind == DifferenceKind::Learned);
        differences.map(|d| d.key).collect::<Vec<_>>()
    };
    let typed = load(&["data.path=data/mnist", "data.labels=data/labels.gz"]).unwrap();
    let recorded = typed.clone().anchored(Path::new("/home/me"));
    assert_eq!(learned(&typed, &recorded), [""; 0]);
    assert_eq!(learned(&recorded, &typed), [""; 0]);
    // Typed in the same words somewhere else, as after a move to another machine.
    let dotted = load(&["data.path=./data/mnist", "data.labels=data/labels.gz"]).unwrap();
    assert_eq!(learned(&dotted, &recorded), [""; 0]);
    let other = load(&["data.path=data/fashion", "data.labels=data/labels.gz"]).unwrap();
    assert_eq!(learned(&other, &recorded), ["data.path"]);
    let here = env::current_dir().unwrap();
    let dot = load(&["data.path=.", "data.labels=data/labels.gz"]).unwrap();
    assert_eq!(learned(&dot, &dot.clone().anchored(&here)), [""; 0]);
    assert_eq!(learned(&dot, &recorded), ["data.path"]);
    let words = load(&["data.path=data/mnist", "data.labels=auto"]).unwrap();
    assert_eq!(learned(&words, &recorded), ["data.labels"]);
}
