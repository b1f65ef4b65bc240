//! Which site a request is meant for, and which one it comes from. A browser sends whatever page it shows to any address: by
//! these two headers a page of another site is told from one of ours, and from a program.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, header};

/// The names a listener answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// This machine's. Another one only pretends to be (DNS rebinding).
    Loopback,
    /// Any: others reach it by names that it is not told.
    Any,
}

/// Why a request is not for us.
const ANOTHER_HOST: &str = "this listener is on loopback and answers to localhost, 127.0.0.1 and [::1] only; to be reached from \
     elsewhere it is started with --listen and that address";
const ANOTHER_SITE: &str = "a page of another site asks; Origin has to be the site that Host names";

impl Names {
    /// Of a listener that is bound to this address.
    #[must_use]
    pub fn of(bound: SocketAddr) -> Self {
        if bound.ip().to_canonical().is_loopback() { Self::Loopback } else { Self::Any }
    }

    /// Says no to what is meant for another host, or comes from a page of another site.
    ///
    /// # Errors
    /// Why.
    pub fn check(self, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok()?.parse().ok());
        // An absolute address counts for more than the header (RFC 9112 section 3.2.2).
        let named: Option<Authority> = uri.authority().cloned().or(host);
        let is_ours = self == Self::Any || named.as_ref().is_some_and(is_this_machine);
        if hosts.next().is_some() || !is_ours {
            return Err(ANOTHER_HOST);
        }
        let same = |origin: &str| named.as_ref().is_some_and(|named| is_origin(origin, named));
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if origins.all(|origin| origin.to_str().is_ok_and(same)) { Ok(()) } else { Err(ANOTHER_SITE) }
    }
}

fn is_this_machine(authority: &Authority) -> bool {
    let host = authority.host();
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether an `Origin` (RFC 6454) is the site of this authority.
fn is_origin(origin: &str, authority: &Authority) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let default = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let site = |authority: &Authority| {
        (authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(default))
    };
    origin.authority().is_some_and(|origin| site(origin) == site(authority))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn passes(names: Names, uri: &str, headers: &[(HeaderName, &str)]) -> bool {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, value.parse().unwrap());
        }
        names.check(&uri.parse().unwrap(), &all).is_ok()
    }

    #[test]
    fn on_loopback_only_this_machines_own_names_pass() {
        for (bound, names) in [
            ("127.0.0.1:1", Names::Loopback),
            ("[::1]:1", Names::Loopback),
            ("[::ffff:127.0.0.1]:1", Names::Loopback),
            ("0.0.0.0:1", Names::Any),
            ("[::]:1", Names::Any),
            ("192.0.2.1:1", Names::Any),
        ] {
            assert_eq!(Names::of(bound.parse().unwrap()), names, "{bound}");
        }
        let on_loopback = |host| passes(Names::Loopback, "/", &[(header::HOST, host)]);
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:1"] {
            assert!(on_loopback(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.5",
            "0.0.0.0",
            "",
            "@",
            "localhost@evil.example",
        ] {
            assert!(!on_loopback(host), "{host}");
            let absolute = passes(Names::Loopback, "http://evil.example/", &[(header::HOST, "localhost")]);
            assert!(!absolute && passes(Names::Any, "/", &[(header::HOST, host)]));
        }
        assert!(!passes(Names::Loopback, "/", &[]) && passes(Names::Any, "/", &[]));
        let two = [(header::HOST, "localhost"), (header::HOST, "evil.example")];
        assert!(!passes(Names::Loopback, "/", &two) && !passes(Names::Any, "/", &two));
    }

    #[test]
    fn a_page_of_another_site_does_not_pass_wherever_a_listener_is_bound() {
        let from =
            |names, host, origin| passes(names, "/", &[(header::HOST, host), (header::ORIGIN, origin)]);
        for names in [Names::Loopback, Names::Any] {
            for (host, origin) in [
                ("localhost:8080", "http://localhost:8080"),
                ("LocalHost", "http://localhost:80"),
                ("localhost:443", "https://localhost"),
                ("[::1]:8080", "http://[::1]:8080"),
            ] {
                assert!(from(names, host, origin), "{host} {origin}");
            }
            for origin in [
                "http://evil.example",
                "http://localhost:3000",
                "http://127.0.0.1:8080",
                "null",
                "",
                "file://",
            ] {
                assert!(!from(names, "localhost:8080", origin), "{origin}");
            }
        }
    }
}
