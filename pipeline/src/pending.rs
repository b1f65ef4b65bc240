//! One shop's pending sales, from one minute to the next: what looks find and what rows say is known until a look finds it settled.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::table::TableError;
use kassa_bus::{SaleId, ShopId};

use crate::pending_rows::PendingRows;
use crate::settlement::Unjudged;
use crate::sweep::{SURELY_SETTLED, Sweeps};
use crate::tries::Known;
use crate::unsettled::Finder;

/// One shop's pending sales.
///
/// A process that begins anew looks back for six hours, and at today's classic ids. What was given up before, and what is of days
/// that nobody looks at, has [a row](PendingRows).
pub struct Pending {
    sweeps: Sweeps,
    classics: Option<ClassicsLook>,
    known: BTreeMap<SaleId, Known>,
    /// Those of them that have a row.
    rows: BTreeSet<SaleId>,
    /// Where the next rows begin.
    rows_from: Option<SaleId>,
    /// Those whose rows are needed no more.
    settled: Vec<SaleId>,
    /// Where looking again at many goes on.
    again: Timestamp,
}

/// When classic ids were last looked at. These tell a day only, so that all of a day's must be looked at together.
#[derive(Debug, Clone, Copy)]
struct ClassicsLook {
    at: Timestamp,
    /// The shop's day and hour then.
    hour: (Date, i8),
    /// Events that were read of that day.
    events: usize,
}

/// Events that one look reads, more or less: more than a shop has in a minute. The rest is left to the next minute.
const ENOUGH: usize = 20_000;

/// So few known ones are looked at one by one. More are an outage, whose time is looked at as a whole.
const FEW: usize = 100;

/// So many are known, at most.
const MANY: usize = 100_000;

/// Looks at single sales at once.
const AT_ONCE: usize = 8;

/// Today's classic ids are looked at as often as that reads no more events a minute than this, and in every hour.
const CLASSICS_A_MINUTE: usize = 200;

/// Yesterday's are looked at in every so many hours.
const YESTERDAY: i8 = 6;

impl Pending {
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            sweeps: Sweeps::new(now),
            classics: None,
            known: BTreeMap::new(),
            rows: BTreeSet::new(),
            rows_from: None,
            settled: Vec::new(),
            again: Timestamp::MIN,
        }
    }

    /// How many have been pending for as long as no sale should, and for how long the first of them has.
    #[must_use]
    pub fn waiting(&self, now: Timestamp) -> (usize, SignedDuration) {
        let waited = self.known.values().map(|known| now.duration_since(known.accepted_at));
        waited
            .filter(|waited| *waited >= SURELY_SETTLED)
            .fold((0, SignedDuration::ZERO), |(count, longest), waited| (count + 1, longest.max(waited)))
    }

    /// The sales that are pending as far as is known.
    pub fn known(&self) -> impl Iterator<Item = (&SaleId, Known)> {
        self.known.iter().map(|(sale, known)| (sale, *known))
    }

    /// Those of these that have no row get one.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn keep(
        &mut self,
        rows: &PendingRows,
        shop: &ShopId,
        sales: &[(SaleId, Known)],
    ) -> Result<(), TableError> {
        for (sale, known) in sales {
            if !self.rows.contains(sale) {
                rows.put(shop, sale, *known).await?;
                self.rows.insert(sale.clone());
            }
        }
        Ok(())
    }

    /// Removes rows that are needed no more.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn clear(&mut self, rows: &PendingRows, shop: &ShopId) -> Result<(), TableError> {
        // What fails is found again among the rows.
        let settled = std::mem::take(&mut self.settled).into_iter();
        let removals = settled.map(|sale| async move { rows.remove(shop, &sale).await });
        stream::iter(removals).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Looks at what is due.
    ///
    /// # Errors
    /// [`TableError`]; what was not looked at is still due.
    pub async fn look(
        &mut self,
        (finder, rows): (&Finder, &PendingRows),
        (id, zone): (&ShopId, TimeZone),
        now: Timestamp,
    ) -> Result<(), TableError> {
        self.look_at_rows((finder, rows), id, now).await?;
        let others: Vec<SaleId> =
            self.known.keys().filter(|sale| !self.rows.contains(*sale)).cloned().collect();
        if others.len() <= FEW {
            self.look_again(finder, id, others, now).await?;
        } else {
            self.look_again_at_many(finder, id, now).await?;
        }
        for due in self.sweeps.due(now) {
            let upto = self.look_at(finder, id, (due.from, due.to), now).await?;
            self.sweeps.done(due, upto);
        }
        let local = now.to_zoned(zone);
        let hour = (local.date(), local.hour());
        let mut events = None;
        for date in classic_ids_due(hour, now, self.classics) {
            let found = finder.of_classic_ids(id, date).await?;
            events.get_or_insert(found.events);
            let of_date = |known: &SaleId| known.instant().is_none() && known.utc_date() == date;
            self.note(of_date, found.unsettled, now);
        }
        self.classics = events.map(|events| ClassicsLook { at: now, hour, events }).or(self.classics);
        Ok(())
    }

    /// Looks at ids of a time, and says how far it came.
    async fn look_at(
        &mut self,
        finder: &Finder,
        shop: &ShopId,
        (from, to): (Timestamp, Timestamp),
        now: Timestamp,
    ) -> Result<Timestamp, TableError> {
        let found = finder.made(shop, (from, to), ENOUGH).await?;
        let upto = found.stopped_at.unwrap_or(to);
        let times = from.as_millisecond()..upto.as_millisecond();
        self.note(
            |known| known.instant().is_some_and(|at| times.contains(&at.as_millisecond())),
            found.unsettled,
            now,
        );
        Ok(upto)
    }

    /// Looks at the next sales that have rows, and at those that had one.
    async fn look_at_rows(
        &mut self,
        (finder, rows): (&Finder, &PendingRows),
        shop: &ShopId,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let (page, last) = rows.after(shop, self.rows_from.as_ref()).await?;
        let from = self.rows_from.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let to = last.as_ref().map_or(Bound::Unbounded, Bound::Included);
        let mut sales: BTreeSet<SaleId> = self.rows.range((from, to)).cloned().collect();
        for (sale, Known { accepted_at, found_at }) in page {
            // Of one that was accepted a moment ago a look may not see the event yet.
            if now.duration_since(accepted_at).abs() >= SURELY_SETTLED && self.known.len() < MANY {
                let known = Known { accepted_at: accepted_at.min(now), found_at: found_at.min(now) };
                self.known.entry(sale.clone()).or_insert(known);
                self.rows.insert(sale.clone());
                sales.insert(sale);
            }
        }
        self.rows_from = last;
        self.look_again(finder, shop, sales, now).await
    }

    async fn look_again(
        &mut self,
        finder: &Finder,
        shop: &ShopId,
        sales: impl IntoIterator<Item = SaleId>,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let looks = sales.into_iter().map(|sale| async move {
            let found = finder.again(shop, &sale).await?;
            Ok::<_, TableError>((sale, found.unsettled))
        });
        let looks: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        for (sale, unsettled) in looks {
            let before = self.known.remove_entry(&sale).into_iter().collect();
            self.learn(&before, unsettled, now);
            if !self.known.contains_key(&sale) && self.rows.remove(&sale) {
                self.settled.push(sale);
            }
        }
        Ok(())
    }

    /// As far as one look goes, and on from there the next minute.
    async fn look_again_at_many(
        &mut self,
        finder: &Finder,
        shop: &ShopId,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let others = self.known.keys().filter(|sale| !self.rows.contains(*sale));
        let first = others.filter_map(SaleId::instant).min();
        let to = now - SURELY_SETTLED;
        let Some(from) = first.map(|first| first.max(self.again)).filter(|from| *from < to) else {
            self.again = Timestamp::MIN;
            return Ok(());
        };
        let upto = self.look_at(finder, shop, (from, to), now).await?;
        self.again = if upto < to { upto } else { Timestamp::MIN };
        Ok(())
    }

    /// What was found takes the place of what was known of the same sales.
    fn note(&mut self, looked_at: impl Fn(&SaleId) -> bool, found: Vec<Unjudged>, now: Timestamp) {
        let before = self.known.extract_if(.., |sale, _| looked_at(sale)).collect();
        self.learn(&before, found, now);
    }

    fn learn(&mut self, before: &BTreeMap<SaleId, Known>, found: Vec<Unjudged>, now: Timestamp) {
        for Unjudged { sale_id, accepted_at, .. } in found {
            if self.known.len() < MANY {
                // What was found at a time still to come was found by a clock that has been set right since.
                let before = before.get(&sale_id).copied().filter(|known| known.found_at <= now);
                let first = before.unwrap_or(Known { accepted_at: now, found_at: now });
                let known = self.known.entry(sale_id).or_insert(first);
                known.accepted_at = accepted_at.min(known.accepted_at);
            }
        }
    }
}

