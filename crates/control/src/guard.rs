//! Keeps web pages out of a listener that a browser on this machine can reach.
//!
//! A page anywhere on the web may send requests to `http://127.0.0.1:9000`. The same-origin policy does not stop
//! them, it only hides the answers, and *DNS rebinding* lifts even that: the page's own name is made to resolve to
//! 127.0.0.1, and then the page and this API have the same origin. Two checks close both ways:
//!
//! - on a loopback listener the `Host` must be a name of this machine; a rebinding page brings its own name;
//! - an `Origin`, which browsers send with every cross-site POST, must be this server itself. Programs send none.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, Version, header};
use axum::middleware::{self, Next};
use axum::response::Response;

use crate::api::plain_failure;
use crate::metrics::{ApiMetrics, Refused};

/// Where a request came in; [`crate::serve`] attaches it to each one. A request without it is treated as from a
/// loopback listener, the stricter of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The listener's address is reachable from this machine only, by TCP. A Unix socket is not: no browser reaches it.
    pub loopback: bool,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Missing on HTTP/1.1, given twice, or not a host.
    BadHost,
    /// Not a name of this machine.
    ForeignHost,
    /// Another site's page, or one that hides which.
    ForeignOrigin,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Refusal::BadHost => StatusCode::BAD_REQUEST,
            Refusal::ForeignHost | Refusal::ForeignOrigin => StatusCode::FORBIDDEN,
        }
    }

    fn counted(self) -> Refused {
        match self {
            Refusal::BadHost | Refusal::ForeignHost => Refused::Host,
            Refusal::ForeignOrigin => Refused::Origin,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Refusal::BadHost => "a request needs exactly one valid Host",
            Refusal::ForeignHost => {
                "this listener is bound to loopback and answers only to the Hosts localhost, 127.0.0.1 and [::1], \
                 as a protection against DNS rebinding; for another name bind it to another address or a Unix socket"
            }
            Refusal::ForeignOrigin => {
                "requests from web pages of another origin are refused; call the API from a backend, without an Origin"
            }
        }
    }
}

/// Puts both checks, and headers that fit an API, around every route of `router` and its fallback.
pub(crate) fn protect(router: Router, metrics: Arc<ApiMetrics>) -> Router {
    router.layer(middleware::from_fn_with_state(metrics, check))
}

async fn check(State(metrics): State<Arc<ApiMetrics>>, request: Request, next: Next) -> Response {
    let loopback = request.extensions().get::<Arrival>().is_none_or(|arrival| arrival.loopback);
    let mut response = match admit(request.version(), request.uri(), request.headers(), loopback) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            metrics.refused(refusal.counted());
            // Debug escapes what a peer wrote; its length is bounded by the head.
            tracing::info!(target: "tidegate::api",
                    host = ?request.headers().get(header::HOST), origin = ?request.headers().get(header::ORIGIN),
                    option = "api.listen", "{}: {}", refusal.status().as_u16(), refusal.text());
            plain_failure(refusal.status(), refusal.text())
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn admit(version: Version, uri: &Uri, headers: &HeaderMap, loopback: bool) -> Result<(), Refusal> {
    let host = host(version, uri, headers)?;
    if loopback && host.as_ref().is_some_and(|host| !is_this_machine(host)) {
        return Err(Refusal::ForeignHost);
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Ok(()),
        (Some(origin), None) => {
            let same = origin.to_str().ok().zip(host).is_some_and(|(origin, host)| same(origin, &host));
            if same { Ok(()) } else { Err(Refusal::ForeignOrigin) }
        }
        (Some(_), Some(_)) => Err(Refusal::ForeignOrigin),
    }
}

/// Whom the request is for: the target's authority when it has one (RFC 9112, 3.2.2), else `Host`. HTTP/1.0, which some
/// health checks still speak, may have neither; no browser does.
fn host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let given = match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_10 => None,
        (Some(host), None) => {
            let host = Authority::try_from(host.as_bytes()).map_err(|_| Refusal::BadHost)?;
            // `user@localhost`: an authority, but not a Host.
            if host.as_str().contains('@') || host.host().is_empty() {
                return Err(Refusal::BadHost);
            }
            Some(host)
        }
        _ => return Err(Refusal::BadHost),
    };
    Ok(uri.authority().cloned().or(given))
}

