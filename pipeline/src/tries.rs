//! When a pending sale is sent on its way again.

use jiff::{SignedDuration, Timestamp};

/// A pending sale, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// When it was accepted; or found, if a clock that was ahead says that this is still to come.
    pub accepted_at: Timestamp,
    pub found_at: Timestamp,
}

/// When a sale that came to no end is sent on its way again: so long after it was accepted, twice as long, and so on.
///
/// The times follow from the sale alone, so that nobody has to remember how often it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    pub first: SignedDuration,
}

/// How often it is tried. With five minutes for the first, the last is after two hours and forty minutes.
const TRIES: u32 = 6;

impl Tries {
    /// One that is found when all its times are over is tried then as well.
    fn times(self, Known { accepted_at, found_at }: Known) -> impl DoubleEndedIterator<Item = Timestamp> {
        let after = move |n: u32| self.first.saturating_mul(1 << n);
        let at = move |n: u32| accepted_at.saturating_add(after(n)).unwrap_or(Timestamp::MAX);
        (0..TRIES).map(at).chain(Some(found_at).filter(|found_at| *found_at > at(TRIES - 1)))
    }

    /// When it was to be tried last, if that is after `from` and not after `to`.
    #[must_use]
    pub fn due(self, known: Known, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
        self.times(known).rev().find(|at| *at <= to).filter(|at| *at > from)
    }

    /// Whether it was tried for the last time, so long ago that it should have come to an end.
    #[must_use]
    pub fn are_over(self, known: Known, now: Timestamp) -> bool {
        self.times(known).last().is_some_and(|last| now.duration_since(last) >= self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIVE: Tries = Tries { first: SignedDuration::from_mins(5) };

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    /// A sale of noon that was found a minute later.
    fn at_once() -> Known {
        Known { accepted_at: noon(), found_at: noon() + SignedDuration::from_mins(1) }
    }

    #[test]
    fn what_is_found_when_all_its_times_are_over_is_tried_once_all_the_same() {
        let [before, found, after] = [299, 300, 301].map(|minute| noon() + SignedDuration::from_mins(minute));
        let late = Known { accepted_at: noon(), found_at: found };
        assert_eq!(FIVE.due(late, before, found), Some(found));
        assert_eq!(FIVE.due(late, found, after), None);
        // and is not given up before it has had its time
        assert!(!FIVE.are_over(late, after) && FIVE.are_over(late, found + FIVE.first));
    }

    proptest! {
        /// However irregular the runs, each time comes up once at most, and all of them where runs are frequent.
        #[test]
        fn a_sale_is_tried_six_times_and_then_no_more(runs in prop::collection::vec(1i64..299, 1..40)) {
            let mut now = noon();
            let mut tried = Vec::new();
            for run in runs.iter().cycle() {
                let before = now;
                now += SignedDuration::from_secs(*run);
                tried.extend(FIVE.due(at_once(), before, now).map(|at| at.duration_since(noon()).as_mins()));
                prop_assert_eq!(FIVE.are_over(at_once(), now), now.duration_since(noon()) >= SignedDuration::from_mins(165));
                if now.duration_since(noon()) > SignedDuration::from_hours(12) {
                    break;
                }
            }
            prop_assert_eq!(tried, [5, 10, 20, 40, 80, 160]);
        }
    }

    #[test]
    fn what_was_due_several_times_while_nobody_looked_is_tried_once() {
        let evening = noon() + SignedDuration::from_hours(8);
        assert_eq!(FIVE.due(at_once(), noon(), evening), Some(noon() + SignedDuration::from_mins(160)));
        assert_eq!(FIVE.due(at_once(), evening, evening + SignedDuration::from_hours(1)), None);
    }
}
