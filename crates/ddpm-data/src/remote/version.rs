//! Which state of an object: what distinguishes it from a later one under the same name.

use object_store::ObjectMeta;
use sha2::{Digest, Sha256};

/// The state of an object.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// Its size in bytes.
    pub length: u64,
    /// The store's name for the content, in quotation marks, if it has one.
    pub tag: Option<String>,
    /// When it was written, in seconds since 1970: a listing and a response have no other precision in common.
    pub seconds: i64,
}

impl Version {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        // Azure's listings leave out the quotation marks, which conditions must have.
        let quoted = |tag: &String| if tag.ends_with('"') { tag.clone() } else { format!("\"{tag}\"") };
        let tag = meta.e_tag.as_ref().map(quoted);
        Version { length: meta.size, tag, seconds: meta.last_modified.timestamp() }
    }

    /// Whether two descriptions may be of one state; a store that names contents may give another time to a copy.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let same_content = match (&self.tag, &other.tag) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.seconds == other.seconds,
        };
        self.length == other.length && same_content
    }

    /// A name for this state of the object at `address`, for files that are made from it.
    pub(super) fn name(&self, address: &str) -> String {
        let tag = self.tag.clone().unwrap_or_else(|| self.seconds.to_string());
        let hash = Sha256::digest(format!("{address}\n{}\n{tag}", self.length));
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}
