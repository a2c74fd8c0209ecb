//! Builds the objects of a run from validated settings.

use std::path::PathBuf;
use std::time::Duration;

use ddpm_checkpoint::StoreOptions;
use ddpm_config::Settings;
use ddpm_diffusion::{Diffusion, VISIBLE_SIGNAL, betas};
use tch::Device;

use crate::error::{Error, ErrorKind};

/// The diffusion process that `[diffusion]` describes. Warns if the image is still visible at its last timestep.
pub fn diffusion(settings: &Settings, device: Device) -> Result<Diffusion, Error> {
    let d = &settings.diffusion;
    let process = Diffusion::new(betas(&d.beta_schedule(), d.timesteps as usize)?, d.spec(), device)?;
    let signal = process.terminal_signal();
    if signal > VISIBLE_SIGNAL {
        tracing::warn!(
            "the schedule ends with alphas_cumprod = {signal:.3}: x_T still shows the image, which sampling from pure \
             noise never does; raise diffusion.timesteps or diffusion.beta_end"
        );
    }
    Ok(process)
}

/// The current working directory, against which relative paths are resolved.
pub fn current_folder() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|e| {
        Error::new(ErrorKind::Storage, format!("the current folder is gone ({e}); change to one that is there"))
    })
}

/// The options for requests to the store, as `[checkpoint]` configures them.
pub fn store_options(settings: &Settings) -> StoreOptions {
    let c = &settings.checkpoint;
    StoreOptions {
        part_bytes: (c.part_mb as usize) << 20,
        concurrency: c.concurrency,
        retry_timeout: Duration::from_secs(c.retry_s),
        ..StoreOptions::default()
    }
}
