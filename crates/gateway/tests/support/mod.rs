//! One gateway for a test, on whichever driver, and clients that speak to it.
//!
//! A scenario is a function of a [`Gateway`]. `on_every_driver` makes tests of it: on the simulator with a perfect
//! network, on the simulator with bad ones (their seeds are printed; `TIDEGATE_SEED` replays one), both also over TLS, and on
//! epoll and io_uring with real sockets. Nothing in a scenario sleeps: it waits for what a client sees, under a deadline that only a failure
//! reaches.

pub(crate) mod client;
pub(crate) mod fossil;
mod gateway;
mod machine;
mod real;
#[path = "../../../conn/tests/schema/mod.rs"]
pub(crate) mod schema;
mod setup;
mod sim;
pub(crate) mod tls;
pub(crate) mod token;

pub(crate) use client::{Client, Response, Seen};
pub(crate) use gateway::{Asked, Gateway};
pub(crate) use machine::Ended;
pub(crate) use setup::Setup;

use ::gateway::config::DriverChoice;
use machine::Machine;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tls::OverTls;

/// Bad networks that a scenario meets if no seed is given.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

/// The tests of one scenario without TLS.
macro_rules! in_the_clear {
    ($name:ident: $setup:expr) => {
        #[test]
        fn on_the_simulator() {
            $crate::support::on_simulator(&$setup, super::$name);
        }

        #[test]
        fn on_bad_networks() {
            $crate::support::on_bad_networks(&$setup, super::$name);
        }

        #[test]
        fn on_epoll() {
            $crate::support::on_epoll(&$setup, super::$name);
        }

        #[test]
        fn on_uring() {
            $crate::support::on_uring(&$setup, super::$name);
        }
    };
}

/// Makes tests of scenarios: `name: setup` for each function `name(&Gateway)` in scope.
macro_rules! on_every_driver {
    ($($name:ident: $setup:expr),+ $(,)?) => {$(
        mod $name {
            use super::*;

            $crate::support::in_the_clear!($name: $setup);

            #[test]
            fn over_tls() {
                $crate::support::on_simulator(&$setup.over_tls(), super::$name);
            }

            #[test]
            fn over_tls_on_bad_networks() {
                $crate::support::on_bad_networks(&$setup.over_tls(), super::$name);
            }
        }
    )+};
}

/// The same without TLS.
macro_rules! on_every_driver_in_the_clear {
    ($($name:ident: $setup:expr),+ $(,)?) => {$(
        mod $name {
            use super::*;

            $crate::support::in_the_clear!($name: $setup);
        }
    )+};
}

/// Makes tests of scenarios over TLS on real sockets; `on_every_driver` has them over TLS on the simulator.
macro_rules! over_tls_on_real_sockets {
    ($($name:ident: $setup:expr),+ $(,)?) => {
        mod over_tls_on_real_sockets {
            use super::*;

            $(mod $name {
                use super::*;

                #[test]
                fn on_epoll() {
                    $crate::support::on_epoll(&$setup.over_tls(), super::super::$name);
                }

                #[test]
                fn on_uring() {
                    $crate::support::on_uring(&$setup.over_tls(), super::super::$name);
                }
            })+
        }
    };
}

/// Makes tests of scenarios, as `on_every_driver` does, of clients that speak JSON and again of some that speak Protobuf.
macro_rules! in_every_format {
    ($($name:ident: $setup:expr),+ $(,)?) => {
        $crate::support::on_every_driver! { $($name: $setup),+ }

        mod in_protobuf {
            use super::*;

            $crate::support::on_every_driver! { $($name: $setup.in_protobuf()),+ }
        }
    };
}

/// Makes tests of scenarios that need to hold time or a worker still, which only the simulator can.
macro_rules! on_the_simulator {
    ($($name:ident: $setup:expr),+ $(,)?) => {$(
        mod $name {
            use super::*;

            #[test]
            fn on_the_simulator() {
                $crate::support::on_simulator(&$setup, super::$name);
            }

            #[test]
            fn on_bad_networks() {
                $crate::support::on_bad_networks(&$setup, super::$name);
            }
        }
    )+};
}

pub(crate) use {
    in_every_format, in_the_clear, on_every_driver, on_every_driver_in_the_clear, on_the_simulator,
    over_tls_on_real_sockets,
};

/// Runs a scenario and looks whether anything is left behind.
fn run(gateway: &Gateway, scenario: fn(&Gateway)) {
    scenario(gateway);
    gateway.expect_nothing_left();
}

/// The gateway on that machine, with TLS in between where the setup wants it.
fn gateway(machine: impl Machine + 'static, setup: &Setup) -> Gateway {
    let machine: Box<dyn Machine> = Box::new(machine);
    Gateway::new(if setup.is_over_tls() { Box::new(OverTls::new(machine)) } else { machine }, setup)
}

pub(crate) fn on_simulator(setup: &Setup, scenario: fn(&Gateway)) {
    let setup = &setup.afresh();
    run(&gateway(sim::Sim::start(setup, None), setup), scenario);
}

pub(crate) fn on_bad_networks(setup: &Setup, scenario: fn(&Gateway)) {
    for seed in seeds() {
        let setup = &setup.afresh();
        let gateway = gateway(sim::Sim::start(setup, Some(seed)), setup);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&gateway, scenario))) {
            eprintln!("replay with TIDEGATE_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

pub(crate) fn on_epoll(setup: &Setup, scenario: fn(&Gateway)) {
    let setup = &setup.afresh();
    run(&gateway(real::Real::start(setup, DriverChoice::Epoll), setup), scenario);
}

/// Where the kernel does not allow io_uring the scenario is skipped with its reason; CI must not skip.
pub(crate) fn on_uring(setup: &Setup, scenario: fn(&Gateway)) {
    if let Err(why) = io::uring::Uring::probe() {
        assert!(std::env::var_os("CI").is_none(), "no io_uring here: {why}");
        println!("skipped: {why}");
        return;
    }
    let setup = &setup.afresh();
    run(&gateway(real::Real::start(setup, DriverChoice::Uring), setup), scenario);
}

/// The seed given in the environment, or all of the usual ones.
pub(crate) fn seeds() -> Vec<u64> {
    match std::env::var("TIDEGATE_SEED") {
        Ok(seed) => vec![seed.parse().expect("TIDEGATE_SEED is a number")],
        Err(_) => SEEDS.collect(),
    }
}
