//! The manual and the conformance config agree with the program.

use super::*;

#[test]
fn the_manual_is_the_defaults() {
    let loaded = load(Inputs { file: Some(&deploy("tidegate.toml")), ..Inputs::default() }).expect("a good config");
    assert_eq!(loaded.config, Config::default());
    let text = std::fs::read_to_string(deploy("tidegate.toml")).unwrap();
    let serialised = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(paths(&text.parse().unwrap()), paths(&serialised));
}

#[test]
fn the_manual_explains_each_key() {
    let text = std::fs::read_to_string(deploy("tidegate.toml")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let keys: Vec<_> =
        (1..lines.len()).filter(|at| lines[*at].contains(" = ") && !lines[*at].starts_with('#')).collect();
    assert!(keys.len() > 40, "the manual is read as {} keys", keys.len());
    for at in keys {
        assert!(lines[at - 1].starts_with("# "), "no comment above line {}: {}", at + 1, lines[at]);
    }
}

#[test]
fn the_manuals_namespace_works_and_has_every_option() {
    let text = std::fs::read_to_string(deploy("tidegate.toml")).unwrap();
    let example = &text[text.find("# [[namespaces]]").expect("an example")..];
    let example: String = example.lines().map(|line| line.trim_start_matches("# ").to_owned() + "\n").collect();
    let config = good(from_text(&example), &example);
    let written: BTreeSet<_> =
        example.parse::<toml::Table>().unwrap()["namespaces"][0].as_table().unwrap().keys().cloned().collect();
    let known: BTreeSet<_> = toml::Table::try_from(&config.namespaces[0]).unwrap().keys().cloned().collect();
    assert_eq!(written, known);
}

#[test]
fn the_conformance_config_lets_the_largest_cases_through() {
    for dev in [false, true] {
        let loaded = load(Inputs { file: Some(&deploy("conformance.toml")), dev, ..Inputs::default() });
        let config = good(loaded, "deploy/conformance.toml");
        assert!(config.public.echo);
        assert!(config.client.message_bytes_max.get() >= 16 << 20);
        assert!(config.client.fragments_max >= 65_536);
        assert!(config.outbox.bytes_max.get() >= 2 * config.client.message_bytes_max.get());
    }
}

/// The step `sdk-suite` runs the one; nothing runs the other, which is for whoever has that suite's source.
#[test]
fn the_configs_of_the_official_suites_are_good() {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/sdk/suite");
    for name in ["centrifuge-js.toml", "centrifuge-python.toml"] {
        let loaded = load(Inputs { file: Some(&suite.join(name)), ..Inputs::default() });
        let config = good(loaded, name);
        assert!(config.token.has_keys() && config.namespaces.len() >= 2);
    }
}
