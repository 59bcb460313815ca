//! Where a server listens, from a URL.

use std::net::{SocketAddr, ToSocketAddrs};

/// What the front of a URL says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scheme {
    /// `ws://` or `http://`, which are the same until the upgrade.
    Http,
    /// `wss://` or `https://`
    Tls,
    /// `nats://`
    Nats,
}

/// A URL, taken apart and its name resolved, once for all clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    pub(crate) scheme: Scheme,
    /// Where to connect to.
    pub(crate) address: SocketAddr,
    /// The `Host` header: host and port as they stand in the URL.
    pub(crate) host: String,
    /// Path and query; empty where the URL has none.
    pub(crate) target: String,
}

impl Endpoint {
    /// The same place with `path` where the URL says none.
    pub(crate) fn or_path(&self, path: &str) -> Endpoint {
        let target = match self.target.as_str() {
            "" | "/" => path.to_owned(),
            target if target.starts_with('?') => format!("{path}{target}"),
            target => target.to_owned(),
        };
        Endpoint { target, ..self.clone() }
    }
}

/// A place to open WebSockets to.
pub(crate) fn of_clients(url: &str) -> Result<Endpoint, String> {
    match url.split_once("://") {
        Some(("ws" | "http", rest)) => take_apart(Scheme::Http, rest, 80),
        Some(("wss" | "https", rest)) => take_apart(Scheme::Tls, rest, 443),
        _ => Err("write ws://127.0.0.1:8000".to_owned()),
    }
}

/// A place to publish to.
pub(crate) fn of_api(url: &str) -> Result<Endpoint, String> {
    match url.split_once("://") {
        Some(("http", rest)) => take_apart(Scheme::Http, rest, 80),
        Some(("nats", rest)) => take_apart(Scheme::Nats, rest, 4222),
        Some(("https" | "tls", _)) => Err("TLS is not spoken here: give the address behind it".to_owned()),
        _ => Err("write http://127.0.0.1:9000 or nats://127.0.0.1:4222".to_owned()),
    }
}

fn take_apart(scheme: Scheme, rest: &str, port_default: u16) -> Result<Endpoint, String> {
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || authority.contains('@') || !rest.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err("behind the scheme write HOST:PORT and perhaps a path".to_owned());
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let named = if has_port { authority.to_owned() } else { format!("{authority}:{port_default}") };
    let mut addresses = named.to_socket_addrs().map_err(|error| format!("{authority}: {error}"))?;
    let address = addresses.next().ok_or_else(|| format!("{authority} has no address"))?;
    Ok(Endpoint { scheme, address, host: authority.to_owned(), target: target.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_a_host_and_a_target() {
        let endpoint = of_clients("ws://127.0.0.1:8000/echo?a=b").unwrap();
        assert_eq!(endpoint.address, "127.0.0.1:8000".parse().unwrap());
        assert_eq!((&*endpoint.host, &*endpoint.target), ("127.0.0.1:8000", "/echo?a=b"));
        let endpoint = of_clients("http://[::1]").unwrap();
        assert_eq!(endpoint.address, "[::1]:80".parse().unwrap());
        assert_eq!((&*endpoint.host, &*endpoint.target), ("[::1]", ""));
        let endpoint = of_api("nats://127.0.0.1").unwrap();
        assert_eq!((endpoint.scheme, endpoint.address), (Scheme::Nats, "127.0.0.1:4222".parse().unwrap()));
        assert_eq!(of_api("http://127.0.0.1").unwrap().scheme, Scheme::Http);
    }

    #[test]
    fn a_path_of_its_own_wins_over_the_usual_one() {
        let target = |url: &str| of_clients(url).unwrap().or_path("/usual").target;
        assert_eq!(target("ws://127.0.0.1:1"), "/usual");
        assert_eq!(target("ws://127.0.0.1:1/"), "/usual");
        assert_eq!(target("ws://127.0.0.1:1?x=1"), "/usual?x=1");
        assert_eq!(target("ws://127.0.0.1:1/own?x=1"), "/own?x=1");
    }

    #[test]
    fn what_is_no_url_is_refused_and_its_twin_is_not() {
        for url in [
            "127.0.0.1:8000",
            "wsss://127.0.0.1:8000",
            "ws://",
            "ws://u@127.0.0.1:1",
            "ws://127.0.0.1:1/a b",
            "ws://127.0.0.1:1/#f",
        ] {
            assert!(of_clients(url).is_err() && of_api(url).is_err(), "{url}");
        }
        for url in ["ws://127.0.0.1:8000", "ws://127.0.0.1:1/a%20b", "ws://127.0.0.1:1/f"] {
            assert!(of_clients(url).is_ok() && of_api(&url.replace("ws", "http")).is_ok(), "{url}");
        }
        let endpoint = of_clients("wss://[::1]/a").unwrap();
        assert_eq!((endpoint.scheme, endpoint.address), (Scheme::Tls, "[::1]:443".parse().unwrap()));
        assert!(of_api("wss://127.0.0.1").is_err() && of_api("https://127.0.0.1").is_err());
        assert!(of_clients("nats://127.0.0.1:4222").is_err() && of_api("nats://127.0.0.1:4222").is_ok());
    }
}
