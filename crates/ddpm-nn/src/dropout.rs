//! Dropout whose masks depend on the run's position, not on a generator's state.
//!
//! Element i of sample b is dropped in a layer if `(h(i) xor k) * m`, a 32-bit product that wraps around, is below the
//! threshold for the rate. `h` is a fixed hash of the element's index, computed once for each shape; the key `k` and
//! the odd multiplier `m` are drawn for each sample and layer. A product with a random odd number is a nearly universal
//! hash (Dietzfelbinger et al. 1997, multiply-shift): over the keys each element is dropped at the rate, and pairs of
//! elements are close to independent, except for the rare pairs whose `h` differ in the highest bit only. It takes three
//! cheap operations for each element.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, TchError, Tensor};

/// Key and multiplier of each layer's mask for each sample of a batch. A sample's masks are the same on any rank, in
/// any micro-batch and after any resume.
#[derive(Debug)]
pub struct DropoutKeys {
    /// i32 `[B, layers, 2]`.
    words: Tensor,
}

impl DropoutKeys {
    /// Keys of `layers` layers (see [`Network::dropout_layers`](crate::Network::dropout_layers)) for `samples`, each a
    /// number drawn by (seed, stream, position); on the CPU.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(samples: &[u64], layers: usize) -> Result<Self, TchError> {
        let of_layer = |sample: u64, layer: usize| {
            let bits = mix_64(mix_64(sample).wrapping_add(layer as u64));
            [(bits >> 32) as i32, (bits | 1) as i32]
        };
        let words: Vec<i32> =
            samples.iter().flat_map(|&sample| (0..layers).flat_map(move |layer| of_layer(sample, layer))).collect();
        let words = Tensor::f_from_slice(&words)?.f_view([samples.len() as i64, layers as i64, 2])?;
        Ok(Self { words })
    }

    /// The keys of `count` samples, from number `first` on.
    pub fn narrow(&self, first: i64, count: i64) -> Self {
        Self { words: self.words.narrow(0, first, count) }
    }

    /// The same keys on `device`; later operations there see them, but the host does not wait for the copy.
    ///
    /// # Errors
    /// There is no memory.
    pub fn to_device(&self, device: Device) -> Result<Self, TchError> {
        Ok(Self { words: self.words.f_to_device_(device, Kind::Int, true, false)? })
    }

    /// The same keys in memory of their own.
    ///
    /// # Errors
    /// There is no memory.
    pub fn copied(&self) -> Result<Self, TchError> {
        Ok(Self { words: self.words.f_to_device_(self.words.device(), Kind::Int, false, true)? })
    }

    /// Replaces the keys by others, in the same memory.
    ///
    /// # Errors
    /// The others are for more samples or layers, or fewer.
    pub fn renew(&mut self, from: &Self) -> Result<(), TchError> {
        self.words.f_copy_(&from.words)
    }

    /// The same keys under another handle.
    pub(crate) fn shallow_clone(&self) -> Self {
        Self { words: self.words.shallow_clone() }
    }
}

/// A 64-bit finaliser (Steele, Lea & Flood 2014, SplitMix).
fn mix_64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A 32-bit finaliser (Appleby, MurmurHash3), which maps no two numbers to the same one.
fn mix_32(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// The hashes `h` of the elements of each shape that a network drops activations of, computed on first use.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexHashes(Arc<Mutex<BTreeMap<Vec<i64>, Tensor>>>);

impl IndexHashes {
    /// The hashes for `x` `[B, C, H, W]`: i32 `[1, C, H, W]`, on its device, in its order of memory.
    fn of(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let shape = &x.size()[1..];
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hashes) = known.get(shape).filter(|hashes| hashes.device() == x.device()) {
            return Ok(hashes.shallow_clone());
        }
        let hashes: Vec<i32> = (0..shape.iter().product::<i64>() as u32).map(|i| mix_32(i) as i32).collect();
        let size: Vec<i64> = [&[1], shape].concat();
        let hashes = tch_ext::channels_last(&Tensor::f_from_slice(&hashes)?.f_view(size.as_slice())?)?;
        let hashes = hashes.f_to_device(x.device())?;
        known.insert(shape.to_vec(), hashes.shallow_clone());
        Ok(hashes)
    }
}

/// Dropout of one forward pass.
#[derive(Debug)]
pub(crate) struct Dropout {
    keys: DropoutKeys,
    hashes: IndexHashes,
}

impl Dropout {
    pub(crate) fn new(keys: &DropoutKeys, hashes: &IndexHashes) -> Self {
        Self { keys: keys.shallow_clone(), hashes: hashes.clone() }
    }

    pub(crate) fn shallow_clone(&self) -> Self {
        Self::new(&self.keys, &self.hashes)
    }

