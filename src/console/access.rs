//! Who may look at the console. Which names it answers to, and to which sites' pages, is its listener's to say.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::page;

/// Who may look at the console.
#[derive(Clone)]
pub enum Access {
    /// Whoever sits at this machine.
    Loopback,
    /// Whoever has the token.
    Token(Arc<Token>),
}

/// What a browser must bring, and the cookie it brings it in: browsers do not tell cookies apart by port.
pub struct Token {
    secret: String,
    cookie: String,
    /// Whether browsers are to send it over TLS only.
    secure: bool,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Pass,
    /// The token is right: it goes from the address into a cookie.
    Keep {
        location: String,
    },
    Refuse(StatusCode, &'static str),
}

impl Access {
    /// For a console that listens on `address`, with TLS or without. One that others can reach wants a token.
    #[must_use]
    pub fn on(address: SocketAddr, secure: bool) -> Self {
        if address.ip().to_canonical().is_loopback() {
            return Self::Loopback;
        }
        let secret = uuid::Uuid::new_v4().simple().to_string();
        let cookie = format!("kassa-console-{}", address.port());
        Self::Token(Arc::new(Token { secret, cookie, secure }))
    }

    /// The console's address for whoever may look.
    #[must_use]
    pub fn address(&self, url: &str) -> String {
        match self {
            Self::Loopback => format!("{url}/"),
            Self::Token(token) => format!("{url}/?token={}", token.secret),
        }
    }

    /// Whether a request may see what the console shows.
    #[must_use]
    pub fn admits(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        match self {
            Self::Loopback => true,
            Self::Token(token) => !matches!(token.judge(uri, headers), Judgement::Refuse(..)),
        }
    }
}

impl Token {
    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Judgement {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (others, sent): (Vec<&str>, Vec<&str>) =
            uri.query().unwrap_or_default().split('&').partition(|pair| !pair.starts_with("token="));
        if sent.iter().any(|pair| self.is(&pair["token=".len()..])) {
            let mut location = uri.path().to_owned();
            let others = others.join("&");
            if !others.is_empty() {
                let _ = write!(location, "?{others}");
            }
            // `//host` would be another machine, and so, to a browser, would `/\\host`.
            return Judgement::Keep { location: format!("/{}", location.trim_start_matches(['/', '\\'])) };
        }
        let bearer = text(header::AUTHORIZATION).strip_prefix("Bearer ");
        let mut cookies = text(header::COOKIE).split(';').filter_map(|c| c.trim().split_once('='));
        if bearer.is_some_and(|token| self.is(token))
            || cookies.any(|(name, value)| name == self.cookie && self.is(value))
        {
            return Judgement::Pass;
        }
        Judgement::Refuse(
            StatusCode::UNAUTHORIZED,
            "The console can be reached from other machines, so it wants a token. Open the address with ?token=… \
             that was printed where the shop was opened.",
        )
    }

    fn is(&self, text: &str) -> bool {
        verify_slices_are_equal(text.as_bytes(), self.secret.as_bytes()).is_ok()
    }

    /// Not for scripts, not from other sites, gone with the browser's session.
    fn set_cookie(&self) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{}={}; Path=/; HttpOnly; SameSite=Strict{secure}", self.cookie, self.secret)
    }
}

pub(super) async fn guard(State(token): State<Arc<Token>>, request: Request, next: Next) -> Response {
    match token.judge(request.uri(), request.headers()) {
        Judgement::Pass => next.run(request).await,
        Judgement::Keep { location } => {
            let headers = [(header::LOCATION, location), (header::SET_COOKIE, token.set_cookie())];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        Judgement::Refuse(status, why) => page::refusal(status, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(token: &Token, uri: &str, headers: &[(header::HeaderName, &str)]) -> Judgement {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        token.judge(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn elsewhere_the_token_opens_and_becomes_a_cookie() {
        assert!(matches!(Access::on("127.0.0.1:8080".parse().unwrap(), true), Access::Loopback));
        let access = Access::on("0.0.0.0:8080".parse().unwrap(), false);
        let address = access.address("http://10.0.0.1:8080");
        let Access::Token(access) = access else { panic!("others reach it") };
        let token = address.split_once("token=").unwrap().1.to_owned();
        assert!(token.len() >= 32);
        let kept = judged(&access, &format!("/sales?shop=A&token={token}"), &[]);
        assert_eq!(kept, Judgement::Keep { location: "/sales?shop=A".into() });
        for elsewhere in ["//evil.example", "/\\evil.example", "/\\/evil.example"] {
            let kept = judged(&access, &format!("{elsewhere}?token={token}"), &[]);
            assert_eq!(kept, Judgement::Keep { location: "/evil.example".into() });
        }
        let cookie = format!("a=b; kassa-console-8080={token}");
        assert_eq!(judged(&access, "/", &[(header::COOKIE, &cookie)]), Judgement::Pass);
        let bearer = format!("Bearer {token}");
        assert_eq!(judged(&access, "/", &[(header::AUTHORIZATION, &bearer)]), Judgement::Pass);
        for (uri, cookie) in [
            ("/", ""),
            ("/?token=", ""),
            ("/?token=x", ""),
            ("/", "kassa-console-8080="),
            ("/", "kassa-console-8080=x"),
            ("/", &format!("other={token}")),
        ] {
            let judged = judged(&access, uri, &[(header::COOKIE, cookie)]);
            assert!(matches!(judged, Judgement::Refuse(StatusCode::UNAUTHORIZED, _)), "{uri} {cookie}");
        }
    }
}
