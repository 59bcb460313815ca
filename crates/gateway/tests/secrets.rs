//! Secrets come in, and never out: the real binary at its most talkative, with a marker in every secret.

mod process;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use process::{PATIENCE, Running, ask, command, config, path, start};
use ring::hmac;
use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// Characters of a secret, in whatever form, of which none may be found in a row.
const TELLING: usize = 14;

/// What must not be found: its name, how it is written, and the text of that.
#[derive(Default)]
struct Secrets(Vec<(&'static str, &'static str, Vec<char>)>);

impl Secrets {
    /// A new text that is secret.
    fn text(&mut self, name: &'static str) -> String {
        // Different in every place, so that what is found says where it came from.
        let seed = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
        let text: String = seed.as_ref().iter().map(|byte| char::from(b'A' + byte % 26)).collect();
        self.bytes(name, text.as_bytes());
        text
    }

    fn bytes(&mut self, name: &'static str, bytes: &[u8]) {
        self.0.extend(forms(bytes).into_iter().map(|(how, text)| (name, how, text.chars().collect())));
    }

    /// Which of them are in that text, and in which form.
    fn found_in(&self, text: &str) -> Vec<(&'static str, &'static str)> {
        let chars: Vec<char> = text.chars().collect();
        let windows: HashSet<&[char]> = chars.windows(TELLING).collect();
        let is_in = |form: &[char]| form.windows(TELLING).any(|window| windows.contains(window));
        self.0.iter().filter(|(_, _, form)| is_in(form)).map(|(name, how, _)| (*name, *how)).collect()
    }
}

/// How a secret may be written.
fn forms(secret: &[u8]) -> Vec<(&'static str, String)> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        ("as it is", String::from_utf8_lossy(secret).into_owned()),
        ("as hex", hex.to_uppercase()),
        ("as hex", hex),
        ("as numbers", format!("{secret:?}")),
        ("backwards", String::from_utf8_lossy(secret).chars().rev().collect()),
    ];
    // Text before it moves the groups of base64.
    for before in 0..3 {
        let bytes = [&b"xx"[..before], secret].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            forms.push(("as base64", engine.encode(&bytes)[before * 2..].to_owned()));
        }
    }
    forms
}

#[test]
fn a_secret_is_found_in_all_of_its_forms_and_nothing_else_is() {
    let mut secrets = Secrets::default();
    let (one, other) = (secrets.text("one"), secrets.text("other"));
    for text in [
        format!("the key is {one}"),
        format!("half of it: {}", &one[9..9 + TELLING]),
        STANDARD_NO_PAD.encode(format!("a token:{one}")),
        URL_SAFE_NO_PAD.encode(format!("a token::{one}")),
        format!("{:?}", one.as_bytes()),
        one.bytes().map(|byte| format!("{byte:02x}")).collect(),
    ] {
        let found = secrets.found_in(&text);
        assert!(found.iter().any(|(name, _)| *name == "one"), "{text}");
        assert!(found.iter().all(|(name, _)| *name == "one"), "{text}: {found:?}");
    }
    assert_eq!(secrets.found_in(&format!("too short: {} {}", &one[..TELLING - 1], &other[..TELLING - 1])), []);
}

/// A backend that refuses every request, in a way that repeats as much as it can.
fn refusing_backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().flatten().enumerate() {
            answer_badly(stream, count);
        }
    });
    address
}

fn answer_badly(mut stream: TcpStream, count: usize) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
        head.push(byte[0]);
    }
    let body = String::from_utf8_lossy(&head).replace(['\r', '\n', '"'], " ");
    let answer = match count % 4 {
        0 => format!("HTTP/1.1 500 {body}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        1 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()),
        2 => format!("{body}\r\n\r\n"),
        _ => {
            let body = format!("{{\"result\":{{\"user\":\"42\",\"expire_at\":\"{body}\"}}}}");
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        }
    };
    // It may have given up already.
    let _ = stream.write_all(answer.as_bytes());
}

