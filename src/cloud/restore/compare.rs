//! Rows of a copy beside those of the stage: what the stage lacks, and, if it is to be, put back.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::scan::ScanOutput;
use aws_sdk_dynamodb::types::KeysAndAttributes;
use futures::future::try_join_all;
use jiff::Timestamp;
use kassa_bus::table::{Item, PAGE, TableError, text};

use crate::cloud::stage::SEGMENTS;

/// Keys one `BatchGetItem` takes.
const BATCH_GET: usize = 100;

/// Rows put at once.
const PUTS: usize = 25;

/// Keys that are told; a table that was emptied lacks millions.
pub(super) const TOLD: usize = 100;

/// What `DynamoDB` did not get to is asked for again after this.
const AGAIN: Duration = Duration::from_millis(50);

/// A copy and the stage's own table, with the same key.
pub(super) struct Pair<'a> {
    pub client: &'a Client,
    pub copy: &'a str,
    pub stage: &'a str,
    pub key: [&'static str; 2],
    /// Rows that nobody misses, as they are made anew.
    pub made_anew: fn(&Item) -> bool,
}

/// What was found of them.
#[derive(Default)]
pub(super) struct Compared {
    /// Rows of the copy that were stamped up to the moment asked for, and those of them that the stage has.
    pub stamped: u64,
    pub in_both: u64,
    /// Rows that the stage lacks, and those of them that were put back.
    pub lost: u64,
    pub put_back: u64,
    pub lost_keys: Vec<String>,
    /// Rows that are others in the stage.
    pub changed: u64,
    pub changed_keys: Vec<String>,
}

impl Compared {
    fn add(&mut self, other: Self) {
        self.stamped += other.stamped;
        self.in_both += other.in_both;
        self.lost += other.lost;
        self.put_back += other.put_back;
        self.changed += other.changed;
        self.lost_keys.extend(other.lost_keys);
        self.changed_keys.extend(other.changed_keys);
        self.lost_keys.truncate(TOLD);
        self.changed_keys.truncate(TOLD);
    }
}

