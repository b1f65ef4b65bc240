//! What any subscriber is put through, because every queue does it sooner or later.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use futures::FutureExt;

use crate::message::Message;
use crate::subscriber::{Subscriber, isolated};

/// Whether what a subscriber depends on does its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependencies {
    Work,
    Fail,
}

/// A subscriber over a state of its own, so that it can be put to the test.
#[async_trait]
pub trait Trial: Send + Sync {
    /// The subscriber, made anew over what was kept: as after a crash.
    fn subscriber(&self, dependencies: Dependencies) -> Arc<dyn Subscriber>;

    /// What it brought about, in a form in which two runs can be compared.
    async fn outcome(&self) -> String;
}

/// Puts a subscriber through duplicates, reordering, failing dependencies, poison, redelivery after a crash
/// and being cut off in mid-batch. Each must bring about what the messages bring about that come one after
/// the other, once each.
///
/// # Panics
/// If it does not, saying which.
pub async fn conforms<T, F>(begin: impl Fn() -> F, messages: &[Message])
where
    T: Trial,
    F: Future<Output = T>,
{
    let expected = {
        let trial = begin().await;
        for message in messages {
            deliver(&trial, std::slice::from_ref(message)).await;
        }
        trial.outcome().await
    };
    let check = |case: &'static str, trial: T| {
        let expected = &expected;
        async move { assert_eq!(&trial.outcome().await, expected, "{case}") }
    };

    let trial = begin().await;
    assert_ne!(trial.outcome().await, expected, "the messages bring nothing about, so nothing is tested");
    deliver(&trial, messages).await;
    check("in one batch", trial).await;

    let trial = begin().await;
    let twice: Vec<Message> = messages.iter().flat_map(|m| [m.clone(), m.clone()]).collect();
    deliver(&trial, &twice).await;
    deliver(&trial, messages).await;
    check("duplicates, beside each other and later", trial).await;

    let trial = begin().await;
    let backwards: Vec<Message> = messages.iter().rev().cloned().collect();
    let (last, first) = backwards.split_at(backwards.len() / 2);
    deliver(&trial, first).await;
    deliver(&trial, last).await;
    check("in another order", trial).await;

    let trial = begin().await;
    let subscriber = trial.subscriber(Dependencies::Fail);
    let verdicts = isolated(&*subscriber, messages).await;
    let failed = messages.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_err());
    let failed: Vec<Message> = failed.map(|(message, _)| message.clone()).collect();
    deliver(&trial, &failed).await;
    check("what it said had failed comes again, when dependencies work", trial).await;

    let trial = begin().await;
    let (before, after) = messages.split_at(messages.len() / 2);
    let batch = [before, &[poison()], after].concat();
    let verdicts = isolated(&*trial.subscriber(Dependencies::Work), &batch).await;
    for (n, verdict) in verdicts.iter().enumerate() {
        assert_eq!(verdict.is_err(), n == before.len(), "beside poison, message {n}");
    }
    check("poison among them", trial).await;

    // A crash after all was done, before the queue heard of it, is the last of these.
    for polls in steps() {
        let trial = begin().await;
        let subscriber = trial.subscriber(Dependencies::Work);
        let ended = cut_off(isolated(&*subscriber, messages), polls).await;
        drop(subscriber);
        deliver(&trial, messages).await;
        check("cut off in mid-batch, and delivered again", trial).await;
        if ended {
            return;
        }
    }
}

/// Delivers what must be taken.
async fn deliver(trial: &impl Trial, batch: &[Message]) {
    let subscriber = trial.subscriber(Dependencies::Work);
    for (message, verdict) in batch.iter().zip(isolated(&*subscriber, batch).await) {
        assert!(
            verdict.is_ok(),
            "message {}: {}",
            message.id,
            verdict.err().map_or(String::new(), |e| e.to_string())
        );
    }
}

/// What nobody of ours wrote.
fn poison() -> Message {
    Message {
        id: "poison".into(),
        attributes: [].into(),
        body: "{\"shop_id\":".to_owned().into(),
        sent: None,
    }
}

/// Each place once at the beginning, where most is decided, and then ever fewer.
fn steps() -> impl Iterator<Item = usize> {
    std::iter::successors(Some((1, 1)), |(a, b)| Some((*b, a + b))).map(|(_, polls)| polls).take(16)
}

/// Drops the work after so many steps, and says whether it had ended by then.
async fn cut_off(work: impl Future, polls: usize) -> bool {
    let mut work = pin!(work.fuse());
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if work.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        left -= 1;
        if left == 0 { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}
