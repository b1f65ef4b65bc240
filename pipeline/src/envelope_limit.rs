//! How many different envelopes of one sale's id are let in: eight that are not judged, and one a second after that.
//!
//! A stranger who knows or guesses an id may post any number under it. Judged ones keep no other out, and whoever was told to come
//! again and does has a turn before those that come for the first time, so that a till gets in within seconds however long the
//! stranger goes on. What this process let in lately it remembers, within bounds: on AWS each instance of the function
//! counts for itself, as it does for [`Rates`](crate::rates::Rates). What is known to be settled is remembered as well, so that
//! whoever posts the same again and again costs no look at the table each time.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kassa_bus::{SaleId, ShopId};

/// Envelopes of a sale that are not judged, at most, but for one more a second.
pub const UNJUDGED: usize = 8;

/// How often, at most, it is looked which of a sale's are judged.
const LOOK: SignedDuration = SignedDuration::from_millis(200);

/// How often one more is let in, of those that come again.
const ONE_MORE: SignedDuration = SignedDuration::from_secs(1);

/// Who comes again sooner than this was not asked to.
const AGAIN: SignedDuration = SignedDuration::from_millis(500);

/// What was published so long ago may be published again, if it is not judged by then.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_secs(10);

/// A place is given to others after this time, whatever became of its envelope.
const LONGEST: SignedDuration = SignedDuration::from_mins(1);

/// Envelopes of a sale that are known to be settled, and how long that is believed: a table may be put back to an earlier time.
const SETTLED: usize = 4;
const BELIEVED: SignedDuration = SignedDuration::from_mins(1);

/// Sales that are remembered: the last so many, and up to twice as many.
const SALES: usize = 8_192;

/// Envelopes that were told to come again, which are remembered likewise.
const REFUSED: usize = 32_768;

/// What becomes of an envelope at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It has a place.
    In,
    /// There is nothing to do: it was published a moment ago, or is settled.
    Known,
    /// All places are taken by these. Once those that are judged are [said to be](EnvelopeLimit::settled), there may be one.
    Full(Vec<String>),
    /// It may come again in a second.
    ComeAgain,
}

/// Lets envelopes in.
#[derive(Default)]
pub struct EnvelopeLimit(Mutex<State>);

struct State {
    sales: Recent<(ShopId, SaleId), Sale>,
    /// When an envelope was first told to come again, by its hash.
    refused: Recent<u64, Option<Timestamp>>,
    hasher: RandomState,
}

impl Default for State {
    fn default() -> Self {
        Self { sales: Recent::new(SALES), refused: Recent::new(REFUSED), hasher: RandomState::new() }
    }
}

/// What is known of a sale.
#[derive(Default)]
struct Sale {
    places: Vec<Place>,
    settled: VecDeque<Settled>,
    looked_at: Option<Timestamp>,
    one_more_at: Option<Timestamp>,
}

struct Place {
    envelope: String,
    taken_at: Timestamp,
    published_at: Option<Timestamp>,
}

struct Settled {
    envelope: String,
    seen_at: Timestamp,
}

/// Whether so much time has passed. A clock may have been set back since.
fn passed(since: Option<Timestamp>, now: Timestamp, time: SignedDuration) -> bool {
    since.is_none_or(|since| now.duration_since(since).abs() >= time)
}

impl EnvelopeLimit {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an envelope, by its hash, a place among those of its sale.
    pub fn enter(&self, sale: (&ShopId, &SaleId), envelope: &str, now: Timestamp) -> Entry {
        let State { sales, refused, hasher } = &mut *self.state();
        let of = sales.entry((sale.0.clone(), sale.1.clone()));
        of.settled.retain(|settled| !passed(Some(settled.seen_at), now, BELIEVED));
        if of.settled.iter().any(|settled| settled.envelope == envelope) {
            return Entry::Known;
        }
        if let Some(place) = of.places.iter().find(|place| place.envelope == envelope) {
            let published = place.published_at.is_some() && !passed(place.published_at, now, ON_ITS_WAY);
            return if published { Entry::Known } else { Entry::In };
        }
        let place = || Place { envelope: envelope.to_owned(), taken_at: now, published_at: None };
        if of.places.len() < UNJUDGED {
            of.places.push(place());
            return Entry::In;
        }
        if passed(of.looked_at, now, LOOK) {
            of.looked_at = Some(now);
            of.places.retain(|place| !passed(Some(place.taken_at), now, LONGEST));
            return Entry::Full(of.places.iter().map(|place| place.envelope.clone()).collect());
        }
        let told_at = *refused.entry(hasher.hash_one((sale, envelope))).get_or_insert(now);
        if passed(Some(told_at), now, AGAIN) && passed(of.one_more_at, now, ONE_MORE) {
            of.one_more_at = Some(now);
            of.places.remove(0);
            of.places.push(place());
            return Entry::In;
        }
        Entry::ComeAgain
    }