/// Of which of the shop's days classic ids are due: of today, and then perhaps of yesterday.
fn classic_ids_due(hour: (Date, i8), now: Timestamp, last: Option<ClassicsLook>) -> Vec<Date> {
    let new_hour = last.is_none_or(|last| last.hour != hour);
    let wait = |events: usize| {
        let seconds = 60 * events / CLASSICS_A_MINUTE;
        SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
    };
    let due = new_hour || last.is_none_or(|last| now.duration_since(last.at) >= wait(last.events));
    let (today, yesterday) = (hour.0, hour.0.yesterday().ok());
    let yesterday = yesterday.filter(|_| new_hour && hour.1 % YESTERDAY == 0);
    if due { [Some(today), yesterday].into_iter().flatten().collect() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_classic_sales_the_rarer_they_are_looked_at_and_once_an_hour_at_least() {
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let today: Date = "2026-11-22".parse().unwrap();
        let looks_in_an_hour = |events: usize| {
            let mut last = None;
            let mut looks = 0;
            for second in (0..3600).step_by(60) {
                let now = noon + SignedDuration::from_secs(second);
                if !classic_ids_due((today, 13), now, last).is_empty() {
                    (last, looks) = (Some(ClassicsLook { at: now, hour: (today, 13), events }), looks + 1);
                }
            }
            looks
        };
        assert_eq!([0, 200, 1_000, 5_000, 1_000_000].map(looks_in_an_hour), [60, 60, 12, 3, 1]);
    }

    #[test]
    fn yesterdays_are_looked_at_in_every_sixth_hour_and_a_clock_set_right_keeps_nothing_waiting() {
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let [today, yesterday]: [Date; 2] = ["2026-11-22", "2026-11-21"].map(|day| day.parse().unwrap());
        assert_eq!(classic_ids_due((today, 13), noon, None), [today]);
        assert_eq!(classic_ids_due((today, 12), noon, None), [today, yesterday]);
        let last = |at, day| Some(ClassicsLook { at, hour: (day, 12), events: 10_000 });
        assert_eq!(classic_ids_due((today, 12), noon, last(noon, today)), []);
        let ahead = noon + SignedDuration::from_hours(24);
        let tomorrow = today.tomorrow().unwrap();
        assert_eq!(classic_ids_due((today, 12), noon, last(ahead, tomorrow)), [today, yesterday]);
    }
}
