//! The layout of the sources: no file reaches itself through its imports, crates depend on one another downwards only, and
//! docs/architecture.md lists the files that there are.

mod modules;
mod paths;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use modules::Sources;

/// Crates that are built and tested without libtorch; one that does not exist is passed over.
const WITHOUT_TORCH: [&str; 11] = [
    "ddpm-spec",
    "ddpm-config",
    "ddpm-data",
    "ddpm-comm",
    "ddpm-plan",
    "ddpm-store",
    "ddpm-checkpoint",
    "ddpm-supervise",
    "ddpm-telemetry",
    "nccl-rs",
    "torch-pickle",
];
/// What binds a crate to libtorch.
const TORCH: [&str; 3] = ["tch", "torch-sys", "tch-ext"];

#[test]
fn no_file_reaches_itself_through_its_imports() {
    let mut faults = Vec::new();
    for (name, dir) in crates() {
        for sources in sources(&dir) {
            let edges = sources.files.keys().map(|file| (file.clone(), sources.imports(file))).collect();
            if let Some(circle) = circle(&edges) {
                let short = |file: &PathBuf| file.strip_prefix(&dir).unwrap().display().to_string();
                faults.push(format!("{name}: {}", circle.iter().map(short).collect::<Vec<_>>().join(" -> ")));
            }
        }
    }
    assert!(faults.is_empty(), "files import each other in a circle:\n  {}", faults.join("\n  "));
}

#[test]
fn crates_depend_downwards_only() {
    let crates = crates();
    let all: BTreeMap<_, _> = crates.iter().map(|(name, dir)| (name.clone(), dependencies(dir))).collect();
    let inner = |name: &String| all[name].iter().filter(|other| all.contains_key(*other)).cloned().collect();
    let edges: BTreeMap<String, BTreeSet<String>> = all.keys().map(|name| (name.clone(), inner(name))).collect();
    if let Some(circle) = circle(&edges) {
        panic!("crates depend on each other in a circle: {}", circle.join(" -> "));
    }
    for name in WITHOUT_TORCH.into_iter().filter(|name| all.contains_key(*name)) {
        let mut reached = BTreeSet::from([name.to_owned()]);
        let mut next = vec![name.to_owned()];
        while let Some(crate_) = next.pop() {
            for other in all.get(&crate_).into_iter().flatten() {
                if reached.insert(other.clone()) {
                    next.push(other.clone());
                }
            }
        }
        let torch = TORCH.iter().find(|torch| reached.contains(**torch));
        assert_eq!(torch, None, "{name} is built without libtorch, and depends on this");
    }
    assert_eq!(edges["ddpm-spec"], BTreeSet::new(), "the vocabulary depends on no crate of ours");
}

#[test]
fn architecture_lists_the_files_that_there_are() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let mut listed = listed_files(&text);
    let root = root();
    let short = |path: &Path| path.strip_prefix(&root).unwrap_or(path).display().to_string();
    let mut faults = Vec::new();
    for (name, dir) in crates() {
        let there: BTreeSet<_> = sources(&dir).into_iter().flat_map(|sources| sources.files.into_keys()).collect();
        let listed = listed.remove(&name).unwrap_or_default();
        let orphans =
            files_below(&dir.join("src")).into_iter().filter(|file| !is_of_tests(file) && !there.contains(file));
        faults.extend(orphans.map(|file| format!("{} is not a module of the crate", short(&file))));
        let covers = |file: &PathBuf| listed.iter().any(|entry| file == entry || file.starts_with(entry));
        let missing = there.iter().filter(|file| !covers(file));
        faults.extend(missing.map(|file| format!("{} is not listed", short(file))));
        let gone = listed.iter().filter(|entry| !entry.exists());
        faults.extend(gone.map(|entry| format!("{} is listed and does not exist", short(entry))));
    }
    faults.extend(listed.into_keys().map(|name| format!("crate {name} is listed and does not exist")));
    assert!(faults.is_empty(), "docs/architecture.md and the sources differ:\n  {}", faults.join("\n  "));
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Name and folder of each crate.
fn crates() -> Vec<(String, PathBuf)> {
    let dirs = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let dirs = dirs.filter(|dir| dir.join("Cargo.toml").is_file());
    let mut crates: Vec<_> = dirs.map(|dir| (dir.file_name().unwrap().to_str().unwrap().to_owned(), dir)).collect();
    crates.sort();
    crates
}

