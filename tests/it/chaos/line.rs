//! The network between tills and their shop, which can be cut, lose what the shop answers, or have something else answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    Open,
    /// Nobody gets through.
    Cut,
    /// What tills ask arrives; what they are answered does not.
    Deaf,
    /// This of [`IMPOSTORS`] answers in the shop's place.
    Impostor(usize),
}

/// What proxies, log-in pages and other people's services answer: status, content type and more headers, body.
pub const IMPOSTORS: [(&str, &str, &str); 21] = [
    ("200 OK", "content-type: text/html", "<html>Welcome, please log in</html>"),
    ("200 OK", "content-type: application/json", r#"{"login":"required"}"#),
    ("200 OK", "content-type: application/json", "null"),
    ("200 OK", "content-type: text/html", "\"OK\""),
    ("200 OK", "content-type: application/json", r#"{"status":"accepted"}"#),
    (
        "202 Accepted",
        "content-type: application/json",
        r#"{"sale_id":"019394e8-6c00-7000-8000-000000000001","status":"accepted"}"#,
    ),
    (
        "202 Accepted",
        "content-type: application/json",
        r#"{"sales":[{"sale_id":"019394e8-6c00-7000-8000-000000000001","status":"accepted"}]}"#,
    ),
    ("202 Accepted", "content-type: application/json", "\"OK\""),
    ("204 No Content", "x-by: proxy", ""),
    ("302 Found", "location: /", ""),
    ("307 Temporary Redirect", "location: http://127.0.0.1:9/shop", ""),
    (
        "400 Bad Request",
        "content-type: application/problem+json",
        r#"{"type":"about:blank","status":400,"detail":"no"}"#,
    ),
    (
        "400 Bad Request",
        "content-type: application/json",
        r#"{"type":"urn:kassa:problem:malformed","status":400,"detail":"no"}"#,
    ),
    ("401 Unauthorized", "www-authenticate: Basic", ""),
    ("403 Forbidden", "content-type: text/html", "<html>blocked</html>"),
    ("404 Not Found", "content-type: application/json", r#"{"message":"Not Found"}"#),
    ("407 Proxy Authentication Required", "proxy-authenticate: Basic", ""),
    ("410 Gone", "content-type: text/plain", "gone"),
    ("413 Content Too Large", "content-type: text/html", ""),
    ("451 Unavailable For Legal Reasons", "content-type: text/html", ""),
    ("503 Service Unavailable", "retry-after: 1", ""),
];

/// How it is, and where it leads.
#[derive(Debug, Clone, Copy)]
struct State {
    is: Is,
    shop: SocketAddr,
}

/// A line of its own address, which stays, wherever the shop opens.
pub struct Line {
    pub url: String,
    state: watch::Sender<State>,
    lost: Arc<Lost>,
}

#[derive(Default)]
struct Lost {
    connections: AtomicU64,
    answers: AtomicU64,
    forged: AtomicU64,
}

impl Line {
    /// Leads nowhere yet.
    pub async fn lay() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (state, seen) =
            watch::channel(State { is: Is::Open, shop: SocketAddr::from(([127, 0, 0, 1], 9)) });
        let lost = Arc::<Lost>::default();
        tokio::spawn(accept(listener, seen, lost.clone()));
        Self { url, state, lost }
    }

    /// Whatever is on the way is lost when that changes.
    pub fn becomes(&self, is: Is) {
        self.state.send_modify(|state| state.is = is);
    }

    pub fn leads_to(&self, shop: SocketAddr) {
        self.state.send_modify(|state| state.shop = shop);
    }

    /// Connections that broke, answers that were lost, and answers that were not the shop's, so far.
    pub fn lost(&self) -> [u64; 3] {
        let Lost { connections, answers, forged } = &*self.lost;
        [connections, answers, forged].map(|count| count.load(Ordering::SeqCst))
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>, lost: Arc<Lost>) {
    // Ends with the line: nobody holds its state then.
    while let (Ok((till, _)), true) = (listener.accept().await, state.has_changed().is_ok()) {
        let (mut state, lost) = (state.clone(), lost.clone());
        tokio::spawn(async move {
            let State { is, shop } = *state.borrow_and_update();
            if is == Is::Cut {
                lost.connections.fetch_add(1, Ordering::SeqCst);
                return;
            }
            tokio::select! {
                () = carry(till, shop, is, &lost) => {}
                _ = state.changed() => { lost.connections.fetch_add(1, Ordering::SeqCst); }
            }
        });
    }
}

async fn carry(mut till: TcpStream, shop: SocketAddr, is: Is, lost: &Lost) {
    if let Is::Impostor(which) = is {
        return forge(till, IMPOSTORS[which], lost).await;
    }
    let Ok(mut shop) = TcpStream::connect(shop).await else { return };
    let ((mut asked, mut heard), (mut answered, mut told)) = (till.split(), shop.split());
    let answers = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = answered.read(&mut bytes).await {
            if is == Is::Deaf {
                lost.answers.fetch_add(1, Ordering::SeqCst);
            } else if heard.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = copy(&mut asked, &mut told) => {}
        () = answers => {}
    }
}

/// Answers one request, whatever it asks.
async fn forge(mut till: TcpStream, (status, header, body): (&str, &str, &str), lost: &Lost) {
    let (mut asked, mut bytes) = (Vec::new(), vec![0; 16 * 1024]);
    while !is_whole(&asked) {
        match till.read(&mut bytes).await {
            Ok(read @ 1..) => asked.extend_from_slice(&bytes[..read]),
            _ => return,
        }
    }
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\n{header}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    if till.write_all(answer.as_bytes()).await.is_ok() {
        lost.forged.fetch_add(1, Ordering::SeqCst);
    }
}

/// Whether these bytes are a request with all of its body.
fn is_whole(asked: &[u8]) -> bool {
    let text = String::from_utf8_lossy(asked);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}
