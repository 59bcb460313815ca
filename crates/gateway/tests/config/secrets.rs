//! Secrets come in, and never out.

use super::*;

#[test]
fn a_secret_can_be_a_file_with_one_key_a_line() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"first-key\n\n  second-key  \n").unwrap();
    let path = file.path().to_str().unwrap();
    let config = good(from_env(&[("TIDEGATE_API__KEYS_FILE", path)]), "a file of keys");
    let keys: Vec<_> = config.api.keys.iter().map(|key| key.expose()).collect();
    assert_eq!(keys, ["first-key", "second-key"]);

    let both = bad(from_env(&[("TIDEGATE_API__KEYS_FILE", path), ("TIDEGATE_API__KEYS", "['k']")]), "two sources");
    assert!(both[0].message.contains("only one of them"), "{both:#?}");
    std::fs::write(file.path(), "\n").unwrap();
    assert!(bad(from_env(&[("TIDEGATE_API__KEYS_FILE", path)]), "no key")[0].message.contains("no secret"));
    assert!(
        bad(from_env(&[("TIDEGATE_API__KEYS_FILE", "/nowhere")]), "no file")[0]
            .message
            .contains("/nowhere cannot be read")
    );
}

#[test]
fn secrets_never_appear_in_what_is_printed() {
    const SECRET: &str = "open-sesame-7261";
    let quoted = format!("[\"{SECRET}\"]");
    let with_blank = format!("[\"{SECRET} \"]");
    let mixed = format!("[1, \"{SECRET}\"]");
    let inline = format!("{{ a = \"{SECRET}\" }}");
    for (value, accepted) in
        [(&quoted, true), (&with_blank, false), (&mixed, false), (&inline, false), (&SECRET.to_owned(), false)]
    {
        let file =
            if value == SECRET { format!("[api]\nkeys = \"{value}\"\n") } else { format!("[api]\nkeys = {value}\n") };
        for result in [from_text(&file), from_env(&[("TIDEGATE_API__KEYS", value)])] {
            assert_eq!(result.is_ok(), accepted, "{value}");
            let printed = match &result {
                Ok(loaded) => {
                    assert_eq!(loaded.config.api.keys[0].expose(), SECRET);
                    format!("{loaded:?} {} {}", loaded.config.to_toml(), serde_json::to_string(&loaded.config).unwrap())
                }
                Err(problems) => {
                    format!("{problems:?} {}", problems.iter().map(ToString::to_string).collect::<String>())
                }
            };
            assert!(!printed.contains("sesame"), "{value}: {printed}");
        }
    }
    let misspelt = bad(from_env(&[("TIDEGATE_API__KEY", SECRET)]), "a misspelt name");
    assert!(!format!("{misspelt:?}").contains("sesame") && misspelt[0].to_string().contains("TIDEGATE_API__KEYS"));
}

#[test]
fn an_effective_config_is_a_config_file_except_for_its_secrets() {
    let file = "[server]\nname = \"q\\\"uote\"\n[workers]\ncount = 3\n[outbox]\nbytes_max = 1000001\n[log]\nlevel = 'info,hub=debug'\n\
                [[namespaces]]\nname = 'ab'\nallow_publish_for_client = true\n[[namespaces]]\nname = 'cd'";
    for dev in [false, true] {
        let config = good(load_text(file, dev, &[], Flags::default()), file);
        assert_eq!(good(from_text(&config.to_toml()), &config.to_toml()), config);
    }
    let printed = good(from_text("[api]\nkeys = ['secret']"), "a key").to_toml();
    let problems = bad(from_text(&printed), &printed);
    assert!(problems[0].message.contains("in place of a secret"), "{problems:#?}");
}
