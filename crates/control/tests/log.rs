//! What the operator reads. The only test of its process: other threads without a subscriber would race with this
//! one's for tracing's process-wide cache of who is interested in what.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use common::{Fake, KEY, ask, node_with, post, post_with, settings};
use control::ApiSettings;

const PUBLISH: &str = r#"{"channel":"news","data":1}"#;

/// A log kept in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

#[tokio::test]
async fn each_error_names_the_option_to_look_at_in_the_log_and_no_line_holds_a_key() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (_, router) = node_with(ApiSettings { body_bytes_max: 100, ..settings() }, Fake::default());

    let cases = [
        (r#"{"channel":"chap:1","data":1}"#.to_owned(), "102: unknown channel", "option=\"namespaces\""),
        (r#"{"channel":"news","data":1,"version":2}"#.to_owned(), "108: not available", "option=\"version\""),
        (r#"{"channel":"news"}"#.to_owned(), "107: bad request", "option=\"data\""),
        (r#"{"channel":"busy","data":1}"#.to_owned(), "100: internal", "option=\"limits.mailbox\""),
        ("x".repeat(101), "413", "option=\"api.body_bytes_max\""),
        ("x".to_owned(), "400", "option=\"body\""),
    ];
    for (body, code, option) in cases {
        post(&router, "/api/publish", body.clone()).await;
        let lines = log.take();
        assert!(lines.contains(code) && lines.contains(option), "{body}: {lines}");
        assert_eq!(lines.lines().count(), 1, "{lines}");
    }
    post_with(&router, "/api/publish?api_key=wrong-secret", &[], "").await;
    let lines = log.take();
    assert!(lines.contains("401") && lines.contains("option=\"api.keys\""), "{lines}");
    assert!(!lines.contains("wrong-secret") && !lines.contains(KEY), "{lines}");
    let request = Request::post("/api/info").header("host", "evil.example").body(Body::empty()).unwrap();
    ask(&router, request).await;
    assert!(log.take().contains("evil.example"), "the operator sees which Host came");
    post(&router, "/api/publish", PUBLISH).await;
    assert_eq!(log.take(), "", "success is silent");
}
