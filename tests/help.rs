//! The help of the commands, the man pages, and the completions.

use std::fs;

use tempfile::TempDir;

use crate::common::{program, run, succeed};

#[test]
fn the_help_of_every_command_ends_with_examples() {
    for command in [
        "train",
        "sample",
        "eval",
        "eval fid",
        "export",
        "checkpoints",
        "checkpoints copy",
        "data pack",
        "plot loss",
        "doctor",
        "completions",
        "man",
    ] {
        let help = succeed(program().args(command.split(' ')).arg("--help")).stdout;
        let examples = help.split_once("\nExamples:\n").map(|(_, examples)| examples);
        let examples = examples.unwrap_or_else(|| panic!("no examples of {command}: {help}"));
        assert!(examples.trim_end().lines().all(|line| line.starts_with("  ")), "{command}: {examples}");
        assert!(examples.starts_with(&format!("  ddpm-dist {command}")), "{command}: {examples}");
    }
    let help = succeed(program().arg("--help")).stdout;
    assert!(help.contains("Exit status: 0 done, 2 bad usage") && help.contains("\nStart here: "), "{help}");
}

#[test]
fn there_is_a_man_page_for_every_command() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("share/man1");
    let outcome = succeed(program().arg("man").arg(&folder));
    let first = folder.join("ddpm-dist.1");
    assert_eq!((outcome.stdout.as_str(), outcome.code), ("", 0));
    assert!(outcome.stderr.contains(&format!("man {}", first.display())), "{}", outcome.stderr);
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap().replace("\\-", "-");
    for (page, texts) in [
        ("ddpm-dist.1", ["ddpm-dist-train(1)", "Exit status"]),
        ("ddpm-dist-train.1", ["--allow-change", "ddpm-dist train --config smoke"]),
        ("ddpm-dist-checkpoints.1", ["ddpm-dist-checkpoints-copy(1)", "--retry-for"]),
        ("ddpm-dist-checkpoints-copy.1", ["--to", "ddpm-dist checkpoints copy runs/smoke --to backup"]),
        ("ddpm-dist-plot-loss.1", ["--metric", "ddpm-dist plot loss"]),
    ] {
        let page_text = read(page);
        for text in texts {
            assert!(page_text.contains(text), "{page} lacks {text}: {page_text}");
        }
    }
    // Pages of the help command would say nothing.
    let helps = fs::read_dir(&folder).unwrap().filter(|page| {
        let name = page.as_ref().unwrap().file_name();
        name.to_str().unwrap().contains("help")
    });
    assert_eq!(helps.count(), 0);

    fs::write(dir.path().join("file"), "").unwrap();
    let refused = run(program().arg("man").arg(dir.path().join("file")));
    assert!(refused.code == 4 && refused.stderr.contains("check the path"), "{} {}", refused.code, refused.stderr);
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed(program().args(["completions", shell])).stdout;
        assert!(script.contains("checkpoints") && script.contains("train-classifier"), "{shell}: {script}");
    }
}
