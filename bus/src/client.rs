//! Where a request comes from. Its whole address counts while it is in hand, and is kept nowhere: it may be a person's.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Who a client is while its request is in hand: an IPv4 address, or the /64 of an IPv6 address, which is one customer's.
///
/// Cannot be printed, so that it stands in no log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddress(IpAddr);

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// What is no address counts as one and the same client.
impl From<&str> for ClientAddress {
    fn from(text: &str) -> Self {
        text.parse().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)).into()
    }
}

/// The network a request came from, as far as it is kept: the /24 of an IPv4 address, the /48 of an IPv6 address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum Network {
    V4([u8; 3]),
    V6([u16; 3]),
    #[default]
    Unknown,
}

impl From<ClientAddress> for Network {
    fn from(ClientAddress(address): ClientAddress) -> Self {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Self::Unknown,
            IpAddr::V6(address) => {
                let [a, b, c, ..] = address.segments();
                Self::V6([a, b, c])
            }
        }
    }
}

/// Reads a network, or a whole address, which is what earlier versions kept.
impl From<&str> for Network {
    fn from(text: &str) -> Self {
        ClientAddress::from(text.split_once('/').map_or(text, |(address, _)| address)).into()
    }
}

impl From<String> for Network {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl std::str::FromStr for Network {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4([a, b, c]) => write!(f, "{}/24", Ipv4Addr::new(a, b, c, 0)),
            Self::V6([a, b, c]) => write!(f, "{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_64_and_what_is_kept_is_a_24_or_a_48() {
        for (one, same, other, kept) in [
            ("192.0.2.7", "::ffff:192.0.2.7", "192.0.2.8", "192.0.2.0/24"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", "2001:db8:1:3::1", "2001:db8:1::/48"),
            ("unknown", "", "127.0.0.1", "unknown"),
        ] {
            let client = ClientAddress::from;
            assert!(client(one) == client(same) && client(one) != client(other), "{one}");
            let network: Network = client(one).into();
            assert_eq!(network.to_string(), kept);
            // what was kept, whole or not, is read as what is kept today
            for text in [one, same, kept] {
                assert_eq!(Network::from(text), network, "{text}");
            }
            let stored = serde_json::to_string(&network).unwrap();
            assert_eq!(serde_json::from_str::<Network>(&stored).unwrap(), network);
        }
    }
}
