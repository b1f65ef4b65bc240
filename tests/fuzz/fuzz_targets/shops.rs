//! Whatever is in a `shops.toml`: reading it never panics; what it declares has shops, each once, with time zones there are;
//! what is wrong is told in a few lines.

#![no_main]

use std::collections::HashSet;

use kassa::shops::Shops;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Shops::parse(text, "shops.toml") {
        Ok(shops) => {
            let ids: HashSet<_> = shops.shops.iter().map(|shop| &shop.id).collect();
            assert!(!ids.is_empty() && ids.len() == shops.shops.len());
            assert!(shops.shops.iter().all(|shop| jiff::tz::TimeZone::get(&shop.time_zone).is_ok()));
            let items: HashSet<_> = shops.items.iter().map(|item| item.item_no.to_string()).collect();
            assert_eq!(items.len(), shops.items.len());
        }
        Err(error) => assert!(error.to_string().starts_with("shops.toml")),
    }
});
