//! TensorBoard event files: scalars, pictures, text and settings. Each step appears once, no matter how often the run
//! was resumed.
//!
//! The messages are those of tensorboard-proto. The writer of tensorboard-rs is not used: it writes from a thread that
//! panics on a full disk, and then also panics the caller when it is dropped; it swaps the height and width of images,
//! it does not support text, and it depends on `image` 0.23.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use protobuf::Message;
use serde_json::Value;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::{Summary, Summary_Image, Summary_Value};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::types::DataType;

use crate::best_effort::BestEffort;
use crate::hparams;
use crate::metrics::Metrics;
use crate::picture::Picture;
use crate::records::RecordWriter;

const PREFIX: &str = "events.out.tfevents.";

/// The folder in `dir` in which earlier versions kept the files: TensorBoard, which names runs by their folders, shows
/// it as a run of its own.
const FORMER: &str = "tb";

/// The event file of one start of the run. Writing never fails; see the crate documentation.
pub struct TensorBoard {
    records: BestEffort<RecordWriter<BufWriter<File>>>,
    first_step: u64,
}

impl TensorBoard {
    /// Creates an event file in `dir` for a run that resumes after `resume_step`, or starts at step 0 if that is
    /// `None`. TensorBoard then discards events of later steps in the earlier files of `dir`, among which are those
    /// that an earlier version wrote to `dir/tb`.
    pub fn open(dir: &Path, resume_step: Option<u64>) -> Self {
        if let Err(error) = move_former(dir) {
            let former = dir.join(FORMER);
            tracing::warn!("{}: event files stay here ({error}), which TensorBoard shows apart", former.display());
        }
        Self::begin(dir, create(dir), resume_step)
    }

    fn begin(path: &Path, file: io::Result<File>, resume_step: Option<u64>) -> Self {
        let records = BestEffort::new(path, file.map(|file| RecordWriter::new(BufWriter::new(file))));
        let mut this = Self { records, first_step: resume_step.map_or(0, |step| step + 1) };
        this.event(0, |event| event.set_file_version("brain.Event:2".into()));
        // A session that starts at step s makes TensorBoard discard events of earlier sessions from step s on.
        this.event(this.first_step, |event| {
            let mut session = SessionLog::new();
            session.set_status(SessionLog_SessionStatus::START);
            event.set_session_log(session);
        });
        this
    }

    /// The first step of this start of the run. An event logged at an earlier step would not be discarded when a
    /// later start repeats it.
    pub fn first_step(&self) -> u64 {
        self.first_step
    }

    /// Adds one point to the curve of each metric.
    pub fn metrics(&mut self, metrics: &Metrics) {
        let scalar = |(tag, value): (&str, f64)| {
            let mut point = tagged(tag);
            point.set_simple_value(value as f32);
            point
        };
        self.summary(metrics.step(), metrics.scalars().map(scalar).collect());
    }

    /// Shows `picture` at `step`.
    pub fn picture(&mut self, step: u64, tag: &str, picture: &Picture) {
        let mut image = Summary_Image::new();
        image.set_height(picture.height() as i32);
        image.set_width(picture.width() as i32);
        image.set_colorspace(picture.channels().into());
        image.set_encoded_image_string(picture.encode_png());
        let mut value = tagged(tag);
        value.set_image(image);
        self.summary(step, vec![value]);
    }

    /// Shows `text` verbatim, at the first step of this start of the run.
    pub fn text(&mut self, tag: &str, text: &str) {
        // The text plug-in renders Markdown; an indent of four spaces makes it show the text verbatim.
        let verbatim: String = text.lines().map(|line| format!("    {line}\n")).collect();
        let mut tensor = TensorProto::new();
        tensor.set_dtype(DataType::DT_STRING);
        tensor.mut_tensor_shape();
        tensor.mut_string_val().push(verbatim.into_bytes());
        let mut value = tagged(tag);
        value.mut_metadata().mut_plugin_data().set_plugin_name("text".into());
        value.set_tensor(tensor);
        self.summary(self.first_step, vec![value]);
    }

    /// Shows the run's settings, by their keys, in the HPARAMS tab.
    pub fn settings<'a>(&mut self, settings: impl IntoIterator<Item = (&'a str, &'a Value)>) {
        self.summary(self.first_step, vec![hparams::started(settings, unix_time())]);
    }

    /// Shows in the HPARAMS tab that the run is complete: `step` was its last. TensorBoard remembers it for good.
    pub fn finished(&mut self, step: u64) {
        self.summary(step.max(self.first_step), vec![hparams::finished(unix_time())]);
    }

    fn summary(&mut self, step: u64, values: Vec<Summary_Value>) {
        self.event(step, |event| {
            let mut summary = Summary::new();
            summary.set_value(values.into());
            event.set_summary(summary);
        });
    }

    fn event(&mut self, step: u64, fill: impl FnOnce(&mut Event)) {
        self.records.attempt(|records| {
            let mut event = Event::new();
            event.set_wall_time(unix_time());
            event.set_step(step as i64);
            fill(&mut event);
            records.write(&event.write_to_bytes().map_err(io::Error::other)?)?;
            records.flush()
        });
    }
}

fn tagged(tag: &str) -> Summary_Value {
    let mut value = Summary_Value::new();
    value.set_tag(tag.into());
    value
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Creates a new event file. TensorBoard reads the files of a folder in the order of their names, which begin with a
/// time. The new file must therefore sort after all existing ones, even if the clock was set back or another machine
/// wrote them.
fn create(dir: &Path) -> io::Result<File> {
    fs::create_dir_all(dir)?;
    let mut seconds = unix_time() as u64;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let time = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok());
        seconds = seconds.max(time.map_or(0, |time| time + 1));
    }
    File::create_new(dir.join(format!("{PREFIX}{seconds:010}.ddpm-dist")))
}

