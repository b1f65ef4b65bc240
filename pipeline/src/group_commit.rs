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

/// Appends that come at the same time, written in one transaction and so with one fsync.
#[derive(Clone)]
pub struct GroupCommit {
    appends: mpsc::Sender<Append>,
}

struct Append {
    event: StoredEvent,
    done: oneshot::Sender<Result<Appended, TableError>>,
}

impl GroupCommit {
    /// Starts the writer, within a Tokio runtime. It ends when the last clone is dropped.
    #[must_use]
    pub fn start(client: Client, table: Arc<str>, size: usize) -> Self {
        let size = size.clamp(1, 100);
        let (sender, appends) = mpsc::channel(4 * size);
        tokio::spawn(Writer { client, table }.run(appends, size));
        Self { appends: sender }
    }

    /// Appends an event unless its key is taken. Durable when it answers.
    ///
    /// # Errors
    /// [`TableError::Unavailable`]: whether it was appended is unknown, appending again is safe.
    pub async fn append(&self, event: StoredEvent) -> Result<Appended, TableError> {
        let (done, answer) = oneshot::channel();
        let gone = "append an event: the writer is gone";
        self.appends.send(Append { event, done }).await.map_err(|_| TableError::unavailable(gone)(Gone))?;
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
                let group = distinct_keys(&mut waiting);
                self.write_group(group).await;
            }
        }
    }

    /// Writes a group in one transaction. A refused transaction names the keys that were taken: those
    /// are answered, and the others go again without them.
    async fn write_group(&self, mut group: Vec<Append>) {
        while !group.is_empty() {
            let puts = group.iter().map(|append| self.conditional_put(&append.event)).collect();
            let written = self.client.transact_write_items().set_transact_items(Some(puts)).send().await;
            let reasons = match written {
                Ok(_) => return answer_all(group, &Ok(Appended::New)),
                Err(error) => match taken_keys(error.as_service_error()) {
                    Some(reasons) if reasons.len() == group.len() => reasons,
                    _ => return answer_all(group, &Err(TableError::unavailable("append events")(error))),
                },
            };
            let mut others = Vec::with_capacity(group.len());
            for (append, reason) in group.into_iter().zip(reasons) {
                if reason.code() == Some(TAKEN) {
                    // Whoever waited may have gone away.
                    let _ = append.done.send(exists(reason.item()));
                } else {
                    others.push(append);
                }
            }
            group = others;
        }
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

/// Takes a group whose keys all differ, which a transaction requires; what repeats a key waits.
fn distinct_keys(waiting: &mut Vec<Append>) -> Vec<Append> {
    let mut keys = HashSet::with_capacity(waiting.len());
    let (group, later) =
        std::mem::take(waiting).into_iter().partition(|a: &Append| keys.insert(a.event.key.clone()));
    *waiting = later;
    group
}

fn answer_all(group: Vec<Append>, answer: &Result<Appended, TableError>) {
    for append in group {
        // Whoever waited may have gone away.
        let _ = append.done.send(answer.clone());
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
