//! The hosts that a job may use: Open MPI's hostfile, read and written.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::Error;

/// A machine and its ranks: how many it takes, or how many a start of the job puts there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Its name or address, as ssh takes it.
    pub name: String,
    /// The number of ranks.
    pub slots: usize,
}

/// Reads a hostfile of Open MPI: a line `NAME slots=N` for each host, and comments after `#`. Other words of a line are
/// ignored.
///
/// # Errors
/// The file cannot be read, or a line has no slots, names a host again, or has a name that is none.
pub fn read_hosts(file: &Path) -> Result<Vec<Host>, Error> {
    let text = fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
    let hosts = parse(&text).map_err(|(line, fault)| Error::Hosts { file: file.into(), line, fault })?;
    if hosts.is_empty() { Err(Error::NoHosts { file: file.into() }) } else { Ok(hosts) }
}

/// The hosts, or the number of the line that is wrong, and how to write it.
fn parse(text: &str) -> Result<Vec<Host>, (usize, String)> {
    let mut hosts: Vec<Host> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // Open MPI takes spaces around the equals sign.
        let line = line.split('#').next().unwrap_or_default().replace('=', " = ");
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(&name) = words.first() else { continue };
        let wrong = |fault: String| Err((index + 1, fault));
        if !is_name(name) {
            return wrong(format!("`{name}` is not the name of a host. Write the line as NAME slots=N"));
        }
        let slots = words
            .windows(3)
            .find(|words| words[..2] == ["slots", "="])
            .and_then(|words| words[2].parse::<usize>().ok());
        let Some(slots) = slots.filter(|&slots| slots > 0) else {
            return wrong(format!("it does not say how many ranks {name} takes. Write it as {name} slots=N"));
        };
        if hosts.iter().any(|host| host.name == name) {
            return wrong(format!("{name} is listed again. Give all of its slots on one line"));
        }
        hosts.push(Host { name: name.into(), slots });
    }
    Ok(hosts)
}

/// Whether a word can be passed to ssh and to a shell as a host.
fn is_name(word: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-:@[]%".contains(c);
    word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') && word.chars().all(fits)
}

/// The lines of a hostfile.
pub(crate) fn hostfile(hosts: &[Host]) -> String {
    hosts.iter().fold(String::new(), |mut text, host| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} slots={}", host.name, host.slots);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, slots: usize) -> Host {
        Host { name: name.into(), slots }
    }

    #[test]
    fn a_hostfile_of_open_mpi_is_read() {
        let text = "# the cluster\nnode1 slots=4 max_slots=8\n\n  user@10.0.0.2   slots = 2 # old\n";
        let hosts = parse(text).unwrap();
        assert_eq!(hosts, [host("node1", 4), host("user@10.0.0.2", 2)]);
        assert_eq!(hostfile(&hosts), "node1 slots=4\nuser@10.0.0.2 slots=2\n");
        assert_eq!(parse(&hostfile(&hosts)).unwrap(), hosts);
    }

    #[test]
    fn lines_that_cannot_be_used_are_refused() {
        for (text, line, part) in [
            ("node1\n", 1, "Write it as node1 slots=N"),
            ("a slots=1\nb max_slots=3\n", 2, "Write it as b slots=N"),
            ("a slots=0\n", 1, "a slots=N"),
            ("a slots=1\n\na slots=2\n", 3, "a is listed again"),
            ("-oProxyCommand=x slots=1\n", 1, "`-oProxyCommand` is not the name of a host"),
            ("a;reboot slots=1\n", 1, "is not the name of a host"),
        ] {
            let (found, fault) = parse(text).unwrap_err();
            assert_eq!(found, line, "{text}");
            assert!(fault.contains(part), "{fault}");
        }
    }
}
