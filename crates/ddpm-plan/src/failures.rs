//! How often to save, when the run fails now and then.

/// What saving costs, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Saving {
    /// How long a save holds up training, in seconds.
    pub stall_s: f64,
    /// How long it takes until a save counts; training goes on meanwhile, but the next save has to wait.
    pub save_s: f64,
    /// Mean time between failures of the whole run, in seconds.
    pub mtbf_s: f64,
    /// Time from a failure until the run trains again, in seconds.
    pub restart_s: f64,
}

impl Saving {
    /// Young's best time of training between saves (1974): sqrt(2 stall mtbf).
    pub fn young(&self) -> f64 {
        (2.0 * self.stall_s * self.mtbf_s).sqrt()
    }

    /// Daly's (2006, of higher order), for saves that are not negligible compared with the time between failures.
    pub fn daly(&self) -> f64 {
        let ratio = self.stall_s / (2.0 * self.mtbf_s);
        if ratio >= 1.0 {
            return self.mtbf_s;
        }
        self.young() * (1.0 + ratio.sqrt() / 3.0 + ratio / 9.0) - self.stall_s
    }

    /// The best time of training between saves: Daly's, but not so short that a save waits for the last one.
    pub fn best(&self) -> f64 {
        self.daly().max(self.save_s)
    }

    /// The fraction of all time that trains and is not lost, with `interval` seconds of training between saves: the
    /// inverse of the time that Daly's complete model (2006) expects for each second of training. There, a save counts
    /// when it no longer holds up training; here it counts later, so that as much more work is lost, which adds to the
    /// restart.
    pub fn goodput(&self, interval: f64) -> f64 {
        let held = self.stall_s + (self.save_s - interval).max(0.0);
        let restart = (self.restart_s + self.save_s) / self.mtbf_s;
        let expected = self.mtbf_s * restart.exp() * ((interval + held) / self.mtbf_s).exp_m1();
        interval / expected
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A minute, and a day: sqrt(2 * 60 * 86400), and Daly's terms of it.
    #[test]
    fn the_intervals_by_hand() {
        let saving = Saving { stall_s: 60.0, save_s: 60.0, mtbf_s: 86_400.0, restart_s: 0.0 };
        assert!((saving.young() - 3219.94).abs() < 0.01, "{}", saving.young());
        assert!((saving.daly() - 3180.06).abs() < 0.05, "{}", saving.daly());
        let long = Saving { stall_s: 1e6, ..saving };
        assert_eq!(long.daly(), 86_400.0, "saves that take longer than the time between failures");
        let slow = Saving { stall_s: 0.1, save_s: 600.0, ..saving };
        assert_eq!((slow.best(), slow.daly() < 600.0), (600.0, true));
    }

    /// Where nothing fails, the rest is what saves take.
    #[test]
    fn without_failures_only_saves_cost() {
        let saving = Saving { stall_s: 1.0, save_s: 5.0, mtbf_s: 1e15, restart_s: 60.0 };
        assert!((saving.goodput(99.0) - 0.99).abs() < 1e-6);
        assert!((saving.goodput(3.0) - 0.5).abs() < 1e-6, "a save that waits 2 s for the last one");
    }

    proptest! {
        /// Saves that take up to a tenth of the time between failures; Young's neglects terms that Daly's has.
        #[test]
        fn the_best_interval_beats_its_neighbours(
            mtbf_s in 1e3..1e7,
            share in 1e-6..0.1,
            restart_s in 0.0..600.0,
            factor in 0.05..0.9,
        ) {
            let saving = Saving { stall_s: share * mtbf_s, save_s: 0.0, mtbf_s, restart_s };
            let at = |interval: f64| saving.goodput(interval);
            let best = at(saving.daly());
            prop_assert!(best >= at(factor * saving.daly()) && best >= at(saving.daly() / factor));
            prop_assert!(best >= at(saving.young()) * (1.0 - 1e-12));
            prop_assert!(at(saving.young()) >= at(0.5 * factor * saving.young()));
            prop_assert!(at(saving.young()) >= at(2.0 / factor * saving.young()));
        }
    }
}
