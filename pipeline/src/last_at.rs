//! When a day's last sale was recorded: what a row's `last_at` may say, and when it is believed.
//!
//! The shop's own clock says it, which may have been ahead and set right since. A time that is still to come is nobody's last
//! sale: no row is given one, whoever reads one takes it for none, and the next sale of that day takes its place. So a row
//! says the time of one of its sales: the latest, unless a clock was set back.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::posting::{RowKey, Sum};

/// How far the clocks of those who record, project and read may differ.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// The last moment that is not still to come.
pub(crate) fn latest(now: Timestamp) -> Timestamp {
    now.saturating_add(SKEW).unwrap_or(Timestamp::MAX)
}

/// What is not still to come.
#[must_use]
pub fn believed(at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    at.filter(|at| *at <= latest(now))
}

/// Leaves out of postings what is still to come.
pub(crate) fn believe(postings: &mut [(RowKey, Sum)], now: Timestamp) {
    for (_, sum) in postings {
        sum.last_at = believed(sum.last_at, now);
    }
}

/// Looks for what each row says among the times of its sales.
#[derive(Default)]
pub(crate) struct Sought(HashMap<RowKey, (Timestamp, bool)>);

impl Sought {
    /// Which row says what.
    pub fn said(&mut self, row: RowKey, last_at: Timestamp) {
        self.0.insert(row, (last_at, false));
    }

    /// What sales posted to which rows.
    pub fn posted<'a>(&mut self, postings: impl IntoIterator<Item = &'a (RowKey, Sum)>) {
        for (row, sum) in postings {
            if let Some((said, found)) = self.0.get_mut(row) {
                *found |= sum.last_at == Some(*said);
            }
        }
    }

    /// Whether a row says what none of its sales did.
    pub fn is_wrong(&self, row: &RowKey) -> bool {
        self.0.get(row).is_some_and(|(_, found)| !found)
    }
}
