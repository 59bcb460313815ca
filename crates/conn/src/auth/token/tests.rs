//! Tokens good and bad. Those of public keys in `fixtures/` were signed by OpenSSL, with keys that nobody has any more.

use super::*;
use serde_json::{Value, json};

pub(super) const NOW: Duration = Duration::from_secs(1_800_000_000);
const SECRET: &[u8] = b"secret";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signed_with(header: &Value, claims: &str, algorithm: ring::hmac::Algorithm, secret: &[u8]) -> String {
    let message = format!("{}.{}", encode(header.to_string()), encode(claims));
    let tag = ring::hmac::sign(&ring::hmac::Key::new(algorithm, secret), message.as_bytes());
    format!("{message}.{}", encode(tag))
}

fn hs256(claims: &Value) -> String {
    signed_with(&json!({"alg": "HS256"}), &claims.to_string(), ring::hmac::HMAC_SHA256, SECRET)
}

fn tokens() -> Tokens {
    Tokens { keys: vec![Key::hmac(SECRET)], ..Tokens::default() }
}

fn connection(claims: Value) -> Result<ConnectionClaims, TokenError> {
    tokens().connection(&hs256(&claims), NOW)
}

fn is_invalid<T>(result: Result<T, TokenError>) -> bool {
    matches!(result, Err(TokenError::Invalid(_)))
}

pub(super) const PUBLIC: [(&str, &str, &str); 6] = [
    ("RS256", include_str!("fixtures/rsa.pem"), include_str!("fixtures/rs256.jwt")),
    ("RS384", include_str!("fixtures/rsa.pem"), include_str!("fixtures/rs384.jwt")),
    ("RS512", include_str!("fixtures/rsa.pem"), include_str!("fixtures/rs512.jwt")),
    ("ES256", include_str!("fixtures/p256.pem"), include_str!("fixtures/es256.jwt")),
    ("ES384", include_str!("fixtures/p384.pem"), include_str!("fixtures/es384.jwt")),
    ("EdDSA", include_str!("fixtures/ed25519.pem"), include_str!("fixtures/eddsa.jwt")),
];

fn public_key(algorithm: &str, pem: &str) -> Key {
    match &algorithm[..2] {
        "RS" => Key::rsa(pem),
        "ES" => Key::ecdsa(pem),
        _ => Key::ed25519(pem),
    }
    .expect("a public key")
}

#[test]
fn every_algorithm_is_checked_with_its_own_key_and_no_other() {
    for (algorithm, pem, token) in PUBLIC {
        for (other, its_pem, _) in PUBLIC {
            let tokens = Tokens { keys: vec![public_key(other, its_pem)], ..Tokens::default() };
            let user = tokens.connection(token.trim(), NOW).map(|claims| claims.user);
            assert_eq!(user.as_deref() == Ok("42"), pem == its_pem, "{algorithm} with the key of {other}: {user:?}");
        }
        assert!(is_invalid(tokens().connection(token.trim(), NOW)), "{algorithm} with an HMAC secret");
    }
    for (name, with) in
        [("HS256", ring::hmac::HMAC_SHA256), ("HS384", ring::hmac::HMAC_SHA384), ("HS512", ring::hmac::HMAC_SHA512)]
    {
        let token = signed_with(&json!({"alg": name}), r#"{"sub":"42"}"#, with, SECRET);
        assert_eq!(tokens().connection(&token, NOW).map(|claims| claims.user).as_deref(), Ok("42"), "{name}");
    }
}

#[test]
fn a_changed_byte_anywhere_makes_a_token_invalid() {
    let hmac = hs256(&json!({"sub": "42"}));
    let cases = PUBLIC.map(|(algorithm, pem, token)| (public_key(algorithm, pem), token.trim()));
    for (key, token) in cases.into_iter().chain([(Key::hmac(SECRET), &*hmac)]) {
        let tokens = Tokens { keys: vec![key], ..Tokens::default() };
        assert!(tokens.connection(token, NOW).is_ok());
        for at in (0..token.len()).step_by(7).chain([token.len() - 2]) {
            let mut changed = token.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(is_invalid(tokens.connection(&changed, NOW)), "byte {at} of {token}");
        }
    }
}

#[test]
fn no_algorithm_and_a_public_key_as_secret_are_refused() {
    let claims = json!({"sub": "42"}).to_string();
    for alg in ["none", "None", "", "HS1", "ES512", "PS256"] {
        let head = encode(json!({"alg": alg}).to_string());
        for signature in ["", "AAAA"] {
            let token = format!("{head}.{}.{signature}", encode(&claims));
            assert!(is_invalid(tokens().connection(&token, NOW)), "{alg:?}");
        }
    }
    // The text of a public key is known to everybody; a token signed with it as an HMAC secret must not count.
    let (_, pem, token) = PUBLIC[0];
    let tokens = Tokens { keys: vec![public_key("RS256", pem)], ..Tokens::default() };
    let der = tokens.keys[0].key.try_get_as_bytes().expect("DER").to_vec();
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), &der] {
        let forged = signed_with(&json!({"alg": "HS256"}), &claims, ring::hmac::HMAC_SHA256, secret);
        assert!(is_invalid(tokens.connection(&forged, NOW)));
        let confused = signed_with(&json!({"alg": "RS256"}), &claims, ring::hmac::HMAC_SHA256, secret);
        assert!(is_invalid(tokens.connection(&confused, NOW)));
    }
    assert!(tokens.connection(token.trim(), NOW).is_ok(), "the twin that is signed by the private key");
}

