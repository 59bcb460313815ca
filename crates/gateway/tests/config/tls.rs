//! `[tls]`: the files that it names.

use super::*;
use std::fs;

/// A folder with certificates and keys.
struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = Self { dir: tempfile::tempdir().expect("a folder") };
        for name in ["a", "b"] {
            folder.put(name, 2100);
        }
        folder.put("old", 2001);
        fs::write(folder.dir.path().join("empty.pem"), "").unwrap();
        fs::write(folder.dir.path().join("broken.pem"), "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n")
            .unwrap();
        folder
    }

    /// `NAME.pem` and `NAME.key`, good until that year.
    fn put(&self, name: &str, year: i32) {
        let mut params = rcgen::CertificateParams::new([format!("{name}.example")]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(self.dir.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// A config of these keys, `@` standing for the folder.
    fn load(&self, keys: &str) -> Result<Loaded, Vec<Problem>> {
        let text =
            format!("[tls]\n{}\n[client]\nanonymous = true\n", keys.replace('@', self.dir.path().to_str().unwrap()));
        from_text(&text)
    }
}

const LISTEN: &str = "listen = ['127.0.0.1:8443']\n";

#[test]
fn what_cannot_be_used_is_refused_with_its_line_and_its_twin_is_accepted() {
    let folder = Folder::new();
    let pair = |chain: &str, key: &str| format!("{LISTEN}certificates = [{{ chain = '@/{chain}', key = '@/{key}' }}]");
    let good_pair = pair("a.pem", "a.key");
    let table = [
        (LISTEN.to_owned(), good_pair.clone(), 2, "there is no certificate", "tidegate cert"),
        (pair("none.pem", "a.key"), good_pair.clone(), 3, "none.pem cannot be read", "PEM file"),
        (pair("a.pem", "none.key"), good_pair.clone(), 3, "none.key cannot be read", "PRIVATE KEY"),
        (pair("empty.pem", "a.key"), good_pair.clone(), 3, "empty.pem holds no certificate", "BEGIN CERTIFICATE"),
        (pair("broken.pem", "a.key"), good_pair.clone(), 3, "broken.pem is not PEM", ""),
        (pair("a.pem", "a.pem"), good_pair.clone(), 3, "a.pem holds no private key", "PRIVATE KEY"),
        (pair("a.pem", "b.key"), pair("b.pem", "b.key"), 3, "b.key is not the key of", "first certificate"),
        (
            format!("{good_pair}\nclient_auth = 'required'"),
            format!("{good_pair}\nclient_auth = 'required'\nclient_ca = '@/b.pem'"),
            4,
            "nobody vouches",
            "authority",
        ),
        (
            format!("{good_pair}\nclient_ca = '@/b.pem'"),
            format!("{good_pair}\nclient_ca = '@/b.pem'\nclient_auth = 'optional'"),
            4,
            "do nothing",
            "required",
        ),
        (
            format!("{good_pair}\nclient_ca = '@/empty.pem'\nclient_auth = 'optional'"),
            format!("{good_pair}\nclient_ca = '@/a.pem'\nclient_auth = 'optional'"),
            4,
            "empty.pem holds no certificate",
            "",
        ),
        (
            format!("{good_pair}\napi_listen = ['unix:/run/x.sock']"),
            format!("{good_pair}\napi_listen = ['127.0.0.1:9443']"),
            4,
            "is a Unix socket",
            "api.listen",
        ),
        (
            format!("{good_pair}\napi_listen = ['0.0.0.0:9443']"),
            format!("{good_pair}\napi_listen = ['127.0.0.1:9443']"),
            4,
            "there is no key",
            "api.keys",
        ),
        (
            format!("{good_pair}\napi_listen = ['127.0.0.1:8443']"),
            format!("{good_pair}\napi_listen = ['127.0.0.1:8444']"),
            4,
            "is also in tls.listen",
            "own address",
        ),
    ];
    for (refused, twin, line, message, hint) in table {
        good(folder.load(&twin), &twin);
        let problems = bad(folder.load(&refused), &refused);
        assert_eq!(problems.len(), 1, "{refused}: {problems:#?}");
        let problem = &problems[0];
        let Source::File { line: at, .. } = problem.source else { panic!("{refused}: {problem}") };
        assert!(problem.message.contains(message), "{refused}: {problem}");
        assert!(problem.hint.as_deref().unwrap_or_default().contains(hint), "{refused}: {problem}");
        assert_eq!(at, line, "{refused}: {problem}");
    }
}

#[test]
fn a_certificate_that_has_expired_is_warned_of_and_one_that_is_good_is_not() {
    let folder = Folder::new();
    let warnings = |name: &str| {
        let keys = format!("{LISTEN}certificates = [{{ chain = '@/{name}.pem', key = '@/{name}.key' }}]");
        let warnings = folder.load(&keys).unwrap().warnings.into_iter();
        warnings.filter(|warning| warning.key == "tls.certificates").collect::<Vec<_>>()
    };
    let about_the_old = warnings("old");
    assert_eq!(about_the_old.len(), 1, "{about_the_old:#?}");
    assert!(about_the_old[0].to_string().contains("old.pem has expired"), "{about_the_old:#?}");
    assert_eq!(warnings("a"), []);
}

#[test]
fn with_a_listener_that_speaks_tls_none_is_needed_in_the_clear() {
    let folder = Folder::new();
    let pair = "certificates = [{ chain = '@/a.pem', key = '@/a.key' }]";
    let text = |listen| format!("{listen}{pair}\n[public]\nlisten = []");
    good(folder.load(&text(LISTEN)), "TLS alone");
    let problems = bad(folder.load(&text("")), "nothing at all");
    assert!(problems[0].message.contains("no listener"), "{problems:#?}");
}

#[test]
fn another_machine_gets_no_further_with_tls_than_without() {
    let folder = Folder::new();
    let keys = "listen = ['0.0.0.0:8443']\ncertificates = [{ chain = '@/a.pem', key = '@/a.key' }]";
    good(folder.load(keys), "open on purpose");
    let text = format!("[tls]\n{}", keys.replace('@', folder.dir.path().to_str().unwrap()));
    let problems = bad(from_text(&text), "open by accident");
    assert!(problems[0].key == "tls.listen" && problems[0].message.contains("other machines"), "{problems:#?}");
    let problems = bad(load_text(&text, true, &[], Flags::default()), "open with --dev");
    assert!(problems[0].message.contains("--dev lets everybody"), "{problems:#?}");
}
