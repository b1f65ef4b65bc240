//! Which row each posting of a batch goes to, as of what the shops' rows were; and how a batch is cut into transactions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kassa_bus::cache::Cache;
use kassa_bus::{ItemNo, ShopId};

use crate::posting::{Position, Row, RowKey, Sequence, Sum, Sums, add};
use crate::read_model::shared::{Guard, Sharing};
use crate::read_model::{ReadModel, StepError};

/// An event's postings, with its place in the stream.
pub(super) type Placed = (Sequence, Vec<(RowKey, Sum)>);

/// A posting, with its place and where it goes.
pub(super) struct Posting {
    at: Position,
    key: RowKey,
    sum: Sum,
    is_declared: bool,
}

/// Knows which items of the shops that sold last have rows. What it knows may be old: whoever writes by it finds out.
pub(super) struct Routing {
    read_model: ReadModel,
    known: Cache<Arc<Sharing>>,
}

/// Which items have rows, of the shops of a batch.
#[derive(Default)]
pub(super) struct Routed(HashMap<ShopId, Shop>);

struct Shop {
    sharing: Sharing,
    /// Items whose rows these steps make.
    new: HashSet<ItemNo>,
}

impl Routing {
    pub(super) fn new(read_model: ReadModel) -> Self {
        Self { read_model, known: Cache::new(256, Duration::from_mins(10)) }
    }

    /// Says where postings go that were not seen. Rows that there are too many of with them are moved first.
    pub(super) async fn route(
        &self,
        events: &[Placed],
        seen: Option<&Position>,
    ) -> Result<Routed, StepError> {
        let mut sold: HashMap<&ShopId, Vec<ItemNo>> = HashMap::new();
        for (sequence, postings) in events {
            if seen.is_some_and(|seen| seen.partial.is_none() && *sequence <= seen.sequence) {
                continue;
            }
            for (RowKey { shop_id, row }, _) in postings {
                let Row::Item(item) = row else { continue };
                sold.entry(shop_id).or_default().push(*item);
            }
        }
        let mut routed = Routed::default();
        for (shop, items) in sold {
            let name = shop.as_str().as_bytes();
            let known = self.known.get(name).await;
            self.known.invalidate(name).await;
            let mut sharing = match known {
                Some(known) => Arc::unwrap_or_clone(known),
                None => self.read_model.sharing(shop).await?,
            };
            let before = sharing.own.clone();
            sharing.own.trim();
            for item in items {
                sharing.own.admit(item);
            }
            let lost: Vec<ItemNo> = before.undeclared.difference(&sharing.own.undeclared).copied().collect();
            if sharing.own.above != before.above || !lost.is_empty() {
                sharing.revision =
                    self.read_model.share(shop, &sharing.revision, sharing.own.above, &lost).await?;
            }
            let new = sharing.own.undeclared.difference(&before.undeclared).copied().collect();
            routed.0.insert(shop.clone(), Shop { sharing, new });
        }
        Ok(routed)
    }

    pub(super) async fn keep(&self, routed: Routed) {
        for (shop, Shop { sharing, .. }) in routed.0 {
            self.known.insert(shop.as_str().as_bytes(), Arc::new(sharing)).await;
        }
    }
}

impl Routed {
    /// The postings that were not seen, to their rows.
    pub(super) fn events(&self, events: &[Placed], seen: Option<&Position>) -> Vec<Posting> {
        let mut routed = Vec::new();
        for (sequence, postings) in events {
            for (n, (key, sum)) in postings.iter().enumerate() {
                let partial = (n + 1 < postings.len()).then_some(n);
                let at = Position { sequence: sequence.clone(), partial };
                // What comes twice in a batch is counted once.
                let last = routed.last().map(|last: &Posting| &last.at).or(seen);
                if last.is_some_and(|last| at <= *last) {
                    continue;
                }
                let shop = self.0.get(&key.shop_id);
                let (row, is_declared) = match (key.row, shop) {
                    (Row::Item(item), Some(shop)) => {
                        (shop.sharing.own.row_of(item), shop.sharing.own.is_declared(item))
                    }
                    (row, _) => (row, true),
                };
                let key = RowKey { row, shop_id: key.shop_id.clone() };
                routed.push(Posting { at, key, sum: *sum, is_declared });
            }
        }
        routed
    }

    /// As of what a step is written.
    pub(super) fn guards(&self, step: &Step) -> HashMap<ShopId, Guard> {
        let others = step.sums.keys().filter(|key| key.row == Row::Other);
        let guard = |key: &RowKey| {
            let shop = self.0.get(&key.shop_id)?;
            let admits = step.items(&key.shop_id).any(|item| shop.new.contains(&item));
            Some((key.shop_id.clone(), Guard { revision: shop.sharing.revision.clone(), admits }))
        };
        others.filter_map(guard).collect()
    }

    /// What follows from a step that was written.
    pub(super) fn written(&mut self, step: &Step, guards: HashMap<ShopId, Guard>) {
        for (shop_id, Guard { revision, admits }) in guards {
            let Some(shop) = self.0.get_mut(&shop_id) else { continue };
            for item in step.items(&shop_id) {
                shop.new.remove(&item);
            }
            shop.sharing.revision = if admits { revision.next() } else { revision };
        }
    }
}

