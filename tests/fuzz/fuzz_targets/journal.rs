//! Whatever is on a till's disk where an older version kept its journal: reading it never panics, takes no sale twice, and counts
//! no fewer than it gives.

#![no_main]

use std::collections::BTreeSet;

use kassa::till::journal::old::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let old = read(bytes);
    let ids: BTreeSet<_> = old.open.iter().map(|(sale, _)| sale.sale_id.as_str()).collect();
    assert_eq!(ids.len(), old.open.len());
    let kept = old.open.iter().filter(|(sale, _)| sale.body.is_some()).count() as u64;
    assert!(old.journalled >= kept);
    assert!(old.open.iter().all(|(sale, _)| sale.body.is_none() || sale.seq < old.next_seq || sale.seq == u64::MAX));
});
