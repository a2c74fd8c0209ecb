//! Layers of raw options (`extends`, file, `--set`) merged into one table and read into [`Settings`].

use std::num::IntErrorKind;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ddpm_spec::ModelKind;
use serde::Deserialize;
use toml::{Table, Value};

use crate::address::{Misspelt, check_path};
use crate::de::{FaultKind, Reader};
use crate::keys::{nearest, unknown_key};
use crate::presets::{PRESETS, Preset};
use crate::settings::{default_attention, default_channels};
use crate::{Error, MonitorSettings, Settings};

impl Settings {
    /// Loads, merges and validates a configuration.
    ///
    /// `config` is a file, `-` for stdin, or the name of a preset; `overrides` are the `--set` arguments, `a.b=value`.
    /// Precedence: defaults < `extends` < file < `--set`. `extends` is looked up beside the extending file, unless that
    /// is stdin or another pipe, then in the current folder, then among the presets.
    ///
    /// # Errors
    /// Any [`Error`]; nothing but the files themselves has been touched.
    pub fn load(config: &str, overrides: &[String]) -> Result<Self, Error> {
        let source = Source::find(config, None)?;
        resolve(source, overrides)
    }

    /// Like [`Settings::load`], from text; `file` is its name in messages and, without its extension, the run's
    /// default name.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn from_toml(text: &str, file: &str, overrides: &[String]) -> Result<Self, Error> {
        resolve(Source { place: Place::Text(file.into()), text: text.to_owned() }, overrides)
    }

    /// The settings as TOML, every key in its place; [`Settings::from_toml`] reads them back equal.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings hold only what TOML can express")
    }
}

/// The options of one file or one `--set`.
struct Layer {
    origin: String,
    table: Table,
}

/// A configuration text and where it was found.
struct Source {
    place: Place,
    text: String,
}

#[derive(Clone, PartialEq)]
enum Place {
    File(PathBuf),
    Preset(&'static str),
    /// Stdin, or another file without a name of its own; it can be read once.
    Pipe(PathBuf),
    Text(PathBuf),
}

/// The default name of a run whose configuration has none.
const NAMELESS: &str = "run";

impl Place {
    /// The file or device at `path`, which exists.
    fn at(path: PathBuf) -> Self {
        // Paths of open files under /dev and /proc do not name a run.
        let named = path.is_file() && !path.starts_with("/dev") && !path.starts_with("/proc");
        if named { Self::File(path) } else { Self::Pipe(path) }
    }

    fn describe(&self) -> String {
        match self {
            Self::File(path) | Self::Pipe(path) | Self::Text(path) => path.display().to_string(),
            Self::Preset(name) => format!("the preset {name}"),
        }
    }

    fn stem(&self) -> String {
        match self {
            Self::File(path) | Self::Text(path) => {
                path.file_stem().map_or_else(|| NAMELESS.into(), |stem| stem.to_string_lossy().into_owned())
            }
            Self::Pipe(_) => NAMELESS.into(),
            Self::Preset(name) => (*name).to_owned(),
        }
    }

    /// Whether two places hold the same text, whatever the spelling of their paths.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => match (fs::canonicalize(a), fs::canonicalize(b)) {
                (Ok(a), Ok(b)) => a == b,
                _ => a == b,
            },
            _ => self == other,
        }
    }
}

impl Source {
    /// Finds `given` on stdin (`-`), beside the file that extends it, in the current folder, or among the presets.
    fn find(given: &str, extended_by: Option<&Place>) -> Result<Self, Error> {
        if given == "-" && extended_by.is_none() {
            let file = PathBuf::from("stdin");
            let text = io::read_to_string(io::stdin()).map_err(|source| Error::Read { file: file.clone(), source })?;
            return Ok(Self { place: Place::Pipe(file), text });
        }
        let beside = match extended_by {
            Some(Place::File(path) | Place::Text(path)) => path.parent().map(|folder| folder.join(given)),
            _ => None,
        };
        // A preset extends presets only, not a file of the same name in the current folder.
        let here = (!matches!(extended_by, Some(Place::Preset(_)))).then(|| PathBuf::from(given));
        if let Some(path) = [beside, here].into_iter().flatten().find(|path| path.exists() && !path.is_dir()) {
            let text = fs::read_to_string(&path).map_err(|source| Error::Read { file: path.clone(), source })?;
            return Ok(Self { place: Place::at(path), text });
        }
        if let Some(preset) = Preset::named(given) {
            return Ok(Self { place: Place::Preset(preset.name), text: preset.text.to_owned() });
        }
        let names = PRESETS.iter().map(|preset| preset.name);
        let all = names.clone().collect::<Vec<_>>().join(", ");
        let stem = Path::new(given).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let hint = match (check_path(given), nearest(&stem, names)) {
            (Err(Misspelt { problem, fix }), _) => format!("The name {problem}. {fix}."),
            (Ok(()), Some(name)) => format!("Did you mean the preset `{name}`? There are {all}."),
            (Ok(()), None) => format!("Give the path of a file, or one of the presets {all}."),
        };
        let wanted_by = extended_by.map(|by| format!(", which {} extends", by.describe())).unwrap_or_default();
        Err(Error::NotFound { given: given.to_owned(), wanted_by, hint })
    }
}

