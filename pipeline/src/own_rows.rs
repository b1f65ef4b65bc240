//! Which of a shop's items have rows of their own: those that somebody declared, and of the others the 1,000 with the
//! smallest numbers. The rest share one, `Row::Other`.
//!
//! Which those are follows from what was sold and from nothing else: not from the order it came in, nor from how often it
//! came, nor from how it was cut. An item that loses its row to smaller numbers does not get it back, since there are only
//! ever more of these; so whoever adds up sale by sale and moves what loses its row to the shared one ends with the rows
//! of a rebuild. Only a declaration makes room, which the next rebuild uses.

use std::collections::{BTreeSet, HashMap, HashSet};

use kassa_bus::{ItemNo, ShopId};

use crate::posting::{Row, RowKey, Sum, Sums, add};

/// Items that nobody declared and that have rows of their own, of one shop. Whoever may have sales recorded can name as
/// many as there are numbers.
pub const OWN_ROWS: usize = 1000;

/// Which items of one shop have rows of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnRows {
    pub declared: HashSet<ItemNo>,
    pub undeclared: BTreeSet<ItemNo>,
    /// The largest number an undeclared item with a row may have, once there were too many.
    pub above: Option<ItemNo>,
}

impl OwnRows {
    #[must_use]
    pub fn is_declared(&self, item: ItemNo) -> bool {
        self.declared.contains(&item)
    }

    fn shares(&self, item: ItemNo) -> bool {
        self.above.is_some_and(|above| item > above)
    }

    /// The row that what is sold of an item is added to.
    #[must_use]
    pub fn row_of(&self, item: ItemNo) -> Row {
        if self.is_declared(item) || !self.shares(item) { Row::Item(item) } else { Row::Other }
    }

    /// Gives an item that was sold a row, if it may have one. Answers the items that have none, or none any more, for it.
    pub fn admit(&mut self, item: ItemNo) -> Vec<ItemNo> {
        if self.is_declared(item) || self.shares(item) || !self.undeclared.insert(item) {
            return Vec::new();
        }
        self.trim()
    }

    /// Takes the rows of the largest numbers away where there are too many, or above where they end.
    pub fn trim(&mut self) -> Vec<ItemNo> {
        let mut lost = Vec::new();
        while let Some(last) = self.undeclared.last().copied() {
            let too_many = self.undeclared.len() > OWN_ROWS;
            if !too_many && !self.shares(last) {
                break;
            }
            self.undeclared.pop_last();
            lost.push(last);
            if too_many {
                self.above = self.undeclared.last().copied().min(self.above.or(Some(last)));
            }
        }
        lost
    }
}

/// Sums by row, with no more rows than there are to be. They are the same in whatever order, and in whatever parts, they
/// are added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSums {
    pub own: HashMap<ShopId, OwnRows>,
    pub sums: Sums,
}

impl RowSums {
    /// Of shops that declared these items.
    #[must_use]
    pub fn new(declared: impl IntoIterator<Item = (ShopId, HashSet<ItemNo>)>) -> Self {
        let own = |declared| OwnRows { declared, ..OwnRows::default() };
        Self {
            own: declared.into_iter().map(|(shop, items)| (shop, own(items))).collect(),
            sums: Sums::new(),
        }
    }

    pub fn add(&mut self, postings: impl IntoIterator<Item = (RowKey, Sum)>) {
        for (mut key, sum) in postings {
            if let Row::Item(item) = key.row {
                let own = match self.own.get_mut(&key.shop_id) {
                    Some(own) => own,
                    None => self.own.entry(key.shop_id.clone()).or_default(),
                };
                let lost = own.admit(item);
                key.row = own.row_of(item);
                self.share(&key.shop_id, lost);
            }
            add(&mut self.sums, [(key, sum)]);
        }
    }

    fn share(&mut self, shop: &ShopId, lost: Vec<ItemNo>) {
        let key = |row| RowKey { shop_id: shop.clone(), row };
        for item in lost {
            let had = self.sums.remove(&key(Row::Item(item)));
            add(&mut self.sums, had.map(|sum| (key(Row::Other), sum)));
        }
    }