/// Names that no DNS answer can bend to this machine: an address literal is not looked up, and browsers resolve
/// `localhost` themselves.
fn is_this_machine(host: &Authority) -> bool {
    let name = host.host();
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `origin` (`scheme://host[:port]`) is the server that `host` names, ports left out being those of the scheme.
fn same(origin: &str, host: &Authority) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let Ok(origin) = Authority::try_from(authority) else { return false };
    origin.host().eq_ignore_ascii_case(host.host())
        && origin.port_u16().unwrap_or(default_port) == host.port_u16().unwrap_or(default_port)
        && !origin.as_str().contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(headers: &[(&str, &str)], loopback: bool) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        admit(Version::HTTP_11, &Uri::from_static("/api/info"), &map, loopback)
    }

    #[test]
    fn only_names_of_this_machine_pass_on_loopback() {
        for host in ["localhost", "LocalHost:9000", "127.0.0.1", "127.0.0.1:9000", "[::1]", "[::1]:9000"] {
            assert_eq!(admitted(&[("host", host)], true), Ok(()), "{host}");
        }
        let foreign = [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhos:9000",
            "[::2]:9000",
            "10.0.0.1",
            "127.1",
            "0.0.0.0",
        ];
        for host in foreign {
            assert_eq!(admitted(&[("host", host)], true), Err(Refusal::ForeignHost), "{host}");
            assert_eq!(admitted(&[("host", host)], false), Ok(()), "{host} elsewhere");
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        assert_eq!(admitted(&[], true), Err(Refusal::BadHost));
        assert_eq!(admitted(&[("host", "localhost"), ("host", "localhost")], true), Err(Refusal::BadHost));
        assert_eq!(admitted(&[("host", "user@localhost")], true), Err(Refusal::BadHost));
        assert_eq!(admitted(&[("host", "")], true), Err(Refusal::BadHost));
        let (uri, none) = (Uri::from_static("/healthz"), HeaderMap::new());
        assert_eq!(admit(Version::HTTP_10, &uri, &none, true), Ok(()), "HTTP/1.0 had no Host");
    }

    #[test]
    fn an_absolute_target_outranks_the_host() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        let evil = Uri::from_static("http://evil.example/api/info");
        assert_eq!(admit(Version::HTTP_11, &evil, &headers, true), Err(Refusal::ForeignHost));
        let own = Uri::from_static("http://localhost/api/info");
        assert_eq!(admit(Version::HTTP_11, &own, &headers, true), Ok(()));
    }

    #[test]
    fn an_origin_must_be_this_host_and_port() {
        let with = |host, origin| admitted(&[("host", host), ("origin", origin)], true);
        assert_eq!(with("localhost:9000", "http://localhost:9000"), Ok(()));
        assert_eq!(with("localhost", "http://localhost"), Ok(()));
        assert_eq!(with("localhost:80", "http://LOCALHOST"), Ok(()));
        assert_eq!(with("[::1]:443", "https://[::1]"), Ok(()));
        for origin in [
            "http://localhost:9001",
            "http://localhost",
            "http://127.0.0.1:9000",
            "null",
            "",
            "https://evil.example",
            "file://",
            "http://a@localhost:9000",
            "http://localhost:9000/",
        ] {
            assert_eq!(with("localhost:9000", origin), Err(Refusal::ForeignOrigin), "{origin}");
        }
        let twice = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://localhost")];
        assert_eq!(admitted(&twice, true), Err(Refusal::ForeignOrigin));
    }
}