fn resolve(source: Source, overrides: &[String]) -> Result<Settings, Error> {
    let (origin, stem) = (source.place.describe(), source.place.stem());
    let mut layers = Vec::new();
    read_chain(source, &mut Vec::new(), &mut layers)?;
    for text in overrides {
        layers.push(parse_override(text)?);
    }
    let mut merged = Table::new();
    for layer in &layers {
        merge(&mut merged, &layer.table);
    }
    let mut complete = merged.clone();
    fill_dependent_defaults(&mut complete, &stem);
    let settings = Settings::deserialize(Reader(&Value::Table(complete)))
        .map_err(|fault| explain(&fault.key, fault.kind, &merged, &layers))?;
    if lookup(&merged, "data.kind").is_none() {
        return Err(Error::Missing { origin });
    }
    settings.validate()?;
    Ok(settings)
}

/// Reads a source and, first, what it extends, so that `layers` ends up in order of precedence.
fn read_chain(source: Source, above: &mut Vec<Place>, layers: &mut Vec<Layer>) -> Result<(), Error> {
    let origin = source.place.describe();
    if above.iter().any(|place| place.same(&source.place)) {
        let chain: Vec<String> = above.iter().chain([&source.place]).map(Place::describe).collect();
        return Err(Error::Cycle { chain: chain.join(" -> ") });
    }
    let mut table: Table =
        source.text.parse().map_err(|error: toml::de::Error| syntax(&origin, &source.text, &error))?;
    above.push(source.place.clone());
    match table.remove("extends") {
        None => {}
        Some(Value::String(base)) => read_chain(Source::find(&base, Some(&source.place))?, above, layers)?,
        Some(other) => {
            return Err(Error::WrongType {
                key: "extends".into(),
                origin,
                wanted: "a string".into(),
                found: show(&other),
                hint: "Write one file, such as extends = \"configs/mnist.toml\".".into(),
            });
        }
    }
    layers.push(Layer { origin, table });
    Ok(())
}

/// One line of the parser's message.
fn reason(text: &str, error: &toml::de::Error) -> String {
    let number = error.span().and_then(|span| out_of_range(text.get(span)?));
    number.unwrap_or_else(|| error.message().lines().next().unwrap_or_default().trim_end_matches('.').to_owned())
}

/// The same with its line and column in the text.
fn syntax(origin: &str, text: &str, error: &toml::de::Error) -> Error {
    let reason = reason(text, error);
    let reason = match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("line {line}, column {column}: {reason}")
        }
        None => reason,
    };
    Error::Syntax { origin: origin.to_owned(), reason }
}

/// What is wrong with a whole number beyond the range of TOML. (The parser's own message names Rust types.)
fn out_of_range(text: &str) -> Option<String> {
    let digits = text.replace('_', "");
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find(|(prefix, _)| digits.starts_with(prefix));
    let (digits, radix) = radix.map_or((digits.as_str(), 10), |(prefix, radix)| (&digits[prefix.len()..], radix));
    let error = i64::from_str_radix(digits, radix).err()?;
    let overflows = matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow);
    overflows.then(|| format!("{text} is out of range, and whole numbers go from {} to {}", i64::MIN, i64::MAX))
}

/// `a.b=value`: the value is TOML, or else a bare word, which is taken as a string.
fn parse_override(text: &str) -> Result<Layer, Error> {
    let bad = || Error::Override { text: text.to_owned() };
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    let (key, value) = (key.trim(), value.trim());
    let names: Vec<&str> = key.split('.').collect();
    if names.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace)) {
        return Err(bad());
    }
    let origin = format!("--set {text}");
    let value = match value.parse::<Value>() {
        Ok(value) => value,
        Err(error) => {
            if let Some(reason) = out_of_range(value) {
                return Err(Error::Syntax { origin, reason });
            }
            // A text that begins like a list, a table or a quoted string was meant as one.
            if value.starts_with(['[', '{', '"', '\'']) {
                return Err(Error::Syntax { origin, reason: reason(value, &error) });
            }
            Value::String(value.to_owned())
        }
    };
    if names == ["extends"] {
        return Err(Error::UnknownKey {
            key: key.to_owned(),
            origin,
            hint: "Write it in a configuration file.".into(),
        });
    }
    let value =
        names.iter().rev().fold(value, |inner, name| Value::Table(Table::from_iter([((*name).to_owned(), inner)])));
    match value {
        Value::Table(table) => Ok(Layer { origin, table }),
        _ => Err(bad()),
    }
}

