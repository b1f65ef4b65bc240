//! Rows as they were at one reading, and what the events say they must be.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use kassa_bus::amount::Total;
use kassa_bus::table::{TableError, text};
use kassa_bus::{ItemNo, ShopId};

use super::Check;
use crate::checkpoint::Checkpoint;
use crate::contained::Changes;
use crate::event::{EventKey, RECORDED};
use crate::event_store::EventStore;
use crate::last_at::Sought;
use crate::own_rows::OWN_ROWS;
use crate::posting::{Position, Row, RowKey, Sum, Sums, add, postings};
use crate::read_model::ReadModel;
use crate::read_model::shared::{Revision, above, needs_rebuild};
use crate::row::{ReadRow, from_item};

/// How often a shop's rows are read while they come and go.
const TRIES: u32 = 5;

/// Postings that are looked up of what was projected while the rows were read.
const MEANWHILE: usize = 1_000_000;

/// Events that are read at once.
const READ: usize = 100;

/// Sums that are kept of rows that are not there.
const MISSING: usize = 1000;

/// The rows, where each shard stood before and after they were read, and what the events before add up to.
pub(super) struct Reading {
    shops: BTreeMap<ShopId, ShopRows>,
    before: BTreeMap<String, Checkpoint>,
    after: BTreeMap<String, Checkpoint>,
    expected: Sums,
    missing: Sums,
    last_at: Sought,
}

/// A shop's rows. Those of which nobody knows what they are to say but together are one.
#[derive(Default)]
struct ShopRows {
    rows: BTreeMap<Row, Is>,
    declared: HashSet<ItemNo>,
    above: Option<ItemNo>,
    needs_rebuild: bool,
    /// Rows that cannot be read are named once.
    unreadable: HashSet<Row>,
}

/// What a row says.
#[derive(Debug, Default, Clone, Copy)]
struct Is {
    number: Total,
    turnover: Total,
    stock: Total,
    opening: Total,
    last_at: Option<Timestamp>,
}

impl ShopRows {
    /// The row that an item's is compared with: its own, or all that share together. An item that was declared after it
    /// shared a row has some of its sales there until a rebuild.
    fn compared(&self, row: Row) -> Row {
        let shares = |item: ItemNo| {
            self.above.is_some_and(|above| item > above)
                && (self.needs_rebuild || !self.declared.contains(&item))
        };
        match row {
            Row::Item(item) if shares(item) => Row::Other,
            row => row,
        }
    }
}

impl Reading {
    /// Reads the rows, page by page, and once, unless which items have rows changes in the midst.
    pub(super) async fn read(
        read_model: &ReadModel,
        shops: &[ShopId],
        check: &mut Check,
    ) -> Result<Self, TableError> {
        let before = read_model.checkpoints().await?;
        for error in before.values().filter_map(|checkpoint| checkpoint.position().err()) {
            check.mismatch(format!("{error}; what rows contain is not known until kassa rebuild has run"));
        }
        let mut read = BTreeMap::new();
        for shop in shops {
            let mut tries = 1;
            let (rows, wrong) = loop {
                let (rows, wrong, is_whole) = read_shop(read_model, shop).await?;
                if is_whole || tries == TRIES {
                    let moving = format!("{shop}: rows come and go as they are read; run kassa check again");
                    break (rows, wrong.into_iter().chain((!is_whole).then_some(moving)));
                }
                tries += 1;
            };
            wrong.for_each(|wrong| check.mismatch(wrong));
            read.insert(shop.clone(), rows);
        }
        let after = read_model.checkpoints().await?;
        let mut last_at = Sought::default();
        for (shop_id, shop) in &read {
            for (row, at) in shop.rows.iter().filter_map(|(row, is)| Some((*row, is.last_at?))) {
                last_at.said(RowKey { shop_id: shop_id.clone(), row }, at);
            }
        }
        Ok(Self { shops: read, before, after, expected: Sums::new(), missing: Sums::new(), last_at })
    }

    /// Where the shards stood: up to there the events are expected.
    pub(super) fn checkpoints(&self) -> &BTreeMap<String, Checkpoint> {
        &self.before
    }

    /// The row that is compared where this one changes.
    fn compared(&self, RowKey { shop_id, row }: RowKey) -> RowKey {
        RowKey { row: self.shops.get(&shop_id).map_or(row, |shop| shop.compared(row)), shop_id }
    }

    /// The row that the projection adds it to.
    fn written(&self, RowKey { shop_id, row }: &RowKey) -> Row {
        let shop = self.shops.get(shop_id);
        match (row, shop) {
            (Row::Item(item), Some(shop)) if !shop.declared.contains(item) => shop.compared(*row),
            (row, _) => *row,
        }
    }

    fn is(&self, RowKey { shop_id, row }: &RowKey) -> Option<&Is> {
        self.shops.get(shop_id)?.rows.get(row)
    }