/// What one transaction writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) sums: Sums,
    /// The row of each of its postings.
    pub(super) rows: Vec<RowKey>,
    pub(super) upto: Position,
    /// Events that end in this step.
    pub(super) events: u64,
    /// Lines of items that nobody declared.
    pub(super) undeclared: u64,
}

impl Step {
    /// A shop's items that have a row in it.
    fn items<'a>(&'a self, shop: &'a ShopId) -> impl Iterator<Item = ItemNo> + 'a {
        self.sums.keys().filter(move |key| key.shop_id == *shop).filter_map(|key| match key.row {
            Row::Item(item) => Some(item),
            _ => None,
        })
    }
}

/// Cuts a batch into transactions: a step ends before the posting that would touch one row too many. A sale of more items
/// than that spans steps. What an undeclared item has is written together with the row that items share, which says
/// whether it may.
pub(super) fn steps(postings: &[Posting], max_rows: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for Posting { at, key, sum, is_declared } in postings {
        let guard = (!is_declared).then(|| RowKey { shop_id: key.shop_id.clone(), row: Row::Other });
        let rows = [Some(key), guard.as_ref().filter(|guard| *guard != key)];
        let more = |step: &Step| rows.iter().flatten().filter(|row| !step.sums.contains_key(**row)).count();
        if steps.last().is_none_or(|step| step.sums.len() + more(step) > max_rows) {
            let (sums, rows, upto) = (Sums::new(), Vec::new(), at.clone());
            steps.push(Step { sums, rows, upto, events: 0, undeclared: 0 });
        }
        if let Some(step) = steps.last_mut() {
            add(&mut step.sums, [(key.clone(), *sum)]);
            add(&mut step.sums, guard.clone().map(|guard| (guard, Sum::default())));
            step.rows.push(key.clone());
            step.upto = at.clone();
            step.events += u64::from(at.partial.is_none());
            step.undeclared += u64::from(!is_declared);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posting::Sequence;
    use jiff::Timestamp;
    use jiff::civil::Date;
    use kassa_bus::amount::Amount;
    use proptest::prelude::*;

    /// Each to its own row.
    fn cut(events: &[Placed], seen: Option<&Position>, max_rows: usize) -> Vec<Step> {
        steps(&Routed::default().events(events, seen), max_rows)
    }

    fn event(sequence: u32, items: &[u32]) -> Placed {
        event_at(sequence, None, items)
    }

    fn event_at(sequence: u32, at: Option<i64>, items: &[u32]) -> Placed {
        let key = |row: Row| RowKey { shop_id: "A".parse().unwrap(), row };
        let one = Sum { number: Amount::from(1).into(), turnover: Amount::from(2).into(), last_at: None };
        let day = at.map(|at| Sum { last_at: Some(Timestamp::from_second(at).unwrap()), ..one });
        let day = day.map(|sum| (key(Row::Day(Date::constant(2026, 11, 22))), sum));
        let items = items.iter().map(|item| (key(Row::Item(item.to_string().parse().unwrap())), one));
        (Sequence(sequence.to_string()), day.into_iter().chain(items).collect())
    }

    fn total(events: &[Placed]) -> Sums {
        let mut sums = Sums::new();
        for (_, postings) in events {
            add(&mut sums, postings.clone());
        }
        sums
    }

    #[test]
    fn a_sale_of_more_rows_than_a_step_holds_is_written_in_steps() {
        let events = [event(1, &[1, 2, 3, 1, 2]), event(2, &[3, 4])];
        let cut = cut(&events, None, 2);
        let upto: Vec<_> =
            cut.iter().map(|s| (s.upto.sequence.0.as_str(), s.upto.partial, s.events)).collect();
        assert_eq!(upto, [("1", Some(1), 0), ("1", Some(3), 0), ("2", Some(0), 1), ("2", None, 1)]);
    }

    proptest! {
        /// Whatever way the stream is cut into batches, repeated and resumed from, each row ends up
        /// with each event once.
        #[test]
        fn any_cutting_and_repeating_of_the_stream_gives_the_same_rows(
            // Times in any order: whoever records first may have the later clock.
            sales in prop::collection::vec((0i64..99, prop::collection::vec(1u32..9, 1..7)), 1..12),
            cuts in prop::collection::vec((0usize..12, 1usize..12, 0usize..4), 1..12),
            max_rows in 1usize..5,
        ) {
            let events: Vec<Placed> =
                (7u32..).zip(&sales).map(|(n, (at, items))| event_at(n, Some(*at), items)).collect();
            let mut rows = Sums::new();
            let mut seen: Option<Position> = None;
            let mut project = |batch: &[Placed], crash_after: usize| {
                for step in cut(batch, seen.as_ref(), max_rows).into_iter().take(crash_after) {
                    add(&mut rows, step.sums);
                    seen = Some(step.upto);
                }
            };
            let mut reached = 0;
            for (back, length, crash_after) in cuts {
                // A stream never skips ahead of what was handled, but may go back any distance.
                let from = reached.min(events.len()).saturating_sub(back);
                let to = (from + length).min(events.len());
                project(&events[from..to], crash_after);
                if crash_after >= 4 { reached = reached.max(to); }
            }
            project(&events, usize::MAX);
            prop_assert_eq!(rows, total(&events));
        }
    }
}
