//! Identifies files that cannot be read by their first bytes.

use image::ImageFormat;

use super::npy;

/// The kinds that can be read, as errors name them.
pub(crate) const READ: &str = "JPEG, PNG, WebP, GIF, BMP and TIFF images and NumPy arrays";

/// No decoder of this format is built in: docs/log.md says why.
const AVIF: &str = "an AVIF image, which `avifdec` converts to PNG";

/// Magic bytes of files that may be misnamed as images, in addition to the formats that the image crate recognises.
const MAGIC: [(&[u8], &str); 12] = [
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\0\x05\x16\x07", "a macOS metadata file, not the image itself"),
    (b"version https://git-lfs", "a Git LFS pointer, whose image `git lfs pull` fetches"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
];

/// The reason for refusing a file that is none of the kinds that can be read.
pub(super) fn refusal(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "this file is empty".into();
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return "this file contains nothing but zeros".into();
    }
    if b"\x89PNG\r\n\x1a\n".starts_with(bytes) || b"\xff\xd8\xff".starts_with(bytes) {
        return format!("this image is truncated: the file has {} bytes", bytes.len());
    }
    match name(bytes) {
        Some(kind) => format!("this is {kind}; only {READ} can be read"),
        None => {
            let start: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            let start = start.join(" ");
            format!("this is not an image of a known kind: it starts with the bytes {start}; only {READ} can be read")
        }
    }
}

/// The kind of a file that starts with these bytes, as a phrase that follows "this is".
pub(crate) fn name(bytes: &[u8]) -> Option<&'static str> {
    image(bytes).or_else(|| container(bytes)).or_else(|| text(bytes))
}

/// The usual extension of an image file that starts with these bytes.
pub(crate) fn extension(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(npy::MAGIC) {
        return Some("npy");
    }
    image::guess_format(bytes).ok()?.extensions_str().first().copied()
}

fn image(bytes: &[u8]) -> Option<&'static str> {
    Some(match image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => "a JPEG image",
        ImageFormat::Png => "a PNG image",
        ImageFormat::WebP => "a WebP image",
        ImageFormat::Gif => "a GIF image",
        ImageFormat::Bmp => "a BMP image",
        ImageFormat::Tiff => "a TIFF image",
        ImageFormat::Avif => AVIF,
        ImageFormat::Ico => "an icon",
        ImageFormat::Pnm => "a PNM image",
        ImageFormat::Hdr => "a Radiance image",
        ImageFormat::OpenExr => "an OpenEXR image",
        ImageFormat::Dds => "a DirectDraw surface",
        ImageFormat::Qoi => "a QOI image",
        _ => return None,
    })
}

fn container(bytes: &[u8]) -> Option<&'static str> {
    let known = MAGIC.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, kind)| *kind);
    known.or_else(|| {
        let brand = bytes.get(4..12)?.strip_prefix(b"ftyp")?;
        Some(match brand {
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1" => "a HEIC image",
            b"avis" => AVIF,
            _ => "a video",
        })
    })
}

/// Recognises text by its beginning, which may end within a character.
fn text(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(512)];
    let start = match std::str::from_utf8(start) {
        Ok(start) => start,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    if start.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let start = start.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    Some(match start {
        page if page.starts_with("<!doctype html") || page.starts_with("<html") => {
            "a web page, perhaps a server's error message instead of the image"
        }
        xml if xml.starts_with("<svg") || (xml.starts_with("<?xml") && xml.contains("<svg")) => "an SVG drawing",
        _ => "a text file",
    })
}
