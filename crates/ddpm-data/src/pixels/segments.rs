//! The segments of a JPEG file: finding its EXIF data, and making a copy without harmless irregularities.

use image::metadata::Orientation;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP14: u8 = 0xee;
const TEM: u8 = 0x01;
const RST: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;
/// Start of a frame whose scans are sequential: baseline and extended, Huffman or arithmetic.
const SEQUENTIAL: [u8; 3] = [0xc0, 0xc1, 0xc9];

/// The image's orientation according to the EXIF data before its pixels.
pub(super) fn orientation(bytes: &[u8]) -> Orientation {
    let mut walk = Walk(bytes);
    std::iter::from_fn(|| walk.segment())
        .take_while(|(marker, _)| !matches!(*marker, SOS | EOI))
        .filter(|(marker, _)| *marker == APP1)
        .find_map(|(_, body)| Orientation::from_exif_chunk(body.strip_prefix(b"Exif\0\0")?))
        .unwrap_or(Orientation::NoTransforms)
}

/// A copy of a JPEG, up to the end of its image, without irregularities that libjpeg warns about but that do not affect
/// any pixel:
///
/// - bytes between segments that do not belong to any,
/// - zeros at the end of the last scan, beyond the first `zeros`: some encoders pad with them. In some scans the last
///   byte is a zero; more are not kept, because the decoder takes them for blocks, so that a truncated scan looks
///   complete. The zero that follows a data byte 0xff belongs to that byte and is always kept,
/// - an unknown JFIF version or Adobe transform, and the spectral range in a sequential scan,
/// - a missing end-of-image marker, if one scan holds all components. The decoder then checks whether that scan is
///   complete. With several scans the last one could be missing, which it could not detect.
pub(super) fn tidy(bytes: &[u8], zeros: usize) -> Vec<u8> {
    let mut walk = Walk(bytes);
    let mut tidy = Vec::with_capacity(bytes.len());
    // The number of components of a sequential frame.
    let mut frame = None;
    let mut whole = false;
    while let Some((marker, body)) = walk.segment() {
        let mut body = body.to_vec();
        match marker {
            EOI => {
                whole = true;
                break;
            }
            SOS => {
                let components = body.first().copied();
                whole = components.is_some() && components == frame;
                if frame.is_some()
                    && let Some(range) = body.last_chunk_mut()
                {
                    *range = [0, 63, 0];
                }
            }
            APP0 if body.starts_with(b"JFIF\0") && body.len() > 5 => body[5] = 1,
            APP14 if body.starts_with(b"Adobe") && body.get(11).is_some_and(|transform| *transform > 2) => continue,
            _ if SEQUENTIAL.contains(&marker) => frame = body.get(5).copied(),
            _ => {}
        }
        tidy.extend([0xff, marker]);
        if has_length(marker) {
            tidy.extend((body.len() as u16 + 2).to_be_bytes());
            tidy.extend(body);
        }
        if marker == SOS {
            tidy.extend(walk.scan());
        }
    }
    let last = tidy.iter().rposition(|byte| *byte != 0);
    let data = last.map_or(0, |last| if tidy[last] == 0xff { last + 2 } else { last + 1 });
    tidy.truncate(data.saturating_add(zeros));
    if whole {
        tidy.extend([0xff, EOI]);
    }
    tidy
}

/// Whether a length and a body follow the marker.
fn has_length(marker: u8) -> bool {
    !matches!(marker, SOI | EOI | TEM) && !RST.contains(&marker)
}

/// The rest of the file.
struct Walk<'a>(&'a [u8]);

impl<'a> Walk<'a> {
    /// The next marker and its body, skipping bytes that do not belong to a segment. `None` if the file ends first.
    fn segment(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let at = self.0.iter().position(|byte| *byte == 0xff)?;
            self.0 = &self.0[at + 1..];
            // Any number of 0xff may precede the marker's second byte.
            let marker = match *self.0.first()? {
                0 | 0xff => continue,
                marker => marker,
            };
            self.0 = &self.0[1..];
            if !has_length(marker) {
                return Some((marker, &[]));
            }
            let (length, _) = self.0.split_first_chunk()?;
            let (body, rest) = self.0.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            self.0 = rest;
            return Some((marker, body.get(2..)?));
        }
    }

    /// The entropy-coded data that follow a start-of-scan segment, including restart markers.
    fn scan(&mut self) -> &'a [u8] {
        let ends = |pair: &[u8]| pair[0] == 0xff && pair[1] != 0 && pair[1] != 0xff && !RST.contains(&pair[1]);
        let end = self.0.windows(2).position(ends).unwrap_or(self.0.len());
        let (scan, rest) = self.0.split_at(end);
        self.0 = rest;
        scan
    }
}
