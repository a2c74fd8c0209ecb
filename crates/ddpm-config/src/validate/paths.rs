//! The keys that the fields of specifications are read from.

use ddpm_spec::Naming;

pub(super) const DATA: Naming = Naming(|field| format!("data.{field}"));
pub(super) const DIFFUSION: Naming = Naming(|field| format!("diffusion.{field}"));
pub(super) const MODEL: Naming = Naming(|field| match field {
    "image_size" => "data.image_size".into(),
    "in_channels" => "data.channels".into(),
    _ => format!("model.{field}"),
});
