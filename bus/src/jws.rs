use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL64;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use crate::TillId;
use crate::json::object;

const ALG: &str = "EdDSA";
const SIGNATURE_BYTES: usize = 64;

/// A signed content taken apart: a compact JWS (RFC 7515 section 3.1) with `EdDSA` over Ed25519 (RFC 8037 section 3.1),
/// the only algorithm taken.
///
/// Has no `Debug`: the payload is a sale in plaintext.
pub struct Jws<'a> {
    /// Header and payload as sent, which is what is signed.
    signed: &'a str,
    /// The till it says it is signed by.
    pub till: TillId,
    payload: Zeroizing<Vec<u8>>,
    signature: [u8; SIGNATURE_BYTES],
}

/// What of a JWS's form is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    #[error("a compact JWS has three parts separated by dots, this has {0}")]
    Parts(usize),
    #[error("the {0} is not base64url without padding")]
    Base64(&'static str),
    #[error("the protected header is not a JSON object with the strings alg and kid")]
    Header,
    #[error("the protected header's alg must be EdDSA")]
    Algorithm,
    #[error("the protected header has {0}, which is not supported")]
    Unsupported(&'static str),
    #[error("the protected header's kid: {0}")]
    Kid(String),
    #[error("the signature must have 64 bytes")]
    Length,
}

/// JSON may escape any character, so a member's text is not always the one that was sent.
#[derive(Serialize, Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(default, deserialize_with = "present", skip_serializing)]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present", skip_serializing)]
    b64: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present", skip_serializing)]
    jwk: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present", skip_serializing)]
    jku: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present", skip_serializing)]
    x5c: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present", skip_serializing)]
    x5u: Option<IgnoredAny>,
}

/// A member that is there is there, whatever its value: `null` as well.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<IgnoredAny>, D::Error> {
    IgnoredAny::deserialize(value).map(Some)
}

impl<'a> Jws<'a> {
    /// Takes a compact JWS apart and checks its form. Needs no key.
    ///
    /// # Errors
    /// The first thing wrong, from left to right.
    pub fn parse(compact: &'a str) -> Result<Self, JwsError> {
        let parts: Vec<&str> = compact.split('.').take(4).collect();
        let &[header, payload, signature] = parts.as_slice() else {
            return Err(JwsError::Parts(compact.split('.').count()));
        };
        let decode = |name, part: &str| URL64.decode(part).map_err(|_| JwsError::Base64(name));
        let till = check_header(&decode("protected header", header)?)?;
        let signed = &compact[..header.len() + 1 + payload.len()];
        let payload = Zeroizing::new(decode("payload", payload)?);
        let signature = decode("signature", signature)?.try_into().map_err(|_| JwsError::Length)?;
        Ok(Self { signed, till, payload, signature })
    }

    /// Whether this key signed it.
    #[must_use]
    pub fn is_by(&self, key: &SigningKey) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, key.0);
        key.verify(self.signed.as_bytes(), &self.signature).is_ok()
    }

    /// The payload, to be trusted only once [`Jws::is_by`] said yes.
    #[must_use]
    pub fn into_payload(self) -> Zeroizing<Vec<u8>> {
        self.payload
    }
}

fn check_header(json: &[u8]) -> Result<TillId, JwsError> {
    let header: Header = object(json).map_err(|_| JwsError::Header)?;
    if header.alg != ALG {
        return Err(JwsError::Algorithm);
    }
    // Keys come from the registry, never from whoever signs.
    let unsupported = [
        (header.crit.is_some(), "crit"),
        (header.b64.is_some(), "b64"),
        (header.jwk.is_some(), "jwk"),
        (header.jku.is_some(), "jku"),
        (header.x5c.is_some(), "x5c"),
        (header.x5u.is_some(), "x5u"),
    ];
    if let Some((_, name)) = unsupported.into_iter().find(|(there, _)| *there) {
        return Err(JwsError::Unsupported(name));
    }
    header.kid.parse().map_err(|e| JwsError::Kid(format!("{e}")))
}

/// A till's public key: Ed25519 (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SigningKey([u8; ED25519_PUBLIC_KEY_LEN]);