/// Moves the files of an earlier version to where they are written now.
fn move_former(dir: &Path) -> io::Result<()> {
    let former = dir.join(FORMER);
    let entries = match fs::read_dir(&former) {
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            fs::rename(former.join(&name), dir.join(&name))?;
        }
    }
    // It stays if something else is in it.
    let _ = fs::remove_dir(former);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::{Scale, grid};
    use crate::testing::logged;

    /// CRC-32C, bit by bit.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
        })
    }

    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(n);
        *bytes = tail;
        head
    }

    fn checked<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
        let data = take(bytes, n);
        let crc = u32::from_le_bytes(take(bytes, 4).try_into().unwrap());
        assert_eq!(crc, crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8));
        data
    }

    /// The events of all files in `dir`, in the order in which TensorBoard reads them.
    fn events(dir: &Path) -> Vec<Event> {
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut events = Vec::new();
        for file in files {
            let file = fs::read(file).unwrap();
            let mut rest = &file[..];
            while !rest.is_empty() {
                let length = u64::from_le_bytes(checked(&mut rest, 8).try_into().unwrap());
                events.push(Event::parse_from_bytes(checked(&mut rest, length as usize)).unwrap());
            }
        }
        events
    }

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn events_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::at(7);
        metrics.real("loss", "loss/total", 0.25);
        metrics.real("grad_norm", "update/grad_norm", f64::NAN);
        metrics.optional("vlb_smoothed", "vlb/smoothed", None);
        let picture = grid(&[1, 2, 3, 4, 5, 6], [1, 1, 2, 3], 1, Scale::Exact).unwrap();
        let mut board = TensorBoard::open(dir.path(), None);
        board.text("config", "seed = 0\n# *no* Markdown");
        board.metrics(&metrics);
        board.picture(8, "samples", &picture);

        // The writer is still open, so this checks that every event was flushed.
        let events = events(dir.path());
        assert_eq!(events.iter().map(Event::get_step).collect::<Vec<_>>(), [0, 0, 0, 7, 8]);
        assert_eq!(events[0].get_file_version(), "brain.Event:2");
        assert_eq!(events[1].get_session_log().get_status(), SessionLog_SessionStatus::START);

        let text = &events[2].get_summary().get_value()[0];
        assert_eq!((text.get_tag(), text.get_metadata().get_plugin_data().get_plugin_name()), ("config", "text"));
        assert_eq!(text.get_tensor().get_dtype(), DataType::DT_STRING);
        assert_eq!(text.get_tensor().get_string_val(), [b"    seed = 0\n    # *no* Markdown\n"]);

        let scalars = events[3].get_summary().get_value();
        let value = |tag| scalars.iter().find(|value| value.get_tag() == tag).map(|value| value.get_simple_value());
        assert_eq!((value("loss/total"), value("vlb/smoothed")), (Some(0.25), None));
        assert!(value("update/grad_norm").unwrap().is_nan());

        let image = events[4].get_summary().get_value()[0].get_image();
        assert_eq!((image.get_height(), image.get_width(), image.get_colorspace()), (2, 3, 1));
        let png = image::load_from_memory(image.get_encoded_image_string()).unwrap();
        assert_eq!(png.into_luma8().into_raw(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_resumed_run_starts_a_later_file_that_voids_what_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        // Written by a machine whose clock is ahead.
        fs::write(dir.path().join("events.out.tfevents.9999999999.host"), b"").unwrap();
        drop(TensorBoard::open(dir.path(), None));
        drop(TensorBoard::open(dir.path(), Some(20)));
        let starts: Vec<i64> =
            events(dir.path()).iter().filter(|event| event.has_session_log()).map(Event::get_step).collect();
        assert_eq!(starts, [0, 21]);
    }

    #[test]
    fn the_files_of_an_earlier_version_are_continued() {
        let dir = tempfile::tempdir().unwrap();
        drop(TensorBoard::open(&dir.path().join("tb"), None));
        fs::write(dir.path().join("tb/notes"), b"mine").unwrap();
        drop(TensorBoard::open(dir.path(), Some(20)));
        assert_eq!(fs::read(dir.path().join("tb/notes")).unwrap(), b"mine");
        fs::remove_dir_all(dir.path().join("tb")).unwrap();
        let starts: Vec<i64> =
            events(dir.path()).iter().filter(|event| event.has_session_log()).map(Event::get_step).collect();
        assert_eq!(starts, [0, 21]);

        let dir = tempfile::tempdir().unwrap();
        drop(TensorBoard::open(&dir.path().join("tb"), None));
        drop(TensorBoard::open(dir.path(), None));
        assert!(!dir.path().join("tb").exists() && fs::read_dir(dir.path()).unwrap().count() == 2);
    }

    #[test]
    fn a_full_disk_costs_one_warning() {
        let warnings = logged(|| {
            let mut board = TensorBoard::begin(Path::new("tb"), File::create("/dev/full"), None);
            board.metrics(&Metrics::at(0));
            board.text("config", "seed = 0");
            drop(TensorBoard::open(Path::new("/dev/null/tb"), None));
        });
        assert_eq!(warnings.matches("tb cannot be written").count(), 2, "{warnings}");
    }
}
