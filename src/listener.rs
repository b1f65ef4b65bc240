use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service;

/// Connections at once; further ones wait in the system's queue until one ends.
const CONNECTIONS: usize = 4_096;

/// Of one address at once; further ones are closed. Half of all, so that no single one keeps the others out.
const OF_ONE: usize = CONNECTIONS / 2;

/// How long a client may take to shake hands, and to send a request's headers. A connection that asks for nothing is
/// closed after as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a request's headers, and how many there may be. More is answered 431.
const HEADER_BYTES: usize = 32 * 1024;
const HEADERS: usize = 64;

/// How long to wait before accepting again where the system refuses, which is when it is out of descriptors.
const BREATHER: Duration = Duration::from_millis(100);

/// Serves HTTP/1.1 until then, and ends what was begun. Whoever sends slowly or nothing is not waited for.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    until: impl Future<Output = ()> + Send,
) {
    let (places, addresses) = (Arc::new(Semaphore::new(CONNECTIONS)), Addresses::default());
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(until);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
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
        let Some(address) = addresses.take(from.ip()) else { continue };
        let connection = connection(stream, from, tls.clone(), router.clone(), closed.clone());
        connections.spawn(async move {
            connection.await;
            drop((place, address));
        });
    }
    closing.send_replace(true);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    closed: watch::Receiver<bool>,
) {
    // An answer is small, and somebody waits for it.
    let _ = stream.set_nodelay(true);
    match tls {
        None => answers(stream, from, router, closed).await,
        Some(tls) => match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => answers(stream, from, router, closed).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn answers<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    from: SocketAddr,
    router: Router,
    mut closed: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(from));
            let answer: Result<Response<Body>, Infallible> = router.call(request).await;
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
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

/// How many connections each address has.
#[derive(Default, Clone)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of an address's connections, until it is dropped.
struct Taken(Addresses, IpAddr);

impl Addresses {
    fn take(&self, address: IpAddr) -> Option<Taken> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Taken(self.clone(), address))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_half_of_all_connections_and_another_still_some() {
        let addresses = Addresses::default();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let mut taken: Vec<_> = (0..OF_ONE).map(|_| addresses.take(one).expect("a place")).collect();
        assert!(addresses.take(one).is_none() && addresses.take(other).is_some());
        taken.pop();
        assert!(addresses.take(one).is_some());
        drop(taken);
        assert!(addresses.0.lock().unwrap().is_empty());
    }
}