#[test]
fn what_is_not_a_token_is_refused() {
    let good = hs256(&json!({"sub": "42"}));
    let parts: Vec<_> = good.split('.').collect();
    let long = hs256(&json!({"sub": "x".repeat(1 << 20)}));
    let nearly = hs256(&json!({"sub": "x".repeat(TOKEN_BYTES_MAX * 3 / 4 - 256)}));
    for bad in
        ["", ".", "..", "...", "a.b.c", parts[0], &format!("{}.{}", parts[0], parts[1]), &format!("{good}.x"), &long]
    {
        assert!(is_invalid(tokens().connection(bad, NOW)), "{}", &bad[..bad.len().min(80)]);
    }
    assert!(tokens().connection(&nearly, NOW).is_ok());
    for claims in
        ["[]", "1", "{\"sub\":1}", "{\"exp\":\"soon\"}", "{\"sub\":\"a\"", "{\"channels\":\"a\"}", "{\"iss\":1}"]
    {
        let token = signed_with(&json!({"alg": "HS256"}), claims, ring::hmac::HMAC_SHA256, SECRET);
        assert!(is_invalid(tokens().connection(&token, NOW)), "{claims}");
    }
    let critical = json!({"alg": "HS256", "crit": ["x"]});
    assert!(is_invalid(tokens().connection(&signed_with(&critical, "{}", ring::hmac::HMAC_SHA256, SECRET), NOW)));
}

#[test]
fn a_token_counts_between_nbf_and_exp_with_the_leeway() {
    let now = NOW.as_secs();
    let leeway = |leeway: u64, claims: Value| {
        let tokens = Tokens { leeway: Duration::from_secs(leeway), ..tokens() };
        tokens.connection(&hs256(&claims), NOW).map(|_| ())
    };
    let table = [
        (0, json!({"exp": now + 1}), Ok(())),
        (0, json!({"exp": now}), Err(TokenError::Expired)),
        (5, json!({"exp": now - 4}), Ok(())),
        (5, json!({"exp": now - 5}), Err(TokenError::Expired)),
        (0, json!({"exp": now as f64 + 0.5}), Ok(())),
        (0, json!({"exp": -1}), Err(TokenError::Expired)),
        (0, json!({"nbf": now}), Ok(())),
        (0, json!({"nbf": now + 1}), Err(TokenError::Expired)),
        (1, json!({"nbf": now + 1}), Ok(())),
        (0, json!({"iat": now + 1000, "jti": "x"}), Ok(())),
    ];
    for (seconds, claims, expected) in table {
        assert_eq!(leeway(seconds, claims.clone()), expected, "{claims} with {seconds} s");
    }
}

#[test]
fn audience_and_issuer_are_compared_where_they_are_configured() {
    let strict = Tokens { audience: Some("push".into()), issuer: Some("us".into()), ..tokens() };
    for (claims, counts) in [
        (json!({"aud": "push", "iss": "us"}), true),
        (json!({"aud": ["web", "push"], "iss": "us"}), true),
        (json!({"aud": "web", "iss": "us"}), false),
        (json!({"aud": [], "iss": "us"}), false),
        (json!({"iss": "us"}), false),
        (json!({"aud": "push", "iss": "them"}), false),
        (json!({"aud": "push"}), false),
    ] {
        assert_eq!(strict.connection(&hs256(&claims), NOW).is_ok(), counts, "{claims}");
        assert!(connection(claims).is_ok(), "without configuration both mean nothing");
    }
}

#[test]
fn a_named_key_has_to_be_known_where_names_are() {
    let named = Tokens { key_ids: vec!["a".into(), "b".into()], ..tokens() };
    let with = |header: Value| signed_with(&header, "{}", ring::hmac::HMAC_SHA256, SECRET);
    for (header, counts) in [
        (json!({"alg": "HS256", "kid": "b"}), true),
        (json!({"alg": "HS256", "kid": "c"}), false),
        (json!({"alg": "HS256"}), true),
    ] {
        assert_eq!(named.connection(&with(header.clone()), NOW).is_ok(), counts, "{header}");
        assert!(tokens().connection(&with(header), NOW).is_ok());
    }
}

#[test]
fn a_key_that_is_being_replaced_counts_until_its_end() {
    let old = Key::hmac(SECRET).until(NOW);
    let rotating = Tokens { keys: vec![Key::hmac(b"new"), old], ..Tokens::default() };
    let (old, new) =
        (hs256(&json!({"sub": "old"})), signed_with(&json!({"alg": "HS256"}), "{}", ring::hmac::HMAC_SHA256, b"new"));
    assert!(rotating.connection(&old, NOW - Duration::from_secs(1)).is_ok());
    assert!(is_invalid(rotating.connection(&old, NOW)));
    assert!(rotating.connection(&new, NOW).is_ok());
}

