use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::process::{Up, accepted, kassa};

/// A request as it goes over the wire, and what comes back.
#[track_caller]
fn ask(shop: &Up, path: &str, headers: &[(&str, &str)]) -> (u16, Vec<(String, String)>, String) {
    let port: u16 = shop.url.rsplit(':').next().unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answered = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        answered.push((name.to_lowercase(), value.to_owned()));
    }
    let body = std::io::read_to_string(reader).unwrap();
    (status, answered, body)
}

fn header<'h>(headers: &'h [(String, String)], name: &str) -> &'h str {
    headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
}

const LOCAL: (&str, &str) = ("Host", "localhost");

#[test]
fn pages_let_nothing_in_and_hold_neither_styles_nor_scripts() {
    let data = tempfile::tempdir().unwrap();
    let shop = Up::start(data.path());
    let sold = kassa(&["sell", "--url", &shop.url, "--shop", "AMIS1", "--count", "3"]);
    assert!(sold.status.success());
    shop.settled();
    let (_, _, sales) = ask(&shop, "/sales", &[LOCAL]);
    let at = sales.find("/sales/AMIS1/").unwrap();
    let sale = &sales[at..at + "/sales/AMIS1/".len() + 36];
    for (path, status) in [
        ("/", 200),
        ("/sales", 200),
        ("/sales?id=x", 404),
        (sale, 200),
        ("/stock", 303),
        ("/stock/AMIS1?q=beans", 200),
        ("/incidents", 200),
        ("/alarms", 200),
        ("/dashboards/sales", 200),
        ("/dashboards/operations?span=1w", 200),
        ("/dashboards/keys?span=nonsense", 200),
        ("/assets/nothing.css", 404),
    ] {
        let (answered, headers, body) = ask(&shop, path, &[LOCAL]);
        assert_eq!(answered, status, "{path}");
        let policy = header(&headers, "content-security-policy");
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header(&headers, "x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header(&headers, "referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header(&headers, "cache-control"), "no-store", "{path}");
        assert!(
            !body.contains(" style=") && !body.contains("<style") && !body.contains(" onclick"),
            "{path}"
        );
        assert_eq!(body.matches("<script").count(), body.matches("<script src=\"/assets/").count(), "{path}");
        assert!(!body.contains("http://") && !body.contains("https://"), "{path} names another machine");
    }
    // What never changes under its name may be kept.
    let (_, _, page) = ask(&shop, "/", &[LOCAL]);
    for ending in [".css", ".js", ".svg"] {
        let name =
            page.split('"').find(|part| part.starts_with("/assets/") && part.ends_with(ending)).unwrap();
        let (status, headers, _) = ask(&shop, name, &[LOCAL]);
        assert_eq!((status, header(&headers, "cache-control")), (200, "public, max-age=31536000, immutable"));
    }
}

#[test]
fn on_this_machine_only_its_own_names_reach_the_console() {
    let data = tempfile::tempdir().unwrap();
    let shop = Up::start(data.path());
    for path in ["/", "/sales", "/live", "/dashboards/sales"] {
        let (status, _, body) = ask(&shop, path, &[("Host", "rebound.example")]);
        assert_eq!(status, 421, "{path}");
        assert!(!body.contains("AMIS"), "{path} shows nothing of the shop");
    }
    // What is not served is told as tills are told everything.
    let (status, headers, _) = ask(&shop, "/nothing", &[LOCAL]);
    assert_eq!((status, header(&headers, "content-type")), (404, "application/problem+json"));
}

