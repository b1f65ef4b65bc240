//! Whoever wants to do harm at the door: slow, large, malformed, too many; and the door that proves who it is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::process::{self, Up, json};
use crate::common::unopenable;

fn address(up: &Up) -> &str {
    up.url.strip_prefix("http://").unwrap()
}

fn connect(up: &Up) -> TcpStream {
    let stream = TcpStream::connect(address(up)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends this and nothing more, and gives what was answered by when the connection ended.
fn raw(up: &Up, request: &[u8]) -> String {
    answer(sent(up, request))
}

fn sent(up: &Up, request: &[u8]) -> TcpStream {
    let mut stream = connect(up);
    // A server that has heard enough may close before all is sent.
    let _ = stream.write_all(request);
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST /shop HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").into_bytes();
    request.extend_from_slice(body);
    request
}

fn with_length(body: &[u8]) -> Vec<u8> {
    post(&format!("content-length: {}\r\n", body.len()), body)
}

#[track_caller]
fn answers(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
}

fn sells(up: &Up, count: &str) {
    let sold = process::kassa(&["sell", "--shop", "AMIS1", "--url", &up.url, "--count", count]);
    assert!(sold.status.success(), "{}", String::from_utf8_lossy(&sold.stderr));
}

#[test]
fn whoever_sends_slowly_or_nothing_keeps_nobody_waiting_and_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path());
    // given half-sent headers, a half-sent body, and silence
    let mut slow: Vec<_> = (0..450).map(|_| connect(&up)).collect();
    for (n, stream) in slow.iter_mut().enumerate() {
        let half: &[u8] = match n % 3 {
            0 => b"POST /shop HTTP/1.1\r\nhost: lo",
            1 => b"POST /shop HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{\"shop_id\":",
            _ => b"",
        };
        stream.write_all(half).unwrap();
    }
    let begun = Instant::now();
    // then others sell
    sells(&up, "20");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    // and those are let go of
    for mut stream in slow {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 503"),
            "{answer}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    sells(&up, "1");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path());
    let large = vec![b'x'; 600 * 1024];
    answers(&raw(&up, &with_length(&large)), 413);
    // also where the length is not said beforehand
    let mut chunked = Vec::new();
    for chunk in large.chunks(8192) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    answers(&raw(&up, &post("transfer-encoding: chunked\r\n", &chunked)), 413);
    // and headers have a measure, too
    let long = format!("x-large: {}\r\n", "x".repeat(64 * 1024));
    answers(&raw(&up, &post(&long, b"")), 431);
    let many = "x: y\r\n".repeat(200);
    answers(&raw(&up, &post(&many, b"")), 431);
    sells(&up, "1");
}

#[test]
fn what_is_cut_off_or_packed_is_no_sale() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    let content = unopenable();
    let body = format!(r#"{{"shop_id":"AMIS1","content_base64":"{content}","message_id":"7-20261122"}}"#);
    let body = body.as_bytes();
    // given a body of which the end is missing
    let mut stream = connect(&up);
    stream.write_all(&post(&format!("content-length: {}\r\n", body.len() + 1), body)).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    // given one that is packed: it is not unpacked, however small it is
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![b' '; 50 * 1024 * 1024]).unwrap();
    let packed = packed.finish().unwrap();
    let headers = format!("content-encoding: gzip\r\ncontent-length: {}\r\n", packed.len());
    let answer = raw(&up, &post(&headers, &packed));
    answers(&answer, 415);
    assert!(answer.contains("urn:kassa:problem:encoding"), "{answer}");
    // then nothing was kept of them
    assert_eq!(json(&["check", "--json", "--data", data])["accepted"], 0);
}

