//! Metrics over a restart: five minutes are a few documents, written again each minute until they are over. A ring of
//! sixteen days, so that nothing has to be deleted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kassa_bus::Documents;
use kassa_bus::table::TableError;
use serde::{Deserialize, Serialize};

use super::MetricId;
use super::spread::Spread;
use super::store::{Bucket, FIVE, FIVES_KEPT, MetricStore, beginning};

/// What came of the metrics within five minutes, or a part of it.
#[derive(Clone, Serialize, Deserialize)]
struct Document {
    begin: i64,
    rows: Vec<Row>,
}

/// Namespace, name, dimensions, sum, samples, least, most, spread.
#[derive(Clone, Serialize, Deserialize)]
struct Row(String, String, BTreeMap<String, String>, f64, u32, f64, f64, Option<Box<Spread>>);

const DAY: i64 = 24 * 60 * 60;

/// One more than are kept, for the day that has begun.
const DAYS: i64 = 16;

/// Metrics in one document at most: with spreads, some 200 KB. `DynamoDB` takes 400.
const ROWS: usize = 500;

/// The partition of a day in the ring.
fn group(day: i64) -> String {
    format!("day {:02}", day.rem_euclid(DAYS))
}

/// Where five minutes are in their day.
fn name(begin: i64) -> String {
    format!("{:03}", begin.rem_euclid(DAY) / FIVE)
}

/// Writes what came in those five minutes.
pub async fn keep(documents: &Documents, store: &MetricStore, begin: i64) -> Result<(), TableError> {
    let mut rows: Vec<Row> = store.five(begin).into_iter().map(row).collect();
    let mut part = 0;
    while !rows.is_empty() {
        let rest = rows.split_off(rows.len().min(ROWS));
        let document = Document { begin, rows };
        let name = format!("{}#{part}", name(begin));
        documents.update(&group(begin / DAY), &name, |_| (Some(document.clone()), ())).await?;
        (rows, part) = (rest, part + 1);
    }
    Ok(())
}

/// Takes back what an earlier process wrote of the five minutes that are not over.
pub async fn resume(documents: &Documents, store: &MetricStore, now: Timestamp) -> Result<(), TableError> {
    let begin = beginning(now.as_second(), FIVE);
    restore(documents, store, begin / DAY, &name(begin), |there| there == begin).await
}

/// Takes back what an earlier process wrote of the time before.
pub async fn recall(documents: &Documents, store: &MetricStore, now: Timestamp) -> Result<(), TableError> {
    let now = beginning(now.as_second(), FIVE);
    for day in (now - FIVES_KEPT) / DAY..=now / DAY {
        // Other days of the ring are older, and are no more.
        let kept = |begin: i64| begin / DAY == day && begin < now && begin >= now - FIVES_KEPT;
        restore(documents, store, day, "", kept).await?;
    }
    Ok(())
}

async fn restore(
    documents: &Documents,
    store: &MetricStore,
    day: i64,
    from: &str,
    wanted: impl Fn(i64) -> bool,
) -> Result<(), TableError> {
    for (_, Document { begin, rows }) in documents.list::<Document>(&group(day), from).await?.logged() {
        if wanted(begin) {
            store.restore(begin, rows.into_iter().map(kept).collect());
        }
    }
    Ok(())
}

fn row((id, bucket): (MetricId, Bucket)) -> Row {
    let Bucket { sum, samples, least, most, spread } = bucket;
    Row(id.namespace, id.name, id.dimensions, sum, samples, least, most, spread)
}

fn kept(row: Row) -> (MetricId, Bucket) {
    let Row(namespace, name, dimensions, sum, samples, least, most, spread) = row;
    (MetricId { namespace, name, dimensions }, Bucket { sum, samples, least, most, spread })
}
