//! Appends that come at the same time go in one transaction. Large ones wait for each other, and no small one for them. Where
//! a group cannot be written, each of its events goes alone, so that only the one at fault fails.

use std::collections::HashSet;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, Put, ReturnValuesOnConditionCheckFailure as OnFailure, TransactWriteItem,
};
use tokio::sync::{mpsc, oneshot};

use crate::event::StoredEvent;
use crate::event_store::{ABSENT, Appended, exists, to_item};
use kassa_bus::table::TableError;

/// Bytes of a group, at most, but for one event that is larger. A transaction would take 4 MB, but whoever comes next waits
/// until it is written.
const MAX_GROUP_BYTES: usize = 256 * 1024;

/// Bytes of a body from which on an event is large. What most tills sell is a tenth of that.
const LARGE: usize = 16 * 1024;

/// Bytes of an event beside its body, generously.
const BESIDE_BODY: usize = 1024;

/// Appends that come at the same time, written in one transaction and so with one fsync.
#[derive(Clone)]
pub struct GroupCommit {
    small: mpsc::Sender<Append>,
    large: mpsc::Sender<Append>,
}

struct Append {
    event: StoredEvent,
    done: oneshot::Sender<Result<Appended, TableError>>,
}

impl GroupCommit {
    /// Starts the writers, within a Tokio runtime. They end when the last clone is dropped.
    #[must_use]
    pub fn start(client: &Client, table: &Arc<str>, size: usize) -> Self {
        let size = size.clamp(1, 100);
        let start = || {
            let (sender, appends) = mpsc::channel(4 * size);
            tokio::spawn(Writer { client: client.clone(), table: Arc::clone(table) }.run(appends, size));
            sender
        };
        Self { small: start(), large: start() }
    }

    /// Appends an event unless its key is taken. Durable when it answers.
    ///
    /// # Errors
    /// [`TableError::Unavailable`]: whether it was appended is unknown, appending again is safe.
    pub async fn append(&self, event: StoredEvent) -> Result<Appended, TableError> {
        let (done, answer) = oneshot::channel();
        let gone = "append an event: the writer is gone";
        let appends = if event.body.len() < LARGE { &self.small } else { &self.large };
        appends.send(Append { event, done }).await.map_err(|_| TableError::unavailable(gone)(Gone))?;
        answer.await.map_err(TableError::unavailable(gone))?
    }
}

/// The writer ended before it was asked.
#[derive(Debug, thiserror::Error)]
#[error("it was shut down")]
struct Gone;

struct Writer {
    client: Client,
    table: Arc<str>,
}

impl Writer {
    /// One group at a time: what comes while one is being written makes the next the larger.
    async fn run(self, mut appends: mpsc::Receiver<Append>, size: usize) {
        let mut waiting = Vec::new();
        while appends.recv_many(&mut waiting, size).await > 0 {
            while !waiting.is_empty() {
                let group = next_group(&mut waiting);
                self.write_group(group).await;
            }
        }
    }

    /// Writes a group. Where it fails as a whole, one of them may be why: each goes alone.
    async fn write_group(&self, group: Vec<Append>) {
        let Err((rest, error)) = self.write(group).await else { return };
        if rest.len() == 1 {
            return fail(rest, &error);
        }
        for append in rest {
            if let Err((one, error)) = self.write(vec![append]).await {
                fail(one, &error);
            }
        }
    }

    /// Writes in one transaction. A refused transaction names the keys that were taken: those are answered, and the
    /// others go again without them. Gives back what was not written for any other reason, unanswered.
    async fn write(&self, mut group: Vec<Append>) -> Result<(), (Vec<Append>, TableError)> {
        while !group.is_empty() {
            let puts = group.iter().map(|append| self.conditional_put(&append.event)).collect();
            let written = self.client.transact_write_items().set_transact_items(Some(puts)).send().await;
            let reasons = match written {
                Ok(_) => {
                    for append in group {
                        // Whoever waited may have gone away.
                        let _ = append.done.send(Ok(Appended::New));
                    }
                    return Ok(());
                }
                Err(error) => match taken_keys(error.as_service_error()) {
                    Some(reasons) if reasons.len() == group.len() => reasons,
                    _ => return Err((group, TableError::unavailable("append events")(error))),
                },
            };
            let mut others = Vec::with_capacity(group.len());
            for (append, reason) in group.into_iter().zip(reasons) {
                if reason.code() == Some(TAKEN) {
                    let _ = append.done.send(exists(reason.item()));
                } else {
                    others.push(append);
                }
            }
            group = others;
        }
        Ok(())
    }

    fn conditional_put(&self, event: &StoredEvent) -> TransactWriteItem {
        let put = Put::builder()
            .table_name(&*self.table)
            .set_item(Some(to_item(event.clone())))
            .condition_expression(ABSENT)
            .expression_attribute_names("#event", "event")
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        // The builder fails on a missing table or item only, and both are set.
        TransactWriteItem::builder().set_put(put.build().ok()).build()
    }
}

/// Takes a group that is no larger than a transaction takes and whose keys all differ, as it requires; the others wait.
/// One that is too large by itself goes alone, and fails alone.
fn next_group(waiting: &mut Vec<Append>) -> Vec<Append> {
    let (mut keys, mut bytes) = (HashSet::with_capacity(waiting.len()), 0);
    let fits = |append: &Append| {
        let more = append.event.body.len() + BESIDE_BODY;
        let fits = (bytes == 0 || bytes + more <= MAX_GROUP_BYTES) && keys.insert(append.event.key.clone());
        bytes += if fits { more } else { 0 };
        fits
    };
    let (group, later) = std::mem::take(waiting).into_iter().partition(fits);
    *waiting = later;
    group
}

fn fail(group: Vec<Append>, error: &TableError) {
    for append in group {
        let _ = append.done.send(Err(error.clone()));
    }
}

const TAKEN: &str = "ConditionalCheckFailed";

/// The reasons of a transaction that was refused for nothing but taken keys.
fn taken_keys(error: Option<&TransactWriteItemsError>) -> Option<Vec<CancellationReason>> {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error else { return None };
    let reasons = cancelled.cancellation_reasons();
    let only_taken = reasons.iter().all(|r| matches!(r.code(), Some(TAKEN | "None") | None));
    (only_taken && reasons.iter().any(|r| r.code() == Some(TAKEN))).then(|| reasons.to_vec())
}