    pub(super) fn expect(&mut self, postings: Vec<(RowKey, Sum)>) {
        self.last_at.posted(&postings);
        for (key, sum) in postings {
            let key = self.compared(key);
            if self.is(&key).is_some() {
                add(&mut self.expected, [(key, sum)]);
            } else if self.missing.contains_key(&key) || self.missing.len() < MISSING {
                add(&mut self.missing, [(key, sum)]);
            }
        }
    }

    /// Every row is what the events add up to, and every sum has its row.
    pub(super) async fn compare(
        mut self,
        store: &EventStore,
        changes: &dyn Changes,
        check: &mut Check,
    ) -> Result<(), TableError> {
        let mut differing = BTreeMap::new();
        for (shop_id, shop) in &self.shops {
            for (row, is) in &shop.rows {
                let key = RowKey { shop_id: shop_id.clone(), row: *row };
                let sum = self.expected.get(&key).copied().unwrap_or_default();
                let differs = !differences(*row, is, &sum).is_empty() || self.last_at.is_wrong(&key);
                if !shop.unreadable.contains(row) && differs {
                    differing.insert(key, (*is, sum));
                }
            }
        }
        let meanwhile = if differing.is_empty() {
            Some(HashMap::new())
        } else {
            self.meanwhile(store, changes, &differing).await?
        };
        let Some(meanwhile) = meanwhile else {
            check.mismatch(too_fast(differing.len()));
            return Ok(());
        };
        for (key, (is, sum)) in differing {
            let lanes: Vec<&Vec<Sum>> = meanwhile.get(&key).into_iter().flat_map(HashMap::values).collect();
            if lanes.iter().map(|lane| lane.len() + 1).fold(1, usize::saturating_mul) > MEANWHILE {
                check.mismatch(too_fast(1));
            } else if !reaches(key.row, &is, sum, &lanes) {
                let RowKey { shop_id, row } = &key;
                for (attribute, is, should) in differences(*row, &is, &sum) {
                    check.mismatch(format!("{shop_id} {row}: {attribute} is {is}, the events say {should}"));
                }
            }
            if self.last_at.is_wrong(&key) {
                let RowKey { shop_id, row } = &key;
                let [is, should] =
                    [is.last_at, sum.last_at].map(|at| at.map_or("none".into(), |at| at.to_string()));
                check.mismatch(format!("{shop_id} {row}: last_at is {is}, the events say {should}"));
            }
        }
        for RowKey { shop_id, row } in self.missing.keys() {
            if self.shops.get(shop_id).is_none_or(|shop| !shop.unreadable.contains(row)) {
                let what = if matches!(row, Row::Day(_)) { "a day" } else { "an item" };
                check.mismatch(format!("{shop_id} {row}: {what} of the events has no row"));
            }
        }
        Ok(())
    }

    /// What was projected between the two readings of the checkpoints, in order, of rows that differ: by shard and row,
    /// as each of them has taken as much of it as it had when it was read. Nothing if it is too much.
    async fn meanwhile(
        &mut self,
        store: &EventStore,
        changes: &dyn Changes,
        differing: &BTreeMap<RowKey, (Is, Sum)>,
    ) -> Result<Option<Meanwhile>, TableError> {
        let (mut meanwhile, mut count) = (Meanwhile::new(), 0);
        for (shard, after) in &self.after {
            let Ok(Some(upto)) = after.position() else { continue };
            let from = self.before.get(shard).and_then(|before| before.position().ok()?);
            let keys = between(changes, shard, from.as_ref(), &upto).await?;
            for some in keys.chunks(READ) {
                let (keys, firsts): (Vec<EventKey>, Vec<usize>) = some.iter().cloned().unzip();
                for (event, first) in store.get(&keys).await?.into_iter().zip(firsts) {
                    // One that cannot be read is named already.
                    let Ok(event) = event else { continue };
                    let recorded = event.recorded().map(|sale| postings(&event.shop_id, event.at, &sale));
                    let recorded = recorded.unwrap_or_default();
                    self.last_at.posted(&recorded);
                    for (posted, sum) in recorded.into_iter().skip(first) {
                        let row = self.written(&posted);
                        let key = self.compared(posted);
                        if differing.contains_key(&key) {
                            let lane = (shard.clone(), row);
                            meanwhile.entry(key).or_default().entry(lane).or_default().push(sum);
                            count += 1;
                        }
                    }
                }
                if count > MEANWHILE {
                    return Ok(None);
                }
            }
        }
        Ok(Some(meanwhile))
    }
}

fn too_fast(rows: usize) -> String {
    format!("{rows} rows changed too fast to be compared; run kassa check again when less is sold")
}

/// Postings by the row that is compared, and by where they came in what order: the shard, and the row they are of.
type Meanwhile = HashMap<RowKey, HashMap<(String, Row), Vec<Sum>>>;

