use std::collections::BTreeMap;
use std::fmt;
use std::ops::Add;

use jiff::Timestamp;
use jiff::civil::Date;
use kassa_bus::amount::{Amount, Total};
use kassa_bus::{ItemNo, ShopId};
use serde::{Deserialize, Serialize};

use crate::event::Recorded;

/// A row that sales change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    pub shop_id: ShopId,
    pub row: Row,
}

/// Its sort key: `s-00098` for an item's stock, `s-other` for that of the items that share a row (see
/// [`own_rows`](crate::own_rows)), `d-2026-11-22` for a day's turnover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Row {
    Day(Date),
    Item(ItemNo),
    Other,
}

/// The sort key of the row that items share.
pub const OTHER: &str = "s-other";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(date) => write!(f, "d-{date}"),
            Self::Item(item) => write!(f, "s-{item:05}"),
            Self::Other => f.write_str(OTHER),
        }
    }
}

impl Row {
    /// Reads a sort key. None if it is neither an item's nor a day's as it is written here.
    #[must_use]
    pub fn parse(record_type: &str) -> Option<Self> {
        let row = match record_type.split_at_checked(2)? {
            _ if record_type == OTHER => Some(Self::Other),
            ("d-", date) => date.parse().ok().map(Self::Day),
            ("s-", item) => item.parse().ok().map(Self::Item),
            _ => None,
        };
        row.filter(|row| row.to_string() == record_type)
    }

    /// Whether a row of this sort key is the read models', be it one of theirs or not.
    pub(crate) fn is_meant_by(record_type: &str) -> bool {
        ["d-", "s-"].iter().any(|beginning| record_type.starts_with(beginning))
    }
}

/// What sales add up to on one row: for an item how many were sold, for a day how many sales.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub number: Total,
    pub turnover: Total,
    /// For a day: when its last sale was recorded, in whole milliseconds.
    pub last_at: Option<Timestamp>,
}

impl Add for Sum {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            number: self.number + more.number,
            turnover: self.turnover + more.turnover,
            last_at: self.last_at.max(more.last_at),
        }
    }
}

/// Sums by row: what the read models are, when it comes from all events.
pub type Sums = BTreeMap<RowKey, Sum>;

/// What a sale that was recorded `at` adds to which rows. The order is part of the checkpoint: never change it.
#[must_use]
pub fn postings(shop: &ShopId, at: Timestamp, sale: &Recorded) -> Vec<(RowKey, Sum)> {
    // A millisecond is what the row keeps, whoever writes it.
    let last_at = Timestamp::from_millisecond(at.as_millisecond()).ok();
    let day = Sum { number: Amount::from(1).into(), turnover: sale.totals.gross_turnover.into(), last_at };
    let lines = sale.lines.iter().map(|line| {
        let sum =
            Sum { number: line.gross_number.into(), turnover: line.gross_turnover.into(), last_at: None };
        (Row::Item(line.item_no), sum)
    });
    std::iter::once((Row::Day(sale.business_date), day))
        .chain(lines)
        .map(|(row, sum)| (RowKey { shop_id: shop.clone(), row }, sum))
        .collect()
}

/// Adds postings up.
pub fn add(sums: &mut Sums, postings: impl IntoIterator<Item = (RowKey, Sum)>) {
    for (row, more) in postings {
        let sum = sums.entry(row).or_default();
        *sum = *sum + more;
    }
}

/// A stream record's place in its shard. `DynamoDB`'s are decimals of up to 40 digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence(pub String);

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sequence {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let digits = |s: &Self| s.0.trim_start_matches('0').len();
        let value = |s: &Self| s.0.trim_start_matches('0').to_owned();
        digits(self).cmp(&digits(other)).then_with(|| value(self).cmp(&value(other)))
    }
}

/// How far the read models have come in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The last event they contain.
    pub sequence: Sequence,
    /// If not all of it: the last of its postings that they contain.
    pub partial: Option<usize>,
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let posting = |p: &Self| p.partial.unwrap_or(usize::MAX);
        self.sequence.cmp(&other.sequence).then_with(|| posting(self).cmp(&posting(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_numbers_not_texts() {
        let sequence = |text: &str| Sequence(text.into());
        assert!(sequence("9") < sequence("10"));
        assert!(sequence("0099") < sequence("100"));
        assert!(sequence("21458450000000001745043909") < sequence("121458450000000001745043909"));
    }

    #[test]
    fn rows_are_named_as_the_design_names_them() {
        for (row, name) in [
            (Row::Item("98".parse().unwrap()), "s-00098"),
            (Row::Item("1234567".parse().unwrap()), "s-1234567"),
            (Row::Other, "s-other"),
            (Row::Day("2026-11-22".parse().unwrap()), "d-2026-11-22"),
        ] {
            assert_eq!(row.to_string(), name);
            assert_eq!(Row::parse(name), Some(row));
        }
        assert_eq!(Row::parse("info"), None);
    }
}
