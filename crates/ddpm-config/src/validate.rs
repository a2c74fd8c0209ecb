//! What must hold between values before any device, file or rank is touched.

use std::fmt::Display;

use crate::{
    Backend, DataKind, DataSettings, DiffusionSettings, Error, Labels, Loss, ModelKind, ModelSettings, Schedule,
    Settings, TrainSettings, Variance,
};

impl Settings {
    /// Checks every value's range and the values against each other.
    ///
    /// [`Settings::load`] has called it already; call it again after changing a field.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the key, the value and values that work.
    pub fn validate(&self) -> Result<(), Error> {
        in_range("seed", self.seed, i64::try_from(self.seed).is_ok(), "at most 9223372036854775807")?;
        not_empty("run.dir", &self.run.dir)?;
        not_empty("run.name", &self.run.name)?;
        self.data.validate()?;
        self.model.validate(self.data.image_size)?;
        self.diffusion.validate()?;
        self.train.validate()?;
        self.validate_classes()?;

        for (index, &rate) in self.ema.rates.iter().enumerate() {
            in_range("ema.rates", rate, (0.0..1.0).contains(&rate), "at least 0 and below 1")?;
            in_range("ema.rates", rate, !self.ema.rates[..index].contains(&rate), "listed once only")?;
        }
        positive("ema.every", self.ema.every)?;
        in_range("comm.bucket_mb", self.comm.bucket_mb, positive_finite(self.comm.bucket_mb), "above 0")?;
        positive("comm.timeout_s", self.comm.timeout_s)?;
        if let Some(uri) = &self.checkpoint.uri {
            not_empty("checkpoint.uri", uri)?;
        }
        positive("checkpoint.every", self.checkpoint.every)?;
        in_range("checkpoint.keep_last", self.checkpoint.keep_last, self.checkpoint.keep_last >= 2, "at least 2")?;
        let lease = self.checkpoint.lease_s;
        in_range("checkpoint.lease_s", lease, (1..=3600).contains(&lease), "from 1 to 3600")?;
        let retry = self.checkpoint.retry_s;
        in_range("checkpoint.retry_s", retry, retry <= 3600, "at most 3600")?;
        in_range("checkpoint.part_mb", self.checkpoint.part_mb, self.checkpoint.part_mb >= 8, "at least 8")?;
        positive("checkpoint.concurrency", self.checkpoint.concurrency as u64)?;
        positive("monitor.log_every", self.monitor.log_every)?;
        positive("monitor.sample_count", self.monitor.sample_count as u64)?;
        let (steps, all) = (self.monitor.sample_steps, self.diffusion.timesteps);
        in_range(
            "monitor.sample_steps",
            steps,
            (1..=all).contains(&steps),
            format!("from 1 to diffusion.timesteps = {all}"),
        )
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
                let ranks = nearest_divisors(batch, world);
                let noun = if ranks == "1" { "rank" } else { "ranks" };
                format!("Use {}, or run on {ranks} {noun}", nearest_multiples(batch, world))
            },
        )?;
        let (slice, micro) = (batch / world, self.train.micro_batch.unwrap_or(batch / world));
        require(
            slice.is_multiple_of(micro),
            "train.micro_batch",
            || {
                let ranks = if world == 1 { "the only rank".into() } else { format!("each of {world} ranks") };
                format!("train.micro_batch = {micro} does not divide the {slice} images of {ranks}")
            },
            || format!("Use {}, or 0 for the whole slice", nearest_divisors(slice, micro)),
        )
    }

    fn validate_classes(&self) -> Result<(), Error> {
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
            self.model.kind != ModelKind::Classifier || self.model.classes.is_some_and(|classes| classes >= 2),
            "model.classes",
            || "a classifier needs model.classes, the two or more classes that it tells apart".into(),
            || "Set model.classes to the number of classes of the data, such as 10 for digits".into(),
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
    fn validate(&self) -> Result<(), Error> {
        require(
            self.kind != DataKind::Packed,
            "data.kind",
            || "data.kind = \"packed\" is not available in this version".into(),
            || "Use \"folder\" or \"idx\"".into(),
        )?;
        require(
            self.kind == DataKind::Synthetic || !self.path.is_empty(),
            "data.path",
            || "data.path is not set, and this data.kind reads files".into(),
            || "Set it to their folder, or data.kind to \"synthetic\"".into(),
        )?;
        let (fits, choices) = match self.kind {
            DataKind::Folder => (!matches!(self.labels, Labels::Path(_)), "auto, none, folder or attribute:NAME"),
            DataKind::Synthetic => (matches!(self.labels, Labels::Auto | Labels::None), "auto or none"),
            _ => (
                !matches!(self.labels, Labels::Folder | Labels::Attribute(_)),
                "auto, none or the path of a label file",
            ),
        };
        require(
            fits,
            "data.labels",
            || format!("data.labels = \"{}\" does not go with this data.kind", self.labels),
            || format!("Use {choices}"),
        )?;
        in_range("data.count", self.count, self.count > 0, "at least 1")?;
        in_range("data.image_size", self.image_size, (1..=4096).contains(&self.image_size), "from 1 to 4096")?;
        in_range("data.channels", self.channels, matches!(self.channels, 1 | 3), "1 (grey) or 3 (RGB)")?;
        positive("data.workers", self.workers as u64)
    }
}

