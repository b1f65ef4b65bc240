use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::page;

/// Who may look at the console.
#[derive(Clone)]
pub enum Access {
    /// Whoever sits at this machine. A name that only pretends to be this machine (DNS rebinding) is refused.
    Loopback,
    /// Whoever has the token.
    Token(Arc<Token>),
}

/// What a browser must bring, and the cookie it brings it in: browsers do not tell cookies apart by port.
pub struct Token {
    token: String,
    cookie: String,
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
    /// For a console that listens on `address`. One that others can reach wants a token.
    #[must_use]
    pub fn on(address: SocketAddr) -> Self {
        if address.ip().is_loopback() {
            return Self::Loopback;
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        Self::Token(Arc::new(Token { token, cookie: format!("kassa-console-{}", address.port()) }))
    }

    /// The console's address for whoever may look.
    #[must_use]
    pub fn address(&self, url: &str) -> String {
        match self {
            Self::Loopback => format!("{url}/"),
            Self::Token(token) => format!("{url}/?token={}", token.token),
        }
    }

    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Judgement {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        match self {
            Self::Loopback => {
                let named = uri.authority().map(Authority::as_str).or(text(header::HOST));
                if named.is_some_and(is_this_machine) {
                    Judgement::Pass
                } else {
                    Judgement::Refuse(
                        StatusCode::MISDIRECTED_REQUEST,
                        "The console of this shop answers to localhost, 127.0.0.1 and [::1] only. To reach it from \
                         elsewhere, start it with --listen and that address.",
                    )
                }
            }
            Self::Token(token) => token.judge(uri, text(header::COOKIE)),
        }
    }
}

impl Token {
    fn judge(&self, uri: &Uri, cookies: Option<&str>) -> Judgement {
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
        let mut cookies = cookies.unwrap_or_default().split(';').filter_map(|c| c.trim().split_once('='));
        if cookies.any(|(name, value)| name == self.cookie && self.is(value)) {
            return Judgement::Pass;
        }
        Judgement::Refuse(
            StatusCode::UNAUTHORIZED,
            "The console can be reached from other machines, so it wants a token. Open the address with ?token=… \
             that was printed where the shop was opened.",
        )
    }

    fn is(&self, text: &str) -> bool {
        verify_slices_are_equal(text.as_bytes(), self.token.as_bytes()).is_ok()
    }

    /// Not for scripts, not from other sites, gone with the browser's session.
    fn set_cookie(&self) -> String {
        format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie, self.token)
    }
}

fn is_this_machine(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    match (access.judge(request.uri(), request.headers()), &access) {
        (Judgement::Pass, _) => next.run(request).await,
        (Judgement::Keep { location }, Access::Token(token)) => {
            let headers = [(header::LOCATION, location), (header::SET_COOKIE, token.set_cookie())];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        (Judgement::Keep { .. }, Access::Loopback) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        (Judgement::Refuse(status, why), _) => page::refusal(status, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(access: &Access, uri: &str, headers: &[(header::HeaderName, &str)]) -> Judgement {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        access.judge(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn on_loopback_only_this_machines_own_names_pass() {
        let access = Access::on("127.0.0.1:8080".parse().unwrap());
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:1"] {
            assert_eq!(judged(&access, "/", &[(header::HOST, host)]), Judgement::Pass, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.5",
            "0.0.0.0",
            "",
            "@",
        ] {
            assert!(matches!(judged(&access, "/", &[(header::HOST, host)]), Judgement::Refuse(..)), "{host}");
        }
        assert!(matches!(judged(&access, "/", &[]), Judgement::Refuse(..)));
        // An absolute address counts for more than the header (RFC 9112 section 3.2.2).
        let both = judged(&access, "http://evil.example/", &[(header::HOST, "localhost")]);
        assert!(matches!(both, Judgement::Refuse(..)));
    }

    #[test]
    fn elsewhere_the_token_opens_and_becomes_a_cookie() {
        let access = Access::on("0.0.0.0:8080".parse().unwrap());
        let address = access.address("http://10.0.0.1:8080");
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
