use std::collections::BTreeMap;

use jiff::Timestamp;
use kassa_bus::Network;
use serde::{Deserialize, Serialize};

use super::key::Key;

/// Names that are counted each by itself: of a shop's day, its keys; of a key, its tills and its sources.
pub const MOST: usize = 16;

/// Characters of a name that are kept.
const NAME: usize = 64;

/// What can be put together in any order, with the same outcome.
pub trait Merge {
    fn merge(&mut self, other: Self);
}

impl Merge for u64 {
    fn merge(&mut self, other: Self) {
        *self += other;
    }
}

/// Values by name, for the [`MOST`] names that sort first. What comes under later ones is put together.
///
/// Which names are kept depends on the names alone: one that is kept in the end was kept all along, and its
/// value is exact. So neither the order in which values come nor who merges them first changes anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    bound = "K: Ord + Clone + Serialize + for<'a> Deserialize<'a>, V: Clone + Merge + Serialize + for<'a> Deserialize<'a>"
)]
#[serde(from = "Pairs<K, V>", into = "Pairs<K, V>")]
pub struct Bounded<K, V> {
    pub named: BTreeMap<K, V>,
    pub others: Option<V>,
}

/// As JSON: keys need not be strings.
#[derive(Serialize, Deserialize)]
struct Pairs<K, V> {
    named: Vec<(K, V)>,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    others: Option<V>,
}

impl<K: Ord, V: Merge> From<Pairs<K, V>> for Bounded<K, V> {
    /// Names that were kept apart once, as whole addresses were, may be one today.
    fn from(Pairs { named, others }: Pairs<K, V>) -> Self {
        let mut bounded = Self { named: BTreeMap::new(), others };
        for (name, value) in named {
            bounded.add(name, value);
        }
        bounded
    }
}

impl<K, V> From<Bounded<K, V>> for Pairs<K, V> {
    fn from(Bounded { named, others }: Bounded<K, V>) -> Self {
        Self { named: named.into_iter().collect(), others }
    }
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { named: BTreeMap::new(), others: None }
    }
}

impl<K: Ord, V: Merge> Bounded<K, V> {
    pub fn add(&mut self, name: K, value: V) {
        match self.named.get_mut(&name) {
            Some(there) => there.merge(value),
            None => {
                self.named.insert(name, value);
            }
        }
        if self.named.len() > MOST
            && let Some((_, value)) = self.named.pop_last()
        {
            self.others.merge(Some(value));
        }
    }

    /// How many names there were, at least.
    #[must_use]
    pub fn names(&self) -> usize {
        self.named.len() + usize::from(self.others.is_some())
    }
}

impl<V: Merge> Merge for Option<V> {
    fn merge(&mut self, other: Self) {
        match (self, other) {
            (_, None) => {}
            (Some(there), Some(value)) => there.merge(value),
            (empty, value) => *empty = value,
        }
    }
}

impl<K: Ord, V: Merge> Merge for Bounded<K, V> {
    fn merge(&mut self, other: Self) {
        self.others.merge(other.others);
        for (name, value) in other.named {
            self.add(name, value);
        }
    }
}

/// What was seen of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub count: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    /// Sales by the name of the till, where the sale could be opened to read it.
    pub tills: Bounded<String, u64>,
    /// Sales by the network they came from.
    pub sources: Bounded<Network, u64>,
}

impl Seen {
    #[must_use]
    pub fn once(at: Timestamp, till: Option<&str>, source: Network) -> Self {
        let mut seen =
            Self { count: 1, first: at, last: at, tills: Bounded::default(), sources: Bounded::default() };
        if let Some(till) = till {
            seen.tills.add(printable(till), 1);
        }
        seen.sources.add(source, 1);
        seen
    }
}

impl Merge for Seen {
    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.tills.merge(other.tills);
        self.sources.merge(other.sources);
    }
}

/// A shop's day: what was seen of each key that was not the shop's.
pub type Tally = Bounded<Key, Seen>;

