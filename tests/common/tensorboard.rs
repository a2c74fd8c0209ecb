//! Reading TensorBoard's event files.

use std::fs;
use std::path::{Path, PathBuf};

use protobuf::Message;
use tensorboard_proto::event::Event;

/// The event files in a run's directory, in the order in which TensorBoard reads them.
pub fn event_files(run: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents.")).collect();
    files.sort();
    files
}

/// The events of a file, up to one that was truncated by a kill.
pub fn events(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    // A record: its length in 8 bytes, a checksum in 4, the event, a checksum in 4.
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let length = u64::from_le_bytes(*length) as usize;
        let Some(event) = rest.get(4..4 + length) else { break };
        events.push(Event::parse_from_bytes(event).unwrap());
        let Some(next) = rest.get(8 + length..) else { break };
        bytes = next;
    }
    events
}
