//! Averaging gradients while backward computes others.

/// When the last bucket is averaged, in seconds since the beginning of a backward pass of `backward_s`. `buckets` are
/// bytes in the order in which their gradients are complete; `average` says how long each takes alone.
///
/// Buckets are averaged one after the other. With overlap, one is complete when backward has computed as large a part
/// of its time as of all bytes; without, when backward is over.
pub(crate) fn averaged_at(buckets: &[f64], backward_s: f64, overlaps: bool, average: impl Fn(f64) -> f64) -> f64 {
    let total: f64 = buckets.iter().sum();
    let (mut computed, mut done) = (0.0, 0.0);
    for bytes in buckets {
        computed += bytes;
        let complete = if overlaps { computed / total * backward_s } else { backward_s };
        done = f64::max(done, complete) + average(*bytes);
    }
    f64::max(done, backward_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four buckets of a second each. Backward of 8 s: only the last one remains. Of 2 s: the first is ready after 0.5
    /// s, and the network is busy from then on.
    #[test]
    fn what_is_left_after_backward() {
        let at = |backward, overlaps| averaged_at(&[1.0; 4], backward, overlaps, |bytes| bytes);
        assert_eq!([at(8.0, true), at(8.0, false)], [9.0, 12.0]);
        assert_eq!([at(2.0, true), at(2.0, false)], [4.5, 6.0]);
        assert_eq!(averaged_at(&[], 3.0, true, |bytes| bytes), 3.0);
    }
}