/// A text that is not a till's public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a till's key is a JWK with kty OKP, crv Ed25519 and x, 32 bytes in base64url (RFC 8037)")]
pub struct InvalidSigningKey;

impl SigningKey {
    /// From a JWK's `x`.
    ///
    /// # Errors
    /// [`InvalidSigningKey`].
    pub fn from_x(x: &str) -> Result<Self, InvalidSigningKey> {
        let bytes = URL64.decode(x).map_err(|_| InvalidSigningKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidSigningKey)
    }

    /// A JWK's `x`.
    #[must_use]
    pub fn x(&self) -> String {
        URL64.encode(self.0)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.x())
    }
}

/// As a JWK (RFC 8037 section 2). Other members are ignored; a private one (`d`) is refused, as it must not travel.
#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    #[serde(default, skip_serializing)]
    d: Option<IgnoredAny>,
}

impl Serialize for SigningKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Jwk { kty: "OKP".into(), crv: "Ed25519".into(), x: self.x(), d: None }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SigningKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let jwk = Jwk::deserialize(deserializer)?;
        if jwk.d.is_some() {
            return Err(serde::de::Error::custom("this is a private key, which must stay where it is"));
        }
        if jwk.kty != "OKP" || jwk.crv != "Ed25519" {
            return Err(serde::de::Error::custom(InvalidSigningKey));
        }
        Self::from_x(&jwk.x).map_err(serde::de::Error::custom)
    }
}

/// What a till signs with: its name and its private key, which is wiped when dropped (by aws-lc) and never printed.
pub struct Signer {
    pair: Ed25519KeyPair,
    /// The protected header, encoded.
    header: String,
}

