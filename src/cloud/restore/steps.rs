//! The steps of a restore, in their order. Cut off anywhere, the same command goes on with what is there. The stage's
//! tables are read only, until something is put back into them.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::table::{Item, text};
use kassa_bus::tills::revocations;
use kassa_pipeline::check::Check;
use kassa_pipeline::rebuild::Rebuilt;
use kassa_pipeline::row::is_made_by_rebuild;
use tokio::time::sleep;

use super::compare::{Compared, Pair, TOLD};
use super::moment::{Candidate, Standing, moment};
use super::table::{Copy, Tables, copy_of};
use super::{BesideStage, Progress, PutBack, Restore, RestoreError, Restored, Step, Then};
use crate::cloud::Stage;
use crate::questions::{Books, Questions};

/// A new stream's first shard comes within some seconds.
const LOOK: Duration = Duration::from_secs(1);

impl Stage {
    /// Makes copies of events and shops as they were at one moment, gives them a stream of their own, makes the read
    /// models anew from the events and checks them; then looks what the stage lacks of them.
    ///
    /// # Errors
    /// [`RestoreError`]. What was restored so far stays, and the next call goes on with it.
    pub async fn restore(&self, wanted: Restore, progress: Progress<'_>) -> Result<Restored, RestoreError> {
        let (names, tables) = (self.tables()?, Tables { client: self.dynamodb() });
        let begun = Instant::now();
        progress(Step::Restoring);
        let keep = wanted.then != Then::Remove;
        let Copies { at, tables: copies, kept } = copies(&tables, names, wanted.at, keep).await?;
        let stream = tables.stream(&copies[0]).await?;
        let restored_in = SignedDuration::try_from(begun.elapsed()).unwrap_or(SignedDuration::MAX);

        let [events, shops] = copies.map(|copy| copy.name);
        let copy = self.books_of(&events, &shops, stream);
        let shards = first_shards(&copy).await?;
        // They are places in the stage's stream. In the copy's, everything is still to come.
        let positions = copy.read_model.forget_positions().await?;
        let (rebuilt, check) = made_anew(copy, progress).await?;

        let put_back = wanted.then == Then::PutBack;
        let lag = self.books().await?.changes.lag();
        let until = at.checked_sub(lag).unwrap_or(Timestamp::MIN);
        let beside = Beside { tables: &tables, stage: names, copies: [&events, &shops], until, put_back };
        let (compared, events_put, shop_rows_put) = beside.compare(rebuilt.events, progress).await?;
        let put_back = if put_back {
            // A rebuild takes an old event for one that the projection has had, unless it is in the stream by now.
            progress(Step::Waiting);
            sleep(Duration::try_from(lag).unwrap_or_default()).await;
            let (rebuilt, check) = made_anew(self.books().await?, progress).await?;
            Some(PutBack { events: events_put, shop_rows: shop_rows_put, rebuilt, check })
        } else {
            None
        };

        let kept = keep || kept;
        if !kept {
            progress(Step::Removing);
            try_join_all(names.map(|table| tables.remove(table))).await?;
        }
        let tables = [events, shops];
        Ok(Restored { at, tables, restored_in, shards, positions, rebuilt, check, compared, put_back, kept })
    }

    /// Removes the copies, kept ones as well, and says which there were.
    ///
    /// # Errors
    /// [`RestoreError`]; also if something else has such a name, which stays.
    pub async fn discard_copies(&self, progress: Progress<'_>) -> Result<Vec<String>, RestoreError> {
        let tables = Tables { client: self.dynamodb() };
        let mut removed = Vec::new();
        progress(Step::Removing);
        for table in self.tables()? {
            match tables.standing(table).await? {
                Standing::Nothing => {}
                Standing::Foreign => {
                    return Err(RestoreError::NameTaken { table: table.to_owned(), copy: copy_of(table) });
                }
                Standing::Copy { .. } => {
                    tables.remove(table).await?;
                    removed.push(copy_of(table));
                }
            }
        }
        Ok(removed)
    }

