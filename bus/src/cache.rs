//! A bounded cache whose entries expire and whose loads are shared: whoever asks for what is being loaded waits for that
//! answer, an error included, so that a dependency that is down is asked once and not by everybody in turn.
//!
//! It is moka's, in one instance for all types. Moka is some 60,000 lines of LLVM's code for each type it is used with, in
//! every crate that uses it: a sixth of all that was compiled of the command.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use moka::Expiry;

/// Values by bytes. Clones share what they hold.
///
/// `E` is why a load may fail.
pub struct Cache<V, E = ()> {
    entries: Arc<dyn Entries>,
    lifetime: Duration,
    of: PhantomData<fn() -> (V, E)>,
}

impl<V, E> Clone for Cache<V, E> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries), lifetime: self.lifetime, of: PhantomData }
    }
}

impl<V, E> Cache<V, E>
where
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Holds `capacity` entries at most, each for this long at most.
    #[must_use]
    pub fn new(capacity: u64, lifetime: Duration) -> Self {
        let entries = moka::future::Cache::builder().max_capacity(capacity).expire_after(ByEntry).build();
        Self { entries: Arc::new(Moka(entries)), lifetime, of: PhantomData }
    }

    pub async fn get(&self, key: &[u8]) -> Option<V> {
        self.entries.get(key).await.map(|entry| typed(&entry.value))
    }

    pub async fn insert(&self, key: &[u8], value: V) {
        self.entries.insert(key.into(), Entry::new(value, self.lifetime)).await;
    }

    pub async fn invalidate(&self, key: &[u8]) {
        self.entries.invalidate(key).await;
    }

    pub fn invalidate_all(&self) {
        self.entries.invalidate_all();
    }

    /// What is there, or what is loaded now.
    ///
    /// # Errors
    /// Why it cannot be loaded; nothing is kept then.
    pub async fn get_or_load(
        &self,
        key: &[u8],
        load: impl Future<Output = Result<V, E>> + Send,
    ) -> Result<V, E> {
        self.get_or_load_for(key, async { Ok((load.await?, self.lifetime)) }).await
    }

    /// The same, where what is loaded says how long it lives.
    ///
    /// # Errors
    /// Why it cannot be loaded; nothing is kept then.
    pub async fn get_or_load_for(
        &self,
        key: &[u8],
        load: impl Future<Output = Result<(V, Duration), E>> + Send,
    ) -> Result<V, E> {
        let load = load.map(|loaded| match loaded {
            Ok((value, lifetime)) => Ok(Entry::new(value, lifetime)),
            Err(error) => Err(Arc::new(error) as Erased),
        });
        match self.entries.get_or_load(key.into(), load.boxed()).await {
            Ok(entry) => Ok(typed(&entry.value)),
            Err(error) => Err(typed(&error)),
        }
    }
}

/// Something of a type that its cache knows.
type Erased = Arc<dyn Any + Send + Sync>;

fn typed<T: Clone + 'static>(erased: &Erased) -> T {
    match erased.downcast_ref::<T>() {
        Some(value) => value.clone(),
        None => unreachable!("what a cache holds is of its own types"),
    }
}

#[derive(Clone)]
struct Entry {
    value: Erased,
    lifetime: Duration,
}

impl Entry {
    fn new(value: impl Send + Sync + 'static, lifetime: Duration) -> Self {
        Self { value: Arc::new(value), lifetime }
    }
}

/// What [`Cache`] is over. An object, so that nothing of moka is compiled outside this file.
#[async_trait]
trait Entries: Send + Sync {
    async fn get(&self, key: &[u8]) -> Option<Entry>;
    async fn insert(&self, key: Box<[u8]>, entry: Entry);
    async fn invalidate(&self, key: &[u8]);
    fn invalidate_all(&self);
    async fn get_or_load(
        &self,
        key: Box<[u8]>,
        load: BoxFuture<'_, Result<Entry, Erased>>,
    ) -> Result<Entry, Erased>;
}

struct Moka(moka::future::Cache<Box<[u8]>, Entry>);

#[async_trait]
impl Entries for Moka {
    async fn get(&self, key: &[u8]) -> Option<Entry> {
        self.0.get(key).await
    }

    async fn insert(&self, key: Box<[u8]>, entry: Entry) {
        self.0.insert(key, entry).await;
    }

    async fn invalidate(&self, key: &[u8]) {
        self.0.invalidate(key).await;
    }

    fn invalidate_all(&self) {
        self.0.invalidate_all();
    }

    async fn get_or_load(
        &self,
        key: Box<[u8]>,
        load: BoxFuture<'_, Result<Entry, Erased>>,
    ) -> Result<Entry, Erased> {
        self.0.try_get_with(key, load).await.map_err(|shared| Erased::clone(&shared))
    }
}

/// Each entry lives as long as it says.
struct ByEntry;

impl Expiry<Box<[u8]>, Entry> for ByEntry {
    fn expire_after_create(&self, _: &Box<[u8]>, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.lifetime)
    }

    fn expire_after_update(
        &self,
        _: &Box<[u8]>,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn concurrent_loads_are_one_and_share_its_answer_also_when_it_is_an_error() {
        let cache: Cache<u32, &str> = Cache::new(10, Duration::from_mins(1));
        let asked = AtomicU32::new(0);
        let load = |answer: Result<u32, &'static str>| {
            let asked = &asked;
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                answer
            }
        };
        let failed =
            futures::join!(cache.get_or_load(b"k", load(Err("down"))), cache.get_or_load(b"k", load(Ok(1))));
        assert_eq!((failed, asked.swap(0, Ordering::SeqCst)), ((Err("down"), Err("down")), 1));
        let loaded =
            futures::join!(cache.get_or_load(b"k", load(Ok(2))), cache.get_or_load(b"k", load(Ok(3))));
        assert_eq!((loaded, asked.load(Ordering::SeqCst)), ((Ok(2), Ok(2)), 1));
        assert_eq!(cache.get(b"k").await, Some(2));
        cache.invalidate(b"k").await;
        assert_eq!(cache.get(b"k").await, None);
    }

    #[tokio::test]
    async fn an_entry_lives_as_long_as_it_says_and_anew_when_it_is_put_anew() {
        let cache: Cache<u32> = Cache::new(10, Duration::from_mins(1));
        let short = async { Ok((1, Duration::from_millis(20))) };
        assert_eq!(cache.get_or_load_for(b"short", short).await, Ok(1));
        cache.get_or_load_for(b"again", async { Ok((1, Duration::from_millis(20))) }).await.unwrap();
        cache.insert(b"again", 2).await;
        while cache.get(b"short").await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(cache.get(b"again").await, Some(2));
    }
}
