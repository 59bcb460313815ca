//! Published keys, from a provider that is there, away, slow to change, or says nonsense.

use control::webhook::{Caller, Endpoint, Options, Outcome};
use gateway::keys::{Keys, Source};
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"K"}"#;

/// A provider that answers with one text after the other, the last of them for ever, and says each time that it was asked.
struct Provider {
    url: String,
    asked: mpsc::UnboundedReceiver<()>,
}

fn set(ids: &[&str]) -> String {
    let keys: Vec<_> = ids.iter().map(|id| P256.replace("\"K\"", &format!("{id:?}"))).collect();
    format!("{{\"keys\":[{}]}}", keys.join(","))
}

impl Provider {
    fn start(answers: &[(u16, String)]) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/jwks.json", listener.local_addr().expect("an address"));
        let (tell, asked) = mpsc::unbounded_channel();
        let mut queue = VecDeque::from(answers.to_vec());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                    head.push(byte[0]);
                }
                assert!(head.starts_with(b"GET /jwks.json HTTP/1.1\r\n"), "{:?}", String::from_utf8_lossy(&head));
                let (status, body) =
                    if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() }.expect("one");
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Provider { url, asked }
    }

    fn source(&self, refresh: Duration) -> Source {
        let options =
            Options { timeout: Duration::from_secs(10), calls_max: 4, answer_bytes_max: 4096, keys: Vec::new() };
        let caller = Caller::new(options, false).expect("no TLS");
        Source { endpoint: Endpoint::new(caller, self.url.parse().expect("a URL")), refresh }
    }

    async fn expect_asked(&mut self) {
        self.asked.recv().await.expect("asked for keys");
    }
}

/// Runs what fetches, beside what `check` does.
async fn following<T>(keys: &Arc<Keys>, check: impl Future<Output = T>) -> T {
    let follower = tokio::spawn({
        let keys = keys.clone();
        async move { keys.follow().await }
    });
    let checked = tokio::time::timeout(Duration::from_secs(60), check).await.expect("in time");
    follower.abort();
    checked
}

#[tokio::test]
async fn keys_are_fetched_at_once_and_when_they_are_wanted() {
    let provider = Provider::start(&[(200, set(&["a"])), (200, set(&["a", "b"]))]);
    let keys = Arc::new(Keys::default());
    let mut known = keys.known();
    keys.set_source(Some(provider.source(Duration::from_secs(3600))));
    following(&keys, async {
        known.changed().await.expect("keys");
        assert_eq!(known.borrow_and_update().len(), 1);
        // Nobody waits for the hour; but not twice within five seconds either.
        let begun = std::time::Instant::now();
        keys.want();
        known.changed().await.expect("more keys");
        assert_eq!(known.borrow_and_update().len(), 2);
        assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    })
    .await;
    assert_eq!(provider.asked.len(), 2);
}

#[tokio::test]
async fn what_is_known_stays_when_the_provider_is_away_or_says_nonsense() {
    let provider = Provider::start(&[
        (200, set(&["a"])),
        (500, set(&["b"])),
        (200, "{\"keys\":[]}".into()),
        (200, set(&["c", "d"])),
    ]);
    let keys = Arc::new(Keys::default());
    let mut known = keys.known();
    keys.set_source(Some(provider.source(Duration::from_millis(1))));
    following(&keys, async {
        known.changed().await.expect("keys");
        assert_eq!(known.borrow_and_update().len(), 1);
        known.changed().await.expect("the next keys that count");
        assert_eq!(known.borrow_and_update().len(), 2, "neither the error's nor none");
    })
    .await;
    let calls = keys.sample();
    let ended = |outcome: Outcome| calls.ended.iter().find(|(word, _)| *word == outcome.word()).expect("a count").1;
    assert_eq!((ended(Outcome::Status), ended(Outcome::Ill)), (1, 1));
    assert!(ended(Outcome::Ok) >= 2);
}

#[tokio::test]
async fn the_same_keys_are_not_told_again() {
    let mut provider = Provider::start(&[(200, set(&["a"]))]);
    let keys = Arc::new(Keys::default());
    let mut known = keys.known();
    keys.set_source(Some(provider.source(Duration::from_millis(1))));
    following(&keys, async {
        known.changed().await.expect("keys");
        known.mark_unchanged();
        for _ in 0..20 {
            provider.expect_asked().await;
        }
        assert!(!known.has_changed().expect("a sender"));
    })
    .await;
}

#[tokio::test]
async fn the_keys_of_another_place_count_no_more() {
    let first = Provider::start(&[(200, set(&["a"]))]);
    let second = Provider::start(&[(500, String::new()), (200, set(&["a"]))]);
    let keys = Arc::new(Keys::default());
    let mut known = keys.known();
    following(&keys, async {
        let hour = Duration::from_secs(3600);
        keys.set_source(Some(first.source(hour)));
        known.changed().await.expect("keys");
        assert_eq!(known.borrow_and_update().len(), 1);
        // The same place with other habits: they stay.
        keys.set_source(Some(first.source(hour * 2)));
        assert_eq!(known.borrow().len(), 1);
        keys.set_source(Some(second.source(hour)));
        assert!(known.borrow_and_update().is_empty(), "at once, though there are no others yet");
        known.changed().await.expect("the same key, of the other place");
        assert_eq!(known.borrow_and_update().len(), 1);
        keys.set_source(None);
        assert!(known.borrow().is_empty() && !keys.has_source());
    })
    .await;
}
