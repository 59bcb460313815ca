//! What the clients go through.

use std::time::Duration;

/// The gateway's configuration: what the campaign needs and nothing else.
pub(super) const CONFIG: &str = r#"
[public]
listen = ["127.0.0.1:0"]

[api]
listen = ["127.0.0.1:0"]
insecure = true

[workers]
connections_max = 30000

[client]
anonymous = true

[[namespaces]]
name = "hist"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 1000
history_ttl = "60s"
allow_recovery = true
allow_positioning = true
"#;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Clients under the weather, and the publications per second for them.
    weather_clients: u32,
    weather_rate: u32,
    weather_time: Duration,
    /// Clients that come back at once, and those beside them.
    herd_clients: u32,
    established_clients: u32,
    herd_time: Duration,
}

impl Sizes {
    pub(super) fn whole() -> Sizes {
        Sizes {
            weather_clients: 1000,
            weather_rate: 5000,
            weather_time: Duration::from_secs(300),
            herd_clients: 20_000,
            established_clients: 1000,
            herd_time: Duration::from_secs(40),
        }
    }

    pub(super) fn quick() -> Sizes {
        Sizes {
            weather_clients: 100,
            weather_rate: 200,
            weather_time: Duration::from_secs(5),
            herd_clients: 500,
            established_clients: 100,
            herd_time: Duration::from_secs(12),
        }
    }
}

/// One case: generators that run beside each other.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Time to publish.
    pub(super) length: Duration,
    pub(super) parts: Vec<PartPlan>,
}

/// One generator.
#[derive(Debug)]
pub(super) struct PartPlan {
    pub(super) name: &'static str,
    pub(super) arguments: Vec<String>,
}

impl Case {
    pub(super) fn all(sizes: &Sizes, seed: u64) -> Vec<Case> {
        let words = |text: String| text.split_ascii_whitespace().map(str::to_owned).collect();
        let seconds = |time: Duration| format!("{}s", time.as_secs());
        let weather = format!(
            "recover -n {} --channel hist:weather --channels 50 --publishers 8 --rate {} --for {} --resets 50 --pauses 20 \
             --pause 3s --away 1s --drain 30s --seed {seed}",
            sizes.weather_clients,
            sizes.weather_rate,
            seconds(sizes.weather_time),
        );
        // Opening takes a while, and longer with more clients: the established ones come early and stay to the end.
        let herd = format!(
            "recover -n {} --open-rate 4000 --loops 2 --channel hist:herd --rate 20 --for {} --storm {} --away 0s --timeout 30s \
             --drain 30s --seed {seed}",
            sizes.herd_clients,
            seconds(sizes.herd_time / 2),
            seconds(sizes.herd_time / 8),
        );
        let established = format!(
            "recover -n {} --open-rate 4000 --channel hist:established --rate 20 --for {} --drain 30s --seed {seed}",
            sizes.established_clients,
            seconds(sizes.herd_time),
        );
        vec![
            Case {
                name: "weather",
                length: sizes.weather_time,
                parts: vec![PartPlan { name: "clients", arguments: words(weather) }],
            },
            Case {
                name: "herd",
                length: sizes.herd_time,
                parts: vec![
                    PartPlan { name: "established", arguments: words(established) },
                    PartPlan { name: "herd", arguments: words(herd) },
                ],
            },
        ]
    }
}
