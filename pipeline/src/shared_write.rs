//! A write that says the same for all who want it is made once for those who asked before it began.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Makes such writes, one at a time. Clones share them.
#[derive(Clone)]
pub struct SharedWrite<K> {
    begun: Arc<AtomicU64>,
    /// The last write of each key that was made, by when it began.
    made: Arc<Mutex<HashMap<K, u64>>>,
}

/// Keys that are remembered, at most. Of one that is forgotten, there is only one write more.
const KEYS: usize = 1_000;

impl<K> Default for SharedWrite<K> {
    fn default() -> Self {
        Self { begun: Arc::default(), made: Arc::default() }
    }
}

impl<K: Hash + Eq> SharedWrite<K> {
    /// Answers once there was a write of the key that began after this was called.
    ///
    /// # Errors
    /// Those of the write.
    pub async fn make<E>(&self, key: K, write: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut made = self.made.lock().await;
        if made.get(&key).is_some_and(|began| *began > asked) {
            return Ok(());
        }
        let began = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        write.await?;
        if made.len() >= KEYS {
            made.clear();
        }
        made.insert(key, began);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_share_a_write_that_began_after_they_asked() {
        let (shared, writes) = (SharedWrite::default(), AtomicU64::new(0));
        let write = |key: &'static str| {
            shared.make(key, async {
                tokio::task::yield_now().await;
                writes.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(())
            })
        };
        // when many ask while the first writes
        join_all((0..100).map(|_| write("today"))).await;
        // then one more is made for all of them
        assert_eq!(writes.load(Ordering::SeqCst), 2);
        // and another for who asks after that, or for something else
        join_all([write("today"), write("yesterday")]).await;
        assert_eq!(writes.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn a_write_that_failed_is_nobodys() {
        let shared = SharedWrite::default();
        let failed = shared.make("today", async {
            tokio::task::yield_now().await;
            Err("no disk")
        });
        let (failed, other) = futures::join!(failed, shared.make("today", async { Err("nor here") }));
        assert_eq!((failed, other), (Err("no disk"), Err("nor here")));
    }
}
