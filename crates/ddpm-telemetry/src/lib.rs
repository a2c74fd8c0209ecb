//! Outputs for monitoring a run: log lines, progress, `metrics.jsonl`, TensorBoard events, charts and image grids.
//!
//! ```
//! use ddpm_telemetry::{Metrics, MetricsLog, Scale, TensorBoard, grid, read_metrics};
//!
//! # let dir = tempfile::tempdir()?;
//! let mut metrics = Metrics::at(10);
//! metrics.real("loss", "loss/total", 0.25);
//! metrics.quarters("loss", "loss_by_t", [Some(0.5), Some(0.3), Some(0.2), None]);
//!
//! let path = dir.path().join("metrics.jsonl");
//! MetricsLog::open(&path, None).append(&metrics);
//! assert_eq!(read_metrics(&path)?[0]["loss_q1"], 0.3);
//!
//! let mut board = TensorBoard::open(dir.path(), None);
//! board.metrics(&metrics);
//! // Two grey images of 2x2 pixels, side by side.
//! board.picture(10, "samples", &grid(&[0, 64, 128, 255, 9, 9, 9, 9], [2, 1, 2, 2], 2, Scale::Exact)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Monitoring never stops training. An output that fails during a run (full disk, lost mount) is closed with one
//! warning; only functions that draw or save a picture return their errors. This crate depends neither on libtorch
//! nor on the other crates of the workspace.

mod axis;
mod best_effort;
mod canvas;
mod chart;
mod colours;
mod error;
mod file;
mod grid;
mod heatmap;
mod hparams;
mod metrics;
mod picture;
mod progress;
mod records;
mod resident;
mod table;
mod tensorboard;
#[cfg(test)]
mod testing;
mod work;

pub use chart::{Chart, Series, loss_by_timestep, panel};
pub use error::DrawError;
pub use file::{probe_folder, write_atomic, write_atomic_with};
pub use grid::{Scale, from_unit_floats, grid};
pub use heatmap::HeatMap;
pub use metrics::{Metrics, MetricsLog, read_metrics};
pub use picture::Picture;
pub use progress::{Progress, init_logging};
pub use resident::{machine_mb, peak_rss_mb, rss_mb};
pub use table::fit_terminal;
pub use tensorboard::TensorBoard;
pub use work::{Showing, Unit, Work};
