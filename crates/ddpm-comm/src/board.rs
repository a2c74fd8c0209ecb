//! The status board of a machine: what each of its ranks did last, readable even when that rank can no longer respond.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::*;

/// The status of a rank that is exiting and may disappear at any time.
pub(crate) const LEAVING: &str = "leaving";

/// Bytes per status; a longer text is truncated.
const STATUS_LEN: usize = 128;
/// Maximum length of the file's path in bytes.
const PATH_LEN: usize = 256;

/// The board of this machine, in a world with several ranks.
static BOARD: OnceLock<Board> = OnceLock::new();

/// A file in memory with one status per rank of this machine. It is unlinked, so it disappears with its last process.
struct Board {
    file: File,
    own_index: usize,
    ranks: Vec<Neighbour>,
}

/// A rank of this machine.
struct Neighbour {
    rank: usize,
    /// The process id, if it is visible in /proc.
    pid: Option<u64>,
}

/// Sets up the board, collectively on all ranks of `machine`; this process is `rank` of the run.
///
/// If the ranks do not share a folder (for example, each runs in its own container), there is no board, and nothing is
/// reported about the other ranks.
pub(crate) fn join(machine: &SimpleCommunicator, rank: usize) {
    if let Some(board) = Board::open(machine, rank) {
        let _ = BOARD.set(board);
    }
}

/// Publishes what this rank is doing.
pub(crate) fn post(status: &str) {
    if let Some(board) = BOARD.get() {
        board.write(status);
    }
}

/// The other ranks of this machine, each with its status.
pub(crate) fn others() -> Vec<(usize, String)> {
    let Some(board) = BOARD.get() else { return Vec::new() };
    (0..board.ranks.len()).filter(|&index| index != board.own_index).map(|index| board.entry(index)).collect()
}

/// The ranks of this machine that died, with their last status, if this rank is the one to report them: the first
/// surviving one. A rank that was exiting does not count as dead.
pub(crate) fn dead() -> Vec<(usize, String)> {
    let Some(board) = BOARD.get() else { return Vec::new() };
    let dead = |index: &usize| board.ranks[*index].pid.is_some_and(|pid| !is_running(pid));
    if !(0..board.own_index).all(|index| dead(&index)) {
        return Vec::new();
    }
    let dead = (0..board.ranks.len()).filter(dead).map(|index| board.entry(index));
    dead.filter(|(_, status)| status != LEAVING).collect()
}

impl Board {
    fn open(machine: &SimpleCommunicator, rank: usize) -> Option<Self> {
        let (own_index, size) = (machine.rank() as usize, machine.size() as usize);
        let mut name = [0; PATH_LEN];
        let file = if own_index == 0 { create(&mut name) } else { None };
        machine.process_at_rank(0).broadcast_into(&mut name);
        let path = String::from_utf8_lossy(&name);
        let path = Path::new(path.trim_end_matches('\0'));
        let file = file.or_else(|| OpenOptions::new().read(true).write(true).open(path).ok());
        let mut all = vec![0u64; 2 * size];
        // Once all ranks have taken part in this, all have opened the file.
        machine.all_gather_into(&[rank as u64, u64::from(process::id())][..], &mut all[..]);
        if own_index == 0 {
            let _ = fs::remove_file(path);
        }
        let (pairs, _) = all.as_chunks::<2>();
        // In another PID namespace all of them would appear dead.
        let known = |pid: u64| is_running(pid).then_some(pid);
        let ranks = pairs.iter().map(|&[rank, pid]| Neighbour { rank: rank as usize, pid: known(pid) }).collect();
        Some(Self { file: file?, own_index, ranks })
    }

    fn write(&self, status: &str) {
        let mut bytes = [b' '; STATUS_LEN];
        let len = status.len().min(STATUS_LEN);
        bytes[..len].copy_from_slice(&status.as_bytes()[..len]);
        // Errors are ignored: monitoring must never stop training.
        let _ = self.file.write_all_at(&bytes, (self.own_index * STATUS_LEN) as u64);
    }

    fn entry(&self, index: usize) -> (usize, String) {
        (self.ranks[index].rank, self.read(index))
    }

    fn read(&self, index: usize) -> String {
        let mut bytes = [0; STATUS_LEN];
        match self.file.read_exact_at(&mut bytes, (index * STATUS_LEN) as u64) {
            Ok(()) => String::from_utf8_lossy(&bytes).trim_end_matches([' ', '\0']).to_owned(),
            Err(_) => String::new(),
        }
    }
}

/// Creates a file, in memory if possible, and stores its path in `name`.
fn create(name: &mut [u8; PATH_LEN]) -> Option<File> {
    let folders = [Path::new("/dev/shm").to_owned(), std::env::temp_dir()];
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    folders.iter().find_map(|folder| {
        let path = folder.join(format!("ddpm-dist-{}-{unique}", process::id()));
        let path = path.to_str().filter(|path| path.len() <= PATH_LEN)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).ok()?;
        *name = [0; PATH_LEN];
        name[..path.len()].copy_from_slice(path.as_bytes());
        Some(file)
    })
}

/// Whether the process exists and has not ended; a zombie counts as dead.
fn is_running(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}
