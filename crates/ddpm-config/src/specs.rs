//! Converts settings to specifications: the types from which the other crates build networks, processes and data sets.

use std::path::{Path, PathBuf};

use ddpm_spec::{
    Architecture, BetaSchedule, ClassifierSpec, DataKind, DataSpec, Depth, DiffusionSpec, FolderLabels, Heads,
    IdxLabels, ImageShape, ImageSize, Labels, Loss, LossKind, MidAttention, MidAttentionKind, ModelKind, ScheduleKind,
    ShardFormat, ShardLabels, ShardSpec, SmallUNetSpec, SourceKind, SpecError, Split, UNetSpec, Weighting,
    WeightingKind,
};

use crate::{DataSettings, DiffusionSettings, ModelSettings, Settings};

impl Settings {
    /// The network that `[model]` describes, for the images of `[data]`.
    pub fn architecture(&self) -> Architecture {
        let (model, image) = (&self.model, self.data.image());
        let out_channels = self.diffusion.variance.model_channels(image.channels as i64);
        let channels = model.channels.iter().map(|&width| i64::from(width)).collect();
        let norm_groups = i64::from(model.norm_groups);
        let unet = |channels, classes| UNetSpec {
            image,
            out_channels,
            channels,
            layers_per_block: i64::from(model.layers_per_block),
            attention: model.attention.clone(),
            residual_resampling: model.residual_resampling,
            heads: model.heads(),
            norm_groups,
            norm_eps: model.norm_eps,
            mid_attention: model.mid_attention(),
            dropout: model.dropout,
            time_scale_shift: model.time_scale_shift,
            downsample_padding: i64::from(model.downsample_padding),
            time_channels: model.time_channels.map(i64::from),
            time_scale: model.time_scale,
            flip_sin_to_cos: model.flip_sin_to_cos,
            freq_shift: i64::from(model.freq_shift),
            classes,
        };
        match model.kind {
            ModelKind::Small => Architecture::Small(SmallUNetSpec {
                image,
                out_channels,
                channels,
                time_width: SmallUNetSpec::TIME_WIDTH,
            }),
            ModelKind::Unet => Architecture::UNet(unet(channels, self.class_rows())),
            ModelKind::Classifier => Architecture::Classifier(ClassifierSpec {
                encoder: unet(channels, None),
                classes: model.classes.map_or(0, i64::from),
            }),
        }
    }

    /// Rows of the class table: one per class, and one for "no class" if labels are dropped.
    fn class_rows(&self) -> Option<i64> {
        self.null_class().map(|null| null + 1).or(self.model.classes.map(i64::from))
    }

    /// The row of the class table that means "no class", if labels are dropped in training: the last.
    pub fn null_class(&self) -> Option<i64> {
        self.model.classes.map(i64::from).filter(|_| self.diffusion.label_dropout > 0.0)
    }

    /// The data set that `[data]` describes.
    ///
    /// # Errors
    /// [`SpecError`]: a kind that is not available, or a part of a data set that cannot be found from one IDX file.
    pub fn data_spec(&self, split: Split) -> Result<DataSpec, SpecError> {
        let d = &self.data;
        let refuse =
            |path: &str, problem: String, fix: &str| Err(SpecError { path: path.into(), problem, fix: fix.into() });
        let kind = match d.kind {
            // Held-out digits are drawn with another seed.
            DataKind::Synthetic if split != Split::Train => SourceKind::Synthetic { count: d.count, seed: !self.seed },
            DataKind::Synthetic => SourceKind::Synthetic { count: d.count, seed: self.seed },
            DataKind::Unknown => {
                let problem = "data.kind is \"unknown\", because an imported model does not say what it was trained on";
                return refuse("data.kind", problem.into(), "Name images by data.kind and data.path");
            }
            DataKind::Idx if split != Split::Train && Path::new(&d.path).is_file() => {
                let problem =
                    format!("data.path is the file {}, which does not say where the {split} split is", d.path);
                return refuse("data.path", problem, "Set data.path to that split's file and ask for the train split");
            }
            DataKind::Idx => SourceKind::Idx {
                images: PathBuf::from(&d.path),
                labels: match &d.labels {
                    Labels::Path(path) => IdxLabels::At(PathBuf::from(path)),
                    Labels::None => IdxLabels::None,
                    _ => IdxLabels::Beside,
                },
                split,
            },
            DataKind::Folder => SourceKind::Folder {
                root: PathBuf::from(&d.path),
                split,
                labels: match &d.labels {
                    Labels::Folder => FolderLabels::SubFolder,
                    Labels::Attribute(name) => FolderLabels::Attribute(name.clone()),
                    _ => FolderLabels::None,
                },
            },
            DataKind::Parquet => d.shards(ShardFormat::Parquet, split),
            DataKind::Webdataset => d.shards(ShardFormat::Webdataset, split),
            DataKind::Zip => d.shards(ShardFormat::Zip, split),
        };
        Ok(DataSpec {
            kind,
            image: d.image(),
            crop: d.crop,
            fit: d.fit,
            alpha: d.alpha,
            range: d.range,
            jpeg_shrink: d.jpeg_shrink,
            max_pixels: d.max_pixels(),
            on_corrupt: d.on_corrupt,
        })
    }
}