/// Merges `over` into `base`: tables are merged key by key, everything else is replaced.
fn merge(base: &mut Table, over: &Table) {
    for (name, value) in over {
        match (base.get_mut(name), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Defaults that follow from other keys. Values of the wrong type are left for the strict reading to refuse.
fn fill_dependent_defaults(table: &mut Table, stem: &str) {
    let timesteps = lookup(table, "diffusion.timesteps").and_then(Value::as_integer);
    let mut section = |name: &str, fill: &dyn Fn(&mut Table)| {
        if let Value::Table(section) = table.entry(name.to_owned()).or_insert_with(|| Value::Table(Table::new())) {
            fill(section);
        }
    };
    section("run", &|run| {
        let name = run.entry("name").or_insert_with(|| Value::String(stem.to_owned()));
        let dir = format!("runs/{}", name.as_str().unwrap_or(stem));
        run.entry("dir").or_insert(Value::String(dir));
    });
    section("monitor", &|monitor| {
        // A short process has fewer timesteps than grids and evaluations usually take.
        let usual =
            [("sample_steps", MonitorSettings::SAMPLE_STEPS), ("eval_timesteps", MonitorSettings::EVAL_TIMESTEPS)];
        for (key, usual) in usual {
            if let Some(timesteps) = timesteps.filter(|timesteps| (1..i64::from(usual)).contains(timesteps)) {
                monitor.entry(key).or_insert(Value::Integer(timesteps));
            }
        }
    });
    section("model", &|model| {
        let small = model.get("kind").and_then(Value::as_str) == Some("small");
        let kind = if small { ModelKind::Small } else { ModelKind::Unet };
        let widths = || Value::Array(default_channels(kind).iter().map(|&width| Value::from(width)).collect());
        let levels = model.entry("channels").or_insert_with(widths).as_array().map_or(0, Vec::len);
        let attention = default_attention(kind, levels).into_iter().map(Value::Boolean).collect();
        model.entry("attention").or_insert(Value::Array(attention));
    });
}

/// The value of a dotted key, if it is set.
fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut names = key.split('.');
    let first = table.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// Turns a fault found in reading into an error with key, origin and fix.
fn explain(key: &str, kind: FaultKind, merged: &Table, layers: &[Layer]) -> Error {
    let whole = key.split('[').next().unwrap_or(key);
    let origin = layers.iter().rev().find(|layer| lookup(&layer.table, whole).is_some());
    let origin = origin.map_or("the defaults", |layer| &layer.origin);
    let value = lookup(merged, whole);
    let item = key.strip_prefix(whole).and_then(|index| index.trim_matches(['[', ']']).parse::<usize>().ok());
    let value = item.and_then(|index| value?.get(index)).or(value);
    let found = value.map(show).unwrap_or_default();
    let key = key.to_owned();
    match kind {
        FaultKind::UnknownKey => unknown_key(&key, origin),
        FaultKind::UnknownValue(choices) => {
            let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
            let near = value.and_then(Value::as_str).and_then(|word| nearest(word, choices.iter().copied()));
            let hint = match near {
                Some(choice) => format!("Did you mean \"{choice}\"?"),
                None => "Choose one of these.".into(),
            };
            Error::UnknownValue { key, origin: origin.to_owned(), found, choices: quoted.join(", "), hint }
        }
        FaultKind::WrongType(wanted) => {
            let hint = match value {
                Some(Value::Float(number)) if is_wanted(*number, &wanted) => format!("Write {number:.0}."),
                Some(value) if wanted == "a string" && origin.starts_with("--set") => {
                    format!("Quote it: --set '{key}=\"{value}\"'.")
                }
                _ => "Change the value.".into(),
            };
            Error::WrongType { key, origin: origin.to_owned(), wanted, found, hint }
        }
    }
}

/// Whether a number written as a float is whole and within the wanted range.
fn is_wanted(number: f64, wanted: &str) -> bool {
    let end = if wanted.ends_with("0 or more") { i64::MAX as f64 } else { f64::from(u32::MAX) };
    wanted.starts_with("a whole") && number.fract() == 0.0 && (0.0..end).contains(&number)
}

/// A value as messages show it.
fn show(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".into(),
        other => other.to_string(),
    }
}
