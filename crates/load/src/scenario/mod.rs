//! What can be done to a server, one file each. This runs on the main thread and conducts the fleets.

mod churn;
mod echo;
mod fanout;
mod hold;
mod listen;
mod probe;
mod publish;
mod recover;
mod stage;
mod watch;

use crate::cli::{CommonArgs, Scenario, SubscribeArgs};
use crate::crew::Failure;
use crate::dialect::{Dialect, Subscriptions, Tokens};
use stage::Stage;

/// Runs a scenario to its end and prints the report. Whether nothing went wrong.
pub(crate) fn run(scenario: &Scenario) -> Result<bool, Failure> {
    let common = scenario.common();
    let mut stage = Stage::new(common)?;
    let report = match scenario {
        Scenario::Hold(args) => hold::run(args, &mut stage)?,
        Scenario::Echo(args) => echo::run(args, &mut stage)?,
        Scenario::Fanout(args) => fanout::run(args, &mut stage)?,
        Scenario::Churn(args) => churn::run(args, &mut stage)?,
        Scenario::Recover(args) => recover::run(args, &mut stage)?,
    };
    report.print(common.json).map_err(|error| Failure::runtime(format!("cannot write the report: {error}")))?;
    stage.write_page(&report)?;
    Ok(report.is_clean())
}

impl Scenario {
    fn common(&self) -> &CommonArgs {
        match self {
            Scenario::Hold(args) => &args.common,
            Scenario::Echo(args) => &args.common,
            Scenario::Fanout(args) => &args.common,
            Scenario::Churn(args) => &args.common,
            Scenario::Recover(args) => &args.common,
        }
    }
}

impl SubscribeArgs {
    /// The subscriptions of clients that speak `dialect`.
    fn subscriptions(&self, dialect: Dialect) -> Result<Subscriptions, Failure> {
        if dialect.subscribes() {
            return Ok(Subscriptions {
                channel: self.channel.clone(),
                channels: self.channels,
                personal: self.personal,
                tokens: self.tokens.clone().unwrap_or_else(|| self.token.iter().cloned().collect()),
            });
        }
        if self.channels > 1 || self.personal > 0 || self.token.is_some() || self.tokens.is_some() {
            return Err(Failure::usage(
                "--dialect none says nothing and subscribes to nothing: leave out --channels, --personal and tokens",
            ));
        }
        Ok(no_subscriptions())
    }
}

/// The subscriptions of clients that have none.
fn no_subscriptions() -> Subscriptions {
    Subscriptions { channel: String::new(), channels: 1, personal: 0, tokens: Tokens::default() }
}