fn token(secret: &str, claims: &str) -> String {
    let [header, claims] = [r#"{"alg":"HS256","typ":"JWT"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, format!("{header}.{claims}").as_bytes());
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Sends a handshake and then messages, and waits for an answer that holds `until`, or one of several between bars.
fn converse(address: &str, target: &str, headers: &str, messages: &[&str], until: &str) {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("settable");
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    socket.write_all(head.as_bytes()).expect("writable");
    for message in messages {
        // A mask of zeros changes nothing.
        let len = u16::try_from(message.len()).expect("short");
        let [high, low] = len.to_be_bytes();
        let length = if len < 126 { vec![0x80 | low] } else { vec![0xfe, high, low] };
        let frame = [&[0x81], &*length, &[0; 4], message.as_bytes()].concat();
        socket.write_all(&frame).expect("writable");
    }
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !until.split('|').any(|until| String::from_utf8_lossy(&seen).contains(until)) {
        let got = socket.read(&mut byte).unwrap_or_default();
        assert_ne!(got, 0, "{target} {messages:?}: {}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
}

fn post(gateway: &Running, target: &str, headers: &str, body: &str) -> String {
    let len = body.len();
    ask(
        &gateway.api,
        &format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}Content-Length: {len}\r\n\r\n{body}",
            gateway.api
        ),
    )
}

/// A private key of nobody, short enough to pass for a public one by its length.
const RSA_PRIVATE: &str = "\
-----BEGIN RSA PRIVATE KEY-----\n\
MIICXwIBAAKBgQDm9sty1oANBDdI7cHoQ6vAJwmqOOEoghhIF1c10krA/dhoVZ2T\n\
S7UjWXTyr6mu2zB3j933fucF+M72v45tVptWQFYEwFWXsyWE6usV1bydsWUjt0vK\n\
GoPTSfrhirnEfDQghlNI+g6WId7OLeRYjHG0rDn7kUS5dnZ2hPTjHE3RLwIDAQAB\n\
AoGBALAcNv2VuYYzVMRzJowoLWoTWjdFr8nniQRPZ9xOQVnvNXg48DJEZBZUO+xh\n\
LY167PX96U6yoQ3YrldPsRaGF2K2O/N9DpNTAe1xXTveuxvjzXyqf6aujk2yX8Kl\n\
jR12/PHAzxGdUGJxQc94wCDdsE+1WIHEKfH2jdCTk6r52F1BAkEA+Eu4ptrRI6T6\n\
YiT6Oka0aVos7DGY719Iksr5SwFMSbDBtldG+WW7JvAfC1VkQYguXc+cbigHgzt6\n\
mqYX5lUghwJBAO4hZx9kHC+ys7SM6OlammpRaUzAEIOpLo/bRa7t1ZjQlBTPoaET\n\
vXwMP+Tm0D0iyojQq2xpXQKpYEZ/aDAyPBkCQQCsXiS58H3veMA5EeKEQkFMQcWd\n\
0nCQ/FytSyr03tnO7l4L71reF7lstpVWkNkghSFrDo1SC4frmobqhRNiWwZRAkEA\n\
plXqxICXN7Ip2Mo8vxOsnOs1FIlsf6sjfRT7Pc+fzdiUN105V1yElSuxTeD0QGAW\n\
/S5VL6sBbySEvXmte0z7sQJBANHis0M+8Lc8Z6WhETkZd3ySmLL+prj/3hsdELSE\n\
3v8UZ9SzaYlLoXaeJ4eA3OjxjhtUw2XASgYKLoa8QwHfXe0=\n\
-----END RSA PRIVATE KEY-----";

/// A certificate with its key in a folder.
struct Identity(tempfile::TempDir);

impl Identity {
    fn new(secrets: &mut Secrets, name: &'static str) -> Identity {
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = rcgen::CertificateParams::new(["localhost".to_owned()]).and_then(|params| params.self_signed(&key));
        let dir = tempfile::tempdir().expect("a folder");
        let (chain, pem) = (made.expect("a certificate").pem(), key.serialize_pem());
        std::fs::write(dir.path().join("cert.pem"), chain).expect("writable");
        std::fs::write(dir.path().join("key.pem"), &pem).expect("writable");
        // The first 36 bytes of PKCS #8 say what it is, and are the same in every key of P-256; the next 32 are the key.
        secrets.bytes(name, &key.serialize_der()[36..68]);
        secrets.bytes(name, pem.lines().nth(2).expect("the second line of base64").as_bytes());
        Identity(dir)
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn toml(&self, key: &str) -> String {
        format!("[{{ chain = '{}', key = '{key}' }}]", self.file("cert.pem"))
    }
}

/// A config with a secret wherever one may be.
struct Text<'a> {
    api: &'a str,
    hmac: &'a str,
    signing: &'a str,
    backend: &'a str,
    query: &'a str,
    certificates: &'a str,
}

impl Text<'_> {
    fn toml(&self) -> String {
        let Text { api, hmac, signing, backend, query, certificates } = self;
        let url = |path: &str| format!("'http://{backend}/{path}?key={query}'");
        format!(
            "[log]\nlevel = 'trace'\n[public]\nuni_websocket = true\n[api]\nkeys = ['{api}']\n\
             [tls]\nlisten = ['127.0.0.1:0']\ncertificates = {certificates}\n\
             [token]\nhmac_secret_keys = ['{hmac}', 'the-old-{hmac}']\njwks_url = {}\n\
             [webhooks]\nconnect = {}\nrpc = {}\nnotices = {}\nclient_notices = true\nsigning_keys = ['{signing}']\n\
             headers = ['cookie', 'authorization']\nemulated_headers = ['x-secret']\n[channels]\n",
            url("jwks"),
            url("connect"),
            url("rpc"),
            url("notices")
        )
    }
}

/// Clients with tokens and headers of all kinds, good and bad.
fn clients(gateway: &Running, secrets: &mut Secrets, hmac_key: &str) {
    // As long as no published key is known one may still fit, if there is a place to fetch them from.
    let refusal = "invalid token|100";
    let whole = |secrets: &mut Secrets, name, token: String| {
        let (_, rest) = token.split_once('.').expect("claims");
        let (claims, signature) = rest.split_once('.').expect("a signature");
        secrets.bytes(name, claims.as_bytes());
        secrets.bytes(name, &URL_SAFE_NO_PAD.decode(signature).expect("base64"));
        secrets.bytes(name, signature.as_bytes());
        token
    };
    let good = whole(secrets, "a good token", token(hmac_key, r#"{"sub":"42","jti":"good"}"#));
    let wrong = whole(secrets, "a token with a wrong signature", token("wrong", r#"{"sub":"42","jti":"wrong"}"#));
    let old = whole(secrets, "a token that is over", token(hmac_key, r#"{"sub":"42","exp":7,"jti":"old"}"#));
    let for_other = token(hmac_key, r#"{"sub":"7","channel":"news","jti":"channel"}"#);
    let for_other = whole(secrets, "a subscription token", for_other);
    let unknown = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"x"}"#), &wrong[37..]);

    let connect = |token: &str| format!("{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}");
    let bidirectional = "/connection/websocket";
    let subscribe = format!("{{\"id\":2,\"subscribe\":{{\"channel\":\"news\",\"token\":\"{for_other}\"}}}}");
    let sub_refresh = format!("{{\"id\":2,\"sub_refresh\":{{\"channel\":\"news\",\"token\":\"{for_other}\"}}}}");
    let refresh = format!("{{\"id\":2,\"refresh\":{{\"token\":\"{wrong}\"}}}}");
    let cookie = secrets.text("a cookie");
    let bearer = secrets.text("a bearer token");
    let emulated = secrets.text("an emulated header");
    let headers = format!("Cookie: session={cookie}\r\nAuthorization: Bearer {bearer}\r\n");
    converse(&gateway.public, bidirectional, &headers, &[&connect(&good)], "\"client\"");
    converse(&gateway.public, bidirectional, "", &[&connect(&wrong)], refusal);
    converse(&gateway.public, bidirectional, "", &[&connect(&format!("{wrong}!"))], "invalid token");
    converse(&gateway.public, bidirectional, "", &[&connect(&old)], "109");
    converse(&gateway.public, bidirectional, "", &[&connect(&unknown)], refusal);
    converse(&gateway.public, bidirectional, "", &[&connect(&good), &subscribe], "invalid token|103");
    converse(&gateway.public, bidirectional, "", &[&connect(&good), &sub_refresh], "invalid token|103|bad request");
    converse(&gateway.public, bidirectional, "", &[&connect(&good), &refresh], refusal);
    converse(&gateway.public, bidirectional, "", &[&connect(&good), "{\"id\":2,\"rpc\":{}}"], "\"id\":2");
    let broken = format!("{} {{", connect(&good));
    converse(&gateway.public, bidirectional, &headers, &[&broken], "bad request");
    converse(&gateway.public, &format!("{bidirectional}?cf_protocol=protobuf"), "", &[&connect(&good)], "bad request");
    // Without a token the backend is asked, which answers badly in one way after the other.
    let asks = format!("{{\"id\":1,\"connect\":{{\"headers\":{{\"x-secret\":\"{emulated}\"}}}}}}");
    for _ in 0..8 {
        converse(&gateway.public, bidirectional, &headers, &[&asks], "100");
    }
    let plain = format!("/connection/uni_websocket?cf_connect={{%22token%22:%22{good}%22}}");
    converse(&gateway.public, &plain, &headers, &[], "\"client\"");
    converse(&gateway.public, &plain.replace(&good, &wrong), &headers, &[], "isconnect");
    converse(&gateway.public, bidirectional, &format!("{headers}Broken {cookie}\r\n"), &[], "400");
    let foreign = format!("{headers}Origin: https://elsewhere.example\r\n");
    converse(&gateway.public, bidirectional, &foreign, &[], "403");
    // Who speaks HTTP where TLS is due.
    let tls = gateway.banner.iter().find_map(|line| line.strip_prefix("listening public https://")).expect("TLS");
    converse(tls, bidirectional, &headers, &[], "this port speaks TLS");
}

/// Backends with keys, good and bad, in all places.
fn backends(gateway: &Running, secrets: &mut Secrets, key: &str) -> String {
    let wrong = secrets.text("a wrong key of the API");
    let mut seen = String::new();
    for (key, status) in [(key, "200 OK"), (wrong.as_str(), "401")] {
        for (target, headers) in [
            ("/api/info".to_owned(), format!("X-API-Key: {key}\r\n")),
            ("/api/info".to_owned(), format!("Authorization: apikey {key}\r\n")),
            (format!("/api/info?api_key={key}"), String::new()),
        ] {
            let answer = post(gateway, &target, &headers, "{}");
            assert!(answer.contains(status), "{answer}");
            seen += &answer;
        }
    }
    let header = format!("X-API-Key: {key}\r\n");
    for body in ["{", "{\"channel\":\"unknown:x\",\"data\":1}", "{\"channel\":7}"] {
        seen += &post(gateway, "/api/publish", &header, body);
        seen += &post(gateway, &format!("/api/nothing?api_key={key}"), "", body);
    }
    seen += &process::get(&gateway.api, &format!("/metrics?api_key={wrong}"));
    seen
}

#[test]
fn no_secret_gets_into_the_log_the_metrics_or_an_answer() {
    let mut secrets = Secrets::default();
    let (first, second) = (secrets.text("the first key of the API"), secrets.text("the second key of the API"));
    let (hmac_key, signing) = (secrets.text("a key of tokens"), secrets.text("a key that requests are signed with"));
    let (query, user) = (secrets.text("the query of a URL"), secrets.text("the password of a URL"));
    let (identity, other) = (Identity::new(&mut secrets, "a private key"), Identity::new(&mut secrets, "another one"));
    let backend = refusing_backend();
    let certificates = identity.toml(&identity.file("key.pem"));
    let text = |api: &str, certificates: &str| {
        let (api, hmac, signing) = (api, hmac_key.as_str(), signing.as_str());
        Text { api, hmac, signing, backend: &backend, query: &query, certificates }.toml()
    };
    let good = text(&first, &certificates);
    let file = config(&good);
    let mut gateway = start(&["serve", "--config", path(&file)]);
    let mut seen = String::new();
    clients(&gateway, &mut secrets, &hmac_key);
    seen += &backends(&gateway, &mut secrets, &first);

    let mut check = |file: &str| {
        let checked = command(&["check", "--config", file]).output().expect("it runs");
        seen += &String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat());
        checked.status.success()
    };
    let mut reload = |gateway: &mut Running, text: &str, is_good: bool| {
        std::fs::write(file.path(), text).expect("writable");
        assert_eq!(check(path(&file)), is_good, "{text}");
        gateway.signal("HUP");
        gateway.read_until(if is_good { "new configuration is in force" } else { "old configuration stays in force" });
    };
    reload(&mut gateway, &text(&second, &certificates).replace("jwks_url", "# jwks_url"), true);
    clients(&gateway, &mut secrets, &hmac_key);
    // Mistakes that are likely, and each way in which a text is refused.
    let damaged = tempfile::NamedTempFile::new().expect("a file");
    let pem = std::fs::read_to_string(identity.file("key.pem")).expect("readable");
    for (what, instead) in [
        (format!("keys = ['{first}']"), format!("keys = '{second}'")),
        (format!("keys = ['{first}']"), format!("keys = ['{second} x']")),
        (format!("keys = ['{first}']"), format!("keys = ['{second}\\t']").replace('\'', "\"")),
        (format!("keys = ['{first}']"), format!("keys = ['{second}]")),
        (format!("keys = ['{first}']"), format!("keys = [{second}]")),
        (format!("keys = ['{first}']"), format!("keys = ['{first}']\nkeys = ['{second}']")),
        (format!("keys = ['{first}']"), format!("keyz = ['{second}']")),
        (format!("'the-old-{hmac_key}'"), format!("{{ key = '{hmac_key}' }}")),
        (format!("signing_keys = ['{signing}']"), format!("signing_keys = '{signing}'")),
        (format!("http://{backend}/connect"), format!("http://user:{user}@{backend}/connect")),
        (format!("http://{backend}/jwks"), format!("https://{user}@{backend}/jwks")),
        (format!("http://{backend}/rpc"), format!("ftp://{backend}/rpc")),
        (format!("http://{backend}/rpc"), format!("http://{backend}/{user} rpc")),
        ("'authorization'".to_owned(), format!("'authorization: Bearer {user}'")),
        (identity.file("key.pem"), other.file("key.pem")),
        (identity.file("key.pem"), path(&damaged).to_owned()),
    ] {
        let bad = good.replace(&what, &instead);
        assert_ne!(bad, good, "{what}");
        for damage in
            [pem.replace("-----END", "----END"), pem.replace('/', "#").replace('A', "*"), pem[30..].to_owned()]
        {
            std::fs::write(damaged.path(), damage).expect("writable");
            reload(&mut gateway, &bad, false);
            if !instead.contains(path(&damaged)) {
                break;
            }
        }
    }
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key").serialize_pem();
    let rsa = RSA_PRIVATE;
    secrets.bytes("a private key instead of a public one", rsa.lines().nth(5).expect("a line").as_bytes());
    secrets.bytes("a private key instead of a public one", ed25519.lines().nth(1).expect("a line").as_bytes());
    for key in [format!("rsa_public_keys = ['''{rsa}''']"), format!("ed25519_public_keys = ['''{ed25519}''']")] {
        reload(&mut gateway, &good.replace("[token]", &format!("[token]\n{key}")), false);
    }
    reload(&mut gateway, &good, true);

    let api = format!("http://{}", gateway.api);
    for args in [
        vec!["token", "--config", path(&file), "--check", &token(&hmac_key, r#"{"sub":"42"}"#)],
        vec!["token", "--config", path(&file), "--check", &token(&second, r#"{"sub":"42"}"#)],
        vec!["publish", "--api", &api, "--key", &first, "news", "1"],
        vec!["publish", "--api", &api, "--key", &second, "news", "1"],
        vec!["publish", "--api", &api, "--key", &format!("{second} x"), "news", "1"],
        vec!["publish", "--api", &format!("http://user:{user}@127.0.0.1"), "news", "1"],
    ] {
        let ran = command(&args).output().expect("it runs");
        seen += &String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat());
    }
    seen += &process::get(&gateway.api, "/metrics");
    let said = gateway.end();
    // It was as talkative as it can be, and had reason to.
    for expected in [
        "DEBUG",
        "401:",
        "a client's token does not count: its signature is wrong",
        "connection closed",
        "webhook connect",
        "webhook notices",
        "jwks_url",
        "reload: ",
    ] {
        assert!(said.contains(expected), "nothing said about {expected}:\n{said}");
    }
    seen += &said;
    let found: HashSet<_> = secrets.found_in(&seen).into_iter().collect();
    let lines = || seen.lines().filter(|line| !secrets.found_in(line).is_empty()).collect::<Vec<_>>().join("\n");
    assert!(found.is_empty(), "{found:?}\n{}", lines());
}
