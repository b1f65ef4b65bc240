use kassa_bus::SaleId;
use serde::{Deserialize, Serialize};

/// What a till writes down, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Entry {
    /// A sale that was rung up: closed, as it is to be posted.
    Sale { seq: u64, sale_id: SaleId, at: jiff::Timestamp, body: String },
    /// The shop said yes.
    Accepted { sale_id: SaleId },
    /// The shop said no, for good.
    Refused { sale_id: SaleId, status: u16, detail: String },
    /// What earlier entries came to, which are gone since.
    Before { next_seq: u64, journalled: u64, accepted: u64 },
}

/// Length and checksum, before each entry.
const HEAD: usize = 8;

/// How an entry's JSON begins.
const BEGIN: &[u8] = br#"{"is":""#;

/// An entry is no longer than a request, and a little.
const LONGEST: usize = 256 * 1024;

/// The bytes of an entry: its length and its CRC-32, both in four bytes, the lowest first, and then its JSON.
#[must_use]
pub fn encode(entry: &Entry) -> Vec<u8> {
    // Plain types with string keys: serde_json cannot fail on them.
    let json = serde_json::to_vec(entry).unwrap_or_default();
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEAD + json.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
    bytes.extend_from_slice(&json);
    bytes
}

/// What a journal's bytes hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// With the place where each begins, and how long it is.
    pub entries: Vec<(usize, usize, Entry)>,
    /// Where the last whole one ends. What is behind was being written when the till died.
    pub end: usize,
    /// Places that hold something else than was written there: the disk's fault.
    pub damaged: Vec<usize>,
}

/// Reads a journal. Whatever the bytes are, what is whole is read, also behind what is not.
#[must_use]
pub fn read(bytes: &[u8]) -> Read {
    let (mut read, mut at) = (Read::default(), 0);
    loop {
        if let Some((length, entry)) = whole(&bytes[at..]) {
            read.entries.push((at, length, entry));
            at += length;
            read.end = at;
        } else if let Some(ahead) = next_whole(&bytes[at..]) {
            // What has a whole one behind it is no half-written end.
            read.damaged.push(at);
            at += ahead;
        } else {
            return read;
        }
    }
}

/// The entry that these bytes begin with, and its length.
fn whole(bytes: &[u8]) -> Option<(usize, Entry)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= LONGEST)?;
    let json = rest.get(..length)?;
    if crc32fast::hash(json) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((HEAD + length, serde_json::from_slice(json).ok()?))
}

/// How far ahead the next whole entry is.
fn next_whole(bytes: &[u8]) -> Option<usize> {
    let begins = |(at, _): &(usize, u8)| bytes[at + HEAD..].starts_with(BEGIN);
    let places = bytes.iter().copied().enumerate().take(bytes.len().saturating_sub(HEAD)).skip(1);
    places.filter(begins).map(|(at, _)| at).find(|at| whole(&bytes[*at..]).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sale(n: u64) -> Entry {
        let sale_id = format!("{n}-20261122").parse().unwrap();
        Entry::Sale {
            seq: n,
            sale_id,
            at: jiff::Timestamp::UNIX_EPOCH,
            body: "x".repeat(usize::try_from(n % 50).unwrap()),
        }
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = prop_oneof![
            (0u64..1000).prop_map(sale),
            (0u64..1000).prop_map(|n| Entry::Accepted { sale_id: format!("{n}-20261122").parse().unwrap() }),
            ".{0,20}".prop_map(|detail| Entry::Refused {
                sale_id: "1-20261122".parse().unwrap(),
                status: 400,
                detail
            }),
        ];
        prop::collection::vec(entry, 0..12)
    }

    fn written(entries: &[Entry]) -> Vec<u8> {
        entries.iter().flat_map(encode).collect()
    }

    fn told(bytes: &[u8]) -> Vec<Entry> {
        read(bytes).entries.into_iter().map(|(_, _, entry)| entry).collect()
    }

    proptest! {
        /// A till may die at any byte.
        #[test]
        fn what_was_written_up_to_any_byte_reads_back_as_the_whole_entries_before_it(
            entries in entries(),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = written(&entries);
            prop_assert_eq!(&told(&bytes), &entries);
            let cut = cut.index(bytes.len() + 1);
            let part = read(&bytes[..cut]);
            let whole = part.entries.len();
            prop_assert_eq!(part.damaged, Vec::<usize>::new());
            prop_assert_eq!(written(&entries[..whole]).len(), part.end);
            prop_assert!(part.end <= cut && (whole == entries.len() || written(&entries[..=whole]).len() > cut));
        }

        #[test]
        fn a_byte_that_changed_is_noticed_and_nothing_else_is_made_of_it(
            entries in entries(),
            at in any::<prop::sample::Index>(),
            by in 1u8..=255,
        ) {
            prop_assume!(!entries.is_empty());
            let mut bytes = written(&entries);
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            let read = told(&bytes);
            prop_assert!(read.len() < entries.len());
            prop_assert!(read.iter().all(|entry| entries.contains(entry)));
        }

        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let read = read(&bytes);
            prop_assert!(read.end <= bytes.len());
        }
    }

    #[test]
    fn what_is_damaged_in_the_middle_is_told_and_what_is_behind_it_read() {
        let whole = written(&[sale(1), sale(2), sale(3)]);
        let second = encode(&sale(1)).len();
        // Of its length, of its checksum, of itself.
        for at in 0..encode(&sale(2)).len() {
            let mut bytes = whole.clone();
            bytes[second + at] ^= 0x81;
            let read = read(&bytes);
            assert_eq!(read.damaged, [second], "byte {at}");
            assert_eq!((told(&bytes), read.end), (vec![sale(1), sale(3)], bytes.len()));
        }
    }
}
