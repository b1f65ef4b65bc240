use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{Timestamp, TimestampRound, Unit};
use kassa_bus::keys::{KeyError, ShopKeys};
use kassa_bus::table::TableError;
use kassa_bus::{Clock, Documents, Failure, Retry, ShopId};
use serde::{Deserialize, Serialize};

/// Uses of private keys to find something out, over all functions: so many an hour.
///
/// The hour is kept in the table. Permits are taken from it a few at a time, and those that a function did not
/// use by the time it ends are lost: there may be fewer trials than allowed, never more.
pub struct Permits {
    documents: Documents,
    clock: Clock,
    an_hour: u64,
    taken: Mutex<Taken>,
}

/// What one function has left of an hour's permits.
#[derive(Default, Clone, Copy)]
struct Taken {
    hour: Timestamp,
    left: u64,
    /// Nobody will get more before the hour is over.
    exhausted: bool,
}

/// The document: what was given out of an hour's permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    hour: Timestamp,
    permits: u64,
}

/// Permits taken from the table at once.
const A_FEW: u64 = 20;

/// Gives out a few of what the hour has left. A clock that is behind takes of the later hour.
fn give(given: Option<Given>, hour: Timestamp, an_hour: u64) -> (Option<Given>, u64) {
    let fresh = Given { hour, permits: 0 };
    let given = given.filter(|given| given.hour >= hour).unwrap_or(fresh);
    let few = A_FEW.min(an_hour.saturating_sub(given.permits));
    ((few > 0).then_some(Given { permits: given.permits + few, ..given }), few)
}

impl Permits {
    #[must_use]
    pub fn new(documents: Documents, clock: Clock, an_hour: u64) -> Self {
        Self { documents, clock, an_hour, taken: Mutex::default() }
    }

    fn hour(&self) -> Timestamp {
        let now = self.clock.now();
        let whole = TimestampRound::new().smallest(Unit::Hour).mode(jiff::RoundMode::Floor);
        now.round(whole).unwrap_or(now)
    }

    /// Takes one, if there is one.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn take(&self) -> Result<bool, TableError> {
        let hour = self.hour();
        if let Some(answer) = self.taken().take(hour) {
            return Ok(answer);
        }
        let few = self.documents.update("permits", "hour", |given| give(given, hour, self.an_hour)).await?;
        let mut taken = self.taken();
        // Another task may have taken some as well, or the hour be over.
        if taken.hour == hour {
            taken.left += few;
            taken.exhausted = few == 0;
        }
        Ok(taken.take(hour).unwrap_or(false))
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Whether there is a permit, if that can be told without the table.
    fn take(&mut self, hour: Timestamp) -> Option<bool> {
        if self.hour != hour {
            *self = Self { hour, ..Self::default() };
        }
        if self.left > 0 {
            self.left -= 1;
            return Some(true);
        }
        self.exhausted.then_some(false)
    }
}

/// Finds whose key a classic ciphertext was encrypted with, by trying: the ciphertext does not say.
pub struct Trials {
    pub keys: Arc<dyn ShopKeys>,
    /// Shops tried for one sale, at most; 0 tries none.
    pub shops: usize,
    pub permits: Arc<Permits>,
    matched: Mutex<HashMap<ShopId, ShopId>>,
}

impl Trials {
    #[must_use]
    pub fn new(keys: Arc<dyn ShopKeys>, shops: usize, permits: Arc<Permits>) -> Self {
        Self { keys, shops, permits, matched: Mutex::default() }
    }

    /// The shop whose present key opens what was sent to `shop`. What is inside is dropped unseen.
    ///
    /// # Errors
    /// [`Failure::Retry`] if it was not found, and a key that could not be used now might have opened it.
    pub async fn owner(
        &self,
        shop: &ShopId,
        ciphertext: &[u8],
        all: &[ShopId],
        turn: usize,
    ) -> Result<Option<ShopId>, Failure> {
        let likely = self.matched.lock().unwrap_or_else(PoisonError::into_inner).get(shop).cloned();
        let mut unavailable = None;
        for other in order(all, shop, likely.as_ref(), turn).into_iter().take(self.shops) {
            if !self.permits.take().await? {
                break;
            }
            match self.keys.decrypt(other, None, ciphertext).await.map(drop) {
                Ok(()) => {
                    let mut matched = self.matched.lock().unwrap_or_else(PoisonError::into_inner);
                    matched.insert(shop.clone(), other.clone());
                    return Ok(Some(other.clone()));
                }
                Err(KeyError::DoesNotOpen | KeyError::NoSuchKey) => {}
                Err(error @ KeyError::Unavailable(_)) => unavailable = Some(error),
            }
        }
        unavailable.map_or(Ok(None), |error| Err(Retry::from(error).into()))
    }
}

/// The other shops in the order they are tried: the one that matched last, then the rest from another place each
/// turn, so that a till that goes on is found out even where there are more shops than are tried for one sale.
fn order<'a>(all: &'a [ShopId], shop: &ShopId, likely: Option<&'a ShopId>, turn: usize) -> Vec<&'a ShopId> {
    let start = turn.checked_rem(all.len()).unwrap_or_default();
    let (before, from) = all.split_at(start);
    let rest = from.iter().chain(before).filter(|&other| other != shop && Some(other) != likely);
    likely.into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: &str = "2026-11-22T12:00:00Z";

    fn hour(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn shops(ids: &[&str]) -> Vec<ShopId> {
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }

    #[test]
    fn an_hour_gives_out_what_it_has_and_no_more() {
        let mut given = None;
        let mut total = 0;
        for _ in 0..10 {
            let (next, few) = give(given, hour(HOUR), 50);
            given = next.or(given);
            total += few;
        }
        assert_eq!(total, 50);
        assert_eq!(given, Some(Given { hour: hour(HOUR), permits: 50 }));
    }

    #[test]
    fn the_next_hour_begins_anew_and_a_clock_behind_does_not_go_back_to_the_last() {
        let spent = Some(Given { hour: hour(HOUR), permits: 50 });
        assert_eq!(give(spent, hour("2026-11-22T13:00:00Z"), 50).1, A_FEW);
        assert_eq!(give(spent, hour("2026-11-22T11:00:00Z"), 50), (None, 0));
    }

    #[test]
    fn permits_taken_for_one_hour_do_not_last_into_the_next() {
        let mut taken = Taken { hour: hour(HOUR), left: 2, exhausted: false };
        assert_eq!(taken.take(hour(HOUR)), Some(true));
        assert_eq!(taken.take(hour("2026-11-22T13:00:00Z")), None);
        let mut exhausted = Taken { hour: hour(HOUR), left: 0, exhausted: true };
        assert_eq!(exhausted.take(hour(HOUR)), Some(false));
        assert_eq!(exhausted.take(hour("2026-11-22T13:00:00Z")), None);
    }

    #[test]
    fn the_shop_that_matched_last_is_tried_first_and_the_shop_itself_never() {
        let all = shops(&["A", "B", "C", "D"]);
        assert_eq!(order(&all, &all[1], Some(&all[3]), 0), [&all[3], &all[0], &all[2]]);
        assert_eq!(order(&all, &all[1], None, 2), [&all[2], &all[3], &all[0]]);
        assert!(order(&[], &all[0], None, 7).is_empty());
    }

    #[test]
    fn over_the_turns_each_shop_comes_first_once() {
        let all = shops(&["A", "B", "C", "D"]);
        let own = shops(&["X"]);
        let firsts: Vec<_> = (0..4).map(|turn| order(&all, &own[0], None, turn)[0]).collect();
        assert_eq!(firsts, all.iter().collect::<Vec<_>>());
    }
}
