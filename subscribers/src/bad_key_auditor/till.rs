use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use kassa_bus::ShopId;
use kassa_bus::cache::Cache;
use kassa_bus::jwe::{ContentKey, Jwe};
use kassa_bus::jws::Jws;
use kassa_bus::keys::ShopKeys;
use kassa_bus::table::TableError;
use serde::Deserialize;

use super::trial::Permits;

/// Reads which till sealed a sale, with the key it was sealed with. Nothing else of the sale is looked at.
///
/// A till's session has one content key, so a till is looked up once a session.
pub struct Tills {
    keys: Arc<dyn ShopKeys>,
    permits: Arc<Permits>,
    sessions: Cache<Option<Arc<str>>>,
}

const SESSIONS: u64 = 1_000;

/// A little over the hour a till may use one session for.
const SESSION_TIME: Duration = Duration::from_mins(65);

impl Tills {
    #[must_use]
    pub fn new(keys: Arc<dyn ShopKeys>, permits: Arc<Permits>) -> Self {
        let sessions = Cache::new(SESSIONS, SESSION_TIME);
        Self { keys, permits, sessions }
    }

    /// The name of the till, as it says itself; nothing where that cannot be read, or not now.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn till(&self, owner: &ShopId, sealed: &str) -> Result<Option<Arc<str>>, TableError> {
        let Ok(jwe) = Jwe::parse(sealed) else { return Ok(None) };
        if let Some(known) = self.sessions.get(&jwe.encrypted_key).await {
            return Ok(known);
        }
        if !self.permits.take().await? {
            return Ok(None);
        }
        let Ok(key) = self.keys.decrypt(owner, Some(&jwe.kid), &jwe.encrypted_key).await else {
            return Ok(None);
        };
        let Ok(key) = ContentKey::new(&key) else { return Ok(None) };
        let session = jwe.encrypted_key.clone();
        let Ok(content) = jwe.open(&key) else { return Ok(None) };
        let till = till_in(&content).map(Arc::from);
        self.sessions.insert(&session, till.clone()).await;
        Ok(till)
    }
}

fn till_in(content: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Inside<'a> {
        #[serde(borrow)]
        till: Cow<'a, str>,
    }
    // What was signed names its till outside. Whether that is true is not asked here.
    if let Some(jws) = std::str::from_utf8(content).ok().and_then(|text| Jws::parse(text).ok()) {
        return Some(jws.till.to_string());
    }
    serde_json::from_slice(content).ok().map(|Inside { till }| till.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kassa_bus::jws::Signer;

    #[test]
    fn of_a_sale_only_the_till_is_read() {
        assert_eq!(till_in(br#"{"sales":[{"x":[1]}],"till":"till-7"}"#).as_deref(), Some("till-7"));
        assert_eq!(till_in(br#"{"till":"\u0041"}"#).as_deref(), Some("A"));
        let signer = Signer::new(&"till-8".parse().unwrap(), &Signer::new_key().unwrap()).unwrap();
        assert_eq!(till_in(signer.sign(b"{}").as_bytes()).as_deref(), Some("till-8"));
        for none in [&b"{}"[..], b"", b"\xff", br#"{"till":7}"#, br#"{"till":null}"#, b"[[[["] {
            assert_eq!(till_in(none), None);
        }
    }
}