impl ModelSettings {
    fn validate(&self, image_size: u32) -> Result<(), Error> {
        let levels = self.channels.len();
        in_range(
            "model.channels",
            format!("{:?}", self.channels),
            (1..=12).contains(&levels),
            "a list of 1 to 12 widths",
        )?;
        let widest = self.channels.iter().copied().max().unwrap_or(0);
        in_range("model.channels", widest, widest <= 65_536, "at most 65536")?;
        one_per_level("model.attention", &self.attention, levels)?;
        if !self.checkpoint_activations.is_empty() {
            one_per_level("model.checkpoint_activations", &self.checkpoint_activations, levels)?;
        }
        in_range("model.dropout", self.dropout, (0.0..1.0).contains(&self.dropout), "at least 0 and below 1")?;
        in_range("model.norm_eps", self.norm_eps, positive_finite(self.norm_eps), "above 0")?;
        positive("model.layers_per_block", u64::from(self.layers_per_block))?;
        positive("model.norm_groups", u64::from(self.norm_groups))?;
        in_range("model.downsample_padding", self.downsample_padding, self.downsample_padding <= 1, "0 or 1")?;
        in_range("model.freq_shift", self.freq_shift, self.freq_shift <= 1, "0 or 1")?;
        let halvings = match self.kind {
            ModelKind::Unet | ModelKind::Classifier => {
                self.validate_unet()?;
                levels - 1
            }
            ModelKind::Small => {
                self.validate_small()?;
                levels
            }
        };
        let multiple = 1 << halvings;
        require(
            image_size.is_multiple_of(multiple),
            "data.image_size",
            || {
                format!(
                    "data.image_size = {image_size} is not a multiple of {multiple}, as the {levels} levels of the net need"
                )
            },
            || {
                let sizes = nearest_multiples(image_size as usize, multiple as usize);
                format!("Use {sizes}, or fewer entries in model.channels")
            },
        )
    }

    fn validate_unet(&self) -> Result<(), Error> {
        let groups = self.norm_groups as usize;
        for &width in &self.channels {
            require(
                width > 0 && (width as usize).is_multiple_of(groups),
                "model.channels",
                || format!("{width} in model.channels does not divide into model.norm_groups = {groups}"),
                || {
                    let widths = nearest_multiples(width as usize, groups);
                    match self.channels.iter().copied().fold(0, gcd) {
                        0 | 1 => format!("Use {widths}"),
                        common => format!(
                            "Use {widths}, or model.norm_groups = {}",
                            largest_divisor(common, self.norm_groups)
                        ),
                    }
                },
            )?;
        }
        // Half of the time embedding are sines, half cosines, and the exponent divides by half the width - freq_shift.
        let first = self.channels[0];
        in_range("model.channels[0]", first, first >= 4 && first.is_multiple_of(2), "even and at least 4")?;
        let Some(head) = self.head_dim else { return Ok(()) };
        // The bottom of the U-Net attends whatever `attention` says.
        let bottom = self.channels.len() - 1;
        for (level, &width) in self.channels.iter().enumerate() {
            require(
                !(self.attention[level] || level == bottom) || (head > 0 && width.is_multiple_of(head)),
                "model.head_dim",
                || format!("model.head_dim = {head} does not divide the {width} channels that attend at level {level}"),
                || format!("Use {}, or 0 for one head", nearest_divisors(width as usize, head as usize)),
            )?;
        }
        Ok(())
    }