impl Pair<'_> {
    /// Looks at each of the copy's rows.
    pub(super) async fn compare(
        &self,
        until: Timestamp,
        put_back: bool,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Compared, TableError> {
        let pages = Pages { client: self.client, table: self.copy, only: None };
        let parts = pages.each(|rows| self.page(rows, until, put_back), progress).await?;
        let mut all = Compared::default();
        for part in parts {
            all.add(part);
        }
        Ok(all)
    }

    /// How many of the stage's rows were stamped up to then.
    pub(super) async fn stamped(
        &self,
        until: Timestamp,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, TableError> {
        let pages = Pages { client: self.client, table: self.stage, only: Some("at") };
        let counted =
            |rows: Vec<Item>| ready(Ok(rows.iter().filter(|row| is_stamped(row, until)).count() as u64));
        Ok(pages.each(counted, progress).await?.into_iter().sum())
    }

    async fn page(&self, rows: Vec<Item>, until: Timestamp, put_back: bool) -> Result<Compared, TableError> {
        let mut found = Compared::default();
        let mut of_stage = self.of_stage(&rows).await?;
        let mut lost = Vec::new();
        for row in rows.into_iter().filter(|row| !(self.made_anew)(row)) {
            let stamped = u64::from(is_stamped(&row, until));
            let name = self.name(&row);
            let in_stage = of_stage.remove(&name);
            found.stamped += stamped;
            found.in_both += if in_stage.is_some() { stamped } else { 0 };
            match in_stage {
                Some(same) if same == row => {}
                Some(_) => {
                    found.changed += 1;
                    found.changed_keys.push(name);
                }
                None => {
                    found.lost += 1;
                    found.lost_keys.push(name);
                    lost.push(row);
                }
            }
        }
        if put_back {
            // A sale's end before its beginning, so that nobody takes it for unsettled in between.
            lost.reverse();
            for rows in lost.chunks(PUTS) {
                let put = try_join_all(rows.iter().cloned().map(|row| self.put(row))).await?;
                found.put_back += put.into_iter().map(u64::from).sum::<u64>();
            }
        }
        Ok(found)
    }

    /// The stage's rows under the same keys, by their names.
    async fn of_stage(&self, rows: &[Item]) -> Result<HashMap<String, Item>, TableError> {
        let mut found = HashMap::with_capacity(rows.len());
        for rows in rows.chunks(BATCH_GET) {
            let mut wanted: Vec<Item> = rows.iter().map(|row| self.key_of(row)).collect();
            while !wanted.is_empty() {
                let keys = KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true).build();
                let keys = keys.map_err(TableError::unavailable("read the stage's rows"))?;
                let page = self.client.batch_get_item().request_items(self.stage, keys).send().await;
                let mut page = page.map_err(TableError::unavailable("read the stage's rows"))?;
                let rows = page.responses.as_mut().and_then(|all| all.remove(self.stage)).unwrap_or_default();
                found.extend(rows.into_iter().map(|row| (self.name(&row), row)));
                let left = page.unprocessed_keys.as_mut().and_then(|all| all.remove(self.stage));
                wanted = left.map(|left| left.keys).unwrap_or_default();
                if !wanted.is_empty() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        Ok(found)
    }

    /// Puts a row, unless one has come meanwhile.
    async fn put(&self, row: Item) -> Result<bool, TableError> {
        let put = self.client.put_item().table_name(self.stage).set_item(Some(row));
        let put = put
            .condition_expression("attribute_not_exists(#key)")
            .expression_attribute_names("#key", self.key[0]);
        match put.send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(error)) if error.err().is_conditional_check_failed_exception() => {
                Ok(false)
            }
            Err(error) => Err(TableError::unavailable("put a row back")(error)),
        }
    }

    fn key_of(&self, row: &Item) -> Item {
        self.key.iter().filter_map(|name| Some(((*name).to_owned(), row.get(*name)?.clone()))).collect()
    }

    fn name(&self, row: &Item) -> String {
        self.key.map(|name| text(row, name).unwrap_or("?")).join(" ")
    }
}

fn is_stamped(row: &Item, until: Timestamp) -> bool {
    text(row, "at").and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at <= until)
}

/// A table, read whole: all of its rows, or one attribute of each.
struct Pages<'a> {
    client: &'a Client,
    table: &'a str,
    only: Option<&'static str>,
}

impl Pages<'_> {
    /// Reads it in segments side by side, and gives what was made of each page.
    async fn each<T, F>(
        &self,
        each: impl Fn(Vec<Item>) -> F,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<T>, TableError>
    where
        F: Future<Output = Result<T, TableError>>,
    {
        let read = AtomicU64::new(0);
        let (read, each) = (&read, &each);
        let segments = (0..SEGMENTS).map(|segment| async move {
            let (mut made, mut cursor) = (Vec::new(), None);
            loop {
                let page = self.page(segment, cursor).await?;
                let rows = page.items.unwrap_or_default();
                let count = rows.len() as u64;
                made.push(each(rows).await?);
                progress(read.fetch_add(count, Ordering::Relaxed) + count);
                cursor = page.last_evaluated_key;
                if cursor.is_none() {
                    return Ok::<_, TableError>(made);
                }
            }
        });
        Ok(try_join_all(segments).await?.into_iter().flatten().collect())
    }

    async fn page(&self, segment: i32, cursor: Option<Item>) -> Result<ScanOutput, TableError> {
        let mut scan = self.client.scan().table_name(self.table).consistent_read(true).limit(PAGE);
        scan = scan.segment(segment).total_segments(SEGMENTS).set_exclusive_start_key(cursor);
        if let Some(only) = self.only {
            scan = scan.projection_expression("#only").expression_attribute_names("#only", only);
        }
        scan.send().await.map_err(TableError::unavailable("read a table"))
    }
}
