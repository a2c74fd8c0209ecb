//! The notice board of a machine: what each of its ranks did last, readable when that rank itself cannot answer any more.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::*;

/// The notice of a rank on its way out, which may be gone any time.
pub(crate) const LEAVING: &str = "leaving";

/// Bytes of a notice; a longer text is cut.
const NOTICE: usize = 128;
/// Bytes for the name of the file.
const NAME: usize = 256;

/// This machine's, in a world of several ranks.
static BOARD: OnceLock<Board> = OnceLock::new();

/// A file in memory with a notice per rank of this machine. It has no name any more: it goes with its last process.
struct Board {
    file: File,
    ours: usize,
    ranks: Vec<Neighbour>,
}

/// A rank of this machine.
struct Neighbour {
    rank: usize,
    /// Where it can be looked up in /proc.
    pid: Option<u64>,
}

/// Sets up the board, all ranks of `machine` together, of which this one is `rank` in the run.
///
/// Where they do not share a folder, as in containers of their own, there is none, and nothing is told of the others.
pub(crate) fn join(machine: &SimpleCommunicator, rank: usize) {
    if let Some(board) = Board::open(machine, rank) {
        let _ = BOARD.set(board);
    }
}

/// Puts up what this rank does.
pub(crate) fn post(notice: &str) {
    if let Some(board) = BOARD.get() {
        board.write(notice);
    }
}

/// The other ranks of this machine, each with its notice.
pub(crate) fn others() -> Vec<(usize, String)> {
    let Some(board) = BOARD.get() else { return Vec::new() };
    (0..board.ranks.len()).filter(|&index| index != board.ours).map(|index| board.entry(index)).collect()
}

/// The ranks of this machine that died, with their last notices, if it is for this rank to report them: the first that is
/// left. One that was leaving did not die.
pub(crate) fn dead() -> Vec<(usize, String)> {
    let Some(board) = BOARD.get() else { return Vec::new() };
    let gone = |index: &usize| board.ranks[*index].pid.is_some_and(|pid| !runs(pid));
    if !(0..board.ours).all(|index| gone(&index)) {
        return Vec::new();
    }
    let gone = (0..board.ranks.len()).filter(gone).map(|index| board.entry(index));
    gone.filter(|(_, notice)| notice != LEAVING).collect()
}

impl Board {
    fn open(machine: &SimpleCommunicator, rank: usize) -> Option<Self> {
        let (ours, size) = (machine.rank() as usize, machine.size() as usize);
        let mut name = [0; NAME];
        let file = if ours == 0 { create(&mut name) } else { None };
        machine.process_at_rank(0).broadcast_into(&mut name);
        let path = String::from_utf8_lossy(&name);
        let path = Path::new(path.trim_end_matches('\0'));
        let file = file.or_else(|| OpenOptions::new().read(true).write(true).open(path).ok());
        let mut all = vec![0u64; 2 * size];
        // All have opened the file once all have taken part in this.
        machine.all_gather_into(&[rank as u64, u64::from(process::id())][..], &mut all[..]);
        if ours == 0 {
            let _ = fs::remove_file(path);
        }
        let (pairs, _) = all.as_chunks::<2>();
        // Another name space of processes would show all of them dead.
        let known = |pid: u64| runs(pid).then_some(pid);
        let ranks = pairs.iter().map(|&[rank, pid]| Neighbour { rank: rank as usize, pid: known(pid) }).collect();
        Some(Self { file: file?, ours, ranks })
    }

    fn write(&self, notice: &str) {
        let mut bytes = [b' '; NOTICE];
        let len = notice.len().min(NOTICE);
        bytes[..len].copy_from_slice(&notice.as_bytes()[..len]);
        // A board that fails is a board that says nothing: watching never stops training.
        let _ = self.file.write_all_at(&bytes, (self.ours * NOTICE) as u64);
    }

    fn entry(&self, index: usize) -> (usize, String) {
        (self.ranks[index].rank, self.read(index))
    }

    fn read(&self, index: usize) -> String {
        let mut bytes = [0; NOTICE];
        match self.file.read_exact_at(&mut bytes, (index * NOTICE) as u64) {
            Ok(()) => String::from_utf8_lossy(&bytes).trim_end_matches([' ', '\0']).to_owned(),
            Err(_) => String::new(),
        }
    }
}

/// A new file, in memory where the system offers that, and its path in `name`.
fn create(name: &mut [u8; NAME]) -> Option<File> {
    let folders = [Path::new("/dev/shm").to_owned(), std::env::temp_dir()];
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    folders.iter().find_map(|folder| {
        let path = folder.join(format!("ddpm-dist-{}-{unique}", process::id()));
        let path = path.to_str().filter(|path| path.len() <= NAME)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).ok()?;
        *name = [0; NAME];
        name[..path.len()].copy_from_slice(path.as_bytes());
        Some(file)
    })
}

/// Whether the process exists and has not ended: one that nobody has buried yet is dead too.
fn runs(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}
