use kassa_bus::registry::Shop;
use kassa_bus::text::Language;
use kassa_bus::tills::Unsigned;

use super::incident::Failures;

/// AMIS1, of that name and language.
pub fn shop(name: &str, language: Language) -> Shop {
    Shop {
        shop_id: "AMIS1".parse().unwrap(),
        name: name.into(),
        time_zone: "Europe/Amsterdam".into(),
        language,
        manager_phone: "+31600000001".parse().ok(),
        manager_email: None,
        quiet_hours: None,
        opening_hours: None,
        sms_budget: 30,
        unsigned: Unsigned::Accept,
        keys: Vec::new(),
    }
}

/// So many since then, of these tills.
pub fn failures(count: u64, first: &str, tills: &[&str]) -> Failures {
    let first = first.parse().unwrap();
    let tills = tills.iter().map(|till| till.parse::<kassa_bus::TillId>().unwrap()).collect();
    Failures { count, first, last: first, source: "192.0.2.7".into(), tills }
}
