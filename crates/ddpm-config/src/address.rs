//! Checks of paths and addresses: the syntax of a shell or of another program is refused, with the spelling that works.
//!
//! A path that has `.` or `..` in it as a segment of its own (`./~x`, `/data/./$x`) is taken literally.

use std::env;
use std::fmt;
use std::path::Path;

/// What is wrong with a path or an address, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misspelt {
    /// What is wrong, as a phrase that follows the text itself.
    pub problem: String,
    /// The spelling that works, if there is one.
    pub fix: String,
}

impl fmt::Display for Misspelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it {}. {}", self.problem, self.fix)
    }
}

impl std::error::Error for Misspelt {}

/// The schemes of stores, each with the names that other programs have for it.
const STORES: &[(&str, &[&str])] = &[
    ("s3", &["s3", "s3a", "s3n"]),
    ("gs", &["gs", "gcs"]),
    ("az", &["az", "azure", "abfs", "abfss", "adl", "wasb", "wasbs"]),
];

/// What a text denotes.
enum Meaning {
    /// A file or folder of this machine.
    Local,
    /// A store, by its scheme.
    Store,
}

/// Refuses anything but a path of this machine: for files that are read or written directly.
///
/// # Errors
/// [`Misspelt`], with the spelling that works.
pub fn check_path(text: &str) -> Result<(), Misspelt> {
    let local = "Give the path of a local file or folder; checkpoint.uri takes addresses, and so does \
                 data.path for parquet, webdataset and zip";
    match inspect(text) {
        Ok(Meaning::Local) => Ok(()),
        Ok(Meaning::Store) => Err(match text.strip_prefix("file://") {
            Some(path) => misspelt("is a URL where a path is needed", format!("Write {path}")),
            None => misspelt("is the address of a store where a local path is needed", local.into()),
        }),
        // Another spelling of an address would not be a path either.
        Err(Misspelt { problem, fix }) if fix.contains("://") => Err(misspelt(problem, local.into())),
        Err(misspelt) => Err(misspelt),
    }
}

/// Refuses what is neither a path of this machine nor the address of a store: `s3://`, `gs://`, `az://`, `file://` or
/// `memory://`.
///
/// # Errors
/// [`Misspelt`], with the spelling that works.
pub fn check_address(text: &str) -> Result<(), Misspelt> {
    inspect(text).map(drop)
}

/// Refuses what is neither a path of this machine nor an address in an object store: `s3://`, `gs://` or `az://`.
///
/// # Errors
/// [`Misspelt`], with the spelling that works.
pub fn check_path_or_bucket(text: &str) -> Result<(), Misspelt> {
    match inspect(text) {
        Ok(Meaning::Store) if !["file://", "memory://"].iter().any(|scheme| text.starts_with(scheme)) => Ok(()),
        Err(misspelt) if misspelt.fix.contains("://") => Err(misspelt),
        _ => check_path(text),
    }
}

/// `text` as seen from `folder`, if it is a relative path; else unchanged.
pub(crate) fn anchored(text: &str, folder: &Path) -> String {
    match inspect(text) {
        // Joined as text: the `.` of a literal path must stay.
        Ok(Meaning::Local) if Path::new(text).is_relative() && !folder.as_os_str().is_empty() => {
            let folder = folder.display().to_string();
            let folder = folder.trim_end_matches('/');
            let joined = format!("{folder}/{text}");
            // A folder may be named `$x`: `/./` marks a path that is meant literally.
            if matches!(inspect(&joined), Ok(Meaning::Local)) { joined } else { format!("{folder}/./{text}") }
        }
        _ => text.to_owned(),
    }
}

/// Whether two paths may name the same place: they are equal as seen from here, or a relative one is the end of the
/// absolute other.
pub(crate) fn same_place(one: &str, other: &str) -> bool {
    let (one, other) = (Path::new(one), Path::new(other));
    let ends = |whole: &Path, end: &Path| {
        let end = end.strip_prefix(".").unwrap_or(end);
        whole.is_absolute() && end.is_relative() && !end.as_os_str().is_empty() && whole.ends_with(end)
    };
    let seen_from_here = |path| std::path::absolute(path).ok();
    one == other
        || ends(one, other)
        || ends(other, one)
        || seen_from_here(one).is_some_and(|one| Some(one) == seen_from_here(other))
}

fn inspect(text: &str) -> Result<Meaning, Misspelt> {
    let absolute = text.starts_with('/');
    if [".", ".."].contains(&text)
        || ["./", "../"].iter().any(|start| text.starts_with(start))
        || absolute && ["/./", "/../"].iter().any(|segment| text.contains(segment))
    {
        return Ok(Meaning::Local);
    }
    let trimmed = text.trim();
    if trimmed != text {
        inspect(trimmed)?;
        return Err(misspelt("starts or ends with a space or a line break", format!("Write {trimmed}")));
    }
    if text.starts_with('~') {
        let fix = expanded(text).map_or("Write that folder's path in full".into(), |path| format!("Write {path}"));
        return Err(misspelt("starts with ~, which only a shell expands", fix));
    }
    if let Some(name) = variable(text) {
        let fix = match expanded(text) {
            Some(path) => format!("Write {path}"),
            None => format!("Write the path in full (here ${name} has no value)"),
        };
        return Err(misspelt(format!("has ${name} in it, which only a shell expands"), fix));
    }
    by_scheme(text)
}