impl ModelSettings {
    fn heads(&self) -> Heads {
        match (self.heads, self.head_dim) {
            (Some(number), _) => Heads::Number(number.into()),
            (None, Some(width)) => Heads::Width(width.into()),
            (None, None) => Heads::One,
        }
    }

    fn mid_attention(&self) -> MidAttention {
        match self.mid_attention {
            MidAttentionKind::Absent => MidAttention::Absent,
            MidAttentionKind::Unnormed => MidAttention::Unnormed,
            MidAttentionKind::Normed => {
                MidAttention::Normed { groups: self.mid_norm_groups.unwrap_or(self.norm_groups).into() }
            }
        }
    }
}

impl DataSettings {
    fn shards(&self, format: ShardFormat, split: Split) -> SourceKind {
        let labels = match &self.labels {
            Labels::None => ShardLabels::None,
            Labels::Folder => ShardLabels::Folder,
            Labels::Field(name) => ShardLabels::Field(name.clone()),
            _ => ShardLabels::Auto,
        };
        let cache = self.cache_dir.as_ref().map(PathBuf::from);
        let cache_bytes = (self.cache_gb * 1e9) as u64;
        SourceKind::Shards(ShardSpec { format, path: PathBuf::from(&self.path), split, labels, cache, cache_bytes })
    }

    /// The shape to which images are brought.
    pub fn image(&self) -> ImageShape {
        let ImageSize { height, width } = self.image_size;
        ImageShape { channels: self.channels as usize, height: height as usize, width: width as usize }
    }

    /// How the values of the images are stored on their way to the network.
    pub fn depth(&self) -> Depth {
        Depth::of_range(self.range)
    }
}

impl DiffusionSettings {
    /// The network's prediction and training objective.
    pub fn spec(&self) -> DiffusionSpec {
        DiffusionSpec {
            prediction: self.predict,
            variance: self.variance,
            loss: self.loss_of(self.loss),
            weighting: self.weighting_of(self.weighting),
        }
    }

    /// The loss of a kind, with its parameters from these settings.
    pub(crate) fn loss_of(&self, kind: LossKind) -> Loss {
        match kind {
            LossKind::Simple => Loss::Simple,
            LossKind::Vlb => Loss::Vlb,
            LossKind::Hybrid => Loss::Hybrid { lambda: self.lambda },
        }
    }

    /// The weighting of a kind, with its parameters from these settings.
    pub(crate) fn weighting_of(&self, kind: WeightingKind) -> Weighting {
        match kind {
            WeightingKind::None => Weighting::None,
            WeightingKind::MinSnr => Weighting::MinSnr { gamma: self.min_snr_gamma },
            WeightingKind::P2 => Weighting::P2 { gamma: self.p2_gamma, k: self.p2_k },
        }
    }

    /// The noise schedule.
    pub fn beta_schedule(&self) -> BetaSchedule {
        let (start, end) = self.beta_range();
        let schedule = match self.schedule {
            ScheduleKind::Linear => BetaSchedule::Linear { start, end },
            ScheduleKind::Quadratic => BetaSchedule::Quadratic { start, end },
            ScheduleKind::Cosine => BetaSchedule::Cosine,
            ScheduleKind::Sigmoid => BetaSchedule::Sigmoid { start, end },
            ScheduleKind::Constant => BetaSchedule::Constant(end),
            ScheduleKind::List => BetaSchedule::List(self.betas.clone()),
        };
        if self.zero_terminal_snr { BetaSchedule::ZeroTerminalSnr(Box::new(schedule)) } else { schedule }
    }
}
