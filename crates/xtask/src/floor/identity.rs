//! Clients with all that identity costs: a token and a user each, a subscription with a position in a channel with presence,
//! and the user's personal channel, which the server subscribes it to.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::cases::CASES;

/// The gateway's config, in the folder of the logs.
pub(super) const CONFIG: &str = "identity.toml";
/// The tokens, beside it.
const TOKENS: &str = "identity.tokens";

/// Text of the config. The API needs no key, for the generator has the same command line for all.
pub(super) fn config() -> &'static str {
    "[api]
insecure = true

[token]
hmac_secret_keys = [\"of a measurement, not of a secret\"]

[client]
personal_channel = true
personal_channel_namespace = \"own\"

[[namespaces]]
name = \"own\"

[[namespaces]]
name = \"id\"
allow_subscribe_for_client = true
presence = true
history_size = 100
history_ttl = \"60s\"
force_positioning = true
"
}

/// What the generator is told besides.
pub(super) fn load_arguments(folder: &Path) -> Vec<String> {
    let tokens = folder.join(TOKENS).display().to_string();
    ["--channel", "id:load", "--tokens", &tokens].map(str::to_owned).to_vec()
}

/// Writes both files; a token of its own for each client of the largest case.
///
/// # Errors
/// When they cannot be written, or `tidegate token` fails.
pub(super) fn write(tidegate: &Path, folder: &Path) -> Result<(), String> {
    let clients = CASES.iter().map(|case| case.clients).max().unwrap_or(1);
    let said = |e: std::io::Error| format!("{}: {e}", folder.display());
    fs::create_dir_all(folder).map_err(said)?;
    fs::write(folder.join(CONFIG), config()).map_err(said)?;
    let mut command = Command::new(tidegate);
    command.args(["token", "--user", "load-", "--ttl", "0s", "--count", &clients.to_string()]);
    command.arg("--config").arg(folder.join(CONFIG));
    let tokens = File::create(folder.join(TOKENS)).map_err(said)?;
    let status = command.stdout(tokens).status().map_err(|e| format!("{}: {e}", tidegate.display()))?;
    status.success().then_some(()).ok_or_else(|| "tidegate token failed".to_owned())
}
