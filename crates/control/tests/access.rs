//! Who gets in: keys, Hosts, Origins, and how much a request may bring.

mod common;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use common::{Fake, KEY, ask, get, node, node_with, post, post_with, settings};
use control::{ApiKey, ApiSettings, Arrival};

const PUBLISH: &str = r#"{"channel":"news","data":1}"#;

#[tokio::test]
async fn without_the_right_key_there_is_an_empty_401_and_nothing_is_published() {
    let (fake, router) = node();
    let wrong: [&[(&str, &str)]; 6] = [
        &[],
        &[("x-api-key", "")],
        &[("x-api-key", "test-kez")],
        &[("x-api-key", "test-ke")],
        &[("authorization", "Bearer test-key")],
        &[("authorization", "apikey test-kez")],
    ];
    for headers in wrong {
        let answer = post_with(&router, "/api/publish", headers, PUBLISH).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (401, ""), "{headers:?}");
    }
    // Nobody without a key learns which methods there are.
    assert_eq!(post_with(&router, "/api/nothing", &[], "").await.status.as_u16(), 401);
    assert_eq!(post_with(&router, "/api/publish?api_key=test-kez", &[], PUBLISH).await.status.as_u16(), 401);
    assert!(fake.log().is_empty());
}

#[tokio::test]
async fn the_right_key_opens_in_each_place() {
    let (fake, router) = node();
    let right: [(&str, &[(&str, &str)]); 3] = [
        ("/api/publish", &[("x-api-key", KEY)]),
        ("/api/publish", &[("authorization", "apikey test-key")]),
        ("/api/publish?api_key=test-key", &[]),
    ];
    for (path, headers) in right {
        assert_eq!(post_with(&router, path, headers, PUBLISH).await.status.as_u16(), 200, "{path} {headers:?}");
    }
    assert_eq!(fake.log().len(), 3);
}

#[tokio::test]
async fn during_rotation_both_keys_open_and_afterwards_one() {
    let keys = |keys: &[&str]| keys.iter().map(|key| ApiKey::new(key).unwrap()).collect();
    let (_, both) = node_with(ApiSettings { keys: keys(&["old", "new"]), ..settings() }, Fake::default());
    let (_, after) = node_with(ApiSettings { keys: keys(&["new"]), ..settings() }, Fake::default());
    for (router, old) in [(both, 200), (after, 401)] {
        let with = async |key| post_with(&router, "/api/info", &[("x-api-key", key)], "").await.status.as_u16();
        assert_eq!((with("old").await, with("new").await), (old, 200));
    }
}

#[tokio::test]
async fn no_configured_key_opens_nothing_unless_insecure_is_asked_for() {
    let (fake, closed) = node_with(ApiSettings::default(), Fake::default());
    assert_eq!(post_with(&closed, "/api/publish", &[("x-api-key", "")], PUBLISH).await.status.as_u16(), 401);
    assert!(fake.log().is_empty());
    let (fake, open) = node_with(ApiSettings { insecure: true, ..ApiSettings::default() }, Fake::default());
    assert_eq!(post_with(&open, "/api/publish", &[], PUBLISH).await.status.as_u16(), 200);
    assert_eq!(fake.log().len(), 1);
}

#[tokio::test]
async fn a_cross_site_form_is_refused_even_in_dev_and_its_twin_from_curl_is_taken() {
    let (fake, router) = node_with(ApiSettings { insecure: true, ..ApiSettings::default() }, Fake::default());
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"] {
        for origin in ["https://evil.example", "null", "http://localhost:9001"] {
            let headers = [("content-type", kind), ("origin", origin)];
            let answer = post_with(&router, "/api/publish", &headers, PUBLISH).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{headers:?}");
        }
    }
    assert!(fake.log().is_empty());
    let curl = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(post_with(&router, "/api/publish", &curl, PUBLISH).await.status.as_u16(), 200);
    let own_page = [("content-type", "text/plain"), ("origin", "http://localhost:9000")];
    assert_eq!(post_with(&router, "/api/publish", &own_page, PUBLISH).await.status.as_u16(), 200);
    assert_eq!(fake.log().len(), 2);
}

#[tokio::test]
async fn a_preflight_gets_no_cors_headers() {
    let (_, router) = node();
    let preflight = |origin: &str| {
        Request::options("/api/publish")
            .header("host", "localhost:9000")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("x-api-key", KEY)
            .body(Body::empty())
            .unwrap()
    };
    for (origin, status) in [("https://evil.example", 403), ("http://localhost:9000", 405)] {
        let answer = ask(&router, preflight(origin)).await;
        assert_eq!(answer.status.as_u16(), status);
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
    }
}

#[tokio::test]
async fn a_rebinding_host_is_refused_on_loopback_for_every_path_and_told_why() {
    let (fake, router) = node();
    let with = |path: &str, host: &str, arrival: Option<Arrival>| {
        let mut request = Request::post(path).header("host", host).header("x-api-key", KEY);
        if let Some(arrival) = arrival {
            request = request.extension(arrival);
        }
        request.body(PUBLISH.into()).unwrap()
    };
    for path in ["/api/publish", "/metrics", "/healthz", "/nothing"] {
        let answer = ask(&router, with(path, "evil.example:9000", Some(Arrival { loopback: true }))).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.body.contains("DNS rebinding"), "{}", answer.body);
    }
    let unknown_arrival = ask(&router, with("/api/publish", "evil.example", None)).await;
    assert_eq!(unknown_arrival.status, StatusCode::FORBIDDEN, "the stricter case is the default");
    assert!(fake.log().is_empty());

    let elsewhere = Some(Arrival { loopback: false });
    assert_eq!(ask(&router, with("/api/publish", "push.example", elsewhere)).await.status, StatusCode::OK);
    for host in ["localhost", "127.0.0.1:9000", "[::1]:9000"] {
        assert_eq!(ask(&router, with("/api/publish", host, None)).await.status, StatusCode::OK, "{host}");
    }
    assert_eq!(fake.log().len(), 4);
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_whether_declared_or_not() {
    let (fake, router) = node_with(ApiSettings { body_bytes_max: PUBLISH.len(), ..settings() }, Fake::default());
    let longer = format!("{PUBLISH} ");
    // A stream has no known length.
    let streamed = |text: &str| {
        let (head, tail) = (text[..5].to_owned(), text[5..].to_owned());
        Body::new(Chunks(vec![tail, head]))
    };
    assert_eq!(post(&router, "/api/publish", longer.clone()).await.status.as_u16(), 413);
    assert_eq!(post(&router, "/api/publish", streamed(&longer)).await.status.as_u16(), 413);
    assert!(fake.log().is_empty());
    assert_eq!(post(&router, "/api/publish", PUBLISH).await.status.as_u16(), 200);
    assert_eq!(post(&router, "/api/publish", streamed(PUBLISH)).await.status.as_u16(), 200);
    assert_eq!(fake.log().len(), 2);
}

/// A body that comes in pieces, the last of the vector first.
struct Chunks(Vec<String>);

impl hyper::body::Body for Chunks {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.pop().map(|chunk| Ok(hyper::body::Frame::data(chunk.into()))))
    }
}

#[tokio::test]
async fn answers_are_not_sniffed_and_not_stored() {
    let (_, router) = node();
    for path in ["/metrics", "/healthz", "/nothing"] {
        let answer = get(&router, path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
}
