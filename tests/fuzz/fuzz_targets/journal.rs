//! Whatever is on a till's disk: reading its journal never panics, takes nothing twice, and what is whole reads back the
//! same from where it stands, alone or without what is damaged around it.

#![no_main]

use kassa::till::journal::{State, encode, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // As bytes, and as whole entries with something in between.
    let journal = read(bytes);
    assert!(journal.end <= bytes.len());
    let mut end = 0;
    for (at, length, entry) in &journal.entries {
        assert!(*at >= end, "entries overlap");
        end = at + length;
        let alone = read(&bytes[*at..end]);
        assert_eq!((alone.entries.len(), alone.end, alone.damaged.len()), (1, *length, 0));
        assert_eq!(&alone.entries[0].2, entry);
    }
    assert_eq!(end, journal.end);
    assert!(journal.damaged.iter().all(|at| *at < journal.end));
    let entries: Vec<_> = journal.entries.iter().map(|(_, _, entry)| entry.clone()).collect();
    let anew: Vec<u8> = entries.iter().flat_map(encode).collect();
    let again = read(&anew);
    assert!(again.damaged.is_empty() && again.end == anew.len());
    assert_eq!(again.entries.into_iter().map(|(_, _, entry)| entry).collect::<Vec<_>>(), entries);
    let state = State::of(bytes);
    assert!(state.waiting.len() as u64 <= state.journalled);
});
