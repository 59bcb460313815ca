//! Readings from texts of an invented machine, and the task against an invented node.

use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use hub::{Epoch, Namespaces, Offset, Position, Published};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::backend::{BackendError, ClientAction, Clients, ConnectionInfo};
use crate::metrics::WorkerSample;

fn texts(stat: &str, net_dev: &str) -> Texts {
    Texts {
        stat: Some(stat.to_owned()),
        meminfo: Some("MemTotal: 4 kB\nMemAvailable: 3 kB\n".to_owned()),
        net_dev: Some(net_dev.to_owned()),
    }
}

fn interface(name: &str, received: u64, sent: u64) -> String {
    format!("{name}: {received} 0 0 0 0 0 0 0 {sent} 0 0 0 0 0 0 0\n")
}

fn sample(received: u64, sent: u64) -> NodeSample {
    // Two workers, so that a sum over one of them would show.
    let worker = |share: u64| WorkerSample {
        messages_received: received * share / 4,
        messages_sent: sent * share / 4,
        ..WorkerSample::default()
    };
    NodeSample { workers: vec![worker(1), worker(3)], ..NodeSample::default() }
}

fn seconds(n: f64) -> Duration {
    Duration::from_secs_f64(n)
}

/// What a client would see of the second of two readings.
fn second_of(first: (&Texts, &NodeSample), second: (&Texts, &NodeSample), elapsed: f64) -> Value {
    let mut sampler = Sampler::default();
    let node = NodeInfo::default();
    sampler.reading(seconds(10.0), first.0, &node, first.1);
    serde_json::to_value(sampler.reading(seconds(10.0 + elapsed), second.0, &node, second.1)).unwrap()
}

#[test]
fn loads_are_of_the_time_since_the_reading_before() {
    let first = texts("cpu0 10 0 0 90\ncpu1 0 0 0 100\n", "");
    let second = texts("cpu0 20 0 0 105\ncpu1 0 0 5 120\n", "");
    let seen = second_of((&first, &sample(0, 0)), (&second, &sample(0, 0)), 0.25);
    assert_eq!(seen["processor"], json!({"busy": 0.3, "cores": [{"core": 0, "busy": 0.4}, {"core": 1, "busy": 0.2}]}));
    assert_eq!(seen["memory"], json!({"total": 4096, "available": 3072, "swap_total": 0, "swap_free": 0}));
}

#[test]
fn a_core_that_came_online_in_between_waits_for_its_second_reading() {
    let first = texts("cpu0 10 0 0 90\n", "");
    let second = texts("cpu0 20 0 0 90\ncpu1 50 0 0 50\n", "");
    let seen = second_of((&first, &sample(0, 0)), (&second, &sample(0, 0)), 0.25);
    assert_eq!(seen["processor"], json!({"busy": 1.0, "cores": [{"core": 0, "busy": 1.0}]}));
}

#[test]
fn network_rates_are_bytes_per_second_of_every_interface() {
    let first = texts("", &(interface("lo", 1000, 2000) + &interface("eth0", 5, 5)));
    let second = texts("", &(interface("lo", 1500, 2010) + &interface("eth0", 5, 5) + &interface("wg0", 900, 900)));
    let seen = second_of((&first, &sample(0, 0)), (&second, &sample(0, 0)), 0.5);
    assert_eq!(
        seen["network"]["interfaces"],
        json!([
            {"name": "lo", "received": 1000, "sent": 20},
            {"name": "eth0", "received": 0, "sent": 0},
            {"name": "wg0", "received": 0, "sent": 0},
        ]),
        "idle interfaces are listed too, and one that has just appeared has no rate yet"
    );
}

#[test]
fn a_counter_that_was_reset_is_no_traffic() {
    let first = texts("", &interface("eth0", 1_000_000, 1_000_000));
    let second = texts("", &interface("eth0", 7, 1_000_100));
    let seen = second_of((&first, &sample(0, 0)), (&second, &sample(0, 0)), 1.0);
    assert_eq!(seen["network"]["interfaces"], json!([{"name": "eth0", "received": 0, "sent": 100}]));
}

#[test]
fn messages_per_second_are_of_all_workers() {
    let none = texts("", "");
    let seen = second_of((&none, &sample(100, 400)), (&none, &sample(120, 800)), 0.25);
    assert_eq!((&seen["gateway"]["received_per_s"], &seen["gateway"]["sent_per_s"]), (&json!(80), &json!(1600)));
}

#[test]
fn the_first_reading_has_no_rates_and_says_so_by_leaving_them_out() {
    let node = NodeInfo { num_clients: 3, num_subs: 5, num_channels: 4, uptime: 60, ..NodeInfo::default() };
    let full = texts("cpu0 10 0 0 90\n", &interface("lo", 1, 1));
    let mut sampler = Sampler::default();
    let seen = serde_json::to_value(sampler.reading(seconds(0.0), &full, &node, &sample(9, 9))).unwrap();
    assert_eq!(seen.get("processor"), None);
    assert_eq!(seen.get("network"), None);
    assert_eq!(
        seen["gateway"],
        json!({"version": "", "uptime_s": 60, "connections": 3, "subscriptions": 5, "channels": 4})
    );
    assert_eq!(seen["chat"], json!({}));
}

#[test]
fn two_readings_at_the_same_instant_divide_by_nothing() {
    let full = texts("cpu0 10 0 0 90\n", &interface("lo", 1, 1));
    let seen = second_of((&full, &sample(0, 0)), (&full, &sample(9, 9)), 0.0);
    assert_eq!(seen.get("network"), None);
    assert_eq!(seen["gateway"].get("sent_per_s"), None);
}

