use crate::Thumbprint;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL64;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use zeroize::Zeroizing;

use crate::json::object;

/// Length of an RSA-2048 ciphertext, in bytes.
pub const RSA_2048_BYTES: usize = 256;

const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// A sealed envelope taken apart: a compact JWE (RFC 7516 section 3.1) with `RSA-OAEP-256` and
/// `A256GCM` (RFC 7518), the only algorithms taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Jwe<'a> {
    /// The protected header as sent, which is what the tag covers.
    header: &'a str,
    /// The key it says it is sealed with.
    pub kid: Thumbprint,
    /// The content key under the shop's public key; the same text for a whole till session.
    pub encrypted_key: Vec<u8>,
    iv: [u8; IV_BYTES],
    /// Ciphertext and, behind it, the tag.
    sealed: Vec<u8>,
}

/// What of a JWE's form is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JweError {
    #[error("a compact JWE has five parts separated by dots, this has {0}")]
    Parts(usize),
    #[error("the {0} is not base64url without padding")]
    Base64(&'static str),
    #[error("the protected header is not a JSON object with the strings alg, enc and kid")]
    Header,
    #[error("the protected header's {name} must be {must}")]
    Algorithm { name: &'static str, must: &'static str },
    #[error("the protected header has {0}, which is not supported")]
    Unsupported(&'static str),
    #[error("the protected header's kid: {0}")]
    Kid(String),
    #[error("the {part} must have {must} bytes")]
    Length { part: &'static str, must: usize },
}

/// JSON may escape any character, so a member's text is not always the one that was sent.
#[derive(Serialize, Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    enc: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(default, deserialize_with = "present", skip_serializing)]
    zip: bool,
    #[serde(default, deserialize_with = "present", skip_serializing)]
    crit: bool,
}

/// Whether a member is there, whatever its value: `null` is as unsupported as any other.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(value).map(|_| true)
}

const ALG: &str = "RSA-OAEP-256";
const ENC: &str = "A256GCM";

impl<'a> Jwe<'a> {
    /// Takes a compact JWE apart and checks its form. Needs no key.
    ///
    /// # Errors
    /// The first thing wrong, from left to right.
    pub fn parse(compact: &'a str) -> Result<Self, JweError> {
        let parts: Vec<&str> = compact.split('.').take(6).collect();
        let &[header, key, iv, ciphertext, tag] = parts.as_slice() else {
            return Err(JweError::Parts(compact.split('.').count()));
        };
        let decode = |name, part: &str| URL64.decode(part).map_err(|_| JweError::Base64(name));
        let kid = check_header(&decode("protected header", header)?)?;
        let encrypted_key = decode("encrypted key", key)?;
        if encrypted_key.len() != RSA_2048_BYTES {
            return Err(JweError::Length { part: "encrypted key", must: RSA_2048_BYTES });
        }
        let iv = decode("initialization vector", iv)?
            .try_into()
            .map_err(|_| JweError::Length { part: "initialization vector", must: IV_BYTES })?;
        let mut sealed = decode("ciphertext", ciphertext)?;
        let tag = decode("authentication tag", tag)?;
        if tag.len() != TAG_BYTES {
            return Err(JweError::Length { part: "authentication tag", must: TAG_BYTES });
        }
        sealed.extend_from_slice(&tag);
        Ok(Self { header, kid, encrypted_key, iv, sealed })
    }

    /// Opens the content.
    ///
    /// # Errors
    /// [`Unspecified`] if the key is another, or header, iv, ciphertext or tag were changed.
    pub fn open(self, key: &ContentKey) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let mut content = Zeroizing::new(self.sealed);
        let nonce = Nonce::assume_unique_for_key(self.iv);
        let length = key.0.open_in_place(nonce, Aad::from(self.header.as_bytes()), &mut content)?.len();
        content.truncate(length);
        Ok(content)
    }
}

fn check_header(json: &[u8]) -> Result<Thumbprint, JweError> {
    let header: Header = object(json).map_err(|_| JweError::Header)?;
    if header.alg != ALG {
        return Err(JweError::Algorithm { name: "alg", must: ALG });
    }
    if header.enc != ENC {
        return Err(JweError::Algorithm { name: "enc", must: ENC });
    }
    if header.zip {
        return Err(JweError::Unsupported("zip"));
    }
    if header.crit {
        return Err(JweError::Unsupported("crit"));
    }
    header.kid.parse().map_err(|e| JweError::Kid(format!("{e}")))
}

/// An AES-256-GCM key. Wiped when dropped (by aws-lc), never printed.
pub struct ContentKey(LessSafeKey);

impl ContentKey {
    /// # Errors
    /// [`Unspecified`] unless there are 32 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, Unspecified> {
        UnboundKey::new(&AES_256_GCM, bytes).map(|k| Self(LessSafeKey::new(k)))
    }
}

/// What a till seals a run of sales with: one content key, wrapped once.
///
/// A random 96-bit iv per sale is safe far beyond the sales a session may have (NIST SP 800-38D
/// section 8.3 allows 2³² per key).
pub struct Sealer {
    key: ContentKey,
    /// `<protected header>.<encrypted key>.`, the same for each sale.
    prefix: String,
    header_length: usize,
}

