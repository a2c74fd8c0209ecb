//! A specification that cannot be built: the field at fault, what is wrong with it, and what works.

/// A value out of range, or at odds with another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}. {fix}")]
pub struct SpecError {
    /// Path of the field at fault, such as `model.norm_groups`.
    pub path: String,
    /// What is wrong, with the path and the value.
    pub problem: String,
    /// Values that work.
    pub fix: String,
}

/// How errors name the fields of a specification: gives each field's path in what the specification was read from.
#[derive(Clone, Copy, Debug)]
pub struct Naming(pub fn(&str) -> String);

impl Naming {
    /// Every field by its own name: for a specification written in code.
    pub const PLAIN: Self = Self(str::to_owned);

    /// The path of `field`.
    pub fn path(self, field: &str) -> String {
        (self.0)(field)
    }
}
