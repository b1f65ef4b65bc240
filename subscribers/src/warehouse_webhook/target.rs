use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

/// Where sales may be sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    pub allow_http: bool,
    pub allow_private: bool,
}

impl Rules {
    /// The target a setting names. A host that is an address is judged here: no name is looked up for it.
    ///
    /// # Errors
    /// What it must be instead.
    pub fn target(self, text: &str) -> Result<Url, &'static str> {
        let url = Url::parse(text).map_err(|_| "a URL")?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            _ => return Err("an https URL (WAREHOUSE_ALLOW_HTTP=true permits http)"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL without user and password; deliveries are signed");
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if host.parse().is_ok_and(|address| !self.allows(address)) {
            return Err("a URL of a public address (WAREHOUSE_ALLOW_PRIVATE=true permits others)");
        }
        Ok(url)
    }

    /// Whether a connection to this address may be made.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        self.allow_private || is_public(address)
    }
}

/// What IANA's registry of special-purpose addresses does not call globally reachable, and multicast
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>).
const SPECIAL_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),           // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // carrier-grade NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local, instance metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // relays of 6to4
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, broadcast
];

/// The part of IPv6 that is given out to networks; link-local, unique-local, multicast and the rest are
/// outside it.
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is special within [`GLOBAL_UNICAST`]. Teredo and 6to4 hold an IPv4 address; both are gone from the
/// internet, so none is looked at.
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// IPv4 addresses behind a network's NAT64 (RFC 6052): in a network that has IPv6 only, every target that
/// has IPv4 only looks so.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4
        .iter()
        .any(|&(network, length)| (address.to_bits() ^ network.to_bits()).leading_zeros() >= length)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let within = |(network, length): (Ipv6Addr, u32)| {
        (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
    };
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    if within(NAT64) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    within(GLOBAL_UNICAST) && !SPECIAL_V6.into_iter().any(within)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRICT: Rules = Rules { allow_http: false, allow_private: false };

    #[test]
    fn only_https_without_credentials_and_not_to_a_private_address() {
        for right in
            ["https://warehouse.example/sales?a=1", "https://1.1.1.1:8443/", "https://[2606:4700::1]"]
        {
            assert!(STRICT.target(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "warehouse.example",
            "http://warehouse.example/",
            "ftp://warehouse.example/",
            "file:///etc/passwd",
            "https://user@warehouse.example/",
            "https://user:secret@warehouse.example/",
            "https://:secret@warehouse.example/",
            "https://",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://0/",
            "https://169.254.169.254/latest/meta-data/",
            "https://①②⑦.0.0.1/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[fd00:ec2::254]/",
        ] {
            assert!(STRICT.target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_permitted_by_parameter_is_permitted_and_no_more() {
        let http = Rules { allow_http: true, ..STRICT };
        assert!(http.target("http://warehouse.example/").is_ok());
        assert!(http.target("http://127.0.0.1/").is_err());
        let private = Rules { allow_private: true, ..STRICT };
        assert!(private.target("https://10.0.0.1/").is_ok());
        assert!(private.target("http://10.0.0.1/").is_err());
        let all = Rules { allow_http: true, allow_private: true };
        assert!(all.target("http://127.0.0.1:8090/sales").is_ok());
        assert!(all.target("http://user@127.0.0.1/").is_err());
    }

    #[test]
    fn networks_end_where_they_end() {
        for (address, public) in [
            ("9.255.255.255", true),
            ("10.0.0.0", false),
            ("10.255.255.255", false),
            ("11.0.0.0", true),
            ("100.63.255.255", true),
            ("100.64.0.0", false),
            ("100.127.255.255", false),
            ("100.128.0.0", true),
            ("172.15.255.255", true),
            ("172.16.0.0", false),
            ("172.31.255.255", false),
            ("172.32.0.0", true),
            ("192.168.0.1", false),
            ("198.17.255.255", true),
            ("198.19.255.255", false),
            ("223.255.255.255", true),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("0.0.0.0", false),
            ("2600:1f18::1", true),
            ("2001:1ff:ffff::1", false),
            ("2001:200::1", true),
            ("2001:0:7f00:1::", false),
            ("2001:db8::1", false),
            ("2002:0808:0808::1", false),
            ("3fff::1", false),
            ("4000::1", false),
            ("1fff::1", false),
            ("fc00::1", false),
            ("fd12:3456::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("100::1", false),
            ("64:ff9b::808:808", true),
            ("64:ff9b:1::808:808", false),
            ("::808:808", false),
        ] {
            assert_eq!(STRICT.allows(address.parse().unwrap()), public, "{address}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_inside_an_ipv6_one_is_judged_as_itself(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let nat64 = Ipv6Addr::from_bits(NAT64.0.to_bits() | u128::from(bits));
            prop_assert_eq!(is_public_v6(v4.to_ipv6_mapped()), is_public_v4(v4));
            prop_assert_eq!(is_public_v6(nat64), is_public_v4(v4));
            prop_assert!(!is_public_v6(v4.to_ipv6_compatible()));
        }

        /// The standard library's stable judgements are fewer; where it has one, ours is not laxer.
        #[test]
        fn nothing_the_standard_library_calls_special_is_public(bits: u32, wide: u128) {
            let v4 = Ipv4Addr::from_bits(bits);
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!(special && is_public_v4(v4)), "{v4}");
            let v6 = Ipv6Addr::from_bits(wide);
            let special = v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast();
            prop_assert!(!(special && is_public_v6(v6)), "{v6}");
        }
    }
}
