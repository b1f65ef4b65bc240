//! What else an envelope may look like: a header that escapes what JSON lets it, and OAEP as Java does it by default.

use std::io::Write;
use std::process::{Command, Stdio};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as URL64};
use kassa::custody::KeepKeys;
use kassa::questions::Status;
use kassa_bus::message::Reason;
use serde_json::json;

use crate::common::world::{NOON, World, content, is, sales, uuid, wrap};

const KEY: [u8; 32] = [7; 32];
const IV: [u8; 12] = [3; 12];

/// A compact JWE with this header, as it stands.
fn jwe(header: &str, encrypted_key: &[u8], content: &str) -> String {
    let header = URL64.encode(header);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).unwrap());
    let mut sealed = content.as_bytes().to_vec();
    let nonce = Nonce::assume_unique_for_key(IV);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header.as_bytes()), &mut sealed).unwrap();
    let parts = [encrypted_key, &IV, &sealed, tag.as_ref()].map(|part| URL64.encode(part));
    format!("{header}.{}", parts.join("."))
}

fn body(id: &str, sealed: &str) -> String {
    json!({"shop_id": "AMIS1", "message_id": id, "sealed": sealed}).to_string()
}

fn sold(id: &str) -> String {
    content(id, NOON, &[("98", "1", "18.95")])
}

/// Each character as JSON may write it.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |all, c| format!("{all}\\u{:04x}", u32::from(c)))
}

#[tokio::test]
async fn a_header_may_escape_any_character_and_has_each_member_once() {
    let world = World::open().await;
    let (kid, key) = world.public_key("AMIS1").await;
    let wrapped = wrap(&key, &KEY);
    let (kid, other) = (kid.as_str(), "A".repeat(43));
    // given headers that are the same JSON
    let same = [
        format!(r#"{{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"RSA\u002dOAEP-256","enc":"A256GCM","kid":"{kid}"}}"#),
        format!(
            r#"{{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"\u{:04x}{}"}}"#,
            u32::from(kid.as_bytes()[0]),
            &kid[1..]
        ),
        format!(
            r#" {{ "{}" : "{}", "{}":"{}", "{}":"{}", "typ":"JW\u0045" }} "#,
            escaped("kid"),
            escaped(kid),
            escaped("enc"),
            escaped("A256GCM"),
            escaped("alg"),
            escaped("RSA-OAEP-256")
        ),
    ];
    for (n, header) in (1..).zip(&same) {
        let id = uuid(n);
        assert_eq!(world.posts(body(&id, &jwe(header, &wrapped, &sold(&id)))).await.status, 202, "{header}");
        world.settle().await;
        is(&world.sale(&id).await, Status::Recorded);
    }
    // then what is another header unescaped is another, however it is written
    for other in [
        format!(r#"{{"alg":"RSA\u002dOAEP","enc":"A256GCM","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"RSA-OAEP-256","\u0061lg":"RSA-OAEP-256","enc":"A256GCM","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"{kid}","\u006bid":"{other}"}}"#),
        format!(r#"{{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"{kid}","\u0063rit":["x"]}}"#),
        format!(r#"{{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"{kid}","\u007aip":"DEF"}}"#),
    ] {
        let id = uuid(9);
        assert_eq!(world.posts(body(&id, &jwe(&other, &wrapped, &sold(&id)))).await.status, 400, "{other}");
    }
}

/// Encrypted by OpenSSL with the shop's key, OAEP with SHA-256, and MGF1 with this hash.
fn by_openssl(world: &World, mgf1: &str, plaintext: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(["pkeyutl", "-encrypt", "-inkey", &world.keys.files.place(&"AMIS1".parse().unwrap())])
        .args(["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256"])
        .args(["-pkeyopt", &format!("rsa_mgf1_md:{mgf1}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(plaintext).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[tokio::test]
async fn oaep_as_java_does_it_by_default_is_named_and_not_booked() {
    let world = World::open().await;
    let (kid, _) = world.public_key("AMIS1").await;
    let header = format!(r#"{{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"{kid}"}}"#);
    for (n, mgf1) in [(1, "sha256"), (2, "sha1")] {
        let (sealed, classic) = (uuid(n), format!("{n}-20261122"));
        let envelope = jwe(&header, &by_openssl(&world, mgf1, &KEY), &sold(&sealed));
        assert_eq!(world.posts(body(&sealed, &envelope)).await.status, 202);
        let content = json!({"sales": sales(&[("98", "1", "18.95")])}).to_string();
        let content = BASE64_STANDARD.encode(by_openssl(&world, mgf1, content.as_bytes()));
        let posted = json!({"shop_id": "AMIS1", "message_id": classic, "content_base64": content});
        assert_eq!(world.posts(posted.to_string()).await.status, 200);
        world.settle().await;
        for id in [&sealed, &classic] {
            is(&world.sale(id).await, if mgf1 == "sha256" { Status::Recorded } else { Status::Rejected });
        }
    }
    let rejections = world.rejections();
    assert_eq!(rejections.len(), 2);
    for rejection in rejections {
        assert!(matches!(rejection.reason, Reason::Tampered | Reason::WrongKey));
        let detail = rejection.detail;
        assert!(detail.contains("MGF1 with SHA-1") && detail.contains("Java"), "{detail}");
    }
    world.balanced().await;
}
