//! A listener that waits for nobody too long, and lets nobody take more than a share of it. `serve` is where one enters.
//!
//! ```text
//! connection ─ a place ─ (TLS) ─ headers in time ─ names a site of ours ─▶ router ─ a body in time ─ in hand ─▶ answer
//! ```

/// How many connections the system allows.
mod descriptors;
/// Which site a request is meant for.
mod names;
/// Who is answered late.
mod pace;
/// Who may have how much.
mod places;
/// Refusals in their form.
mod refusal;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use kassa_bus::ClientAddress;
use kassa_pipeline::problem::Problem;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::Service;

pub use names::Names;
pub use pace::Pace;
pub use places::{Limits, Places, Received, Unread};
pub use refusal::{TookSome, refused, response};

/// Bytes of a request's headers, and how many there may be. More is answered 431. Each connection may hold as much, and as much
/// again of a body.
const HEADER_BYTES: usize = 8 * 1024;
const HEADERS: usize = 64;

/// How long to wait before accepting again where the system refuses, which is when it is out of descriptors.
const BREATHER: Duration = Duration::from_millis(100);

/// Serves HTTP/1.1 until then, and ends what was begun. Whoever sends or takes slowly or nothing is not waited for.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    places: Arc<Places>,
    until: impl Future<Output = ()> + Send,
) {
    let names = listener.local_addr().map_or(Names::Loopback, Names::of);
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(until);
    loop {
        let accepted = async { (places.free().await, listener.accept().await) };
        let (free, accepted) = tokio::select! {
            () = &mut until => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        let client = ClientAddress::from(from.ip());
        let Some(place) = free.and_then(|free| places.connect(client, free)) else { continue };
        let asker = Asker { client, names, router: router.clone() };
        let connection = connection(stream, asker, tls.clone(), places.limits.patience, closed.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    // Whoever comes now is refused at once, and does not wait for those that are in hand.
    drop(listener);
    closing.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// Who asks, whom they may mean, and who answers.
#[derive(Clone)]
struct Asker {
    client: ClientAddress,
    names: Names,
    router: Router,
}

impl Asker {
    async fn answer(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        if let Err(why) = self.names.check(request.uri(), request.headers()) {
            return Ok(response(Problem::Misdirected(why).answer()));
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.client));
        self.router.call(request).await.map(refusal::in_form)
    }
}

async fn connection(
    stream: TcpStream,
    asker: Asker,
    tls: Option<TlsAcceptor>,
    patience: Duration,
    closed: watch::Receiver<bool>,
) {
    // An answer is small, and somebody waits for it.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    // Whoever takes nothing of what it is sent is let go, under TLS as well.
    stream.set_write_timeout(Some(patience));
    let stream = Box::pin(stream);
    match tls {
        None => answers(stream, asker, patience, closed).await,
        Some(tls) => match tokio::time::timeout(patience, tls.accept(stream)).await {
            Ok(Ok(stream)) => answers(stream, asker, patience, closed).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn answers<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    asker: Asker,
    patience: Duration,
    mut closed: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service_fn(move |request| asker.clone().answer(request)));
    tokio::pin!(connection);
    let told = async { drop(closed.wait_for(|closed| *closed).await) };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
