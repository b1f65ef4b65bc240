//! Whoever asks much that brings nothing new is answered late: sales that are there, sales that are none, questions.
//!
//! New sales never wait, not even those of the same address. So whoever posts the same without end, and a till beside
//! it that comes again a few times, both get their answers; and the first has no more of the processor than is left over.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kassa_bus::ClientAddress;
use tokio::time::Instant;

/// So much later than the one before is an answer given: 200 a second, and fewer to requests that are large.
const EACH: Duration = Duration::from_millis(5);

/// So many bytes of a request count for one more.
const BYTES: usize = 4 * 1024;

/// But for so many answers, which are given at once after a time of which each gives back one.
const AT_ONCE: u32 = 1_000;

/// Nobody waits longer.
const LONGEST: Duration = Duration::from_secs(1);

/// So many addresses are known before those are forgotten that would not wait now.
const MANY: usize = 50_000;

/// The turns of addresses.
#[derive(Default)]
pub struct Pace(Mutex<HashMap<ClientAddress, Instant>>);

impl Pace {
    /// Waits for the turn of an address that sent so many bytes.
    pub async fn turn(&self, client: ClientAddress, bytes: usize) {
        let now = Instant::now();
        let turn = self.take(client, bytes, now);
        if turn > now {
            tokio::time::sleep_until(turn).await;
        }
    }

    /// When it is the address's turn, as of now.
    fn take(&self, client: ClientAddress, bytes: usize, now: Instant) -> Instant {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= MANY {
            turns.retain(|_, paid| *paid > now);
        }
        // All that was given at once is paid back by then.
        let paid = turns.entry(client).or_insert(now);
        let at_once = EACH * AT_ONCE;
        let more = u32::try_from(bytes / BYTES).unwrap_or(AT_ONCE).min(AT_ONCE);
        *paid = (*paid).max(now) + EACH * (1 + more);
        *paid = (*paid).min(now + at_once + LONGEST);
        paid.checked_sub(at_once).unwrap_or(now).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_answers_come_at_once_then_two_hundred_a_second_and_none_after_more_than_a_second() {
        let pace = Pace::default();
        let (one, other) = (ClientAddress::from("192.0.2.1"), ClientAddress::from("192.0.2.2"));
        let now = Instant::now();
        assert!((0..AT_ONCE).all(|_| pace.take(one, 100, now) == now));
        let waits: Vec<_> = (0..1_000).map(|_| pace.take(one, 100, now) - now).collect();
        assert!((1..=200).zip(&waits).all(|(n, wait)| *wait == EACH * n));
        assert!(waits[200..].iter().all(|wait| *wait == LONGEST));
        // Nobody else waits,
        assert_eq!(pace.take(other, 0, now), now);
        // unless what it sends is large,
        assert_eq!(pace.take(other, 400 * BYTES, now), now);
        assert_eq!(pace.take(other, 600 * BYTES, now), now + 3 * EACH);
        assert_eq!(pace.take(other, usize::MAX, now), now + LONGEST);
        // and who paused has what the pause gives back.
        let later = now + LONGEST + 10 * EACH;
        assert!((0..10).all(|_| pace.take(one, 0, later) == later));
        assert_eq!(pace.take(one, 0, later), later + EACH);
    }

    #[test]
    fn who_would_not_wait_is_forgotten() {
        let pace = Pace::default();
        let now = Instant::now();
        for n in 0..u32::try_from(MANY).unwrap() + 10 {
            pace.take(std::net::IpAddr::from(n.to_be_bytes()).into(), 0, now + EACH * n);
        }
        assert!(pace.0.lock().unwrap().len() < 20);
    }
}