    fn tables(&self) -> Result<[&str; 2], RestoreError> {
        Ok([self.output("EventsTable")?, self.output("ShopsTable")?])
    }
}

/// Copies of one moment, ready, and whether an earlier run was to keep them.
struct Copies {
    at: Timestamp,
    tables: [Copy; 2],
    kept: bool,
}

/// Those that are there, and those that are missing.
async fn copies(
    tables: &Tables,
    names: [&str; 2],
    asked: Option<Timestamp>,
    keep: bool,
) -> Result<Copies, RestoreError> {
    let mut candidates = Vec::new();
    for table in names {
        let standing = tables.standing(table).await?;
        let window = if standing == Standing::Nothing { Some(tables.window(table).await?) } else { None };
        candidates.push(Candidate { table: table.to_owned(), copy: copy_of(table), standing, window });
    }
    let at = moment(asked, &candidates)?;
    for candidate in candidates.iter().filter(|one| one.standing == Standing::Nothing) {
        tables.restore(&candidate.table, at).await?;
    }
    let [events, shops] = names.map(|table| tables.ready(table, at, keep));
    let kept = |one: &Candidate| matches!(one.standing, Standing::Copy { kept: true, .. });
    Ok(Copies { at, tables: [events.await?, shops.await?], kept: candidates.iter().any(kept) })
}

/// How many shards the copy's stream has, once it has any.
async fn first_shards(copy: &Books) -> Result<usize, RestoreError> {
    loop {
        let shards = copy.changes.shards().await?.len();
        if shards > 0 {
            return Ok(shards);
        }
        sleep(LOOK).await;
    }
}

/// The read models, from the events alone, and whether the books balance then.
async fn made_anew(books: Books, progress: Progress<'_>) -> Result<(Rebuilt, Check), RestoreError> {
    let questions = Questions::new(books);
    let rebuilt = questions.rebuild(&|read, of| progress(Step::Rebuilding(read, of))).await?;
    let check = questions.check(&|read, of| progress(Step::Checking(read, of))).await?;
    Ok((rebuilt, check))
}

/// The copies beside the stage's own tables.
struct Beside<'a> {
    tables: &'a Tables,
    stage: [&'a str; 2],
    copies: [&'a str; 2],
    until: Timestamp,
    put_back: bool,
}

impl Beside<'_> {
    /// What the stage lacks, and how many events and rows of shops were put back.
    async fn compare(
        &self,
        events: u64,
        progress: Progress<'_>,
    ) -> Result<(BesideStage, u64, u64), RestoreError> {
        let Self { tables: Tables { client }, stage, copies, until, put_back } = *self;
        let comparing = |read| progress(Step::Comparing(read, events));
        let putting = |read| progress(Step::PuttingBack(read, events));
        // Shops first: a sale is nothing without its shop.
        let key = ["shop_id", "record_type"];
        let made_anew =
            |row: &Item| is_made_by_rebuild(row) || text(row, "record_type") == Some(revocations::ROW);
        let shops = Pair { client, copy: copies[1], stage: stage[1], key, made_anew };
        let shops = shops.compare(until, put_back, &|_| {}).await?;
        let key = ["stream", "event"];
        let pair = Pair { client, copy: copies[0], stage: stage[0], key, made_anew: |_| false };
        let stage_events = pair.stamped(until, &comparing).await?;
        let events = pair.compare(until, put_back, if put_back { &putting } else { &comparing }).await?;
        let put = (events.put_back, shops.put_back);
        Ok((beside(until, stage_events, events, shops), put.0, put.1))
    }
}

fn beside(until: Timestamp, stage_events: u64, events: Compared, shops: Compared) -> BesideStage {
    let mut lost = shops.lost_keys;
    lost.extend(events.lost_keys);
    lost.truncate(TOLD);
    BesideStage {
        until,
        stage_events,
        copy_events: events.stamped,
        missed_by_copy: stage_events.saturating_sub(events.in_both),
        lost,
        lost_events: events.lost,
        lost_shop_rows: shops.lost,
        changed: events.changed_keys,
        changed_events: events.changed,
    }
}
