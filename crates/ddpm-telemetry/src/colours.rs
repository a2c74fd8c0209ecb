//! The colours of lines and heat maps.

use plotters::style::RGBColor;

/// The palette of Okabe and Ito, which can be distinguished with any form of colour vision.
pub(crate) const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