    /// The small net refuses options that it would ignore.
    fn validate_small(&self) -> Result<(), Error> {
        for &width in &self.channels {
            in_range(
                "model.channels",
                width,
                width >= 2 && width.is_multiple_of(2),
                "even and at least 2 in the small net",
            )?;
        }
        let unet = Self::default();
        let ignored = [
            ("model.attention", self.attention.contains(&true)),
            ("model.checkpoint_activations", self.checkpoint_activations.contains(&true)),
            ("model.head_dim", self.head_dim.is_some()),
            ("model.dropout", self.dropout > 0.0),
            ("model.time_scale_shift", self.time_scale_shift),
            ("model.classes", self.classes.is_some()),
            ("model.layers_per_block", self.layers_per_block != unet.layers_per_block),
            ("model.norm_groups", self.norm_groups != unet.norm_groups),
            ("model.downsample_padding", self.downsample_padding != unet.downsample_padding),
            ("model.freq_shift", self.freq_shift != unet.freq_shift),
            ("model.flip_sin_to_cos", self.flip_sin_to_cos != unet.flip_sin_to_cos),
            ("model.norm_eps", self.norm_eps != unet.norm_eps),
        ];
        for (key, set) in ignored {
            require(
                !set,
                key,
                || format!("{key} is set, but model.kind = \"small\" has no such part"),
                || format!("Remove {key}, or set model.kind = \"unet\""),
            )?;
        }
        Ok(())
    }
}

impl DiffusionSettings {
    fn validate(&self) -> Result<(), Error> {
        let timesteps = self.timesteps;
        in_range("diffusion.timesteps", timesteps, (2..=1_000_000).contains(&timesteps), "from 2 to 1000000")?;
        self.validate_betas()?;
        in_range("diffusion.lambda", self.lambda, positive_finite(self.lambda), "above 0")?;
        in_range("diffusion.min_snr_gamma", self.min_snr_gamma, positive_finite(self.min_snr_gamma), "above 0")?;
        let share = self.label_dropout;
        in_range("diffusion.label_dropout", share, (0.0..1.0).contains(&share), "at least 0 and below 1")?;
        let learned = self.variance == Variance::LearnedRange;
        require(
            learned || self.loss != Loss::Hybrid,
            "diffusion.loss",
            || "diffusion.loss = \"hybrid\" trains the variance, which diffusion.variance fixes".into(),
            || "Set diffusion.variance = \"learned_range\", or diffusion.loss = \"simple\"".into(),
        )?;
        require(
            !learned || self.loss != Loss::Simple,
            "diffusion.variance",
            || "diffusion.variance = \"learned_range\" is not trained by diffusion.loss = \"simple\"".into(),
            || "Set diffusion.loss = \"hybrid\", or a fixed diffusion.variance".into(),
        )
    }

