//! The page with plots: one file that needs nothing else, neither from the network nor beside it.
//!
//! Style, script and numbers are put into a template; the script in it draws. Whatever a server wrote reaches the page as
//! JSON only, and the script shows it as text.

use super::Report;
use crate::server::Server;
use crate::timeline::Curves;
use serde::Serialize;
use std::fs::{self, File};
use std::io::Write;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The flag whose value is not for everybody who gets to see the page.
const SECRET_FLAG: &str = "--key";

/// What the script reads.
#[derive(Serialize)]
struct Page<'a> {
    report: &'a Report,
    curves: &'a Curves,
    command: String,
    machine: Machine,
}

/// Where it ran. What is not known is left out.
#[derive(Serialize, Default, Debug)]
struct Machine {
    /// Of this program.
    version: &'static str,
    /// Nothing went wrong.
    clean: bool,
    kernel: Option<String>,
    processor: Option<String>,
    cores: Option<usize>,
    memory_bytes: Option<u64>,
    congestion_control: Option<String>,
    open_files: Option<u64>,
    server_command: Option<String>,
    server_cores: Option<String>,
}

/// Writes it.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(mut file: &File, report: &Report, curves: &Curves, server_pid: Option<u32>) -> std::io::Result<()> {
    let command = command_line(std::env::args());
    let machine = Machine { clean: report.is_clean(), ..Machine::here(server_pid.map(Server::new)) };
    file.write_all(render(&Page { report, curves, command, machine })?.as_bytes())
}

fn render(page: &Page<'_>) -> serde_json::Result<String> {
    // Nothing in JSON but strings can hold a `<`, and there it may be written like this; so no string ends the element.
    let data = serde_json::to_string(page)?.replace('<', "\\u003c");
    // The data last: it could contain the names of the other places.
    let page = TEMPLATE.replace("{{STYLE}}", STYLE).replace("{{SCRIPT}}", SCRIPT);
    Ok(page.replacen("{{DATA}}", &data, 1))
}

/// The command line as a shell would read it, without secrets.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let mut words = Vec::new();
    let mut hide = false;
    for (number, argument) in arguments.enumerate() {
        let shown = match argument.strip_prefix(SECRET_FLAG).and_then(|rest| rest.strip_prefix('=')) {
            Some(_) => format!("{SECRET_FLAG}=..."),
            None if hide => "...".to_owned(),
            // The folder it lies in is of no interest.
            None if number == 0 => argument.rsplit('/').next().unwrap_or_default().to_owned(),
            None => quoted(&argument),
        };
        hide = argument == SECRET_FLAG;
        words.push(shown);
    }
    words.join(" ")
}

fn quoted(argument: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/=,@%+".contains(&b);
    if !argument.is_empty() && argument.bytes().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

impl Machine {
    fn here(server: Option<Server>) -> Machine {
        let read = |path: &str| Some(fs::read_to_string(path).ok()?.trim().to_owned());
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib =
            field("/proc/meminfo", "MemTotal").and_then(|text| text.strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Machine {
            version: env!("CARGO_PKG_VERSION"),
            clean: false,
            kernel: read("/proc/sys/kernel/osrelease"),
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().ok().map(Into::into),
            memory_bytes: kib.map(|kib| kib * 1024),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            open_files: io::affinity::raise_fd_limit().ok().map(|limit| limit.soft),
            server_command: server.as_ref().and_then(Server::command),
            server_cores: server.as_ref().and_then(Server::cores),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Tally;
    use crate::report::Pings;
    use crate::timeline::Timeline;

    fn page(reason: &str) -> String {
        let mut tally = Tally::default();
        tally.reasons.add(reason);
        let report = Report::new("hold", tally, 1, Pings::default());
        let curves = Timeline::default().curves();
        let machine = Machine::here(Some(Server::new(std::process::id())));
        assert!(machine.kernel.is_some() && machine.congestion_control.is_some() && machine.server_command.is_some());
        render(&Page { report: &report, curves: &curves, command: String::new(), machine }).unwrap()
    }

    #[test]
    fn the_page_is_one_file_that_loads_nothing() {
        let page = page("x");
        for place in ["{{STYLE}}", "{{SCRIPT}}", "{{DATA}}"] {
            assert!(TEMPLATE.contains(place) && !page.contains(place), "{place}");
        }
        for word in ["src=", "href=", "@import", "url(", "fetch(", "import("] {
            assert!(!page.contains(word), "{word}");
        }
        let addresses: Vec<&str> = page.match_indices("://").map(|(at, _)| &page[at..at + 20]).collect();
        assert!(addresses.iter().all(|address| address.starts_with("://www.w3.org/2000")), "{addresses:?}");
    }

    #[test]
    fn what_a_server_wrote_is_data_and_nothing_else() {
        let hostile = "closed: </script><script>alert(1)</script> {{STYLE}}";
        let page = page(hostile);
        assert_eq!(page.matches("</script>").count(), TEMPLATE.matches("</script>").count());
        let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        let json: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(json["report"]["reasons"][hostile], 1);
    }

    #[test]
    fn the_command_line_can_be_repeated_and_hides_the_key() {
        let line = |words: &[&str]| command_line(words.iter().map(|word| (*word).to_owned()));
        assert_eq!(
            line(&["/a/tidegate-load", "hold", "--url", "ws://[::1]:8"]),
            "tidegate-load hold --url 'ws://[::1]:8'"
        );
        assert_eq!(line(&["x", "--key", "secret", "-n", "1"]), "x --key ... -n 1");
        assert_eq!(line(&["x", "--key=secret", "it's"]), r"x --key=... 'it'\''s'");
        assert_eq!(line(&["x", "--keys", "a"]), "x --keys a");
    }
}
