//! Where a shop takes sales.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

/// A shop's address, as `https://sales.example.com`. The whole address of a post, as `kassa up` prints it, is taken for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopUrl {
    /// Without what is posted to, and without a slash at the end.
    base: String,
    host: String,
    port: u16,
}

/// A text that is no shop's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no shop's address: {0}; it is as http://127.0.0.1:8080")]
pub struct InvalidUrl(String);

impl FromStr for ShopUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let invalid = |why: &str| Err(InvalidUrl(why.to_owned()));
        let url: Url = match text.trim().parse() {
            Ok(url) => url,
            Err(why) => return invalid(&why.to_string()),
        };
        if !matches!(url.scheme(), "http" | "https") {
            return invalid("it begins with neither http:// nor https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("a shop asks for no user and no password");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return invalid("it has a ? or #");
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return invalid("it names no host");
        };
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/shop").unwrap_or(path).trim_end_matches('/');
        let base = format!("{}{path}", url.origin().ascii_serialization());
        Ok(Self { base, host: host.to_owned(), port })
    }
}

impl fmt::Display for ShopUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl ShopUrl {
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let address = self.host.trim_matches(['[', ']']).parse::<IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kassa_up_prints_is_the_shops_address() {
        for text in [
            "http://127.0.0.1:8080",
            "http://127.0.0.1:8080/",
            "http://127.0.0.1:8080/shop",
            "HTTP://127.0.0.1:8080/shop/",
        ] {
            assert_eq!(text.parse::<ShopUrl>().unwrap().to_string(), "http://127.0.0.1:8080", "{text}");
        }
        assert_eq!(
            "https://a.example/prod/shop".parse::<ShopUrl>().unwrap().to_string(),
            "https://a.example/prod"
        );
        assert_eq!("https://shop".parse::<ShopUrl>().unwrap().to_string(), "https://shop");
        assert_eq!("https://a.example".parse::<ShopUrl>().unwrap().port(), 443);
    }

    #[test]
    fn a_shop_on_this_machine_is_told_from_others() {
        let is_loopback = |url: &str| url.parse::<ShopUrl>().unwrap().is_loopback();
        for here in [
            "http://localhost:1",
            "https://LOCALHOST",
            "http://127.1.2.3",
            "http://[::1]:1",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in ["http://192.0.2.1", "http://localhost.example", "http://[2001:db8::1]"] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn what_is_none_is_told_with_why() {
        for text in [
            "",
            "127.0.0.1:8080",
            "localhost",
            "ftp://a.example",
            "http://",
            "http://u:p@a.example",
            "http://a.example/?x",
            "http://a.example/#x",
            "mailto:a@b",
        ] {
            assert!(text.parse::<ShopUrl>().is_err(), "{text}");
        }
    }
}
