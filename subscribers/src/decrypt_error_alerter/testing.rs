use kassa_bus::registry::Shop;
use kassa_bus::tills::Unsigned;

/// AMIS1, of that name and language.
pub fn shop(name: &str, language: &str) -> Shop {
    Shop {
        shop_id: "AMIS1".parse().unwrap(),
        name: name.into(),
        time_zone: "Europe/Amsterdam".into(),
        language: language.into(),
        manager_phone: Some("+31600000001".into()),
        manager_email: None,
        quiet_hours: None,
        opening_hours: None,
        sms_budget: 30,
        unsigned: Unsigned::Accept,
        keys: Vec::new(),
    }
}