#[test]
fn a_console_that_others_can_reach_wants_its_token_and_tills_need_none() {
    let data = tempfile::tempdir().unwrap();
    let shop = Up::start_on("0.0.0.0:0", data.path());
    let printed = shop.printed.concat();
    let token = printed.split_once("?token=").expect("the address with the token").1.lines().next().unwrap();
    let host = ("Host", "shop.example");
    for path in ["/", "/sales", "/live", "/?token=wrong"] {
        let (status, _, body) = ask(&shop, path, &[host]);
        assert_eq!(status, 401, "{path}");
        assert!(!body.contains("AMIS") && !body.contains(token), "{path} shows nothing of the shop");
        let style = body.split('"').find(|part| part.starts_with("/assets/console-")).unwrap();
        assert_eq!(ask(&shop, style, &[host]).0, 200, "a refusal looks like one of our pages");
    }
    assert_eq!(ask(&shop, "/shop/AMIS1/key", &[host]).0, 200, "a till has no token");

    let (status, headers, _) = ask(&shop, &format!("/stock/AMIS1?token={token}&q=beans"), &[host]);
    assert_eq!((status, header(&headers, "location")), (303, "/stock/AMIS1?q=beans"));
    let cookie = header(&headers, "set-cookie");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict"), "over TLS only, where there is TLS: {cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let (status, _, body) = ask(&shop, "/stock/AMIS1", &[host, ("Cookie", cookie)]);
    assert_eq!(status, 200);
    assert!(body.contains("Espresso") && !body.contains(token));
}

#[test]
fn a_shop_that_was_opened_again_shows_what_was_sold_before() {
    let data = tempfile::tempdir().unwrap();
    let shop = Up::start(data.path());
    for more in [&["--count", "3"][..], &["--format", "classic"], &["--key-of", "AMIS2"]] {
        accepted(&kassa(&[&["sell", "--url", &shop.url, "--shop", "AMIS1", "--json"], more].concat()));
    }
    shop.settled();
    assert!(shop.terminate().success());
    let shop = Up::start(data.path());
    let begun = Instant::now();
    loop {
        let (_, _, page) = ask(&shop, "/", &[LOCAL]);
        let rows = |kind: &str| {
            let list = page.split(&format!("data-counts=\"{kind}\"")).nth(1).unwrap_or_default();
            list.split("</tbody>").next().unwrap_or_default().matches("<tr").count()
        };
        if (rows("recorded"), rows("rejected")) == (4, 1) {
            assert!(page.contains("Rejected sales need attention"), "{page}");
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{} and {}", rows("recorded"), rows("rejected"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn each_step_that_sales_pass_has_its_figures() {
    let data = tempfile::tempdir().unwrap();
    let shop = Up::start(data.path());
    assert!(kassa(&["sell", "--url", &shop.url, "--shop", "AMIS1", "--count", "3"]).status.success());
    shop.settled();
    let begun = Instant::now();
    for step in ["accept", "decrypt", "process", "project"] {
        // How long a step took is known a moment after what it did.
        loop {
            let (_, _, page) = ask(&shop, "/", &[LOCAL]);
            let row = page.split(&format!("<tr data-key=\"{step}\">")).nth(1).unwrap_or_default();
            let cells: Vec<&str> = row.split("<td").skip(1).take(4).collect();
            if cells.len() == 4 && !cells.concat().contains("none") {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "handled, p50, p99, failed: {step} {cells:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn many_who_listen_leave_room_for_tills_and_for_pages() {
    let data = tempfile::tempdir().unwrap();
    let shop = Up::start(data.path());
    let address = shop.url.strip_prefix("http://").unwrap();
    let listen = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut told = BufReader::new(stream);
        let mut status = String::new();
        told.read_line(&mut status).unwrap();
        status.contains(" 200 ").then_some(told)
    };
    let mut listeners: Vec<_> = (0..500).map_while(|_| listen()).collect();
    assert!((100..500).contains(&listeners.len()), "{} listen", listeners.len());
    let (status, headers, _) = ask(&shop, "/live", &[LOCAL]);
    assert_eq!((status, header(&headers, "retry-after")), (503, "15"));
    assert_eq!(ask(&shop, "/", &[LOCAL]).0, 200);
    assert!(kassa(&["sell", "--url", &shop.url, "--shop", "AMIS1"]).status.success());
    // Whoever goes away makes room.
    listeners.clear();
    let begun = Instant::now();
    while listen().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn absurd_requests_are_answered_briefly() {
    let data = tempfile::tempdir().unwrap();
    let shop = Up::start(data.path());
    let long = "e".repeat(6_000);
    let (status, _, body) = ask(&shop, &format!("/stock/AMIS1?q={long}"), &[LOCAL]);
    assert!(status == 200 && !body.contains(&"e".repeat(101)), "{status}: {} bytes", body.len());
    let (status, ..) = ask(&shop, &format!("/stock/AMIS1?q={}", "e".repeat(9_000)), &[LOCAL]);
    assert_eq!(status, 431);
    for (path, status) in [
        ("/sales?id=a&id=b", 400),
        ("/sales?id=%ff%00", 404),
        ("/sales/%ff/x", 400),
        ("/sales/AMIS1/..%2f..%2fCargo.toml", 404),
        ("/stock/%e2%80%ae", 404),
        ("/assets/..%2f..%2fCargo.toml", 404),
        ("/dashboards/sales?span=-1", 200),
    ] {
        let (answered, headers, body) = ask(&shop, path, &[LOCAL]);
        assert_eq!(answered, status, "{path}");
        assert!(header(&headers, "content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert!(!body.contains("[package]") && !body.contains('\u{202e}'), "{path}");
    }
}

#[test]
fn whoever_looks_does_not_keep_the_shop_open() {
    let data = tempfile::tempdir().unwrap();
    let shop = Up::start(data.path());
    let port = shop.url.rsplit(':').next().unwrap();
    let looking = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
    (&looking).write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut told = BufReader::new(&looking).lines().map_while(Result::ok);
    assert!(told.any(|line| line.starts_with("event: changed")), "a page hears that it may be behind");
    let begun = Instant::now();
    assert!(shop.terminate().success());
    assert!(begun.elapsed() < Duration::from_secs(10), "closing took {:?}", begun.elapsed());
    assert!(!told.any(|line| line.starts_with("event:")), "and then nothing more");
}