/// The files of a crate's library and of its program.
fn sources(dir: &Path) -> Vec<Sources> {
    let roots = ["src/lib.rs", "src/main.rs"].map(|file| dir.join(file));
    roots.iter().filter(|root| root.is_file()).map(|root| Sources::of(root)).collect()
}

/// The Rust files in a folder, at any depth.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] });
    files.filter(|file| file.extension().is_some_and(|end| end == "rs")).collect()
}

/// Whether a file of `src/` is compiled for tests only.
fn is_of_tests(file: &Path) -> bool {
    file.iter().any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs")
}

/// The crates that one needs to be built, features and targets regardless.
fn dependencies(dir: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section == "dependencies" || section.ends_with(".dependencies");
            if let Some((_, name)) = section.split_once("dependencies.").filter(|_| !section.contains("-dependencies"))
            {
                names.insert(name.to_owned());
            }
        } else if inside && let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            names.insert(key.trim().split('.').next().unwrap().trim_matches('"').to_owned());
        }
    }
    names
}

/// A way from a node back to itself, if there is one: its first and last node are the same.
fn circle<N: Ord + Clone>(edges: &BTreeMap<N, BTreeSet<N>>) -> Option<Vec<N>> {
    fn visit<N: Ord + Clone>(
        node: &N,
        edges: &BTreeMap<N, BTreeSet<N>>,
        way: &mut Vec<N>,
        done: &mut BTreeSet<N>,
    ) -> Option<Vec<N>> {
        if let Some(start) = way.iter().position(|passed| passed == node) {
            return Some(way[start..].iter().chain([node]).cloned().collect());
        }
        if !done.insert(node.clone()) {
            return None;
        }
        way.push(node.clone());
        let found = edges.get(node).into_iter().flatten().find_map(|next| visit(next, edges, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|node| visit(node, edges, &mut Vec::new(), &mut done))
}

/// The files and folders of each crate that docs/architecture.md lists.
fn listed_files(text: &str) -> BTreeMap<String, BTreeSet<PathBuf>> {
    let mut listed: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    let (mut name, mut base) = (None, None);
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            // `### ddpm-nn, networks and their optimisation`
            let first = title.split(',').next().unwrap_or(title).trim();
            let is_crate =
                title.contains(',') && first.chars().all(|c| c.is_ascii_lowercase() || "-0123456789".contains(c));
            (name, base) = (is_crate.then(|| first.to_owned()), None);
            if let Some(name) = &name {
                listed.entry(name.clone()).or_default();
            }
            continue;
        }
        let Some(name) = &name else { continue };
        let Some(cell) = line.strip_prefix('|').and_then(|row| row.split('|').next()) else { continue };
        let dir = root().join("crates").join(name);
        match cell.trim() {
            "file in `src/`" => base = Some(dir.join("src")),
            "file" => base = Some(dir),
            _ if cell.contains("---") => {}
            _ => {
                let Some(base) = &base else { continue };
                let mut folder = base.clone();
                for entry in cell.split('`').skip(1).step_by(2) {
                    // A later entry of a row may be written relative to the folder of the one before.
                    let candidates = [folder.join(entry), base.join(entry)];
                    let entry = candidates.iter().find(|path| path.exists()).unwrap_or(&candidates[1]).clone();
                    folder = entry.parent().unwrap_or(base).to_path_buf();
                    listed.get_mut(name).unwrap().insert(entry);
                }
            }
        }
    }
    listed
}
