//! Journals as they were written before they were `SQLite`'s: entries one after the other, each with its length and CRC-32 in
//! four bytes each, the lowest first, and then its JSON. They are read once, by the till that takes them over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kassa_bus::SaleId;
use serde::Deserialize;

use super::{Refusal, Rung};

#[derive(Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
enum Entry {
    Sale { seq: u64, sale_id: SaleId, at: Timestamp, body: String },
    Accepted { sale_id: SaleId },
    Refused { sale_id: SaleId, status: u16, detail: String },
    Before { next_seq: u64, journalled: u64, accepted: u64 },
}

const HEAD: usize = 8;

/// How an entry's JSON begins.
const BEGIN: &[u8] = br#"{"is":""#;

/// What an old journal comes to.
#[derive(Default)]
pub struct Old {
    pub next_seq: u64,
    pub journalled: u64,
    pub sent: u64,
    /// What is not answered with yes, in the order it was rung up. One that was refused may have lost its body.
    pub open: Vec<(Rung, Option<Refusal>)>,
    /// Places where something else stands than was written. What was being written when the till died is one.
    pub damaged: u64,
}

/// Reads an old journal. Whatever the bytes are, what is whole is read, also behind what is not.
#[must_use]
pub fn read(bytes: &[u8]) -> Old {
    let mut old = Old { next_seq: 1, ..Old::default() };
    let mut open: BTreeMap<SaleId, (Rung, Option<Refusal>)> = BTreeMap::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some((length, entry)) = whole(&bytes[at..]) else {
            old.damaged += 1;
            match next(&bytes[at..]) {
                Some(ahead) => at += ahead,
                None => break,
            }
            continue;
        };
        at += length;
        match entry {
            Entry::Sale { seq, sale_id, at, body } => {
                old.next_seq = old.next_seq.max(seq.saturating_add(1));
                old.journalled = old.journalled.saturating_add(1);
                open.insert(sale_id.clone(), (Rung { seq, sale_id, at, body: Some(body) }, None));
            }
            Entry::Accepted { sale_id } => {
                old.sent = old.sent.saturating_add(open.remove(&sale_id).is_some().into());
            }
            Entry::Refused { sale_id, status, detail } => {
                let lost = Rung { seq: 0, sale_id: sale_id.clone(), at: Timestamp::UNIX_EPOCH, body: None };
                open.entry(sale_id).or_insert((lost, None)).1 = Some(Refusal { status, detail });
            }
            Entry::Before { next_seq, journalled, accepted } => {
                old.next_seq = old.next_seq.max(next_seq);
                old.journalled = old.journalled.saturating_add(journalled);
                old.sent = old.sent.saturating_add(accepted);
            }
        }
    }
    old.open = open.into_values().collect();
    old.open.sort_by_key(|(sale, _)| sale.seq);
    old
}

/// The entry that these bytes begin with, and its length.
fn whole(bytes: &[u8]) -> Option<(usize, Entry)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let json = rest.get(..length)?;
    (crc32fast::hash(json) == u32::from_le_bytes(*sum))
        .then(|| Some((HEAD + length, serde_json::from_slice(json).ok()?)))?
}

/// How far ahead the next whole entry is.
fn next(bytes: &[u8]) -> Option<usize> {
    let begins = |at: &usize| bytes[at + HEAD..].starts_with(BEGIN) && whole(&bytes[*at..]).is_some();
    (1..bytes.len().saturating_sub(HEAD)).find(begins)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn written(entry: &Value) -> Vec<u8> {
        let json = entry.to_string().replacen('{', "", 1);
        // The field by which an entry is told stood first.
        let is = entry["is"].as_str().unwrap_or_default();
        let json = format!(r#"{{"is":"{is}",{}"#, json.replacen(&format!(r#","is":"{is}""#), "", 1));
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        [&length[..], &crc32fast::hash(json.as_bytes()).to_le_bytes(), json.as_bytes()].concat()
    }

    fn entries() -> Vec<Vec<u8>> {
        let sale = |n: u64| json!({"is": "sale", "seq": n, "sale_id": format!("{n}-20261122"), "at": "2026-11-22T12:00:00Z", "body": "closed"});
        let of = |is: &str, n: u64| json!({"is": is, "sale_id": format!("{n}-20261122"), "status": 404, "detail": "no such shop"});
        let before = json!({"is": "before", "next_seq": 8, "journalled": 7, "accepted": 6});
        let all = [before, of("refused", 7), sale(8), sale(9), sale(10), of("accepted", 8), of("refused", 9)];
        all.iter().map(written).collect()
    }

    fn told(old: &Old) -> Vec<(&str, bool, bool)> {
        old.open
            .iter()
            .map(|(sale, refusal)| (sale.sale_id.as_str(), sale.body.is_some(), refusal.is_some()))
            .collect()
    }

    #[test]
    fn what_an_old_journal_holds_is_taken_over_whole() {
        let old = read(&entries().concat());
        assert_eq!((old.next_seq, old.journalled, old.sent, old.damaged), (11, 10, 7, 0));
        assert_eq!(
            told(&old),
            [("7-20261122", false, true), ("9-20261122", true, true), ("10-20261122", true, false)]
        );
    }

    #[test]
    fn what_was_damaged_or_half_written_hides_nothing_else() {
        let mut entries = entries();
        let last = entries[3].len() - 1;
        entries[3][last] ^= 1;
        let mut bytes = entries.concat();
        bytes.extend(&written(&json!({"is": "accepted", "sale_id": "10-20261122"}))[..20]);
        let old = read(&bytes);
        assert_eq!((old.next_seq, old.sent, old.damaged), (11, 7, 2));
        assert_eq!(
            told(&old),
            [("7-20261122", false, true), ("9-20261122", false, true), ("10-20261122", true, false)]
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
            let _ = read(&bytes);
            let mut entries = entries().concat();
            let at = at.index(entries.len());
            entries.splice(at..at, bytes);
            // At most one entry is hit, and the largest tells of seven sales.
            prop_assert!(read(&entries).journalled >= 3);
        }
    }
}
