//! `/metrics` is valid OpenMetrics text, says what the workers said, and is documented to the last metric.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Fake, call, get, node, post, post_with};

/// One `# TYPE` block.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// Sample name and labels as written, to value.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// A strict reader of the part of OpenMetrics 1.0 that we may use: no timestamps, no exemplars.
fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("no EOF at the end")?;
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current: Option<String> = None;
    let mut seen = BTreeSet::new();
    for line in body.split_terminator('\n') {
        let fault = |what: &str| format!("{what}: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| fault("HELP without text"))?;
            check_name(name).map_err(|what| fault(&what))?;
            let family = Family { help: help.into(), ..Family::default() };
            if families.insert(name.into(), family).is_some() {
                return Err(fault("family twice"));
            }
            current = Some(name.into());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| fault("TYPE without type"))?;
            if current.as_deref() != Some(name) {
                return Err(fault("TYPE without its HELP before it"));
            }
            if !["counter", "gauge", "histogram", "info"].contains(&kind) {
                return Err(fault("unknown type"));
            }
            families.get_mut(name).unwrap().kind = kind.into();
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').ok_or_else(|| fault("UNIT without unit"))?;
            if current.as_deref() != Some(name) || !name.ends_with(&format!("_{unit}")) {
                return Err(fault("a unit must end its family's name"));
            }
        } else {
            let (name, labels, value) = sample(line).map_err(|what| fault(&what))?;
            let family_name = current.clone().ok_or_else(|| fault("sample before any family"))?;
            let family = families.get_mut(&family_name).unwrap();
            let suffix = name.strip_prefix(&family_name).ok_or_else(|| fault("sample of another family"))?;
            let suffixes: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => return Err(fault("sample before its TYPE")),
            };
            if !suffixes.contains(&suffix) {
                return Err(fault("suffix does not fit the type"));
            }
            if family.kind != "gauge" && (!value.is_finite() || value < 0.0) {
                return Err(fault("only a gauge may be negative or not a number"));
            }
            if !seen.insert((name.clone(), labels.clone())) {
                return Err(fault("series twice"));
            }
            family.samples.push((name, labels, value));
        }
    }
    for (name, family) in &families {
        if family.kind == "histogram" {
            check_histogram(name, family)?;
        }
    }
    Ok(families)
}

fn check_name(name: &str) -> Result<(), String> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_') { Ok(()) } else { Err("bad name".into()) }
}

/// `name{label="value",..} number`
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    check_name(name)?;
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("no label value")?;
            check_name(label)?;
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err("label twice".into());
            }
            if let Some(after) = after.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = after.strip_prefix(',').ok_or("no comma between labels")?;
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    if value.is_empty() || value.contains(' ') {
        return Err("not one value".into());
    }
    Ok((name.to_owned(), labels, value.parse().map_err(|_| "not a number")?))
}

/// A label value up to its closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some(c @ ('\\' | '"')) => value.push(c),
                _ => return Err("bad escape".into()),
            },
            c => value.push(c),
        }
    }
    Err("label value without end".into())
}

fn check_histogram(name: &str, family: &Family) -> Result<(), String> {
    type Labels = Vec<(String, String)>;
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts: BTreeMap<Labels, f64> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let key: Labels = labels.into_iter().collect();
        if sample.ends_with("_bucket") {
            let bound = bound.ok_or_else(|| format!("{name}: bucket without le"))?;
            let bound = bound.parse().map_err(|_| format!("{name}: le is no number"))?;
            series.entry(key).or_default().push((bound, *value));
        } else if sample.ends_with("_count") {
            counts.insert(key, *value);
        }
    }
    for (key, buckets) in &series {
        if !buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1) {
            return Err(format!("{name}{key:?}: buckets do not ascend"));
        }
        let last = buckets.last().expect("an entry has a bucket");
        if last.0 != f64::INFINITY || Some(&last.1) != counts.get(key) {
            return Err(format!("{name}{key:?}: the last bucket is not +Inf with the count"));
        }
    }
    if series.len() == counts.len() { Ok(()) } else { Err(format!("{name}: a series lacks buckets or count")) }
}

