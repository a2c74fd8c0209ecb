//! The modules of a crate, and which file a path names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::paths::{paths, uses};
use crate::tokens::{tokens, without_tests};

/// The files of a crate's module tree, without those that only tests are built from.
pub struct Sources {
    root: PathBuf,
    pub files: BTreeMap<PathBuf, Source>,
    /// The file of each module that is a file, by its path from the root.
    modules: BTreeMap<Vec<String>, PathBuf>,
}

/// One file, without its tests.
pub struct Source {
    module: Vec<String>,
    tokens: Vec<String>,
    /// Names that `use` brings in, with the path that each stands for; `*` for a glob, once for each.
    imported: Vec<(String, Vec<String>)>,
}

impl Sources {
    /// The modules below the file `root`.
    pub fn of(root: &Path) -> Self {
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
    pub fn imports(&self, file: &Path) -> BTreeSet<PathBuf> {
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
