//! The layout of the sources: no file reaches itself through its imports, crates depend on one another downwards only, and
//! docs/architecture.md lists the files that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates that are built and tested without libtorch; one that does not exist is passed over.
const WITHOUT_TORCH: [&str; 8] = [
    "ddpm-spec",
    "ddpm-config",
    "ddpm-data",
    "ddpm-comm",
    "ddpm-checkpoint",
    "ddpm-telemetry",
    "nccl-rs",
    "torch-pickle",
];
/// The crate whose files are still being separated.
const UNFINISHED: &str = "ddpm-dist";
/// What binds a crate to libtorch.
const TORCH: [&str; 3] = ["tch", "torch-sys", "tch-ext"];

#[test]
fn no_file_reaches_itself_through_its_imports() {
    let mut faults = Vec::new();
    for (name, dir) in crates().into_iter().filter(|(name, _)| name != UNFINISHED) {
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
            // `### ddpm-nn, networks and what trains them`
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

/// The files of a crate's module tree, without those that only tests are built from.
struct Sources {
    root: PathBuf,
    files: BTreeMap<PathBuf, Source>,
    /// The file of each module that is a file, by its path from the root.
    modules: BTreeMap<Vec<String>, PathBuf>,
}

/// One file, without its tests.
struct Source {
    module: Vec<String>,
    tokens: Vec<String>,
    /// Names that `use` brings in, with the path that each stands for; `*` for a glob, once for each.
    imported: Vec<(String, Vec<String>)>,
}

impl Sources {
    /// The modules below the file `root`.
    fn of(root: &Path) -> Self {
        let mut sources = Self { root: root.into(), files: BTreeMap::new(), modules: BTreeMap::new() };
        sources.add(root.into(), Vec::new());
        sources
    }

    fn add(&mut self, file: PathBuf, module: Vec<String>) {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens = without_tests(tokens(&text));
        let children: Vec<String> = tokens
            .windows(3)
            .filter(|three| three[0] == "mod" && three[2] == ";")
            .map(|three| three[1].clone())
            .collect();
        let imported = uses(&tokens);
        self.modules.insert(module.clone(), file.clone());
        self.files.insert(file.clone(), Source { module: module.clone(), tokens, imported });
        let is_root_or_mod = file == self.root || file.file_name().unwrap() == "mod.rs";
        let folder = if is_root_or_mod { file.parent().unwrap().to_path_buf() } else { file.with_extension("") };
        for child in children {
            let candidates = [folder.join(format!("{child}.rs")), folder.join(&child).join("mod.rs")];
            let path = candidates.into_iter().find(|path| path.is_file());
            let path = path.unwrap_or_else(|| panic!("{} declares {child}, which has no file", file.display()));
            self.add(path, [module.as_slice(), &[child]].concat());
        }
    }

    /// The other files that a file imports something from, and those of the modules that it declares.
    fn imports(&self, file: &Path) -> BTreeSet<PathBuf> {
        let source = &self.files[file];
        let declared = self
            .modules
            .iter()
            .filter(|(path, _)| path.len() == source.module.len() + 1 && path.starts_with(&source.module));
        let mut found: BTreeSet<PathBuf> = declared.map(|(_, file)| file.clone()).collect();
        let paths = source.imported.iter().map(|(_, path)| path.clone()).chain(paths(&source.tokens));
        for path in paths {
            found.extend(self.resolve(&source.module, &path, 0));
        }
        found.remove(file);
        found
    }

    /// The file in which what `path` names is defined, as seen from a module; none if that is another crate.
    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<PathBuf> {
        let (mut at, rest): (Vec<String>, &[String]) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (module.to_vec(), &path[1..]),
            "super" => (module[..module.len().checked_sub(1)?].to_vec(), &path[1..]),
            first => {
                let child = [module, &[first.to_owned()]].concat();
                if !self.modules.contains_key(&child) {
                    return None;
                }
                (child, &path[1..])
            }
        };
        let mut rest = rest;
        while let Some(name) = rest.first() {
            if name == "super" {
                at.pop();
            } else if self.modules.contains_key(&[at.as_slice(), std::slice::from_ref(name)].concat()) {
                at.push(name.clone());
            } else {
                break;
            }
            rest = &rest[1..];
        }
        let file = self.modules.get(&at)?.clone();
        // A name that the module only passes on is defined elsewhere.
        let (Some(name), true) = (rest.first().filter(|name| *name != "*"), depth < 16) else { return Some(file) };
        let source = &self.files[&file];
        if source.defines(name) {
            return Some(file);
        }
        if let Some((_, path)) = source.imported.iter().find(|(imported, _)| imported == name) {
            // What another crate defines ties no file of this one.
            let own = ["crate", "self", "super"].contains(&path[0].as_str())
                || self.modules.contains_key(&[source.module.as_slice(), &path[..1]].concat());
            return if own { self.resolve(&source.module, path, depth + 1) } else { None };
        }
        for (_, glob) in source.imported.iter().filter(|(imported, _)| imported == "*") {
            let path = [&glob[..glob.len() - 1], std::slice::from_ref(name)].concat();
            if let Some(found) = self.resolve(&source.module, &path, depth + 1)
                && self.files[&found].defines(name)
            {
                return Some(found);
            }
        }
        Some(file)
    }
}

impl Source {
    fn defines(&self, name: &str) -> bool {
        const ITEMS: [&str; 10] =
            ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod", "macro_rules"];
        self.tokens.windows(3).any(|three| {
            ITEMS.contains(&three[0].as_str()) && (three[1] == name || three[1] == "!" && three[2] == name)
        })
    }
}

/// Identifiers, `::` and single characters of a file, without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let starts = |at: usize, with: &str| with.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let name = |c: &char| c.is_alphanumeric() || *c == '_';
    while at < chars.len() {
        let c = chars[at];
        if starts(at, "//") {
            at += chars[at..].iter().take_while(|c| **c != '\n').count();
        } else if starts(at, "/*") {
            let mut depth = 0;
            loop {
                if starts(at, "/*") {
                    (depth, at) = (depth + 1, at + 2);
                } else if starts(at, "*/") {
                    (depth, at) = (depth - 1, at + 2);
                } else {
                    at += 1;
                }
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if let Some(hashes) = raw_string(&chars[at..]) {
            let end = format!("\"{}", "#".repeat(hashes));
            at += chars[at..].iter().take_while(|c| **c != '"').count() + 1;
            while at < chars.len() && !starts(at, &end) {
                at += 1;
            }
            at += end.len();
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' {
            // A character, or else a lifetime.
            at += match (chars.get(at + 1), chars.get(at + 2)) {
                (Some('\\'), _) => 3 + chars[at + 3..].iter().take_while(|c| **c != '\'').count() + 1,
                (_, Some('\'')) => 3,
                _ => 1 + chars[at + 1..].iter().take_while(|c| name(c)).count(),
            };
        } else if name(&c) {
            let length = chars[at..].iter().take_while(|c| name(c)).count();
            tokens.push(chars[at..at + length].iter().collect());
            at += length;
        } else if starts(at, "::") {
            tokens.push("::".into());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.into());
            }
            at += 1;
        }
    }
    tokens
}