#[test]
fn files_that_cannot_be_read_leave_their_figures_out() {
    let nothing = Texts { stat: None, meminfo: None, net_dev: None };
    let full = texts("cpu0 20 0 0 90\n", &interface("lo", 1, 1));
    let before = texts("cpu0 10 0 0 90\n", &interface("lo", 1, 1));
    let seen = second_of((&before, &sample(0, 0)), (&nothing, &sample(0, 0)), 0.25);
    for figure in ["processor", "memory", "network"] {
        assert_eq!(seen.get(figure), None, "{figure}");
    }
    let seen = second_of((&before, &sample(0, 0)), (&full, &sample(0, 0)), 0.25);
    for figure in ["processor", "memory", "network"] {
        assert!(seen.get(figure).is_some(), "{figure}");
    }
}

/// A node that keeps what is published. Every second publication is refused as busy.
#[derive(Default)]
struct Node {
    published: Mutex<Vec<(String, Value)>>,
    refuse: AtomicBool,
    counted: AtomicU64,
    counting_fails: bool,
    arrived: Notify,
}

impl Backend for Node {
    async fn publish(&self, draft: Draft) -> Result<Published, BackendError> {
        if self.refuse.fetch_not(Ordering::Relaxed) {
            return Err(BackendError::Busy);
        }
        let data = serde_json::from_slice(&draft.data).expect("a reading is JSON");
        self.published.lock().unwrap().push((draft.channel.to_string(), data));
        self.arrived.notify_one();
        Ok(Published {
            position: Position { offset: Offset(1), epoch: Epoch::from_seed(1) },
            workers: 1,
            recorded: false,
        })
    }

    async fn history(&self, _: Channel, _: hub::HistoryQuery) -> Result<hub::HistoryPage, BackendError> {
        Err(BackendError::NoHistory)
    }

    async fn remove_history(&self, _: Channel) -> Result<(), BackendError> {
        Err(BackendError::NoHistory)
    }

    async fn presence(&self, _: Channel, _: hub::PresenceQuery) -> Result<hub::Presence, BackendError> {
        Err(BackendError::NoPresence)
    }

    async fn channels(&self, pattern: Option<Glob>, limit: usize) -> Result<Vec<(Channel, u32)>, BackendError> {
        self.counted.fetch_add(1, Ordering::Relaxed);
        if self.counting_fails {
            return Err(BackendError::Timeout);
        }
        let pattern = pattern.expect("a million other channels are of no interest");
        let all = [(Channel::new("demo:chat:2"), 9), (Channel::new(CHAT_CHANNEL), 3)];
        Ok(all.into_iter().filter(|(name, _)| pattern.matches(name)).take(limit).collect())
    }

    async fn act(&self, _: Clients, _: ClientAction) -> Result<u64, BackendError> {
        unreachable!("the demo disconnects nobody")
    }

    async fn connections(&self, _: Clients, _: usize) -> Result<Vec<ConnectionInfo>, BackendError> {
        unreachable!("the demo asks for nobody")
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { num_clients: 7, ..NodeInfo::default() }
    }

    fn namespaces(&self) -> Arc<Namespaces> {
        unreachable!("the demo publishes to channels it knows")
    }

    fn ready(&self) -> bool {
        true
    }

    fn sample(&self) -> NodeSample {
        NodeSample::default()
    }
}

impl Node {
    /// Runs the demo until `count` readings have got through, and returns the last.
    async fn last_of(self: Arc<Self>, count: usize, options: Options) -> Value {
        let node = self.clone();
        let enough = async move {
            while node.published.lock().unwrap().len() < count {
                node.arrived.notified().await;
            }
        };
        run_with(self.clone(), options, enough).await;
        let published = self.published.lock().unwrap();
        let (channel, data) = published.last().expect("at least one was asked for");
        assert_eq!(channel, MACHINE_CHANNEL);
        data.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn this_machine_is_published_although_every_other_publication_is_refused() {
    let node = Arc::new(Node::default());
    let started = Instant::now();
    let last = node.last_of(5, Options { api_url: Some("http://127.0.0.1:9000".to_owned()) }).await;
    // 5 got through and 4 were refused: 9 readings, the first at once.
    assert_eq!(started.elapsed().as_millis(), 8 * 250);
    assert!(last["memory"]["total"].as_u64() > Some(0));
    assert!(last["network"]["interfaces"].is_array());
    assert_eq!((&last["gateway"]["connections"], &last["chat"]["here"]), (&json!(7), &json!(3)));
    assert_eq!(last["gateway"]["api"], "http://127.0.0.1:9000");
}

#[tokio::test(start_paused = true)]
async fn the_chat_is_counted_once_a_second_and_unknown_when_counting_fails() {
    let node = Arc::new(Node { counting_fails: true, ..Node::default() });
    let last = node.clone().last_of(9, Options::default()).await;
    assert_eq!(last["chat"], json!({}), "unknown is not nobody");
    assert_eq!(last["gateway"].get("api"), None);
    // 17 readings take 4 s; the count at 4 s may or may not have come before the last reading.
    assert!((4..=5).contains(&node.counted.load(Ordering::Relaxed)));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_task_at_once() {
    let node = Arc::new(Node::default());
    timeout(Duration::from_secs(5), run(node.clone(), async {})).await.expect("shutdown was ready from the start");
    let forever = run(node, pending());
    assert!(timeout(Duration::from_secs(5), forever).await.is_err(), "without a shutdown it goes on");
}