/// Reads a text by the scheme before its first colon, if there is one.
fn by_scheme(text: &str) -> Result<Meaning, Misspelt> {
    let head = text.split(['/', '\\']).next().unwrap_or(text);
    let name = head.split(':').next().unwrap_or(head);
    let lower = name.to_ascii_lowercase();
    let store = STORES.iter().find(|(_, names)| names.contains(&lower.as_str()));
    let rest = match text[name.len()..].strip_prefix(':') {
        Some(rest) => rest,
        // `s3//bucket`: the colon was forgotten.
        None if store.is_some() && text[name.len()..].starts_with("//") => &text[name.len()..],
        None => return Ok(Meaning::Local),
    };
    let tail = rest.trim_start_matches('/');
    let literally = |address: String| format!("Write {address}, or ./{text} for a folder of that name");
    if let Some((scheme, _)) = store {
        let address = format!("{scheme}://{tail}");
        return match address == text {
            true => Ok(Meaning::Store),
            false => Err(misspelt("is not how a store's address is written", literally(address))),
        };
    }
    match lower.as_str() {
        "memory" if text == "memory://" => Ok(Meaning::Store),
        "file" if text.starts_with("file:///") && !text.contains('%') => Ok(Meaning::Store),
        "file" if text.contains('%') => Err(misspelt(
            "has % escapes, which are not decoded here",
            "Write the path itself, without file:// and escapes".into(),
        )),
        "file" => {
            // `file://` may be followed by a host, but in `file://folder` the folder is what was meant.
            let path = rest.strip_prefix("//localhost").or_else(|| rest.strip_prefix("//")).unwrap_or(rest);
            Err(misspelt("is not how a local path is written", literally(path.into())))
        }
        "http" | "https" => Err(misspelt("is a web address, not that of a store", of_web_address(&lower, tail))),
        "arn" => {
            let key = rest.rsplit(":::").next().unwrap_or(rest);
            Err(misspelt("is a name that only AWS's own tools read", format!("Write s3://{key}")))
        }
        _ if rest.starts_with("//") => Err(misspelt(
            format!("has the scheme {name}://, which no store here has"),
            "Give a directory such as runs/mnist/checkpoints, or an address such as s3://bucket/prefix".into(),
        )),
        _ if head.ends_with(':') => Err(misspelt(
            "looks like a place on another machine",
            format!("Mount it and give its path here, or write ./{text} for a folder of that name"),
        )),
        _ => Ok(Meaning::Local),
    }
}

/// The address of the store behind a web address.
fn of_web_address(scheme: &str, rest: &str) -> String {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let name = host.split(':').next().unwrap_or(host).to_ascii_lowercase();
    let before = |mark: &str| name.find(mark).filter(|at| *at > 0).map(|at| &name[..at]);
    let path = path.split('?').next().unwrap_or(path);
    if name.contains(".amazonaws.com") || name.starts_with("s3.amazonaws.com") {
        return match before(".s3.").or(before(".s3-")) {
            Some(bucket) => format!("Write s3://{bucket}/{path}"),
            None => format!("Write s3://{path}"),
        };
    }
    if name == "storage.googleapis.com" || name == "storage.cloud.google.com" {
        return format!("Write gs://{path}");
    }
    if let Some(bucket) = before(".storage.googleapis.com") {
        return format!("Write gs://{bucket}/{path}");
    }
    if let Some(account) = before(".blob.core.windows.net") {
        return format!("Write az://{path}, and set AZURE_STORAGE_ACCOUNT_NAME={account}");
    }
    let path = if path.is_empty() { "bucket/prefix" } else { path };
    format!("Write s3://{path}, and set AWS_ENDPOINT_URL={scheme}://{host}")
}

/// The first shell variable in a text, or a command's output, without its `$`.
fn variable(text: &str) -> Option<String> {
    text.match_indices('$').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match rest.chars().next()? {
            '{' => rest.split_inclusive('}').next().map(Into::into),
            '(' => rest.split_inclusive(')').next().map(Into::into),
            c if c.is_ascii_alphabetic() || c == '_' => Some(rest.split(|c| !is_name(c)).next()?.into()),
            _ => None,
        }
    })
}

/// The text with `~` and variables expanded as by a shell, if all of them have values.
fn expanded(text: &str) -> Option<String> {
    let value = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let mut text = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", value("HOME")?),
        Some(_) => return None,
        None => text.to_owned(),
    };
    // A value may contain variables too, and these may refer to each other without end.
    for _ in 0..8 {
        let Some(name) = variable(&text) else { return Some(text) };
        text = text.replacen(&format!("${name}"), &value(name.trim_matches(['{', '}']))?, 1);
    }
    None
}

fn misspelt(problem: impl Into<String>, fix: String) -> Misspelt {
    Misspelt { problem: problem.into(), fix }
}
