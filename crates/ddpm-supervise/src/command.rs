//! The command that starts the job, with the places where the number of ranks and the hosts go.

use std::path::Path;

use crate::error::Error;

const RANKS: &str = "{ranks}";
const HOSTS: &str = "{hosts}";

/// A command, in which `{ranks}` stands for the number of ranks, and `{hosts}` for the name of a hostfile.
#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<String>);

impl Template {
    /// The command with its placeholders; `with_hosts` says whether there are hosts to choose from.
    ///
    /// # Errors
    /// A placeholder is missing, or there is nothing to put in its place.
    pub fn new(words: Vec<String>, with_hosts: bool) -> Result<Self, Error> {
        let has = |place: &str| words.iter().any(|word| word.contains(place));
        let fault = match (with_hosts, has(RANKS) && has(HOSTS), has(RANKS) || has(HOSTS)) {
            (true, false, _) => {
                "--hosts needs a command that says where the number of ranks and the hosts go. Write `-np {ranks} \
                 --hostfile {hosts}` after mpirun"
            }
            (false, _, true) => {
                "{ranks} and {hosts} in the command stand for a choice of hosts. Name a file of hosts to choose from \
                 with --hosts"
            }
            _ => return Ok(Self(words)),
        };
        Err(Error::Placeholders(fault))
    }

    /// The command for `ranks` ranks on the hosts in `hostfile`; without them, unchanged.
    pub fn filled(&self, chosen: Option<(usize, &Path)>) -> Vec<String> {
        let Some((ranks, hostfile)) = chosen else { return self.0.clone() };
        let (ranks, hostfile) = (ranks.to_string(), hostfile.to_string_lossy());
        self.0.iter().map(|word| word.replace(RANKS, &ranks).replace(HOSTS, &hostfile)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn placeholders_are_filled() {
        let line = "mpirun -np {ranks} --hostfile={hosts} ddpm-dist train";
        let template = Template::new(words(line), true).unwrap();
        let filled = template.filled(Some((4, Path::new("/tmp/h"))));
        assert_eq!(filled, words("mpirun -np 4 --hostfile=/tmp/h ddpm-dist train"));
        let plain = words("launch/local.sh 2 train");
        assert_eq!(Template::new(plain.clone(), false).unwrap().filled(None), plain);
    }

    #[test]
    fn placeholders_go_with_hosts() {
        let message = |line, with_hosts| Template::new(words(line), with_hosts).unwrap_err().to_string();
        assert!(message("mpirun -np {ranks} ddpm-dist train", true).contains("`-np {ranks} --hostfile {hosts}`"));
        assert!(message("mpirun -np {ranks} ddpm-dist train", false).ends_with("to choose from with --hosts."));
    }
}
