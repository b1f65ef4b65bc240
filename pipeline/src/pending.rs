use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::registry::Shop;
use kassa_bus::table::TableError;
use kassa_bus::{SaleId, ShopId};

use crate::standing::Unsettled;
use crate::sweep::{SURELY_SETTLED, Sweeps};
use crate::unsettled::Finder;

/// One shop's pending sales, from one minute to the next.
///
/// What a look finds is known until another look finds it settled. A process that begins anew looks back for six hours,
/// and at today's classic ids; what has been pending for longer it finds when its time is looked at again.
pub struct Pending {
    sweeps: Sweeps,
    /// The shop's day and hour in which classic ids were last looked at: these tell a day only, so that all of a day's
    /// must be looked at together, which is therefore done once an hour.
    hour: Option<(Date, i8)>,
    known: BTreeMap<SaleId, Known>,
    /// Where looking again at many goes on.
    again: Timestamp,
}

/// A pending sale, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// When it was accepted; or found, if a clock that was ahead says that this is still to come.
    pub accepted_at: Timestamp,
    pub found_at: Timestamp,
}

/// Events that one look reads, more or less: more than a shop has in a minute. The rest is left to the next minute.
const ENOUGH: usize = 20_000;

/// So few known ones are looked at one by one. More are an outage, whose time is looked at as a whole.
const FEW: usize = 100;

/// So many are known, at most.
const MANY: usize = 100_000;

/// Looks at single sales at once.
const AT_ONCE: usize = 8;

/// Yesterday's classic ids are looked at in every so many hours.
const YESTERDAY: i8 = 6;

impl Pending {
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { sweeps: Sweeps::new(now), hour: None, known: BTreeMap::new(), again: Timestamp::MIN }
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

    /// Looks at what is due.
    ///
    /// # Errors
    /// [`TableError`]; what was not looked at is still due.
    pub async fn look(&mut self, finder: &Finder, shop: &Shop, now: Timestamp) -> Result<(), TableError> {
        let id = &shop.shop_id;
        if self.known.len() <= FEW {
            self.look_again(finder, id, now).await?;
        } else {
            self.look_again_at_many(finder, id, now).await?;
        }
        for due in self.sweeps.due(now) {
            let upto = self.look_at(finder, id, (due.from, due.to), now).await?;
            self.sweeps.done(due, upto);
        }
        let (dates, hour) = classic_ids_due(shop, now, self.hour);
        for date in dates {
            let found = finder.of_classic_ids(id, date).await?;
            self.note(|known| known.instant().is_none() && known.utc_date() == date, found.unsettled, now);
        }
        self.hour = Some(hour);
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

    async fn look_again(&mut self, finder: &Finder, shop: &ShopId, now: Timestamp) -> Result<(), TableError> {
        let known: Vec<SaleId> = self.known.keys().cloned().collect();
        let looks = known.into_iter().map(|sale| async move {
            let found = finder.again(shop, &sale).await?;
            Ok::<_, TableError>((sale, found.unsettled))
        });
        let looks: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        for (sale, unsettled) in looks {
            self.note(|known| *known == sale, unsettled, now);
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
        let first = self.known.keys().filter_map(SaleId::instant).min();
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
    fn note(&mut self, looked_at: impl Fn(&SaleId) -> bool, found: Vec<Unsettled>, now: Timestamp) {
        let before: BTreeMap<_, _> = self.known.extract_if(.., |sale, _| looked_at(sale)).collect();
        // Another envelope of a recorded sale is most likely a repeat, and pending for nobody.
        for Unsettled { sale_id, accepted_at, .. } in found.into_iter().filter(|found| !found.recorded) {
            if self.known.len() < MANY {
                let first =
                    before.get(&sale_id).copied().unwrap_or(Known { accepted_at: now, found_at: now });
                let known = self.known.entry(sale_id).or_insert(first);
                known.accepted_at = accepted_at.min(known.accepted_at);
            }
        }
    }
}

/// Of which of the shop's days classic ids are due, and which hour of it this is.
fn classic_ids_due(shop: &Shop, now: Timestamp, last: Option<(Date, i8)>) -> (Vec<Date>, (Date, i8)) {
    let local = now.to_zoned(shop.zone());
    let (today, hour) = (local.date(), local.hour());
    if last == Some((today, hour)) {
        return (Vec::new(), (today, hour));
    }
    let yesterday = today.yesterday().ok().filter(|_| hour % YESTERDAY == 0);
    ([Some(today), yesterday].into_iter().flatten().collect(), (today, hour))
}
