//! `data.image_size`: one number for squares, or height and width.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Height and width of images in pixels, written as `[height, width]`, or as one number where these are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    /// In pixels.
    pub height: u32,
    /// In pixels.
    pub width: u32,
}

impl ImageSize {
    /// Squares of this side.
    pub const fn square(side: u32) -> Self {
        Self { height: side, width: side }
    }
}

/// As files and `--set` spell it.
impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.height == self.width {
            true => write!(f, "{}", self.height),
            false => write!(f, "[{},{}]", self.height, self.width),
        }
    }
}

impl Serialize for ImageSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.height == self.width {
            true => serializer.serialize_u32(self.height),
            false => [self.height, self.width].serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ImageSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sides;
        impl<'de> Visitor<'de> for Sides {
            type Value = ImageSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 to 4294967295, or a list of two, height and width")
            }

            fn visit_u64<E: serde::de::Error>(self, side: u64) -> Result<ImageSize, E> {
                let side =
                    side.try_into().map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(side), &self))?;
                Ok(ImageSize::square(side))
            }

            fn visit_i64<E: serde::de::Error>(self, side: i64) -> Result<ImageSize, E> {
                let side = side.try_into().map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(side), &self))?;
                self.visit_u64(side)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sides: A) -> Result<ImageSize, A::Error> {
                let mut side = |index| {
                    sides
                        .next_element()?
                        .ok_or_else(|| serde::de::Error::invalid_length(index, &"an array of length 2"))
                };
                Ok(ImageSize { height: side(0)?, width: side(1)? })
            }
        }
        deserializer.deserialize_any(Sides)
    }
}