    /// Adds what was added up elsewhere, of the same shops.
    pub fn merge(&mut self, part: Self) {
        for (shop, theirs) in part.own {
            let own = self.own.entry(shop.clone()).or_default();
            own.above = [own.above, theirs.above].into_iter().flatten().min();
            let lost = own.trim();
            self.share(&shop, lost);
        }
        self.add(part.sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kassa_bus::amount::Amount;
    use proptest::prelude::*;

    fn item(number: u64) -> ItemNo {
        number.to_string().parse().unwrap()
    }

    fn posting(number: u64, turnover: i64) -> (RowKey, Sum) {
        let sum =
            Sum { number: Amount::from(1).into(), turnover: Amount::from(turnover).into(), last_at: None };
        (RowKey { shop_id: "A".parse().unwrap(), row: Row::Item(item(number)) }, sum)
    }

    fn declared() -> RowSums {
        RowSums::new([("A".parse().unwrap(), HashSet::from([item(98), item(1_000_000)]))])
    }

    fn total(sums: &RowSums) -> Sum {
        let key = RowKey { shop_id: "A".parse().unwrap(), row: Row::Other };
        let mut all = Sums::new();
        add(&mut all, sums.sums.values().map(|sum| (key.clone(), *sum)));
        all.remove(&key).unwrap_or_default()
    }

    #[test]
    fn the_thousand_smallest_numbers_have_rows_and_the_rest_share_one_to_the_cent() {
        // given a thousand items that nobody declared, the largest first, and one that somebody did
        let mut rows = declared();
        rows.add((1..=OWN_ROWS as u64).rev().map(|n| posting(n * 10, 1)));
        rows.add([posting(1_000_000, 5)]);
        assert_eq!((rows.sums.len(), rows.own[&"A".parse().unwrap()].above), (OWN_ROWS + 1, None));
        // when one more is sold, a smaller and a larger one, and the one that was the largest again
        rows.add([posting(15, 7), posting(99_999, 3), posting(10_000, 2)]);
        // then there are as many rows as before, and one for the rest
        let row = |row| rows.sums.get(&RowKey { shop_id: "A".parse().unwrap(), row }).map(|sum| sum.turnover);
        assert_eq!(rows.sums.len(), OWN_ROWS + 2);
        assert_eq!(
            (row(Row::Item(item(15))), row(Row::Item(item(10_000)))),
            (Some(Amount::from(7).into()), None)
        );
        assert_eq!(row(Row::Item(item(1_000_000))), Some(Amount::from(5).into()));
        // 10,000 had 1 and got 2, and 99,999 got 3.
        assert_eq!(row(Row::Other), Some(Amount::from(6).into()));
        assert_eq!(total(&rows).turnover, Amount::from(1000 + 5 + 7 + 3 + 2).into());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// The same rows and sums in any order and in any parts.
        #[test]
        fn the_rows_follow_from_what_was_sold_and_not_from_its_order(
            seed in any::<u64>(),
            sold in 900i64..1300,
            parts in 1usize..5,
        ) {
            let number = |n: i64| n.unsigned_abs().wrapping_mul(seed | 1).wrapping_mul(0x9E37_79B9) >> 48;
            let mut postings: Vec<_> = (0..sold).map(|n| posting(number(n), 1 + n % 7)).collect();
            let mut straight = declared();
            straight.add(postings.clone());
            // in another order, and in parts
            postings.sort_by_key(|(key, _)| std::cmp::Reverse(key.clone()));
            let mut apart = declared();
            for part in postings.chunks(postings.len().div_ceil(parts)) {
                let mut folded = declared();
                folded.add(part.to_vec());
                apart.merge(folded);
            }
            prop_assert_eq!(&apart, &straight);
            prop_assert!(straight.own[&"A".parse().unwrap()].undeclared.len() <= OWN_ROWS);
            let turnover: i64 = (0..sold).map(|n| 1 + n % 7).sum();
            prop_assert_eq!(total(&straight).turnover, Amount::from(turnover).into());
        }
    }
}
