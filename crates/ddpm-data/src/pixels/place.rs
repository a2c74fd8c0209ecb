//! The geometry of fitting: which part of an image goes to which part of the result.

use ddpm_spec::Fit;

/// A rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rect {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

/// What is taken of an image, and where it goes. Equal sizes mean that pixels are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub from: Rect,
    pub to: Rect,
}

impl Rect {
    /// All of an image.
    pub(crate) fn whole((width, height): (u32, u32)) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    /// The rectangle of this size in the middle, rounded towards the upper left. It must not be larger.
    pub(crate) fn centre(self, (width, height): (u32, u32)) -> Self {
        let (left, top) = (self.left + (self.width - width) / 2, self.top + (self.height - height) / 2);
        Self { left, top, width, height }
    }

    fn size(self) -> (u32, u32) {
        (self.width, self.height)
    }
}

/// The part of an image that is used before it is fitted: the centred square of side `crop`, or all of it.
///
/// # Errors
/// A phrase that says that the image is too small.
pub(crate) fn cropped((width, height): (u32, u32), crop: Option<u32>) -> Result<Rect, String> {
    match crop {
        None => Ok(Rect::whole((width, height))),
        Some(side) if side <= width.min(height) => Ok(Rect::whole((width, height)).centre((side, side))),
        Some(side) => Err(format!("this image of {width}x{height} is smaller than data.crop = {side}")),
    }
}

impl Placement {
    /// Fits the part `from` of an image to a result of the size `to`.
    pub(crate) fn of(from: Rect, to: (u32, u32), fit: Fit) -> Self {
        match fit {
            Fit::Stretch => Self { from, to: Rect::whole(to) },
            Fit::Crop => Self { from: from.centre(inscribed(to, from.size())), to: Rect::whole(to) },
            Fit::Pad => Self { from, to: Rect::whole(to).centre(inscribed(from.size(), to)) },
        }
    }

    /// Puts the part `from` into the middle of a result of the size `to`, which is no smaller, unscaled.
    pub(crate) fn unscaled(from: Rect, to: (u32, u32)) -> Self {
        Self { from, to: Rect::whole(to).centre(from.size()) }
    }
}

/// The largest size in the proportion of `shape` that fits into `room`, in whole pixels, at least one each way.
fn inscribed(shape: (u32, u32), room: (u32, u32)) -> (u32, u32) {
    let share = |room: u32, part: u32, of: u32| {
        let rounded = (2 * u64::from(room) * u64::from(part) + u64::from(of)) / (2 * u64::from(of));
        rounded.max(1) as u32
    };
    let is_wider = u64::from(shape.0) * u64::from(room.1) > u64::from(shape.1) * u64::from(room.0);
    match is_wider {
        true => (room.0, share(room.0, shape.1, shape.0).min(room.1)),
        false => (share(room.1, shape.0, shape.1).min(room.0), room.1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes() -> impl Strategy<Value = (u32, u32)> {
        (1..5000_u32, 1..5000_u32)
    }

    fn is_inside(part: Rect, (width, height): (u32, u32)) -> bool {
        part.width >= 1 && part.height >= 1 && part.left + part.width <= width && part.top + part.height <= height
    }

    /// Whether margins on opposite sides differ by at most a pixel, the second being the larger.
    fn is_centred(part: Rect, (width, height): (u32, u32)) -> bool {
        let odd = |before: u32, part: u32, all: u32| all - part - before == before || all - part - before == before + 1;
        odd(part.left, part.width, width) && odd(part.top, part.height, height)
    }

    /// Whether one size is, to half a pixel, in the proportion of the other; no side is below one pixel.
    fn in_proportion(size: (u32, u32), shape: (u32, u32)) -> bool {
        let [width, height, w, h] = [size.0, size.1, shape.0, shape.1].map(f64::from);
        let near = |side: f64, exact: f64| (side - exact).abs() <= 0.5 + 1e-9 || (side == 1.0 && exact < 1.0);
        near(width, height * w / h) || near(height, width * h / w)
    }

    proptest! {
        #[test]
        fn every_placement_is_inside_and_centred(image in sizes(), result in sizes(), share in 0.0..=1.0f64) {
            let crop = (f64::from(image.0.min(image.1)) * share) as u32;
            let from = cropped(image, (crop > 0).then_some(crop)).unwrap();
            for fit in [Fit::Crop, Fit::Pad, Fit::Stretch] {
                let placed = Placement::of(from, result, fit);
                prop_assert!(is_inside(placed.from, image) && is_inside(placed.to, result), "{placed:?}");
                let within = Rect { left: placed.from.left - from.left, top: placed.from.top - from.top, ..placed.from };
                prop_assert!(is_centred(within, from.size()) && is_centred(placed.to, result), "{placed:?}");
            }
        }

        #[test]
        fn crop_fills_the_result_with_as_much_as_fits(image in sizes(), result in sizes()) {
            let Placement { from, to } = Placement::of(Rect::whole(image), result, Fit::Crop);
            prop_assert_eq!(to, Rect::whole(result));
            prop_assert!(from.width == image.0 || from.height == image.1, "{from:?}");
            prop_assert!(in_proportion(from.size(), result), "{from:?}");
        }

        #[test]
        fn pad_shows_all_of_the_image_as_large_as_fits(image in sizes(), result in sizes()) {
            let Placement { from, to } = Placement::of(Rect::whole(image), result, Fit::Pad);
            prop_assert_eq!(from, Rect::whole(image));
            prop_assert!(to.width == result.0 || to.height == result.1, "{to:?}");
            prop_assert!(in_proportion(to.size(), image), "{to:?}");
        }

        #[test]
        fn stretch_uses_all_of_both(image in sizes(), result in sizes()) {
            let placed = Placement::of(Rect::whole(image), result, Fit::Stretch);
            prop_assert_eq!(placed, Placement { from: Rect::whole(image), to: Rect::whole(result) });
        }

        #[test]
        fn images_of_the_same_proportion_are_used_whole(side in sizes(), times in 1..20_u32) {
            let image = (side.0 * times, side.1 * times);
            for fit in [Fit::Crop, Fit::Pad, Fit::Stretch] {
                for (image, result) in [(image, side), (side, image)] {
                    let placed = Placement::of(Rect::whole(image), result, fit);
                    prop_assert_eq!(placed, Placement { from: Rect::whole(image), to: Rect::whole(result) });
                }
            }
        }

        /// What square images always were: the largest centred square.
        #[test]
        fn squares_are_cut_out_of_the_middle((width, height) in sizes(), side in 1..5000_u32) {
            let square = width.min(height);
            let from = Rect { left: (width - square) / 2, top: (height - square) / 2, width: square, height: square };
            let placed = Placement::of(Rect::whole((width, height)), (side, side), Fit::Crop);
            prop_assert_eq!(placed, Placement { from, to: Rect::whole((side, side)) });
        }
    }

    #[test]
    fn a_crop_beyond_the_image_is_refused() {
        assert!(cropped((20, 30), Some(21)).unwrap_err().contains("20x30 is smaller than data.crop = 21"));
    }
}
