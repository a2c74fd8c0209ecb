//! Limits on the size of an image file.

/// Maximum bytes of a file and of a decoder's buffers beyond those of the pixels: thumbnails, profiles, a video after
/// the image.
const OVERHEAD: u64 = 256 << 20;

/// Maximum bytes of a file and of a decoder's buffers.
pub(super) fn most_bytes(max_pixels: u64) -> u64 {
    max_pixels.saturating_mul(8).saturating_add(OVERHEAD)
}

/// Refuses an image of more than `max_pixels`, whose pixels might not fit into memory.
pub(super) fn check_size(width: u32, height: u32, max_pixels: u64) -> Result<(), String> {
    if u64::from(width) * u64::from(height) <= max_pixels {
        return Ok(());
    }
    let megapixels = max_pixels / 1_000_000;
    Err(format!(
        "this image of {width}x{height} has more pixels than data.max_megapixels = {megapixels} allows; raise that if \
         there is enough memory"
    ))
}
