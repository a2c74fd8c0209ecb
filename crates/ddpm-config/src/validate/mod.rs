//! The checks of all settings, before any device, file or rank is touched.

mod diffusion;
mod model;
mod monitor;
mod paths;
mod texts;

use ddpm_spec::check::{in_range, nearest_divisors, nearest_multiples, positive, positive_finite, require};
use ddpm_spec::{Backend, DataKind, Labels, SpecError, Split};

use paths::{DATA, MODEL};
use texts::{not_empty, spelt};

use crate::address::{check_address, check_path, check_path_or_bucket};
use crate::{DataSettings, Error, Settings, TrainSettings};

impl Settings {
    /// Checks every value's range and the values against each other.
    ///
    /// [`Settings::load`] calls it; call it again after changing a field.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the key, the value and values that work.
    pub fn validate(&self) -> Result<(), Error> {
        in_range("seed", self.seed, i64::try_from(self.seed).is_ok(), "at most 9223372036854775807")?;
        not_empty("run.dir", &self.run.dir)?;
        spelt("run.dir", &self.run.dir, check_path)?;
        not_empty("run.name", &self.run.name)?;
        match self.data.kind {
            // Unknown data is refused when it is opened: a model can be used without.
            DataKind::Unknown => self.data.image().validate_channels(DATA)?,
            _ => self.data_spec(Split::Train)?.validate(DATA)?,
        }
        self.data.validate()?;
        self.model.validate()?;
        self.architecture().validate(MODEL)?;
        self.diffusion.validate()?;
        self.train.validate()?;
        self.validate_classes()?;

        for (index, &rate) in self.ema.rates.iter().enumerate() {
            in_range("ema.rates", rate, (0.0..1.0).contains(&rate), "at least 0 and below 1")?;
            in_range("ema.rates", rate, !self.ema.rates[..index].contains(&rate), "listed once only")?;
        }
        for (index, &width) in self.ema.widths.iter().enumerate() {
            in_range("ema.widths", width, (0.01..=0.28).contains(&width), "from 0.01 to 0.28")?;
            in_range("ema.widths", width, !self.ema.widths[..index].contains(&width), "listed once only")?;
        }
        positive("ema.every", self.ema.every)?;
        in_range("ema.keep_snapshots", self.ema.keep_snapshots, self.ema.keep_snapshots >= 2, "at least 2")?;
        in_range("comm.bucket_mb", self.comm.bucket_mb, positive_finite(self.comm.bucket_mb), "above 0")?;
        positive("comm.timeout_s", self.comm.timeout_s)?;
        let factor = self.comm.straggler_factor;
        in_range("comm.straggler_factor", factor, factor > 1.0 && factor.is_finite(), "above 1")?;
        if let Some(uri) = &self.checkpoint.uri {
            not_empty("checkpoint.uri", uri)?;
            spelt("checkpoint.uri", uri, check_address)?;
        }
        positive("checkpoint.every", self.checkpoint.every)?;
        in_range("checkpoint.keep_last", self.checkpoint.keep_last, self.checkpoint.keep_last >= 2, "at least 2")?;
        let lease = self.checkpoint.lease_s;
        in_range("checkpoint.lease_s", lease, (1..=3600).contains(&lease), "from 1 to 3600")?;
        let retry = self.checkpoint.retry_s;
        in_range("checkpoint.retry_s", retry, retry <= 3600, "at most 3600")?;
        in_range("checkpoint.part_mb", self.checkpoint.part_mb, self.checkpoint.part_mb >= 8, "at least 8")?;
        positive("checkpoint.concurrency", self.checkpoint.concurrency as u64)?;
        Ok(self.validate_monitor()?)
    }

    /// Checks what depends on the number of ranks: the global batch must divide among them, and each rank's slice
    /// into micro-batches.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the nearest values that work.
    pub fn check_world(&self, world: usize) -> Result<(), Error> {
        let world = world.max(1);
        let batch = self.train.global_batch;
        require(
            world == 1 || self.comm.backend != Backend::Solo,
            "comm.backend",
            || format!("comm.backend = \"solo\" cannot join {world} ranks"),
            || "Set it to \"auto\", or run on 1 rank".into(),
        )?;
        require(
            batch.is_multiple_of(world),
            "train.global_batch",
            || format!("train.global_batch = {batch} does not divide among {world} ranks"),
            || {
                let ranks = nearest_divisors(batch as u64, world as u64);
                let noun = if ranks == "1" { "rank" } else { "ranks" };
                format!("Use {}, or run on {ranks} {noun}", nearest_multiples(batch as u64, world as u64))
            },
        )?;
        let (slice, micro) = (batch / world, self.train.micro_batch.unwrap_or(batch / world));
        Ok(require(
            slice.is_multiple_of(micro),
            "train.micro_batch",
            || {
                let ranks = if world == 1 { "the only rank".into() } else { format!("each of {world} ranks") };
                format!("train.micro_batch = {micro} does not divide the {slice} images of {ranks}")
            },
            || format!("Use {}, or 0 for the whole slice", nearest_divisors(slice as u64, micro as u64)),
        )?)
    }

