//! The highest rate without loss, by bisection.

/// How the search goes.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The rate to begin with: more than can be received, or all that can be sent.
    pub highest: f64,
    /// Ends when the answer is known as exactly as this part of `highest`.
    pub precision: f64,
    /// A rate is too high only when so many trials in a row lost something: other programs on the machine disturb.
    pub trials: u32,
}

/// The highest rate found at which `lossless` was true, as `lossless` tells what the rate really was; 0 when there is none.
///
/// `lossless` is asked to try a rate and gives the rate that was reached, or nothing when frames were lost.
pub fn highest(
    search: Search,
    mut lossless: impl FnMut(f64) -> anyhow::Result<Option<f64>>,
) -> anyhow::Result<f64> {
    let mut best: f64 = 0.0;
    let (mut low, mut high) = (0.0, search.highest);
    let mut rate = high;
    while high - low > search.precision * search.highest {
        let mut reached = None;
        for _ in 0..search.trials {
            reached = lossless(rate)?;
            if reached.is_some() {
                break;
            }
        }
        match reached {
            Some(reached) => {
                best = best.max(reached);
                low = rate;
            }
            None => high = rate,
        }
        rate = f64::midpoint(low, high);
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search = Search { highest: 7e6, precision: 0.01, trials: 2 };

    fn simulated(limit: f64) -> (f64, u32) {
        let mut trials = 0;
        let found = highest(SEARCH, |rate| {
            trials += 1;
            Ok((rate <= limit).then_some(rate))
        });
        (found.unwrap(), trials)
    }

    #[test]
    fn the_limit_of_a_simulated_receiver_is_found() {
        for limit in [90_000.0, 1e6, 3_333_333.0, 6.9e6] {
            let (found, trials) = simulated(limit);
            assert!(found <= limit && found > limit - 0.011 * SEARCH.highest, "{found} for {limit}");
            assert!(trials <= 2 * 8, "{trials}");
        }
    }

    #[test]
    fn all_that_can_be_sent_and_nothing_are_answers_too() {
        assert_eq!(simulated(1e9), (SEARCH.highest, 1));
        assert_eq!(simulated(0.0).0, 0.0);
    }

    #[test]
    fn one_disturbed_trial_does_not_count() {
        let mut trials = 0;
        let found = highest(SEARCH, |rate| {
            trials += 1;
            Ok((rate <= 5e6 && trials % 2 == 0).then_some(rate))
        });
        assert!(found.unwrap() > 4.9e6);
    }

    #[test]
    fn the_rate_that_was_reached_is_the_answer() {
        assert_eq!(highest(SEARCH, |rate| Ok(Some(rate.min(2e6)))).unwrap(), 2e6);
    }
}