    fn validate_betas(&self) -> Result<(), Error> {
        let uses_start = matches!(self.schedule, Schedule::Linear | Schedule::Quadratic | Schedule::Sigmoid);
        let uses_end = uses_start || self.schedule == Schedule::Constant;
        for (key, set, used) in [
            ("diffusion.beta_start", self.beta_start.is_some(), uses_start),
            ("diffusion.beta_end", self.beta_end.is_some(), uses_end),
            ("diffusion.betas", !self.betas.is_empty(), self.schedule == Schedule::List),
        ] {
            let unset = if key == "diffusion.betas" { "[]" } else { "0" };
            require(
                !set || used,
                key,
                || format!("{key} is set, but this diffusion.schedule does not use it"),
                || format!("Remove it (or set it to {unset}), or choose another diffusion.schedule"),
            )?;
        }
        if self.schedule == Schedule::List {
            let (given, needed) = (self.betas.len(), self.timesteps as usize);
            require(
                given == needed,
                "diffusion.betas",
                || format!("diffusion.betas has {given} entries for diffusion.timesteps = {needed}"),
                || format!("Give {needed} betas, or set diffusion.timesteps to {given}"),
            )?;
        }
        for &beta in &self.betas {
            in_range("diffusion.betas", beta, inside_unit(beta), "above 0 and below 1")?;
        }
        if !uses_end {
            return Ok(());
        }
        let (start, end) = self.beta_range();
        require(
            inside_unit(end),
            "diffusion.beta_end",
            || match self.beta_end {
                Some(end) => format!("diffusion.beta_end = {end} is out of range"),
                None => format!("the default diffusion.beta_end for {} timesteps would be {end}", self.timesteps),
            },
            || "Give diffusion.beta_end a value above 0 and below 1".into(),
        )?;
        let limit = format!("above 0 and at most diffusion.beta_end = {end}");
        in_range("diffusion.beta_start", start, !uses_start || (start > 0.0 && start <= end), limit)
    }
}

impl TrainSettings {
    fn validate(&self) -> Result<(), Error> {
        positive("train.steps", self.steps)?;
        positive("train.global_batch", self.global_batch as u64)?;
        if let Some(micro) = self.micro_batch {
            let fits = (1..=self.global_batch).contains(&micro);
            in_range("train.micro_batch", micro, fits, format!("at most train.global_batch = {}", self.global_batch))?;
        }
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

fn require(
    holds: bool,
    key: &'static str,
    problem: impl FnOnce() -> String,
    mend: impl FnOnce() -> String,
) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Invalid { key, problem: problem(), mend: mend() }) }
}

fn one_per_level(key: &'static str, flags: &[bool], levels: usize) -> Result<(), Error> {
    require(
        flags.len() == levels,
        key,
        || format!("{key} has {} entries for the {levels} levels of model.channels", flags.len()),
        || format!("Give {levels}, one true or false per level"),
    )
}

fn in_range(key: &'static str, value: impl Display, holds: bool, wanted: impl Display) -> Result<(), Error> {
    let problem = || format!("{key} = {value} is out of range");
    require(holds, key, problem, || format!("It must be {wanted}"))
}

fn positive(key: &'static str, value: u64) -> Result<(), Error> {
    in_range(key, value, value > 0, "at least 1")
}

fn not_empty(key: &'static str, text: &str) -> Result<(), Error> {
    require(
        !text.trim().is_empty(),
        key,
        || format!("{key} is empty"),
        || "Give it a value, or leave the key out".into(),
    )
}

fn positive_finite(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

fn inside_unit(value: f64) -> bool {
    value > 0.0 && value < 1.0
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The largest divisor of `n` up to `limit`.
fn largest_divisor(n: u32, limit: u32) -> u32 {
    (1..=n.min(limit)).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}

/// The multiples of `unit` on either side of `n`: "99 or 102".
fn nearest_multiples(n: usize, unit: usize) -> String {
    let below = n / unit * unit;
    let above = below.saturating_add(unit);
    if below == 0 { above.to_string() } else { format!("{below} or {above}") }
}

/// Up to five divisors of `n`, those nearest to `wanted`: "1, 2, 4, 5 or 10".
fn nearest_divisors(n: usize, wanted: usize) -> String {
    let small = (1..).take_while(|d| d * d <= n).filter(|d| n.is_multiple_of(*d));
    let mut all: Vec<usize> = small.flat_map(|d| [d, n / d]).collect();
    all.sort_unstable();
    all.dedup();
    all.sort_by_key(|d| d.abs_diff(wanted));
    all.truncate(5);
    all.sort_unstable();
    match all.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            let rest: Vec<String> = rest.iter().map(ToString::to_string).collect();
            format!("{} or {last}", rest.join(", "))
        }
        _ => n.to_string(),
    }
}