#[test]
fn no_name_leads_to_another_file_or_into_a_header() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path());
    for path in [
        "/shop/../../keys/AMIS1/key",
        "/shop/..%2f..%2fetc%2fpasswd/key",
        "/shop/%2e%2e/key",
        "/shop/AMIS1%00/key",
        "/shop/AMIS1%0d%0aset-cookie:x=1/key",
        "/shop/AMIS1.pem/key",
        "/shop/AMIS1/../AMIS1/key",
        "/shop//key",
    ] {
        let answer = raw(
            &up,
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
        );
        answers(&answer, 404);
        assert!(!answer.to_lowercase().contains("set-cookie"), "{answer}");
    }
    for shop in [r"AMIS1\r\nset-cookie: x=1", r"..\/..\/AMIS1", "AMIS1#", r"\u0000"] {
        let body = format!(r#"{{"shop_id":"{shop}","content_base64":"QUFBQQ=="}}"#);
        let answer = raw(&up, &with_length(body.as_bytes()));
        answers(&answer, 400);
        assert!(!answer.to_lowercase().contains("set-cookie"), "{answer}");
    }
}

#[test]
fn who_sells_too_fast_is_told_to_come_again_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start_with(folder.path(), &["--set", "TILL_RATE=20"]);
    // given requests that are all there at once, however busy the machine is
    let body = |shop: &str| format!(r#"{{"shop_id":"{shop}","content_base64":"{}"}}"#, unopenable());
    let all: Vec<_> = (0..60).map(|_| sent(&up, &with_length(body("AMIS1").as_bytes()))).collect();
    let all: Vec<_> = all.into_iter().map(answer).collect();
    let refused = all.iter().find(|answer| answer.starts_with("HTTP/1.1 429 ")).expect("some are too many");
    assert!(refused.contains("retry-after: 1") && refused.contains("application/problem+json"), "{refused}");
    // then a till that comes again as it is told sells all it has
    sells(&up, "60");
    up.settled();
    assert_eq!(json(&["check", "--json", "--data", data])["recorded"], 60);
    // and of a shop that is not there nothing is counted
    let nowhere = body("NOWHERE");
    assert!((0..60).all(|_| raw(&up, &with_length(nowhere.as_bytes())).starts_with("HTTP/1.1 404 ")));
}

/// A certificate for 127.0.0.1 that nobody signed but itself, and its key.
pub fn certificate(folder: &Path) -> [String; 2] {
    let [certificate, key] =
        ["shop.pem", "shop.key"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=kassa",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Command::new("chmod").args(["600", &key]).status().unwrap();
    [certificate, key]
}

#[test]
fn a_shop_with_a_certificate_sells_by_https_to_whoever_trusts_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let [certificate, key] = certificate(folder.path());
    let up = Up::start_with(&data, &["--tls-cert", &certificate, "--tls-key", &key]);
    assert!(up.url.starts_with("https://127.0.0.1:"), "{}", up.url);
    let sell = |trusted: &str| {
        let mut sell = process::command(&[
            "sell",
            "--shop",
            "AMIS1",
            "--url",
            &up.url,
            "--count",
            "2",
            "--patience",
            "1",
        ]);
        sell.env("SSL_CERT_FILE", trusted).output().unwrap()
    };
    let sold = sell(&certificate);
    assert!(sold.status.success(), "{}", String::from_utf8_lossy(&sold.stdout));
    // whoever does not trust it sells nothing, and neither does whoever speaks without TLS
    let [another, _] = self::certificate(&tempfile::tempdir_in(folder.path()).unwrap().keep());
    assert!(!sell(&another).status.success());
    let plain = up.url.replace("https", "http");
    let sold = process::kassa(&["sell", "--shop", "AMIS1", "--url", &plain, "--patience", "1"]);
    assert!(!sold.status.success());
    // and questions are answered as ever
    let data = data.to_str().unwrap();
    assert_eq!(json(&["check", "--json", "--data", data])["accepted"], 2);
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_before_the_shop_opens() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let [certificate, key] = certificate(folder.path());
    let [_, another] = self::certificate(&tempfile::tempdir_in(folder.path()).unwrap().keep());
    let fails = |certificate: &str, key: &str| {
        let up = ["up", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        let output = process::kassa(&[&up[..], &["--tls-cert", certificate, "--tls-key", key]].concat());
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(fails("/not/there.pem", &key).contains("/not/there.pem"));
    assert!(fails(&key, &key).contains("holds no certificate"));
    assert!(fails(&certificate, &another).contains("do not go together"));
    Command::new("chmod").args(["644", &key]).status().unwrap();
    assert!(fails(&certificate, &key).contains("chmod 600"));
}