impl Signer {
    /// From a private key in PKCS#8 (RFC 8410), of either version.
    ///
    /// # Errors
    /// [`Unspecified`] if it is not an Ed25519 key.
    pub fn new(till: &TillId, pkcs8: &[u8]) -> Result<Self, Unspecified> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| Unspecified)?;
        let header = Header {
            alg: ALG.into(),
            kid: till.as_str().into(),
            crit: None,
            b64: None,
            jwk: None,
            jku: None,
            x5c: None,
            x5u: None,
        };
        let header = URL64.encode(serde_json::to_string(&header).unwrap_or_default());
        Ok(Self { pair, header })
    }

    /// A new private key in PKCS#8, version 1 (RFC 5208), which every library reads; not all do version 2 (RFC 5958), which
    /// repeats the public key.
    ///
    /// # Errors
    /// [`Unspecified`] if there is no randomness.
    pub fn new_key() -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let pair = Ed25519KeyPair::generate().map_err(|_| Unspecified)?;
        Ok(Zeroizing::new(pair.to_pkcs8v1().map_err(|_| Unspecified)?.as_ref().to_vec()))
    }

    /// The private key as a JWK (RFC 8037 section 2), which clients in other languages take: as secret as the key's file.
    ///
    /// # Errors
    /// [`Unspecified`] if the key cannot be given.
    pub fn private_jwk(&self) -> Result<Zeroizing<String>, Unspecified> {
        let seed = self.pair.seed()?;
        let seed: Curve25519SeedBin = seed.as_be_bytes()?;
        let d = Zeroizing::new(URL64.encode(seed.as_ref()));
        Ok(Zeroizing::new(format!(
            r#"{{"kty":"OKP","crv":"Ed25519","x":"{}","d":"{}"}}"#,
            self.key().x(),
            *d
        )))
    }

    #[must_use]
    pub fn key(&self) -> SigningKey {
        let mut key = [0; ED25519_PUBLIC_KEY_LEN];
        key.copy_from_slice(self.pair.public_key().as_ref());
        SigningKey(key)
    }

    /// Signs one content as a compact JWS.
    #[must_use]
    pub fn sign(&self, content: &[u8]) -> Zeroizing<String> {
        let mut compact = Zeroizing::new(String::with_capacity(self.header.len() + content.len() * 2 + 100));
        compact.push_str(&self.header);
        compact.push('.');
        URL64.encode_string(content, &mut compact);
        let signature = self.pair.sign(compact.as_bytes());
        compact.push('.');
        URL64.encode_string(signature.as_ref(), &mut compact);
        compact
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signer(till: &str) -> Signer {
        Signer::new(&till.parse().unwrap(), &Signer::new_key().unwrap()).unwrap()
    }

    fn with_header(header: &str) -> String {
        let jws = signer("till-1").sign(b"x");
        format!("{}{}", URL64.encode(header), &jws[jws.find('.').unwrap()..])
    }

    #[test]
    fn what_a_till_signed_is_its_own() {
        let (till, other) = (signer("till-1"), signer("till-1"));
        let compact = till.sign(b"three products");
        let jws = Jws::parse(&compact).unwrap();
        assert_eq!(jws.till.as_str(), "till-1");
        assert!(jws.is_by(&till.key()) && !jws.is_by(&other.key()));
        assert_eq!(jws.into_payload().as_slice(), b"three products");
    }

    #[test]
    fn a_header_may_escape_whatever_json_lets_it() {
        let escaped = with_header(r#"{"alg":"\u0045dDSA","kid":"till\u002d1"}"#);
        assert_eq!(Jws::parse(&escaped).unwrap().till.as_str(), "till-1");
    }

    proptest! {
        #[test]
        fn no_character_can_be_changed_unnoticed(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
            let till = signer("till-1");
            let compact = till.sign(b"three products");
            let mut changed = compact.to_string();
            let at = at.index(changed.len());
            prop_assume!(changed[at..=at] != to);
            changed.replace_range(at..=at, &to);
            prop_assert!(!Jws::parse(&changed).is_ok_and(|jws| jws.is_by(&till.key())));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _ = Jws::parse(&text);
        }
    }

    #[test]
    fn other_algorithms_and_keys_in_the_header_are_refused() {
        assert!(Jws::parse(&with_header(r#"{"alg":"EdDSA","kid":"till-1","typ":"JWT"}"#)).is_ok());
        for wrong in [
            r#"{"alg":"none","kid":"till-1"}"#,
            r#"{"alg":"HS256","kid":"till-1"}"#,
            r#"{"alg":"RS256","kid":"till-1"}"#,
            r#"{"alg":"eddsa","kid":"till-1"}"#,
            r#"{"kid":"till-1"}"#,
            r#"{"alg":"EdDSA"}"#,
            r#"{"alg":"EdDSA","kid":""}"#,
            r#"{"alg":"EdDSA","kid":"../till-1"}"#,
            r#"{"alg":"EdDSA","kid":"till-1","kid":"till-2"}"#,
            r#"{"alg":"EdDSA","kid":"till-1","crit":["b64"],"b64":false}"#,
            r#"{"alg":"EdDSA","kid":"till-1","jwk":null}"#,
            r#"{"alg":"EdDSA","kid":"till-1","jku":"https://example.com"}"#,
            r#"{"alg":"EdDSA","kid":"till-1","x5c":[]}"#,
            r#"["EdDSA","till-1"]"#,
            "not json",
        ] {
            assert!(Jws::parse(&with_header(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_of_the_wrong_number_or_length_are_refused() {
        let compact = signer("till-1").sign(b"x");
        let parts: Vec<&str> = compact.split('.').collect();
        assert_eq!(Jws::parse("").err(), Some(JwsError::Parts(1)));
        assert_eq!(Jws::parse(&parts[..2].join(".")).err(), Some(JwsError::Parts(2)));
        assert_eq!(Jws::parse(&format!("{}.x", *compact)).err(), Some(JwsError::Parts(4)));
        for wrong in ["", "AAAA", "=AAA", "%%%%"] {
            assert!(Jws::parse(&[parts[0], parts[1], wrong].join(".")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tills_key_is_a_jwk_and_never_a_private_one() {
        let key = signer("till-1").key();
        let jwk = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<SigningKey>(&jwk).unwrap(), key);
        let private = jwk.replace('}', r#","d":"AAAA"}"#);
        for wrong in [&*private, r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#, r#"{"kty":"RSA"}"#] {
            assert!(serde_json::from_str::<SigningKey>(wrong).is_err(), "{wrong}");
        }
    }
}
