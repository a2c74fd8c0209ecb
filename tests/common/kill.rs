//! Killing ranks and launchers, found through /proc.

use super::signal;

/// Kills the `victim`-th rank below local.sh with SIGKILL; returns whether there was one.
pub fn kill_rank(local: u32, victim: u64) -> bool {
    signal_rank("KILL", local, victim)
}

/// Sends a signal to the `victim`-th rank below local.sh; returns whether there was one.
pub fn signal_rank(name: &str, local: u32, victim: u64) -> bool {
    let ranks = mpirun_below(local).map_or_else(Vec::new, children);
    // A process that has not yet executed the program cannot be distinguished from a helper of mpirun.
    let ranks: Vec<_> = ranks.into_iter().filter(|rank| rank.name == "ddpm-dist").collect();
    ranks.get(victim as usize).is_some_and(|rank| signal(name, rank.pid))
}

/// Kills the mpirun below local.sh with SIGKILL; returns the ranks that it leaves behind.
pub fn kill_mpirun(local: u32) -> Option<Vec<u32>> {
    let mpirun = mpirun_below(local)?;
    let ranks = children(mpirun).into_iter().map(|rank| rank.pid).collect();
    signal("KILL", mpirun).then_some(ranks)
}

/// The ranks below local.sh, on one rank or several.
pub fn ranks_below(local: u32) -> Vec<u32> {
    let named = |pid: &u32| Process::find(*pid).is_some_and(|process| process.name == "ddpm-dist");
    tree(local).into_iter().filter(named).collect()
}

/// A process and all its descendants.
pub fn tree(pid: u32) -> Vec<u32> {
    let below = children(pid).into_iter().flat_map(|child| tree(child.pid));
    [pid].into_iter().chain(below).collect()
}

/// local.sh starts mpirun (through setsid), which starts the ranks.
fn mpirun_below(local: u32) -> Option<u32> {
    children(local).into_iter().find(|child| child.name == "mpirun").map(|child| child.pid)
}

/// A process according to /proc.
struct Process {
    pid: u32,
    name: String,
    state: String,
    parent: u32,
}

impl Process {
    fn find(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything; state and parent follow it.
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let mut words = rest.split_whitespace();
        Some(Self { pid, name: name.into(), state: words.next()?.into(), parent: words.next()?.parse().ok()? })
    }
}

/// Processes that `parent` started, oldest first.
fn children(parent: u32) -> Vec<Process> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut children: Vec<_> = pids.filter_map(Process::find).filter(|process| process.parent == parent).collect();
    children.sort_unstable_by_key(|process| process.pid);
    children
}

/// Whether a process is suspended.
pub fn suspended(pid: u32) -> bool {
    Process::find(pid).is_some_and(|process| process.state == "T")
}

/// Whether a process already handles SIGUSR1 itself.
pub fn listens(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
    // Bit n - 1 is signal n, and SIGUSR1 is 10.
    u64::from_str_radix(caught.trim(), 16).is_ok_and(|caught| caught >> 9 & 1 == 1)
}

/// Whether a process has not ended yet.
pub fn alive(pid: u32) -> bool {
    Process::find(pid).is_some_and(|process| !matches!(process.state.as_str(), "Z" | "X"))
}
