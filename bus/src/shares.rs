//! A bounded whole of which nobody gets more than a share, so that whoever takes all he can leaves room for the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// A whole, in units, and what each has of it.
pub struct Shares<K> {
    whole: usize,
    most: Most,
    taken: Mutex<Taken<K>>,
}

/// How much one may have.
enum Most {
    Quarter,
    /// As much as is left for others: half of the whole for one, a third each for two, and for whoever comes next as much as
    /// any of them has ("dynamic thresholds", Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).
    WhatIsLeft,
}

struct Taken<K> {
    all: usize,
    each: HashMap<K, usize>,
}

/// What somebody has of the whole, until it is dropped.
pub struct Share<K: Eq + Hash> {
    of: Arc<Shares<K>>,
    key: K,
    units: usize,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// A whole of which each gets a quarter at most.
    #[must_use]
    pub fn quarters(whole: usize) -> Arc<Self> {
        Self::new(whole, Most::Quarter)
    }

    /// A whole of which each gets as much as is left, at most.
    #[must_use]
    pub fn of_what_is_left(whole: usize) -> Arc<Self> {
        Self::new(whole, Most::WhatIsLeft)
    }

    fn new(whole: usize, most: Most) -> Arc<Self> {
        let taken = Mutex::new(Taken { all: 0, each: HashMap::new() });
        Arc::new(Self { whole, most, taken })
    }

    /// So many units, if they are his to have.
    pub fn take(self: &Arc<Self>, key: &K, units: usize) -> Option<Share<K>> {
        let mut share = Share { of: Arc::clone(self), key: key.clone(), units: 0 };
        share.grow(units).then_some(share)
    }

    /// So many units, whether or not they are there: for what is let in already.
    pub fn enter(self: &Arc<Self>, key: &K, units: usize) -> Share<K> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.add(key, units);
        Share { of: Arc::clone(self), key: key.clone(), units }
    }

    /// Whether so many units are there for him.
    #[must_use]
    pub fn has_room(&self, key: &K, units: usize) -> bool {
        self.allows(&self.taken.lock().unwrap_or_else(PoisonError::into_inner), key, units)
    }

    fn allows(&self, taken: &Taken<K>, key: &K, units: usize) -> bool {
        let Some(left) = self.whole.checked_sub(taken.all + units) else { return false };
        let has = taken.each.get(key).copied().unwrap_or_default() + units;
        has <= match self.most {
            Most::Quarter => self.whole / 4,
            Most::WhatIsLeft => left,
        }
    }
}

impl<K: Clone + Eq + Hash> Taken<K> {
    fn add(&mut self, key: &K, units: usize) {
        self.all += units;
        *self.each.entry(key.clone()).or_default() += units;
    }
}

impl<K: Clone + Eq + Hash> Share<K> {
    /// Takes more units, if they are his to have.
    #[must_use]
    pub fn grow(&mut self, units: usize) -> bool {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.of.allows(&taken, &self.key, units) {
            return false;
        }
        taken.add(&self.key, units);
        self.units += units;
        true
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= self.units;
        if let Some(has) = taken.each.get_mut(&self.key) {
            *has -= self.units;
            if *has == 0 {
                taken.each.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty<K>(shares: &Shares<K>) -> bool {
        let taken = shares.taken.lock().unwrap();
        taken.all == 0 && taken.each.is_empty()
    }

    #[test]
    fn one_gets_a_quarter_and_the_fifth_waits_for_another() {
        let quarters = Shares::quarters(100);
        let mut first = quarters.take(&1, 20).unwrap();
        assert!(first.grow(5) && !first.grow(1) && quarters.take(&1, 1).is_none());
        let mut others: Vec<_> = (2..=4).map(|key| quarters.take(&key, 25).unwrap()).collect();
        assert!(quarters.take(&5, 1).is_none());
        others.pop();
        assert!(quarters.take(&5, 25).is_some() && quarters.take(&1, 1).is_none());
        drop((first, others));
        assert!(empty(&quarters));
    }

    #[test]
    fn whoever_takes_all_he_can_leaves_the_next_one_as_much() {
        let shares = Shares::of_what_is_left(120);
        let takes_all = |key| std::iter::from_fn(|| shares.take(&key, 1)).collect::<Vec<_>>();
        assert_eq!([1, 2, 3].map(|key| takes_all(key).len()), [60; 3], "alone");
        let (one, two) = (takes_all(1), takes_all(2));
        assert_eq!((one.len(), two.len()), (60, 30));
        assert!(shares.has_room(&3, 15) && !shares.has_room(&2, 1));
        // and what is let in already counts, and is let in
        let three = shares.enter(&3, 200);
        assert!(!shares.has_room(&4, 1));
        drop((one, two, three));
        assert!(empty(&shares) && !shares.has_room(&1, 121));
    }
}
