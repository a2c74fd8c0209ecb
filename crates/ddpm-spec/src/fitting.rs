//! How images of any shape, with or without transparency, are brought to one shape.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What happens to an image whose sides are in another proportion than those of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The largest centred rectangle of that proportion is cut out of it.
    Crop,
    /// All of it is used, with equal margins on two sides.
    Pad,
    /// All of it is used, distorted.
    Stretch,
}

/// What becomes of transparency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpha {
    /// Transparent pixels show this colour, red, green and blue, which also fills the margins of [`Fit::Pad`]. Spelled
    /// `black`, `white`, or `[red, green, blue]`.
    Over([u8; 3]),
    /// Opacity is the last channel; margins are transparent. Spelled `keep`.
    Keep,
}

impl Alpha {
    /// The colour behind transparent pixels, by default.
    pub const BLACK: Self = Self::Over([0; 3]);
    /// White behind transparent pixels.
    pub const WHITE: Self = Self::Over([255; 3]);
}

const FORMS: &[&str] = &["black", "white", "keep", "[RED, GREEN, BLUE]"];

/// As files and `--set` spell it, without quotes.
impl fmt::Display for Alpha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            &Self::BLACK => f.write_str("black"),
            &Self::WHITE => f.write_str("white"),
            Self::Over(colour) => write!(f, "{colour:?}"),
        }
    }
}

impl Serialize for Alpha {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            &Self::BLACK | &Self::WHITE | Self::Keep => serializer.collect_str(self),
            Self::Over(colour) => colour.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Alpha {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Colour;
        impl<'de> Visitor<'de> for Colour {
            type Value = Alpha;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"black\", \"white\", \"keep\" or a list of red, green and blue, each from 0 to 255")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Alpha, E> {
                match text {
                    "black" => Ok(Alpha::BLACK),
                    "white" => Ok(Alpha::WHITE),
                    "keep" => Ok(Alpha::Keep),
                    _ => Err(E::unknown_variant(text, FORMS)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Alpha, A::Error> {
                let mut colour = [0; 3];
                for (index, value) in colour.iter_mut().enumerate() {
                    let missing = || serde::de::Error::invalid_length(index, &"an array of length 3");
                    *value = values.next_element()?.ok_or_else(missing)?;
                }
                Ok(Alpha::Over(colour))
            }
        }
        deserializer.deserialize_any(Colour)
    }
}