    /// `x` `[B, C, H, W]` with each element kept with probability `1 - rate` and scaled by its inverse, in the layer of
    /// number `layer`.
    pub(crate) fn apply(&self, x: &Tensor, rate: f64, layer: i64) -> Result<Tensor, TchError> {
        let words = self.keys.words.f_select(1, layer)?;
        let word = |i| words.f_select(1, i)?.f_view([-1, 1, 1, 1]);
        let bits = self.hashes.of(x)?.f_bitwise_xor_tensor(&word(0)?)?.f_mul_(&word(1)?)?;
        // The product is as likely to be any of the 2^32 numbers from i32::MIN on.
        let threshold = f64::from(i32::MIN) + (rate * 2f64.powi(32)).round();
        tch_ext::masked_scale(x, &bits.f_ge(threshold as i64)?, 1.0 / (1.0 - rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [u64; 4] = [5, 6, u64::MAX, 1 << 52];

    fn dropout(samples: &[u64]) -> Dropout {
        Dropout::new(&DropoutKeys::new(samples, 8).unwrap(), &IndexHashes::default())
    }

    /// 1 where an element was dropped, `[B, C * H * W]`, in f64.
    fn dropped(samples: &[u64], rate: f64, layer: i64) -> Tensor {
        let ones = Tensor::ones([samples.len() as i64, 4, 40, 40], (Kind::Float, Device::Cpu));
        let y = dropout(samples).apply(&ones, rate, layer).unwrap();
        let kept = y.max().double_value(&[]);
        assert!((kept - 1.0 / (1.0 - rate)).abs() < 1e-6, "kept elements are scaled by {kept}");
        y.eq(0.0).flatten(1, -1).to_kind(Kind::Double)
    }

    #[test]
    fn a_sample_is_dropped_out_alike_in_any_batch_and_layout() {
        let x = Tensor::rand([4, 2, 30, 40], (Kind::Float, Device::Cpu));
        let all = dropout(&SAMPLES).apply(&x, 0.25, 3).unwrap();
        let last = dropout(&SAMPLES[3..]).apply(&x.narrow(0, 3, 1), 0.25, 3).unwrap();
        assert_eq!(all.narrow(0, 3, 1), last);
        let apart = DropoutKeys::new(&SAMPLES, 8).unwrap().narrow(1, 2);
        let two = Dropout::new(&apart, &IndexHashes::default()).apply(&x.narrow(0, 1, 2), 0.25, 3).unwrap();
        assert_eq!(all.narrow(0, 1, 2), two);
        let channels_last = tch_ext::channels_last(&x).unwrap();
        assert_eq!(dropout(&SAMPLES).apply(&channels_last, 0.25, 3).unwrap(), all);
    }

    #[test]
    fn elements_are_dropped_at_the_rate() {
        for rate in [0.01, 0.1, 0.3, 0.5, 0.9] {
            for share in Vec::<f64>::try_from(dropped(&SAMPLES, rate, 0).mean_dim(1, false, Kind::Double)).unwrap() {
                // Six standard deviations of a binomial of 6,400.
                assert!((share - rate).abs() < 6.0 * (rate * (1.0 - rate) / 6400.0).sqrt(), "{share} at {rate}");
            }
        }
    }

    #[test]
    fn no_two_elements_have_the_same_hash() {
        let mut hashes: Vec<u32> = (0..1 << 20).map(mix_32).collect();
        hashes.sort_unstable();
        assert!(hashes.windows(2).all(|pair| pair[0] < pair[1]));
    }

    /// Correlations between samples, between layers, and between elements at every small distance are those of chance.
    #[test]
    fn masks_are_independent() {
        let rate = 0.3;
        let normal = |mask: Tensor| (mask - rate) / (rate * (1.0 - rate)).sqrt();
        let samples: Vec<u64> = (0..32).collect();
        let layers: Vec<Tensor> = (0..8).map(|layer| normal(dropped(&samples, rate, layer))).collect();
        let masks = Tensor::cat(&layers, 0);
        let elements = masks.size()[1] as f64;
        let correlations = masks.matmul(&masks.tr()) / elements;
        let apart = &correlations - Tensor::diag(&correlations.diag(0), 0);
        let worst = apart.abs().max().double_value(&[]);
        // 32,640 pairs: the largest of as many normal numbers is rarely above 5.5.
        assert!(worst < 5.5 / elements.sqrt(), "{worst}");
        for distance in [1, 2, 3, 4, 8, 16, 32, 40, 64, 128, 1600] {
            let count = masks.size()[1] - distance;
            let product = masks.narrow(1, 0, count) * masks.narrow(1, distance, count);
            let mean = product.mean(Kind::Double).double_value(&[]);
            assert!(mean.abs() < 5.0 / (256.0 * count as f64).sqrt(), "{mean} at a distance of {distance}");
        }
    }
}