/// A shop's rows, what is wrong with some, and whether they were all read while the same items had rows.
async fn read_shop(
    read_model: &ReadModel,
    shop: &ShopId,
) -> Result<(ShopRows, Vec<String>, bool), TableError> {
    let other = read_model.other(shop).await?;
    let revision = Revision::from_item(other.as_ref());
    let needs_rebuild = other.as_ref().is_some_and(needs_rebuild);
    let mut rows = ShopRows { above: above(other.as_ref()), needs_rebuild, ..ShopRows::default() };
    let (mut wrong, mut undeclared, mut cursor) = (Vec::new(), 0, None);
    loop {
        let (page, next) = read_model.items(shop, "", cursor).await?;
        for item in page {
            let row = Row::parse(text(&item, "record_type").unwrap_or_default());
            if let Some(Row::Item(number)) = row {
                if item.contains_key("item_description") {
                    rows.declared.insert(number);
                } else {
                    undeclared += 1;
                }
            }
            match (row.map(|row| rows.compared(row)), from_item(shop, &item)) {
                (Some(row), Ok(Some(read))) => rows.rows.entry(row).or_default().add(&read),
                (row, Err(error)) => {
                    rows.unreadable.extend(row);
                    wrong.push(format!("{error}; kassa rebuild makes it anew"));
                }
                _ => {}
            }
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    if undeclared > OWN_ROWS && rows.above.is_some() {
        let few = undeclared - OWN_ROWS;
        wrong.push(format!(
            "{shop}: {few} items too many have rows of their own; kassa rebuild makes them one"
        ));
    }
    if needs_rebuild {
        wrong.push(format!(
            "{shop}: items were declared that shared a row, or a rebuild was cut off; kassa rebuild gives them theirs"
        ));
    }
    let is_whole = Revision::from_item(read_model.other(shop).await?.as_ref()) == revision;
    Ok((rows, wrong, is_whole))
}

impl Is {
    fn add(&mut self, row: &ReadRow) {
        match row {
            ReadRow::Item(row) => {
                self.number = self.number + row.gross_number.into();
                self.turnover = self.turnover + row.gross_turnover.into();
                self.stock = self.stock + row.stock.into();
                self.opening = self.opening + row.opening_stock.unwrap_or_default().into();
            }
            ReadRow::Day(row) => {
                *self = Self { number: row.sales.into(), turnover: row.turnover.into(), ..Self::default() };
                self.last_at = row.last_at;
            }
        }
    }
}

/// Which attributes are not what they must be: what each is and should be.
fn differences(row: Row, is: &Is, sum: &Sum) -> Vec<(&'static str, String, String)> {
    let amounts = match row {
        Row::Day(_) => vec![("sales", is.number, sum.number), ("turnover", is.turnover, sum.turnover)],
        Row::Item(_) | Row::Other => vec![
            ("gross_number", is.number, sum.number),
            ("gross_turnover", is.turnover, sum.turnover),
            ("stock", is.stock, is.opening + -sum.number),
        ],
    };
    let wrong = amounts.into_iter().filter(|(_, is, should)| is != should);
    wrong.map(|(name, is, should)| (name, is.to_string(), should.to_string())).collect()
}

/// Whether a row is what it was at some moment while rows were read: some of each lane, in its order.
fn reaches(row: Row, is: &Is, sum: Sum, lanes: &[&Vec<Sum>]) -> bool {
    let Some((lane, others)) = lanes.split_first() else { return differences(row, is, &sum).is_empty() };
    let steps = std::iter::once(Sum::default()).chain(lane.iter().copied());
    let mut sums = steps.scan(sum, |sum, more| {
        *sum = *sum + more;
        Some(*sum)
    });
    sums.any(|sum| reaches(row, is, sum, others))
}

/// Keys of recorded sales after a position of a shard, up to another or somewhat further, in order; and which of each
/// one's postings is the first that comes after.
async fn between(
    changes: &dyn Changes,
    shard: &str,
    from: Option<&Position>,
    upto: &Position,
) -> Result<Vec<(EventKey, usize)>, TableError> {
    let mut keys = Vec::new();
    if from == Some(upto) || !changes.shards().await?.iter().any(|is| is == shard) {
        return Ok(keys);
    }
    if let Some(Position { sequence, partial: Some(last) }) = from {
        keys.extend(changes.at(shard, sequence).await?.map(|key| (key, last + 1)));
    }
    let mut reached = from.map(|from| from.sequence.clone());
    while reached.as_ref().is_none_or(|reached| *reached < upto.sequence) && keys.len() < MEANWHILE {
        let (more, Some(next)) = changes.after(shard, reached.as_ref()).await? else { break };
        keys.extend(more.into_iter().filter(|key| key.event.ends_with(RECORDED)).map(|key| (key, 0)));
        reached = Some(next);
    }
    Ok(keys)
}
