//! The network between tills and their shop, which can be cut, or lose what the shop answers.

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
}

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

    /// Connections that broke and answers that were lost so far.
    pub fn lost(&self) -> (u64, u64) {
        (self.lost.connections.load(Ordering::SeqCst), self.lost.answers.load(Ordering::SeqCst))
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
