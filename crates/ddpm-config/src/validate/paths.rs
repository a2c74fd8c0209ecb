//! The keys that the fields of specifications are read from.

use ddpm_spec::Naming;

pub(super) const DATA: Naming = Naming(|field| match image(field) {
    Some(key) => key.into(),
    None => format!("data.{field}"),
});
pub(super) const DIFFUSION: Naming = Naming(|field| format!("diffusion.{field}"));
pub(super) const MODEL: Naming = Naming(|field| match (image(field), field) {
    (Some(key), _) => key.into(),
    (None, "mid_attention.groups") => "model.mid_norm_groups".into(),
    (None, _) => format!("model.{field}"),
});

/// The key of a field of the images' shape.
fn image(field: &str) -> Option<&'static str> {
    match field {
        "image.height" | "image.width" => Some("data.image_size"),
        "image.channels" => Some("data.channels"),
        _ => None,
    }
}