    /// It is on its way.
    pub fn published(&self, sale: (&ShopId, &SaleId), envelope: &str, now: Timestamp) {
        let mut state = self.state();
        let of = state.sales.entry((sale.0.clone(), sale.1.clone()));
        if let Some(place) = of.places.iter_mut().find(|place| place.envelope == envelope) {
            place.published_at = Some(now);
        }
    }

    /// Nothing is left to do for it: it needs no place, and no look for a while.
    pub fn settled(&self, sale: (&ShopId, &SaleId), envelope: &str, now: Timestamp) {
        let mut state = self.state();
        let of = state.sales.entry((sale.0.clone(), sale.1.clone()));
        of.places.retain(|place| place.envelope != envelope);
        of.settled.retain(|settled| settled.envelope != envelope);
        of.settled.truncate(SETTLED - 1);
        of.settled.push_front(Settled { envelope: envelope.to_owned(), seen_at: now });
    }

    /// It was not accepted, and needs no place.
    pub fn remove(&self, sale: (&ShopId, &SaleId), envelope: &str) {
        let mut state = self.state();
        let of = state.sales.entry((sale.0.clone(), sale.1.clone()));
        of.places.retain(|place| place.envelope != envelope);
    }
}

/// What was used last. Once there are so many, those that were not used since there last were are forgotten.
struct Recent<K, V> {
    most: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq, V: Default> Recent<K, V> {
    fn new(most: usize) -> Self {
        Self { most, young: HashMap::new(), old: HashMap::new() }
    }

    fn entry(&mut self, key: K) -> &mut V {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_default();
            if self.young.len() >= self.most {
                self.old = std::mem::take(&mut self.young);
            }
            return self.young.entry(key).or_insert(value);
        }
        self.young.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn after(millis: i64) -> Timestamp {
        noon() + SignedDuration::from_millis(millis)
    }

    fn sale() -> (ShopId, SaleId) {
        ("AMIS1".parse().unwrap(), "7-20261122".parse().unwrap())
    }

    struct Door {
        limit: EnvelopeLimit,
        unjudged: Vec<String>,
    }

    impl Door {
        fn new() -> Self {
            Self { limit: EnvelopeLimit::default(), unjudged: Vec::new() }
        }

        /// As accept does it.
        fn enter(&mut self, envelope: &str, now: Timestamp) -> bool {
            let (shop, id) = sale();
            let sale = (&shop, &id);
            let mut entry = self.limit.enter(sale, envelope, now);
            if let Entry::Full(taken) = entry {
                let judged = taken.into_iter().filter(|taken| !self.unjudged.contains(taken));
                judged.for_each(|envelope| self.limit.settled(sale, &envelope, now));
                entry = self.limit.enter(sale, envelope, now);
            }
            if entry == Entry::In && !self.unjudged.iter().any(|open| open == envelope) {
                self.unjudged.push(envelope.to_owned());
            }
            entry == Entry::In
        }
    }

    #[test]
    fn eight_are_let_in_and_then_one_a_second_of_those_that_come_again() {
        let mut door = Door::new();
        let junk: Vec<String> = (0..20).map(|n| format!("junk {n}")).collect();
        assert_eq!(junk.iter().filter(|envelope| door.enter(envelope, noon())).count(), UNJUDGED);
        for second in 1..=5 {
            let again = junk[UNJUDGED..].iter().filter(|envelope| door.enter(envelope, after(1000 * second)));
            // One that has a place is let through, and found to be a repeat.
            let again = again.count();
            assert_eq!(i64::try_from(door.unjudged.len() - UNJUDGED).unwrap(), second, "{again}");
        }
        // Whoever never came before has no turn,
        assert!(!door.enter("new", after(6000)));
        // and where those before are judged, there is room at once.
        door.unjudged.clear();
        assert!(door.enter("another", after(6200)));
    }

    #[test]
    fn what_was_published_is_on_its_way_for_ten_seconds() {
        let (shop, id) = sale();
        let (limit, sale) = (EnvelopeLimit::default(), (&shop, &id));
        assert_eq!(limit.enter(sale, "one", noon()), Entry::In);
        assert_eq!(limit.enter(sale, "one", noon()), Entry::In, "nobody has published it yet");
        limit.published(sale, "one", noon());
        assert_eq!(limit.enter(sale, "one", after(9_999)), Entry::Known);
        assert_eq!(limit.enter(sale, "one", after(10_000)), Entry::In);
    }

    #[test]
    fn what_is_settled_is_known_for_a_minute_whatever_else_is_posted_and_takes_no_place() {
        let (shop, id) = sale();
        let (limit, sale) = (EnvelopeLimit::default(), (&shop, &id));
        assert_eq!(limit.enter(sale, "one", noon()), Entry::In);
        limit.settled(sale, "one", noon());
        for n in 0..UNJUDGED {
            assert_eq!(limit.enter(sale, &n.to_string(), noon()), Entry::In);
        }
        assert_eq!(limit.enter(sale, "one", after(59_999)), Entry::Known);
        // The last few are known, and the first is looked at again.
        for n in 0..SETTLED {
            limit.settled(sale, &n.to_string(), after(1));
        }
        assert_eq!(limit.enter(sale, "one", after(59_999)), Entry::In);
        assert_eq!(limit.enter(sale, "0", after(60_000)), Entry::Known);
        assert_eq!(limit.enter(sale, "0", after(60_001)), Entry::In);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (shop, _) = sale();
        let limit = EnvelopeLimit::default();
        for n in 0..3 * SALES {
            let id = format!("{n}-20261122").parse().unwrap();
            for envelope in 0..if n == 0 { 4 * REFUSED } else { 1 } {
                limit.enter((&shop, &id), &envelope.to_string(), noon());
            }
        }
        for n in 0..100 {
            limit.settled((&shop, &"0-20261122".parse().unwrap()), &n.to_string(), noon());
        }
        let state = limit.state();
        assert!(
            state
                .sales
                .young
                .values()
                .all(|sale| sale.places.len() <= UNJUDGED && sale.settled.len() <= SETTLED)
        );
        assert!(state.sales.young.len() + state.sales.old.len() <= 2 * SALES);
        assert!(state.refused.young.len() + state.refused.old.len() <= 2 * REFUSED);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever a stranger posts between its tries, each another envelope, and whether or not any of it is ever judged: a
        /// till that comes again as it is asked to gets in with its second try.
        #[test]
        fn a_till_gets_in_with_its_second_try_whatever_a_stranger_posts(
            steps in prop::collection::vec((0u8..3, 0i64..120), 0..300),
            first in 0usize..300,
        ) {
            let mut door = Door::new();
            let (mut now, mut tries, mut next_try, mut let_in) = (0, 0, 0, false);
            for (n, (what, millis)) in steps.into_iter().cycle().take(1_500).enumerate() {
                now += millis;
                if what == 0 {
                    door.unjudged.clear();
                } else {
                    door.enter(&format!("junk {n}"), after(now));
                }
                // Those that are not judged are eight and one for each second, and the till's.
                prop_assert!(door.unjudged.len() <= UNJUDGED + 2 + usize::try_from(now / 1000).unwrap());
                if n >= first && !let_in && now >= next_try {
                    let_in = door.enter("till", after(now));
                    (tries, next_try) = (tries + 1, now + 1000);
                    prop_assert!(let_in || tries < 2, "{} tries", tries);
                }
            }
        }
    }
}
