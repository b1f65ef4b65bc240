use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use kassa_bus::SaleId;
use serde::Serialize;

use super::record::{Entry, encode, read};

/// A sale that waits for the shop's answer, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub sale_id: SaleId,
    pub at: Timestamp,
    pub place: u64,
    pub length: usize,
}

/// A sale that the shop refused for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub sale_id: SaleId,
    pub status: u16,
    pub detail: String,
}

/// What a journal's entries come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub next_seq: u64,
    pub journalled: u64,
    pub accepted: u64,
    pub refused: Vec<Refusal>,
    /// By their numbers, in the order they were rung up.
    pub waiting: BTreeMap<u64, Waiting>,
    pub(super) seqs: HashMap<SaleId, u64>,
    /// Bytes at the end that were being written when the till died.
    pub torn: u64,
    /// Entries that the disk has lost.
    pub damaged: usize,
    /// Where the next entry goes.
    pub end: u64,
}

impl State {
    /// Of a journal's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let read = read(bytes);
        let mut state =
            Self { next_seq: 1, damaged: read.damaged.len(), end: read.end as u64, ..Self::default() };
        state.torn = (bytes.len() - read.end) as u64;
        for (place, length, entry) in read.entries {
            match entry {
                Entry::Sale { seq, sale_id, at, body: _ } => {
                    state.rung_up(seq, Waiting { sale_id, at, place: place as u64, length });
                }
                Entry::Accepted { sale_id } => {
                    state.accepted(&sale_id);
                }
                Entry::Refused { sale_id, status, detail } => {
                    state.refused(Refusal { sale_id, status, detail });
                }
                Entry::Before { next_seq, journalled, accepted } => {
                    state.next_seq = state.next_seq.max(next_seq);
                    state.journalled += journalled;
                    state.accepted += accepted;
                }
            }
        }
        state
    }

    pub(super) fn rung_up(&mut self, seq: u64, sale: Waiting) {
        self.next_seq = self.next_seq.max(seq + 1);
        self.journalled += 1;
        self.seqs.insert(sale.sale_id.clone(), seq);
        self.waiting.insert(seq, sale);
    }

    /// Whether it was the first answer to a sale that waits.
    fn answered(&mut self, sale_id: &SaleId) -> bool {
        self.seqs.remove(sale_id).and_then(|seq| self.waiting.remove(&seq)).is_some()
    }

    /// Whether it was the first answer.
    pub(super) fn accepted(&mut self, sale_id: &SaleId) -> bool {
        let first = self.answered(sale_id);
        self.accepted += u64::from(first);
        first
    }

    /// A refusal whose sale is gone since is one all the same.
    pub(super) fn refused(&mut self, refusal: Refusal) {
        self.answered(&refusal.sale_id);
        if !self.refused.iter().any(|known| known.sale_id == refusal.sale_id) {
            self.refused.push(refusal);
        }
    }

    /// The sale that has waited longest.
    #[must_use]
    pub fn oldest(&self) -> Option<&Waiting> {
        self.waiting.values().next()
    }

    /// Bytes of entries that tell nothing which is not told otherwise.
    pub(super) fn settled_bytes(&self, bytes: &[u8]) -> u64 {
        let waiting: u64 = self.waiting.values().map(|sale| sale.length as u64).sum();
        (bytes.len() as u64).saturating_sub(waiting)
    }

    /// The journal without what is done with.
    pub(super) fn anew(&self, bytes: &[u8]) -> Vec<u8> {
        let waiting = self.waiting.len() as u64;
        let before = Entry::Before {
            next_seq: self.next_seq,
            journalled: self.journalled - waiting,
            accepted: self.accepted,
        };
        let mut anew = encode(&before);
        for Refusal { sale_id, status, detail } in &self.refused {
            let (sale_id, detail) = (sale_id.clone(), detail.clone());
            anew.extend(encode(&Entry::Refused { sale_id, status: *status, detail }));
        }
        for Waiting { place, length, .. } in self.waiting.values() {
            let place = usize::try_from(*place).unwrap_or(usize::MAX);
            anew.extend_from_slice(bytes.get(place..place.saturating_add(*length)).unwrap_or_default());
        }
        anew
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let id = |n: u64| -> SaleId { format!("{n}-20261122").parse().unwrap() };
        let sale =
            |n| Entry::Sale { seq: n, sale_id: id(n), at: Timestamp::UNIX_EPOCH, body: "closed".into() };
        let refused = Entry::Refused { sale_id: id(2), status: 404, detail: "no such shop".into() };
        vec![
            sale(1),
            sale(2),
            sale(3),
            Entry::Accepted { sale_id: id(1) },
            Entry::Accepted { sale_id: id(1) },
            refused,
        ]
    }

    #[test]
    fn a_journal_that_is_written_anew_comes_to_the_same() {
        let bytes: Vec<u8> = entries().iter().flat_map(encode).collect();
        let state = State::of(&bytes);
        assert_eq!((state.next_seq, state.journalled, state.accepted), (4, 3, 1));
        assert_eq!((state.refused.len(), state.oldest().unwrap().sale_id.as_str()), (1, "3-20261122"));
        let anew = State::of(&state.anew(&bytes));
        let told = |state: &State| {
            let waiting: Vec<_> =
                state.waiting.iter().map(|(seq, sale)| (*seq, sale.sale_id.clone())).collect();
            (state.next_seq, state.journalled, state.accepted, state.refused.clone(), waiting)
        };
        assert_eq!(told(&anew), told(&state));
    }

    #[test]
    fn a_half_written_end_is_told() {
        let bytes: Vec<u8> = entries().iter().flat_map(encode).collect();
        let state = State::of(&bytes[..bytes.len() - 3]);
        assert!(state.torn > 0 && state.refused.is_empty());
        assert_eq!(state.waiting.len(), 2);
    }
}