/// A name from outside, fit for a terminal and a table of bounded size.
fn printable(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    name.chars().take(NAME).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key(n: u8) -> Key {
        match n {
            0 => Key::Untold,
            1..6 => Key::Tried { shop_id: format!("AMIS{n}").parse().unwrap() },
            _ => Key::Unknown { kid: format!("{n:0>43}").parse().unwrap() },
        }
    }

    fn one(key: Key, seen: Seen) -> Tally {
        Tally { named: BTreeMap::from([(key, seen)]), others: None }
    }

    prop_compose! {
        fn sale()(k in 0u8..40, second in 0i64..86_400, till in prop::option::of(0u8..30), source in 0u8..30) -> Tally {
            let till = till.map(|n| format!("till-{n}"));
            one(key(k), Seen::once(at(second), till.as_deref(), Network::V4([192, 0, source])))
        }
    }

    fn total(tally: &Tally) -> u64 {
        tally.named.values().chain(&tally.others).map(|seen| seen.count).sum()
    }

    fn merged(sales: impl IntoIterator<Item = Tally>) -> Tally {
        sales.into_iter().fold(Tally::default(), |mut tally, sale| {
            tally.merge(sale);
            tally
        })
    }

    proptest! {
        #[test]
        fn the_order_and_the_grouping_of_sales_change_nothing(
            sales in prop::collection::vec(sale(), 0..120),
            shuffled in any::<prop::sample::Selector>(),
            cut in any::<Index>(),
        ) {
            let expected = merged(sales.clone());
            let mut other: Vec<Tally> = Vec::new();
            let mut left = sales;
            while !left.is_empty() {
                let places: Vec<usize> = (0..left.len()).collect();
                other.push(left.swap_remove(shuffled.select(places)));
            }
            let behind = other.split_off(cut.index(other.len() + 1));
            let mut halves = merged(behind);
            halves.merge(merged(other));
            prop_assert_eq!(halves, expected);
        }

        #[test]
        fn however_many_names_come_no_sale_is_lost_and_the_size_is_bounded(
            sales in prop::collection::vec(sale(), 0..150),
        ) {
            let tally = merged(sales.clone());
            prop_assert_eq!(total(&tally), sales.len() as u64);
            prop_assert!(tally.named.len() <= MOST);
            for seen in tally.named.values().chain(&tally.others) {
                prop_assert!(seen.tills.named.len() <= MOST && seen.sources.named.len() <= MOST);
                let sources: u64 = seen.sources.named.values().chain(&seen.sources.others).sum();
                prop_assert_eq!(sources, seen.count);
            }
        }

        #[test]
        fn a_tally_is_kept_as_it_is(sales in prop::collection::vec(sale(), 0..100)) {
            let tally = merged(sales);
            let json = serde_json::to_string(&tally).unwrap();
            prop_assert_eq!(serde_json::from_str::<Tally>(&json).unwrap(), tally);
        }
    }

    #[test]
    fn a_key_of_ours_stays_named_however_many_strangers_there_are() {
        let ours = Key::Tried { shop_id: "ZEELAND".parse().unwrap() };
        let strangers = (10..60).map(|n| one(key(n), Seen::once(at(0), None, "192.0.2.1".into())));
        let tally = merged(strangers.chain([one(ours.clone(), Seen::once(at(1), None, "10.0.0.7".into()))]));
        assert_eq!(tally.named[&ours].count, 1);
        assert_eq!(tally.others.map(|seen| seen.count), Some(50 + 1 - 16));
    }

    #[test]
    fn the_largest_tally_fits_a_row_of_the_table_many_times() {
        let wide = |n: u8| format!("{n}{}", "é".repeat(200));
        let network = |n: u8| Network::V6([u16::MAX, u16::MAX, u16::MAX - u16::from(n)]);
        let seen = |n| Seen::once(at(0), Some(&wide(n)), network(n));
        let sales = (6..100).flat_map(|k| (0..40).map(move |n| one(key(k), seen(n))));
        // DynamoDB's limit is 400 KB.
        assert!(serde_json::to_vec(&merged(sales)).unwrap().len() < 100_000);
    }

    #[test]
    fn a_name_from_outside_cannot_move_the_cursor_or_fill_the_table() {
        assert_eq!(printable("kassa 1\u{1b}[2J\n\u{202e}"), "kassa 1?[2J??");
        assert_eq!(printable(&"x".repeat(1000)).len(), 64);
    }
}
