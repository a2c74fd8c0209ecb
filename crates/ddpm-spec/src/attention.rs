//! The attention of the U-Net: how it is divided into heads, and what is at the bottom.

use serde::{Deserialize, Serialize};

/// How the channels of an attention layer are divided into heads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Heads {
    /// One head over all channels.
    One,
    /// Heads of this many channels each, so that wider levels have more of them.
    Width(i64),
    /// This many heads at every level.
    Number(i64),
}

impl Heads {
    /// Channels of a head in a layer of `channels`, which the heads must divide.
    pub fn width(self, channels: i64) -> i64 {
        match self {
            Self::One => channels,
            Self::Width(width) => width,
            Self::Number(number) => channels / number,
        }
    }
}

/// The attention between the two residual blocks at the lowest resolution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MidAttention {
    /// There is none.
    Absent,
    /// Attention without a norm before it.
    Unnormed,
    /// A norm, then attention.
    Normed {
        /// Groups of the norm.
        groups: i64,
    },
}

/// The name of a [`MidAttention`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MidAttentionKind {
    /// [`MidAttention::Absent`].
    Absent,
    /// [`MidAttention::Unnormed`].
    Unnormed,
    /// [`MidAttention::Normed`].
    Normed,
}
