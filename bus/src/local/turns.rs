//! A queue in which shops take turns: whoever has much in it keeps no other waiting for more than a batch.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

pub(super) struct Turns<T> {
    waiting: Mutex<Waiting<T>>,
    more: Notify,
}

struct Waiting<T> {
    /// What each shop has waiting, in the order it came.
    of: HashMap<String, VecDeque<T>>,
    /// The shops that have something waiting, the next first.
    turns: VecDeque<String>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        let waiting = Mutex::new(Waiting { of: HashMap::new(), turns: VecDeque::new() });
        Self { waiting, more: Notify::new() }
    }
}

impl<T> Turns<T> {
    pub(super) fn put(&self, shop: String, what: T) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { of, turns } = &mut *waiting;
        let queue = of.entry(shop.clone()).or_default();
        if queue.is_empty() {
            turns.push_back(shop);
        }
        queue.push_back(what);
        drop(waiting);
        self.more.notify_one();
    }

    /// Waits until there is something, and takes so much at most: one of each shop in turn.
    pub(super) async fn take(&self, most: usize) -> Vec<T> {
        loop {
            let taken = self.taken(most);
            if !taken.is_empty() {
                return taken;
            }
            self.more.notified().await;
        }
    }

    fn taken(&self, most: usize) -> Vec<T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { of, turns } = &mut *waiting;
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(shop) = turns.pop_front()
        {
            let Some(queue) = of.get_mut(&shop) else { continue };
            taken.extend(queue.pop_front());
            if queue.is_empty() {
                of.remove(&shop);
            } else {
                turns.push_back(shop);
            }
        }
        if !turns.is_empty() {
            // For another worker.
            self.more.notify_one();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn shops_take_turns_and_each_keeps_its_order() {
        let queue = Turns::default();
        for n in 0..1_000 {
            queue.put("busy".into(), ("busy", n));
        }
        queue.put("one".into(), ("one", 0));
        queue.put("two".into(), ("two", 0));
        queue.put("two".into(), ("two", 1));
        let first = queue.take(4).await;
        assert_eq!(first, [("busy", 0), ("one", 0), ("two", 0), ("busy", 1)]);
        queue.put("one".into(), ("one", 1));
        assert_eq!(queue.take(3).await, [("two", 1), ("busy", 2), ("one", 1)]);
        assert_eq!(queue.take(2_000).await, (3..1_000).map(|n| ("busy", n)).collect::<Vec<_>>());
        // Of whoever has nothing more there, nothing is kept.
        assert!(queue.waiting.lock().unwrap().of.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn several_workers_take_everything_once() {
        let queue = Arc::new(Turns::default());
        let worker = || {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                let mut all = Vec::new();
                while !all.contains(&usize::MAX) {
                    all.extend(queue.take(3).await);
                }
                all
            })
        };
        let workers: Vec<_> = (0..4).map(|_| worker()).collect();
        for n in 0..1_000 {
            queue.put((n % 7).to_string(), n);
            if n % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        for worker in 0..40 {
            queue.put(format!("end {worker}"), usize::MAX);
        }
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.unwrap());
        }
        all.extend(queue.taken(10_000));
        all.retain(|n| *n != usize::MAX);
        all.sort_unstable();
        assert_eq!(all, (0..1_000).collect::<Vec<_>>());
    }
}
