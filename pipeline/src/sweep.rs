//! When which sales are looked at, as far as their ids tell when they were made; and which sales no look would meet.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::SaleId;

/// A look at the sales whose ids were made so long ago.
#[derive(Debug, Clone, Copy)]
struct Look {
    lag: SignedDuration,
    /// How long a time is looked at together, at least.
    at_once: SignedDuration,
    /// How far back a new process begins, which knows nothing of what its predecessor found.
    back: SignedDuration,
}

const fn look(lag: i64, at_once: i64, back: i64) -> Look {
    Look {
        lag: SignedDuration::from_mins(lag),
        at_once: SignedDuration::from_mins(at_once),
        back: SignedDuration::from_mins(back),
    }
}

/// When the sales of a time are looked at, in minutes. Most are settled within seconds of the time in their id, so that
/// one look finds what is not. A sale that came late has an id of a time that was looked at before it came: it is found
/// by the first look that is later than it was. Each look is a read of each sale, and reads are what this costs.
const LOOKS: [Look; 4] = [look(1, 0, 20), look(20, 5, 360), look(360, 15, 375), look(2880, 60, 2940)];

/// How long after its acceptance a sale is surely settled, if nothing is wrong.
pub const SURELY_SETTLED: SignedDuration = LOOKS[0].lag;

/// Whether a look will meet a sale that is accepted now: one whose id is of a time that is yet to be looked at, or a classic one
/// of the shop's day. Of any other a row says that it is there, until it is settled.
#[must_use]
pub fn meets(sale: &SaleId, now: Timestamp, zone: &TimeZone) -> bool {
    // The last look is due within an hour, and what is of a time to come is met once that has come.
    const BACK: SignedDuration = SignedDuration::from_hours(47);
    const AHEAD: SignedDuration = SignedDuration::from_hours(1);
    match sale.instant() {
        Some(made) => now - BACK < made && made < now + AHEAD,
        None => sale.utc_date() == now.to_zoned(zone.clone()).date(),
    }
}

/// How far each look has come with one shop's sales.
#[derive(Debug, Clone)]
pub struct Sweeps([Timestamp; LOOKS.len()]);

/// Which times are due to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    look: usize,
    pub from: Timestamp,
    /// Not included.
    pub to: Timestamp,
}

impl Sweeps {
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(LOOKS.map(|look| now - look.back))
    }

    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = Due> + use<> {
        let reached = self.0.into_iter().zip(LOOKS).enumerate();
        reached.filter_map(move |(n, (from, look))| {
            // Who has looked at what is still to come had a clock that was ahead, and has been set right since.
            let from = if from > now { now - look.back } else { from };
            let to = now - look.lag;
            let due = from < to && to.duration_since(from) >= look.at_once;
            due.then_some(Due { look: n, from, to })
        })
    }

    /// Of what was due, everything before `upto` was looked at.
    pub fn done(&mut self, due: Due, upto: Timestamp) {
        self.0[due.look] = upto;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_clock_that_was_days_ahead_and_is_set_right_leaves_no_time_unlooked_at() {
        let mut sweeps = Sweeps::new(noon());
        let ahead = noon() + SignedDuration::from_hours(72);
        sweeps.due(ahead).for_each(|due| sweeps.done(due, due.to));
        let due: Vec<Due> = sweeps.due(noon()).collect();
        assert_eq!(due, Sweeps::new(noon()).due(noon()).collect::<Vec<_>>());
    }

    /// Ticks after so many seconds each, for three days and more, with what was due at each.
    fn three_days(ticks: &[i64], stops: &[bool]) -> Vec<(Timestamp, Due)> {
        let mut now = noon();
        let mut sweeps = Sweeps::new(now);
        let mut all = Vec::new();
        for (tick, stops) in ticks.iter().cycle().zip(stops.iter().cycle()) {
            for due in sweeps.due(now) {
                // A look that had enough comes to a half of what was due.
                let half = due.from + due.to.duration_since(due.from) / 2;
                let upto = if *stops { half } else { due.to };
                sweeps.done(due, upto);
                all.push((now, Due { to: upto, ..due }));
            }
            now += SignedDuration::from_secs(*tick);
            if now.duration_since(noon()) > SignedDuration::from_hours(76) {
                return all;
            }
        }
        unreachable!()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However irregular the minutes, each time is looked at once by each look, and not before its lag is over.
        #[test]
        fn each_time_is_looked_at_four_times(
            ticks in prop::collection::vec(20i64..180, 1..20),
            stops in prop::collection::vec(any::<bool>(), 1..5),
            second in 0i64..24 * 3600,
        ) {
            let made = noon() + SignedDuration::from_secs(second);
            let looks = three_days(&ticks, &stops);
            let looks = looks.iter().filter(|(_, due)| due.from <= made && made < due.to);
            let (mut which, mut late) = (Vec::new(), SignedDuration::ZERO);
            for (now, due) in looks {
                let lag = LOOKS[due.look].lag;
                prop_assert!(now.duration_since(made) >= lag);
                late = late.max(now.duration_since(made) - lag);
                which.push(due.look);
            }
            which.sort_unstable();
            prop_assert_eq!(which, [0, 1, 2, 3]);
            prop_assert!(stops.contains(&true) || late < SignedDuration::from_mins(60 + 3), "{}", late);
        }

        /// A sale that comes late by up to two days is looked at after it has come.
        #[test]
        fn a_sale_that_came_late_is_found(
            ticks in prop::collection::vec(20i64..180, 1..20),
            second in 0i64..24 * 3600,
            late in 0i64..48 * 3600,
        ) {
            let made = noon() + SignedDuration::from_secs(second);
            let came = made + SignedDuration::from_secs(late);
            let looks = three_days(&ticks, &[false]);
            let looked = |(now, due): &(Timestamp, Due)| *now >= came && due.from <= made && made < due.to;
            prop_assert!(looks.iter().any(looked));
        }
    }

    #[test]
    fn a_new_process_looks_at_six_hours_once() {
        let sweeps = Sweeps::new(noon());
        let mut due: Vec<Due> = sweeps.due(noon()).collect();
        due.sort_by_key(|due| due.from);
        let minutes = |at: Timestamp| noon().duration_since(at).as_mins();
        let due: Vec<_> = due.into_iter().map(|due| (minutes(due.from), minutes(due.to))).collect();
        assert_eq!(due, [(2940, 2880), (375, 360), (360, 20), (20, 1)]);
    }
}