impl Sealer {
    /// `encrypted_key` is the content key under the public key that `kid` names.
    #[must_use]
    pub fn new(key: ContentKey, kid: &Thumbprint, encrypted_key: &[u8]) -> Self {
        let header =
            Header { alg: ALG.into(), enc: ENC.into(), kid: kid.as_str().into(), zip: false, crit: false };
        let mut prefix = URL64.encode(serde_json::to_string(&header).unwrap_or_default());
        let header_length = prefix.len();
        prefix.push('.');
        URL64.encode_string(encrypted_key, &mut prefix);
        prefix.push('.');
        Self { key, prefix, header_length }
    }

    /// Seals one content as a compact JWE.
    ///
    /// # Errors
    /// [`Unspecified`] if there is no randomness.
    pub fn seal(&self, content: &[u8]) -> Result<String, Unspecified> {
        let mut iv = [0; IV_BYTES];
        aws_lc_rs::rand::fill(&mut iv)?;
        let mut sealed = content.to_vec();
        let aad = Aad::from(&self.prefix.as_bytes()[..self.header_length]);
        let tag =
            self.key.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), aad, &mut sealed)?;
        let mut compact = self.prefix.clone();
        for part in [&iv[..], &sealed, tag.as_ref()] {
            URL64.encode_string(part, &mut compact);
            compact.push('.');
        }
        compact.pop();
        Ok(compact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn sealed(content: &[u8]) -> String {
        let kid = "A".repeat(43).parse().unwrap();
        Sealer::new(ContentKey::new(&KEY).unwrap(), &kid, &[9; RSA_2048_BYTES]).seal(content).unwrap()
    }

    fn with_header(header: &str) -> String {
        let jwe = sealed(b"x");
        format!("{}{}", URL64.encode(header), &jwe[jwe.find('.').unwrap()..])
    }

    #[test]
    fn what_is_sealed_opens() {
        let jwe = sealed(b"three products and more");
        let opened = Jwe::parse(&jwe).unwrap().open(&ContentKey::new(&KEY).unwrap()).unwrap();
        assert_eq!(opened.as_slice(), b"three products and more");
    }

    #[test]
    fn no_character_can_be_changed_unnoticed() {
        let jwe = sealed(b"three products");
        let key = ContentKey::new(&KEY).unwrap();
        let original = Jwe::parse(&jwe).unwrap();
        for at in 0..jwe.len() {
            let mut changed = jwe.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // A changed encrypted key is another content key, which the keys port notices.
            match Jwe::parse(&changed) {
                Ok(parsed) if parsed.encrypted_key == original.encrypted_key => {
                    assert!(parsed.open(&key).is_err(), "{at}");
                }
                _ => {}
            }
        }
    }

    #[test]
    fn other_algorithms_compression_and_critical_extensions_are_refused() {
        let kid = "A".repeat(43);
        let header = |alg, enc, more| format!(r#"{{"alg":"{alg}","enc":"{enc}","kid":"{kid}"{more}}}"#);
        assert!(Jwe::parse(&with_header(&header(ALG, ENC, ""))).is_ok());
        assert!(Jwe::parse(&with_header(&header(ALG, ENC, r#","typ":"JWE""#))).is_ok());
        for wrong in [
            header("RSA1_5", ENC, ""),
            header("RSA-OAEP", ENC, ""),
            header("dir", ENC, ""),
            header(ALG, "A128GCM", ""),
            header(ALG, "A256CBC-HS512", ""),
            header(ALG, ENC, r#","zip":"DEF""#),
            header(ALG, ENC, r#","crit":["exp"]"#),
            header(ALG, ENC, r#","zip":null"#),
            r#"{"alg":"RSA-OAEP-256","enc":"A256GCM"}"#.into(),
            r#"{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"short"}"#.into(),
            format!(r#"["{ALG}","{ENC}","{kid}"]"#),
            "not json".into(),
        ] {
            assert!(Jwe::parse(&with_header(&wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_may_escape_whatever_json_lets_it() {
        let kid = "k".repeat(43);
        let escaped =
            format!(r#"{{"alg":"RSA\u002dOAEP-256","\u0065nc":"A256GC\u004d","kid":"\u006b{}"}}"#, &kid[1..]);
        assert_eq!(Jwe::parse(&with_header(&escaped)).unwrap().kid.as_str(), kid);
        assert!(Jwe::parse(&with_header(&escaped.replace("\\u004d", "\\u004e"))).is_err());
    }

    #[test]
    fn parts_of_the_wrong_number_or_length_are_refused() {
        let jwe = sealed(b"x");
        let parts: Vec<&str> = jwe.split('.').collect();
        assert_eq!(Jwe::parse(""), Err(JweError::Parts(1)));
        assert_eq!(Jwe::parse(&parts[..4].join(".")), Err(JweError::Parts(4)));
        assert_eq!(Jwe::parse(&format!("{jwe}.x")), Err(JweError::Parts(6)));
        for at in 0..5 {
            for wrong in ["", "A", "AAAA", "=AAA", "%%%%"] {
                let mut changed = parts.clone();
                changed[at] = wrong;
                // Only the ciphertext may have any length.
                assert!(at == 3 || Jwe::parse(&changed.join(".")).is_err(), "part {at} as {wrong:?}");
            }
        }
    }
}
