//! A subscriber's documents: what any number of functions at once may rely on.

use futures::future::join_all;
use kassa::embedded::{OUTBOX, Store, Sync};
use kassa_bus::{Clock, Documents};

async fn documents() -> Documents {
    Store::open(None, Sync::Normal).await.unwrap().documents(OUTBOX, Clock::system())
}

fn add(sum: Option<u64>, more: u64) -> (Option<u64>, ()) {
    (Some(sum.unwrap_or_default() + more), ())
}

/// Counts what is folded.
fn count(sum: Option<usize>, ids: &[&str]) -> (usize, usize) {
    let sum = sum.unwrap_or_default() + ids.len();
    (sum, sum)
}

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("sale-{n}")).collect()
}

#[tokio::test]
async fn changes_that_meet_are_each_made_once() {
    let documents = documents().await;
    let changes = (0..10).map(|_| documents.update("sums", "one", |sum| add(sum, 1)));
    for change in join_all(changes).await {
        change.unwrap();
    }
    assert_eq!(documents.get::<u64>("sums", "one").await.unwrap(), Some(10));
    // one that changes nothing writes nothing
    let left: Option<u64> = documents.update("sums", "two", |sum| (None, sum)).await.unwrap();
    assert_eq!((left, documents.get::<u64>("sums", "two").await.unwrap()), (None, None));
}

#[tokio::test]
async fn a_message_counts_once_however_often_and_beside_whom_it_comes() {
    let documents = documents().await;
    // given more than one transaction takes, some of it twice
    let first: Vec<String> = ids(0..150).into_iter().chain(ids(100..150)).collect();
    assert_eq!(documents.fold("sums", "one", &first, count).await.unwrap(), Some(150));
    // when it comes again, by several at once and with some that are new
    let again = ids(0..250);
    for folded in join_all((0..4).map(|_| documents.fold("sums", "one", &again, count))).await {
        folded.unwrap();
    }
    // then only those are counted
    assert_eq!(documents.get::<usize>("sums", "one").await.unwrap(), Some(250));
    assert_eq!(documents.fold("sums", "one", &again, count).await.unwrap(), None);
    // and another document has its own
    assert_eq!(documents.fold("sums", "two", &ids(0..1), count).await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_group_is_listed_by_name() {
    let documents = documents().await;
    for name in ["b", "a", "c"] {
        documents.fold("group", name, &ids(0..1), count).await.unwrap();
    }
    documents.fold("other", "d", &ids(0..1), count).await.unwrap();
    let names = |from| {
        let documents = &documents;
        async move {
            let listed: Vec<(String, usize)> = documents.list("group", from).await.unwrap().rows;
            listed.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        }
    };
    assert_eq!(
        (names("").await, names("b").await),
        (vec!["a".into(), "b".into(), "c".into()], vec!["b".to_owned(), "c".into()])
    );
}