/// How many `#` a raw string that starts here has, if one does.
fn raw_string(chars: &[char]) -> Option<usize> {
    let chars = match chars {
        ['b' | 'c', 'r', rest @ ..] | ['r', rest @ ..] => rest,
        _ => return None,
    };
    let hashes = chars.iter().take_while(|c| **c == '#').count();
    (chars.get(hashes) == Some(&'"')).then_some(hashes)
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().take(mark.len()).eq(mark.iter()) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // To the end of the item: a semicolon, or the brace that closes its first.
        let mut depth = 0;
        at += mark.len();
        while at < tokens.len() {
            match tokens[at].as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            let ends = depth == 0 && matches!(tokens[at].as_str(), ";" | "}");
            at += 1;
            if ends {
                break;
            }
        }
    }
    kept
}

/// The names that `use` items bring in, each with its path.
fn uses(tokens: &[String]) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins_item = at == 0 || [";", "}", "{", ")", "]", "pub"].contains(&tokens[at - 1].as_str());
        if token == "use" && begins_item {
            let end = tokens[at..].iter().position(|token| token == ";").map_or(tokens.len(), |length| at + length);
            use_tree(&tokens[at + 1..end], &[], &mut found);
        }
    }
    found
}

/// One tree of a `use` item: `a::b`, `a::{b, c as d}`, `a::*`.
fn use_tree(tokens: &[String], prefix: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "::" => {}
            "{" => {
                let inner = &tokens[at + 1..tokens.len() - 1];
                let mut depth = 0;
                for tree in inner.split(|token| {
                    depth += match token.as_str() {
                        "{" => 1,
                        "}" => -1,
                        _ => 0,
                    };
                    depth == 0 && token == ","
                }) {
                    use_tree(tree, &path, found);
                }
                return;
            }
            "as" => {
                let name = tokens.get(at + 1).cloned().unwrap_or_default();
                found.push((name, path));
                return;
            }
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    // `a::{self}` is `a`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(last) = path.last().filter(|_| path.len() > prefix.len() || tokens == ["self"]) {
        found.push((last.clone(), path));
    }
}

/// Paths outside of `use` items that begin at the crate, here, or above.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let is_name = |token: &String| token.chars().all(|c| c.is_alphanumeric() || c == '_');
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let follows = |offset: usize, text: &str| tokens.get(offset).is_some_and(|token| token == text);
        let starts = ["crate", "self", "super"].contains(&token.as_str()) && follows(at + 1, "::");
        if !starts || at > 0 && tokens[at - 1] == "::" || in_use(tokens, at) {
            continue;
        }
        let mut path = vec![token.clone()];
        let mut next = at + 1;
        while follows(next, "::") && tokens.get(next + 1).is_some_and(is_name) {
            path.push(tokens[next + 1].clone());
            next += 2;
        }
        found.push(path);
    }
    found
}

/// Whether a token lies in a `use` item.
fn in_use(tokens: &[String], at: usize) -> bool {
    let start = tokens[..at].iter().rposition(|token| token == ";").map_or(0, |end| end + 1);
    tokens[start..at].iter().any(|token| token == "use")
}
