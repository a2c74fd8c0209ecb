//! The rules by which the fault rig fails: which requests, and how.

use serde::Deserialize;

/// The operation of a request, under its S3 name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Op {
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CopyObject,
    CreateMultipartUpload,
    DeleteObject,
    GetObject,
    HeadObject,
    ListObjectsV2,
    PutObject,
    UploadPart,
    /// Anything else.
    Other,
}

/// Which requests fail, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The operation; every one if absent.
    #[serde(default)]
    pub op: Option<Op>,
    /// A substring of the key (for a listing, of the prefix).
    #[serde(default)]
    pub key: String,
    /// How many matching requests to let through first.
    #[serde(default)]
    pub skip: u64,
    /// How many of the following matching requests to fail; all of them if absent.
    #[serde(default)]
    pub times: Option<u64>,
    /// The percentage of those that fail.
    #[serde(default = "always")]
    pub percent: u64,
    /// How they fail.
    pub fault: Fault,
}

fn always() -> u64 {
    100
}

/// The ways in which a request can fail.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Not executed, and answered with an S3 error.
    Refuse {
        /// HTTP status; 200 is possible.
        status: u16,
        /// The error's code, such as `SlowDown`.
        code: String,
    },
    /// Executed, but answered with an S3 error.
    Deny {
        /// HTTP status.
        status: u16,
        /// The error's code.
        code: String,
    },
    /// Executed, but the connection is closed without a response.
    LoseAnswer,
    /// A conditional create succeeds even if the object exists.
    Overwrite,
    /// Refused if it has a condition with a quoted ETag, which never holds on radosgw; executed otherwise.
    QuotedEtag,
    /// Delayed before it is executed.
    Delay {
        /// The delay.
        ms: u64,
    },
    /// The connection is closed after this many bytes of the request body; nothing is executed.
    CutRequest {
        /// Bytes.
        at: usize,
    },
    /// The connection is closed after this many bytes of the response body.
    CutAnswer {
        /// Bytes.
        at: usize,
    },
    /// One bit of the request body is flipped, or of the response body if the request has none.
    Flip {
        /// Which byte, modulo the length.
        at: usize,
    },
    /// Request and response are slowed down.
    Slow {
        /// The rate.
        bytes_per_s: u64,
    },
}