    fn validate_classes(&self) -> Result<(), SpecError> {
        let (data, diffusion) = (&self.data, &self.diffusion);
        let unlabelled = data.labels == Labels::None || (data.kind == DataKind::Folder && data.labels == Labels::Auto);
        require(
            self.model.classes.is_none() || !unlabelled,
            "model.classes",
            || format!("model.classes is set, but data.labels = \"{}\" gives no labels", data.labels),
            || match data.kind {
                DataKind::Folder => "Set data.labels to \"folder\" or \"attribute:NAME\"".into(),
                _ => "Set data.labels to \"auto\"".into(),
            },
        )?;
        require(
            diffusion.label_dropout == 0.0 || self.model.classes.is_some(),
            "diffusion.label_dropout",
            || format!("diffusion.label_dropout = {} has no labels to drop", diffusion.label_dropout),
            || "Set model.classes to the number of classes, or diffusion.label_dropout to 0".into(),
        )
    }
}

impl DataSettings {
    fn validate(&self) -> Result<(), SpecError> {
        require(
            matches!(self.kind, DataKind::Synthetic | DataKind::Unknown) || !self.path.is_empty(),
            "data.path",
            || "data.path is not set, and this data.kind reads files".into(),
            || "Set it to their folder, or data.kind to \"synthetic\"".into(),
        )?;
        let of_files = matches!(self.kind, DataKind::Parquet | DataKind::Webdataset | DataKind::Zip);
        spelt("data.path", &self.path, if of_files { check_path_or_bucket } else { check_path })?;
        require(
            of_files || self.window().is_none(),
            "data.shuffle",
            || "data.shuffle = \"shards\" mixes files of many images, and this data.kind has none".into(),
            || "Use \"global\", or data.kind parquet, webdataset or zip".into(),
        )?;
        positive("data.shuffle_window", self.shuffle_window)?;
        in_range("data.cache_gb", self.cache_gb, (0.0..=1e6).contains(&self.cache_gb), "from 0 to 1000000")?;
        if let Labels::Path(path) = &self.labels {
            spelt("data.labels", path, check_path)?;
        }
        if let Some(folder) = &self.cache_dir {
            spelt("data.cache_dir", folder, check_path)?;
        }
        let (fits, choices) = match self.kind {
            DataKind::Folder => {
                (!matches!(self.labels, Labels::Path(_) | Labels::Field(_)), "auto, none, folder or attribute:NAME")
            }
            DataKind::Synthetic | DataKind::Unknown => {
                (matches!(self.labels, Labels::Auto | Labels::None), "auto or none")
            }
            DataKind::Idx => (
                matches!(self.labels, Labels::Auto | Labels::None | Labels::Path(_)),
                "auto, none or the path of a label file",
            ),
            DataKind::Parquet => {
                (matches!(self.labels, Labels::Auto | Labels::None | Labels::Field(_)), "auto, none or field:COLUMN")
            }
            DataKind::Webdataset => (
                !matches!(self.labels, Labels::Attribute(_) | Labels::Path(_)),
                "auto, none, folder, or field: and an extension or a key of .json",
            ),
            DataKind::Zip => {
                (matches!(self.labels, Labels::Auto | Labels::None | Labels::Folder), "auto, none or folder")
            }
        };
        require(
            fits,
            "data.labels",
            || format!("data.labels = \"{}\" does not go with this data.kind", self.labels),
            || format!("Use {choices}"),
        )?;
        positive("data.count", self.count)?;
        positive("data.workers", self.workers as u64)?;
        positive("data.max_megapixels", self.max_megapixels.into())
    }
}

impl TrainSettings {
    fn validate(&self) -> Result<(), SpecError> {
        positive("train.steps", self.steps)?;
        positive("train.global_batch", self.global_batch as u64)?;
        if let Some(micro) = self.micro_batch {
            let fits = (1..=self.global_batch).contains(&micro);
            in_range("train.micro_batch", micro, fits, format!("at most train.global_batch = {}", self.global_batch))?;
        }
        if let Some(source) = &self.init_from {
            spelt("train.init_from", source, check_address)?;
        }
        require(
            self.init_from.is_some() || !self.init_skip_mismatched,
            "train.init_skip_mismatched",
            || "train.init_skip_mismatched is set, but train.init_from names no model".into(),
            || "Name one, or set it to false".into(),
        )?;
        in_range("train.lr", self.lr, positive_finite(self.lr), "above 0")?;
        let decay = self.weight_decay;
        in_range("train.weight_decay", decay, decay >= 0.0 && decay.is_finite(), "0 or above")?;
        for beta in self.betas {
            in_range("train.betas", beta, (0.0..1.0).contains(&beta), "at least 0 and below 1")?;
        }
        in_range("train.adam_eps", self.adam_eps, positive_finite(self.adam_eps), "above 0")?;
        let clip = self.grad_clip;
        in_range("train.grad_clip", clip, clip >= 0.0 && clip.is_finite(), "above 0, or 0 for none")
    }
}