impl Family {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = self.samples.iter().find(|(sample, its, _)| sample == name && *its == labels);
        found.unwrap_or_else(|| panic!("{name}{labels:?} in {self:?}")).2
    }
}

async fn scrape(router: &axum::Router) -> BTreeMap<String, Family> {
    let answer = get(router, "/metrics").await;
    assert_eq!(answer.status.as_u16(), 200);
    assert!(answer.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    parse(&answer.body).unwrap_or_else(|fault| panic!("{fault}\n{}", answer.body))
}

/// A node whose every metric has something to show.
async fn busy_node() -> axum::Router {
    let (_, router) = node();
    call(&router, "publish", r#"{"channel":"news","data":1}"#).await;
    call(&router, "broadcast", r#"{"channels":["news","busy"],"data":1}"#).await;
    call(&router, "publish", r#"{"channel":"news"}"#).await;
    post_with(&router, "/api/publish", &[], "").await;
    post(&router, "/api/publish", "{").await;
    router
}

#[tokio::test]
async fn the_output_is_valid_before_and_after_the_first_call() {
    let (_, router) = node();
    let before = scrape(&router).await;
    assert!(!before.contains_key("tidegate_api_requests"), "no series before the first call");
    let after = scrape(&busy_node().await).await;
    assert!(after.values().all(|family| !family.help.is_empty() && !family.samples.is_empty()));
}

#[tokio::test]
async fn the_workers_figures_arrive_under_their_worker() {
    let families = scrape(&busy_node().await).await;
    let connections = &families["tidegate_connections"];
    for (worker, expected) in [("0", 1.0), ("1", 2.0)] {
        assert_eq!(connections.value("tidegate_connections", &[("worker", worker)]), expected);
    }
    assert_eq!(families["tidegate_sent_bytes"].value("tidegate_sent_bytes_total", &[("worker", "1")]), 2000.0);
    let ticks = &families["tidegate_tick_seconds"];
    for (bound, expected) in [("0.001", 20.0), ("0.01", 22.0), ("+Inf", 22.0)] {
        assert_eq!(ticks.value("tidegate_tick_seconds_bucket", &[("worker", "1"), ("le", bound)]), expected);
    }
    assert_eq!(ticks.value("tidegate_tick_seconds_sum", &[("worker", "1")]), 0.5);
    let closes = &families["tidegate_closes"];
    assert_eq!(closes.value("tidegate_closes_total", &[("side", "client"), ("code", "1000")]), 3.0, "1 + 2");
    assert_eq!(closes.value("tidegate_closes_total", &[("side", "server"), ("code", "3503")]), 2.0);
    let skipped = &families["tidegate_slow_skipped"];
    assert_eq!(skipped.value("tidegate_slow_skipped_total", &[("worker", "1")]), 6.0);
    let after = [("kind", "publication_after")];
    for (name, expected) in [("messages", 3.0), ("plain_bytes", 300.0), ("packed_bytes", 90.0)] {
        let family = &families[&format!("tidegate_compressed_{name}")];
        assert_eq!(family.value(&format!("tidegate_compressed_{name}_total"), &after), expected, "1 + 2");
        assert_eq!(family.value(&format!("tidegate_compressed_{name}_total"), &[("kind", "reply")]), 0.0);
    }
    let runs = &families["tidegate_compressions"];
    assert_eq!(runs.value("tidegate_compressions_total", &[("of", "publication")]), 6.0);
    let slow = &families["tidegate_slow_disconnects"];
    for (policy, expected) in [("disconnect", 3.0), ("conflate", 30.0), ("reply", 0.0)] {
        assert_eq!(slow.value("tidegate_slow_disconnects_total", &[("policy", policy)]), expected, "1 + 2");
    }
    let calls = &families["tidegate_webhook_calls"];
    for (outcome, expected) in [("ok", 7.0), ("timeout", 2.0)] {
        let labels = [("event", "connect"), ("outcome", outcome)];
        assert_eq!(calls.value("tidegate_webhook_calls_total", &labels), expected);
    }
    for (name, expected) in [("delivered", 8.0), ("dropped", 3.0)] {
        let family = &families[&format!("tidegate_notices_{name}")];
        assert_eq!(family.value(&format!("tidegate_notices_{name}_total"), &[]), expected);
    }
    assert_eq!(families["tidegate_notices_waiting"].value("tidegate_notices_waiting", &[]), 1.0);
    let time = &families["tidegate_webhook_call_seconds"];
    assert_eq!(time.value("tidegate_webhook_call_seconds_total", &[("event", "connect")]), 2.5);
    assert_eq!(families["tidegate_uptime_seconds"].value("tidegate_uptime_seconds", &[]), 1.5);
    assert_eq!(families["tidegate_log_lines_dropped"].value("tidegate_log_lines_dropped_total", &[]), 4.0);
    assert_eq!(families["tidegate_memory_bytes"].value("tidegate_memory_bytes", &[]), 734_003_200.0);
    assert_eq!(families["tidegate_memory_max_bytes"].value("tidegate_memory_max_bytes", &[]), 838_860_800.0);
    assert_eq!(families["tidegate_ready"].value("tidegate_ready", &[]), 1.0);
    let reason = "asked for by `--io epoll`, a \"quoted\" \\ and\nbroken reason";
    families["tidegate_driver"].value("tidegate_driver_info", &[("driver", "epoll"), ("reason", reason)]);
    families["tidegate_driver"].value("tidegate_driver_info", &[("driver", "uring"), ("reason", "it works")]);
}

#[tokio::test]
async fn the_api_counts_its_calls_refusals_and_publications() {
    let families = scrape(&busy_node().await).await;
    let calls = &families["tidegate_api_requests"];
    let called = |method, code| calls.value("tidegate_api_requests_total", &[("method", method), ("code", code)]);
    assert_eq!((called("publish", "0"), called("publish", "107"), called("broadcast", "0")), (1.0, 1.0, 1.0));
    let refused = &families["tidegate_api_refused"];
    for reason in ["key", "json"] {
        assert_eq!(refused.value("tidegate_api_refused_total", &[("reason", reason)]), 1.0, "{reason}");
    }
    let publish = &families["tidegate_publish_seconds"];
    assert_eq!(publish.value("tidegate_publish_seconds_count", &[]), 3.0, "each channel of a broadcast counts");
}

#[tokio::test]
async fn a_flood_of_close_codes_makes_a_bounded_number_of_series() {
    struct Flood(Fake);
    impl control::Backend for Flood {
        fn publish(
            &self,
            draft: hub::Draft,
        ) -> impl Future<Output = Result<hub::Published, control::BackendError>> + Send {
            self.0.publish(draft)
        }
        fn history(
            &self,
            channel: hub::Channel,
            query: hub::HistoryQuery,
        ) -> impl Future<Output = Result<hub::HistoryPage, control::BackendError>> + Send {
            self.0.history(channel, query)
        }
        fn remove_history(
            &self,
            channel: hub::Channel,
        ) -> impl Future<Output = Result<(), control::BackendError>> + Send {
            self.0.remove_history(channel)
        }
        fn presence(
            &self,
            channel: hub::Channel,
            query: hub::PresenceQuery,
        ) -> impl Future<Output = Result<hub::Presence, control::BackendError>> + Send {
            self.0.presence(channel, query)
        }
        fn channels(
            &self,
            pattern: Option<control::Glob>,
            limit: usize,
        ) -> impl Future<Output = Result<Vec<(hub::Channel, u32)>, control::BackendError>> + Send {
            self.0.channels(pattern, limit)
        }
        fn connections(
            &self,
            clients: control::Clients,
            limit: usize,
        ) -> impl Future<Output = Result<Vec<control::ConnectionInfo>, control::BackendError>> + Send {
            self.0.connections(clients, limit)
        }
        fn act(
            &self,
            clients: control::Clients,
            action: control::ClientAction,
        ) -> impl Future<Output = Result<u64, control::BackendError>> + Send {
            self.0.act(clients, action)
        }
        fn info(&self) -> control::NodeInfo {
            self.0.info()
        }
        fn namespaces(&self) -> std::sync::Arc<hub::Namespaces> {
            self.0.namespaces()
        }
        fn ready(&self) -> bool {
            self.0.ready()
        }
        fn sample(&self) -> control::metrics::NodeSample {
            use control::metrics::{Close, Side};
            let mut sample = self.0.sample();
            sample.workers[0].closes =
                (3000..5000).map(|code| Close { side: Side::Client, code: Some(code), count: 1 }).collect();
            sample.workers[0].closes.push(Close { side: Side::Client, code: None, count: 7 });
            sample
        }
    }
    let router = control::router(control::fixed(common::settings()), std::sync::Arc::new(Flood(Fake::default())));
    let closes = &scrape(&router).await["tidegate_closes"];
    let (max, name) = (control::metrics::CLOSE_CODES_MAX, "tidegate_closes_total");
    let client = closes.samples.iter().filter(|(_, labels, _)| labels["side"] == "client");
    assert_eq!(client.clone().count(), max + 1);
    let all: f64 = client.map(|(_, _, value)| value).sum();
    assert_eq!(all, 2009.0, "none is lost: 2,000 and 7 of worker 0, two of worker 1");
    let others = closes.value(name, &[("side", "client"), ("code", "other")]);
    assert_eq!(others, 2008.0 - max as f64);
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_metric_exists() {
    let families = scrape(&busy_node().await).await;
    let exist: BTreeSet<String> = families
        .iter()
        .map(|(name, family)| match family.kind.as_str() {
            "counter" => format!("{name}_total {}", family.kind),
            "info" => format!("{name}_info {}", family.kind),
            _ => format!("{name} {}", family.kind),
        })
        .collect();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `tidegate_"))
        .map(|row| {
            let (name, rest) = row.split_once("` | ").expect("a name cell");
            format!("tidegate_{name} {}", rest.split(" |").next().expect("a type cell"))
        })
        .collect();
    assert_eq!(exist, documented);
    assert!(exist.len() > 20);
}

#[test]
fn the_reader_of_this_test_refuses_what_prometheus_would() {
    let good = "# HELP a_seconds h.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\na_seconds_sum 1.0\na_seconds_count 2\n\
        a_seconds_bucket{le=\"1.0\"} 1\na_seconds_bucket{le=\"+Inf\"} 2\n# HELP b h\n# TYPE b counter\nb_total{x=\"1\",y=\"\\\"\"} 3\n# EOF\n";
    parse(good).unwrap();
    let spoil = [
        ("# EOF\n", ""),
        ("b_total{", "b{"),
        ("} 3", "} -3"),
        ("} 3", "} x"),
        ("} 3", "}  3"),
        ("b_total{x=\"1\",", "b_total{y=\"1\","),
        ("x=\"1\",y", "x=\"1\"y"),
        ("\\\"\"", "\\q\""),
        ("# TYPE b counter\n", ""),
        ("# HELP b h\n", ""),
        ("le=\"+Inf\"} 2", "le=\"+Inf\"} 3"),
        ("le=\"1.0\"} 1", "le=\"1.0\"} 3"),
        ("# UNIT a_seconds seconds", "# UNIT a_seconds bytes"),
        ("# HELP b h", "# HELP a_seconds h"),
        ("# EOF\n", "b_total{x=\"1\",y=\"\\\"\"} 3\n# EOF\n"),
    ];
    for (from, to) in spoil {
        let bad = good.replacen(from, to, 1);
        assert_ne!(good, bad, "{from}");
        assert!(parse(&bad).is_err(), "{from} -> {to}");
    }
}