#[test]
fn connection_claims_are_read() {
    let empty = connection(json!({"iat": 1})).expect("neither sub nor exp");
    let none = ConnectionClaims { user: String::new(), lasts: Lasts::ForEver, info: None, channels: Vec::new() };
    assert_eq!(empty, none);
    let lasts = |claims: Value| connection(claims).expect("a token").lasts;
    let exp = NOW.as_secs() + 60;
    assert_eq!(lasts(json!({"exp": exp})), Lasts::Until(exp));
    assert_eq!(lasts(json!({"exp": exp, "expire_at": exp + 1})), Lasts::Until(exp + 1));
    assert_eq!(lasts(json!({"exp": exp, "expire_at": 0})), Lasts::ForEver);
    let info = |claims: Value| connection(claims).map(|claims| claims.info.map(|info| info.to_vec()));
    assert_eq!(info(json!({"info": {"a": 1}})), Ok(Some(b"{\"a\":1}".to_vec())));
    assert_eq!(info(json!({"b64info": STANDARD_TEXT})), Ok(Some(b"{\"a\":[1,2]}".to_vec())), "line breaks go");
    assert!(is_invalid(info(json!({"b64info": "!"}))) && is_invalid(info(json!({"b64info": "eA=="}))));
    let names = |claims: Value| {
        let channels = connection(claims).expect("a token").channels;
        channels.into_iter().map(|sub| sub.channel).collect::<Vec<_>>()
    };
    assert_eq!(names(json!({"channels": ["b", "a", "b"]})), ["a", "b"]);
    assert_eq!(names(json!({"channels": ["b"], "subs": {"c": {}, "d": null}})), ["c", "d"], "subs wins");
    let subs = json!({"subs": {"c": {"info": 1, "data": [2], "override": {"force_recovery": {"value": true}}}}});
    let sub = connection(subs).expect("a token").channels.remove(0);
    let changed = Changed { force_recovery: Some(true), ..Changed::default() };
    assert_eq!((sub.info.as_deref(), sub.data.as_deref(), sub.changed), (Some(&b"1"[..]), Some(&b"[2]"[..]), changed));
    assert!(is_invalid(connection(json!({"channel": "c"}))), "a subscription token");
}

/// `{"a":\n[1,\n2]}`
const STANDARD_TEXT: &str = "eyJhIjoKWzEsCjJdfQ==";

#[test]
fn subscription_claims_are_read() {
    let claims = |claims: Value| tokens().subscription(&hs256(&claims), NOW);
    assert!(is_invalid(claims(json!({"sub": "42"}))), "no channel");
    let read = claims(json!({"sub": "42", "channel": "c", "client": "x", "data": {"d": 1}})).expect("a token");
    assert_eq!((&*read.user, &*read.channel, read.client.as_deref()), ("42", "c", Some("x")));
    assert_eq!(read.data.as_deref(), Some(&b"{\"d\":1}"[..]));
    assert_eq!(claims(json!({"channel": "c", "client": ""})).expect("a token").client, None);
    assert_eq!(claims(json!({"channel": "c", "exp": 1})), Err(TokenError::Expired));
}

#[test]
fn keys_that_are_none_are_refused_and_no_key_is_shown() {
    for (bad, key) in [
        ("an ECDSA key", Key::rsa(PUBLIC[3].1)),
        ("1024 bits", Key::rsa(include_str!("fixtures/rsa1024.pem"))),
        ("P-521", Key::ecdsa(include_str!("fixtures/p521.pem"))),
        ("an RSA key", Key::ecdsa(PUBLIC[0].1)),
        ("P-256", Key::ed25519(PUBLIC[3].1)),
        ("no PEM", Key::ed25519("x")),
    ] {
        assert!(key.is_err(), "{bad}");
    }
    let shown = format!("{:?}", Tokens { keys: vec![Key::hmac(b"open-sesame")], ..Tokens::default() });
    assert!(!shown.contains("sesame") && !shown.contains(&format!("{:?}", b"open-sesame")), "{shown}");
}

#[test]
fn a_signature_of_a_public_key_costs_more_and_nothing_costs_more_than_the_most() {
    let (_, pem, token) = PUBLIC[0];
    let one = Tokens { keys: vec![public_key("RS256", pem), Key::hmac(SECRET)], ..Tokens::default() };
    assert_eq!(one.cost(&hs256(&json!({}))), 1);
    assert_eq!(one.cost(token.trim()), ASYMMETRIC_COST);
    assert_eq!(one.cost("rubbish"), 1);
    let many = Tokens { keys: vec![public_key("RS256", pem); KEYS_MAX * 2], ..Tokens::default() };
    assert_eq!(many.cost(token.trim()), COST_MAX);
}
