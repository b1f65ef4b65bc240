//! What whoever has no credentials can take of a shop's door: a share, and no more. And whom the door is for.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures::future::join_all;
use futures::{StreamExt, stream};
use kassa::listener::{self, Limits, Places};
use kassa::tls::TlsFiles;
use kassa_bus::{ClientAddress, Topic};
use kassa_pipeline::event::Accepted;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::common::process::{Up, command, json, kassa};
use crate::common::unopenable;
use crate::common::warehouse::{Warehouse, is_problem};
use crate::common::world::{World, uuid};
use crate::edge::certificate;

/// Another client of this machine.
async fn connect(from: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends this and nothing more, and gives the status that comes; none, if the connection is closed.
async fn answered(mut stream: TcpStream, request: &[u8]) -> Option<u16> {
    // What is closed on takes nothing.
    let _ = stream.write_all(request).await;
    let mut answer = vec![0; 12];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await;
    read.expect("an answer or the end").ok()?;
    String::from_utf8(answer).unwrap()["HTTP/1.1 ".len()..].parse().ok()
}

fn posting(path: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn address(url: &str) -> SocketAddr {
    url.rsplit_once('/').unwrap().1.parse().unwrap()
}

/// The most memory that a process has had so far, in MiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_come_slowly_keep_nobody_else_out_and_fill_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    // given a shop that is allowed as few files as many a system allows
    let shell = format!(
        "ulimit -Sn 1024; exec {} up --listen 127.0.0.1:0 --data {}",
        env!("CARGO_BIN_EXE_kassa"),
        folder.path().display()
    );
    let up = Up::spawn(Command::new("sh").args(["-c", &shell]).env_remove("RUST_LOG"));
    let shop = address(&up.url);
    // and an address with as many bodies on their way as it may have, and others that send much of large ones
    let large = vec![b' '; 500 * 1024];
    let slow = (0..600).map(|n| (2, posting("/shop", 500, &[b'{'; 1][..1 - n % 2])));
    let many = (0..360).map(|n| (3 + u8::try_from(n % 3).unwrap(), posting("/shop", 511 * 1024, &large)));
    let slow = slow.chain(many).map(|(from, sent)| async move {
        let mut stream = connect(from, shop).await;
        let _ = stream.write_all(&sent).await;
        stream
    });
    let slow: Vec<_> = join_all(slow).await;
    // then another sells as ever, and the shop has the memory it had
    let url = up.url.clone();
    let sold = tokio::task::spawn_blocking(move || {
        json(&["sell", "--shop", "AMIS1", "--url", &url, "--count", "20", "--patience", "5", "--json"])
    });
    assert_eq!(sold.await.unwrap()["accepted"], 20);
    assert!(peak(up.pid()) <= 200, "{} MiB", peak(up.pid()));
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_that_come_slowly_keep_no_other_out() {
    let warehouse = Warehouse::open("postgres://kassa@localhost/none?sslmode=disable").await;
    let to = address(&warehouse.url);
    let slow = (0..200).map(|_| async move {
        let mut stream = connect(2, to).await;
        stream.write_all(&posting("/sales", 500, b"{")).await.unwrap();
        stream
    });
    let slow: Vec<_> = join_all(slow).await;
    // then a delivery is answered at once, which without sales needs no database
    let answer = tokio::time::timeout(Duration::from_secs(3), warehouse.deliver(&[])).await;
    assert_eq!(answer.expect("an answer").status(), 204);
    drop(slow);
    // and what a page sends here, under another name or from another site, is refused
    for (header, value) in [("host", "evil.example"), ("origin", "http://evil.example")] {
        is_problem(warehouse.signed(b"").header(header, value).send().await.unwrap(), 421, "").await;
    }
}

/// A listener with little room and little patience: who posts here is read, and who gets is sent without end.
struct Narrow {
    address: SocketAddr,
    /// How many are being sent.
    sending: Arc<AtomicUsize>,
}

const LIMITS: Limits = Limits {
    connections: 16,
    in_hand: 8,
    body_bytes: 64 * 1024,
    body_time: Duration::from_millis(300),
    patience: Duration::from_millis(300),
};

/// Bytes of a body there, at most.
const MOST: usize = 12 * 1024;

impl Narrow {
    async fn open(tls: Option<&TlsFiles>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, places) = (listener.local_addr().unwrap(), Places::new(LIMITS));
        let (read, sending) = (places.clone(), Arc::<AtomicUsize>::default());
        let read = |ConnectInfo(client): ConnectInfo<ClientAddress>, body: Body| async move {
            let read = read.read(client, body, MOST).await;
            read.map_or_else(
                |why| {
                    StatusCode::from_u16(kassa_pipeline::problem::Problem::from(why).kind().status()).unwrap()
                },
                |_| StatusCode::OK,
            )
        };
        let counted = sending.clone();
        let send = || async move {
            let one = Sent::new(counted);
            Body::from_stream(stream::repeat_with(move || {
                let _ = &one;
                Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 * 1024]))
            }))
        };
        let router = Router::new().route("/read", post(read)).route("/sent", get(send));
        let tls = tls.map(|files| files.acceptor().unwrap());
        tokio::spawn(listener::serve(listener, tls, router, places, std::future::pending()));
        Self { address, sending }
    }

    async fn until_sending(&self, count: usize) {
        let begun = Instant::now();
        while self.sending.load(Ordering::SeqCst) != count {
            assert!(begun.elapsed() < Duration::from_secs(10), "{}", self.sending.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Somebody is being sent something.
struct Sent(Arc<AtomicUsize>);

impl Sent {
    fn new(counted: Arc<AtomicUsize>) -> Self {
        counted.fetch_add(1, Ordering::SeqCst);
        Self(counted)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

const GET: &[u8] = b"GET /sent HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_a_quarter_of_the_places_and_nobody_who_takes_nothing_keeps_one() {
    let narrow = Narrow::open(None).await;
    // given whoever reads nothing of what they are sent, as many as may
    let mut silent = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(2, narrow.address).await;
        stream.write_all(GET).await.unwrap();
        silent.push(stream);
    }
    narrow.until_sending(4).await;
    // then one more of that address is closed upon, another address is served
    assert_eq!(answered(connect(2, narrow.address).await, GET).await, None);
    assert_eq!(answered(connect(3, narrow.address).await, &posting("/read", 2, b"{}")).await, Some(200));
    // and the silent are let go, though they hold on
    narrow.until_sending(0).await;
    assert_eq!(answered(connect(2, narrow.address).await, &posting("/read", 2, b"{}")).await, Some(200));
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_nothing_is_let_go_under_tls_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = certificate(folder.path()).map(Into::into);
    let narrow = Narrow::open(Some(&TlsFiles { certificate, key })).await;
    let address = narrow.address.to_string();
    let mut silent = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    silent.stdin.as_mut().unwrap().write_all(GET).unwrap();
    narrow.until_sending(1).await;
    narrow.until_sending(0).await;
    silent.kill().unwrap();
    silent.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_their_time_and_their_room_and_what_is_wrong_with_one_is_said() {
    let narrow = Narrow::open(None).await;
    let asks = |from, request: Vec<u8>| {
        let address = narrow.address;
        async move { answered(connect(from, address).await, &request).await }
    };
    // given one address's quarter of the bytes, 16 KiB, of which one body more than half is on its way
    let half = asks(2, posting("/read", 10_000, &[b' '; 9_000]));
    let other = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let full = asks(2, posting("/read", 9_000, &[b' '; 9_000])).await;
        (full, asks(3, posting("/read", 9_000, &[b' '; 9_000])).await)
    };
    let (slow, (full, another)) = tokio::join!(half, other);
    assert_eq!((slow, full, another), (Some(408), Some(503), Some(200)));
    // and once that is gone there is room again, to the last byte
    assert_eq!(asks(2, posting("/read", MOST, &[b' '; MOST])).await, Some(200));
    assert_eq!(asks(2, posting("/read", MOST + 1, &[b' '; MOST + 1])).await, Some(413));
    let chunked = |chunks: &str| {
        format!("POST /read HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")
            .into_bytes()
    };
    for (chunks, status) in [
        ("2\r\n{}\r\n0\r\n\r\n".to_owned(), 200),
        ("zz\r\n{}\r\n0\r\n\r\n".to_owned(), 400),
        ("2\r\n{}{}\r\n0\r\n\r\n".to_owned(), 400),
        ("ffffffffffffffffff\r\n{}\r\n0\r\n\r\n".to_owned(), 400),
        (format!("{:x}\r\n{}\r\n0\r\n\r\n", MOST + 1, " ".repeat(MOST + 1)), 413),
    ] {
        assert_eq!(asks(4, chunked(&chunks)).await, Some(status), "{:?}", &chunks[..20.min(chunks.len())]);
    }
}

/// What `curl` is answered: status, media type and body.
fn curl(args: &[&str]) -> (u16, String, String) {
    let output = Command::new("curl")
        .args(["-sk", "-w", "\n%{http_code} %{content_type}"])
        .args(args)
        .output()
        .unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    let (body, end) = answer.rsplit_once('\n').unwrap();
    let (status, media_type) = end.split_once(' ').unwrap();
    (status.parse().unwrap(), media_type.to_owned(), body.to_owned())
}

#[track_caller]
fn problem((status, media_type, body): (u16, String, String)) -> (u16, String) {
    assert_eq!(media_type, "application/problem+json", "{status} {body}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], status, "{body}");
    (status, problem["type"].as_str().unwrap().to_owned())
}

#[test]
fn no_web_page_reaches_a_shop_on_loopback_and_every_refusal_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    let lock: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("shop.lock")).unwrap()).unwrap();
    let (url, operator) = (up.url.as_str(), lock["operator_url"].as_str().unwrap());
    let sale =
        json!({"shop_id": "AMIS1", "message_id": "7-20261122", "content_base64": unopenable()}).to_string();
    let post = ["-H", "content-type: text/plain", "--data-binary", &sale];
    // given pages that rebind their name to this machine, and pages of other sites
    for page in
        ["host: evil.example", "origin: http://evil.example", "origin: null", "origin: http://localhost:3000"]
    {
        for path in
            ["/shop/AMIS1/key", "/shop/AMIS1/sales/7-20261122", "/health", "/", "/sales", "/live", "/nothing"]
        {
            let (status, kind) = problem(curl(&[&format!("{url}{path}"), "-H", page]));
            assert_eq!((status, kind.as_str()), (421, "urn:kassa:problem:misdirected"), "{page} {path}");
        }
        assert_eq!(problem(curl(&[&[&format!("{url}/shop"), "-H", page], &post[..]].concat())).0, 421);
        assert_eq!(problem(curl(&[&format!("{operator}/api/stock"), "-H", page])).0, 421);
    }
    assert_eq!(json(&["check", "--json", "--data", data])["accepted"], 0);
    // then this machine's own programs and pages are served, by whatever name it has
    let origin = format!("origin: {url}");
    let localhost = url.replace("127.0.0.1", "localhost");
    assert_eq!(curl(&[&[&format!("{url}/shop"), "-H", &origin], &post[..]].concat()).0, 200);
    assert_eq!(curl(&[&format!("{localhost}/health")]).0, 200);
    // and every refusal says what it is
    for (path, method, status, kind) in [
        ("/shop/%FF/key", "GET", 404, "urn:kassa:problem:unknown-shop"),
        ("/shop/%FF/sales/%FF", "GET", 404, "urn:kassa:problem:unknown-shop"),
        ("/nothing", "GET", 404, "urn:kassa:problem:no-such-page"),
        ("/shop", "DELETE", 405, "urn:kassa:problem:no-such-method"),
        ("/", "POST", 405, "about:blank"),
        ("/sales/%FF/%FF", "GET", 400, "about:blank"),
        ("/assets/%FF", "GET", 400, "about:blank"),
    ] {
        let answer = problem(curl(&[&format!("{url}{path}"), "-X", method]));
        assert_eq!(answer, (status, kind.to_owned()), "{method} {path}");
    }
    assert_eq!(problem(curl(&[&format!("{operator}/api/stock")])).0, 401);
    // and of where a sale came from no more is shown than was kept
    up.settled();
    let sold = json(&["sale", "7-20261122", "--json", "--data", data]).to_string();
    assert!(sold.contains("\"source\":\"127.0.0.0/24\"") && !sold.contains("127.0.0.1"), "{sold}");
}

#[test]
fn beyond_loopback_health_is_that_the_shop_is_open_and_a_cookie_goes_over_tls_only() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = certificate(folder.path());
    let data = folder.path().join("data");
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    let up = ["up", "--listen", "0.0.0.0:0", "--data", data.to_str().unwrap()];
    let up = Up::spawn(&mut command(&[&up[..], &tls].concat()));
    let printed = up.printed.concat();
    let token = printed.split_once("?token=").unwrap().1.lines().next().unwrap();
    let url = up.url.replace("0.0.0.0", "127.0.0.1");
    let health = format!("{url}/health");
    let ok = (200, "application/json".to_owned(), r#"{"status":"ok"}"#.to_owned());
    assert_eq!(curl(&[&health]), ok);
    assert_eq!(curl(&[&health, "-H", "authorization: Bearer wrong"]), ok);
    let (_, _, counts) = curl(&[&health, "-H", &format!("authorization: Bearer {token}")]);
    assert!(counts.contains("\"counted\"") && counts.contains("\"outstanding\""), "{counts}");
    let (status, _, head) = curl(&["-D", "-", &format!("{url}/?token={token}")]);
    assert!(status == 303 && head.contains("SameSite=Strict; Secure"), "{head}");
    // a name cannot be known there, but a page of another site can
    assert_eq!(curl(&[&format!("{url}/shop/AMIS1/key"), "-H", "host: shop.example"]).0, 200);
    assert_eq!(
        problem(curl(&[&format!("{url}/shop"), "-d", "{}", "-H", "origin: http://evil.example"])).0,
        421
    );
}

#[test]
fn no_proxy_hears_what_is_for_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let asks: [&[&str]; 3] = [
        &["stock", "--json", "--data", data],
        &["status", "--json", "--data", data],
        &["sell", "--shop", "AMIS1", "--url", &up.url, "--patience", "2"],
    ];
    for args in asks {
        let mut asking = command(args);
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"] {
            asking.env(name, &address);
        }
        let output = asking
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = output.spawn().unwrap();
        // A proxy that is asked does not answer, so that only it is waited for.
        let output = output.wait_with_output().unwrap();
        assert!(proxy.accept().is_err(), "{args:?} asked the proxy");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn whoever_makes_up_shops_asks_for_no_key() {
    let world = World::open().await;
    for shop in ["NOWHERE", "AMIS3", "../AMIS1", ""] {
        assert_eq!(world.accept.key(shop).await.status, 404, "{shop}");
    }
    assert_eq!(world.keys.named.load(Ordering::SeqCst), 0);
    assert_eq!(world.accept.key("AMIS1").await.status, 200);
    assert_eq!(world.keys.named.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_brings_nothing_new_is_answered_late_and_a_new_sale_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |n: usize| {
        let sale = json!({"shop_id": "AMIS1", "message_id": format!("{n}-20261122"), "content_base64": unopenable()});
        let request = client.post(format!("{}/shop", up.url)).json(&sale);
        async move { assert_eq!(request.send().await.unwrap().status(), 200) }
    };
    let nothing = || {
        let request = client.get(format!("{}/nothing", up.url));
        async move { assert_eq!(request.send().await.unwrap().status(), 404) }
    };
    // given whoever asks for nothing as fast as it is answered, which is a thousand at once and two hundred a second
    let begun = Instant::now();
    stream::iter((0..2_000).map(|_| nothing())).buffer_unordered(50).collect::<Vec<()>>().await;
    assert!(begun.elapsed() >= Duration::from_millis(4_900), "{:?}", begun.elapsed());
    // then a sale that is posted again and again waits with the others, and a new one of the same address does not; or the
    // machine is busy, which it is not each time
    post(0).await;
    let mut late = false;
    for n in 1..=5 {
        let again = tokio::spawn(join_all((0..200).map(|_| post(0))));
        post(n).await;
        late |= !again.is_finished();
        again.await.unwrap();
    }
    assert!(late);
}

#[tokio::test]
async fn a_shop_that_floods_the_door_is_put_off_and_another_is_not() {
    let world = World::open().await;
    // given a shop whose sales fill its share of what is on the way
    world.post.full.lock().unwrap().insert("AMIS1".to_owned());
    let answer = world.posts(world.sealed(&uuid(0), &[("98", "1", "1")]).await).await;
    assert_eq!((answer.status, answer.retry_after), (503, Some(1)));
    // then nothing of it is kept that would have to be sent again, and another shop sells
    assert!(world.post.waiting.lock().unwrap().is_empty());
    let other = json!({"shop_id": "AMIS2", "message_id": "7-20261122", "content_base64": unopenable()});
    assert_eq!(world.posts(other.to_string()).await.status, 200);
    assert_eq!(world.balanced().await.accepted, 1);
    assert!(world.post.waiting.lock().unwrap().iter().all(|(topic, _)| *topic == Topic::ToDecrypt));
}

#[tokio::test]
async fn of_where_a_sale_came_from_a_network_is_kept_and_older_events_are_read_as_that() {
    let old: Accepted =
        serde_json::from_value(json!({"format": "sealed", "sealed": "…", "source": "192.0.2.7"})).unwrap();
    assert_eq!(serde_json::to_value(&old).unwrap()["source"], "192.0.2.0/24");
    // and what is published says no more
    let world = World::open().await;
    world.posts(world.sealed(&uuid(0), &[("98", "1", "1")]).await).await;
    let waiting = world.post.waiting.lock().unwrap();
    let (_, message) = waiting.front().unwrap();
    let published: &str = &message.body;
    assert!(published.contains("192.0.2.0/24") && !published.contains("192.0.2.7"), "{published}");
}

#[test]
fn what_listens_on_one_machine_listens_at_ports_of_its_own() {
    let port = |args: &[&str]| {
        let help = String::from_utf8(kassa(&[args, &["--help"]].concat()).stdout).unwrap();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let default = help.split_once("[default: 127.0.0.1:").expect("a default").1;
        default.split(']').next().unwrap().to_owned()
    };
    let ports = [port(&["up"]), port(&["console"]), port(&["warehouse"])];
    assert!(ports.iter().all(|one| ports.iter().filter(|other| *other == one).count() == 1), "{ports:?}");
}
