//! Sec-WebSocket-Extensions: what is refused, what is declined, and what is answered.

use wire::http::{self, HeadLimits, Status};
use wire::ws::client::{self, ResponseError};
use wire::ws::extension::{ClientWindow, Offer, Params, Policy};
use wire::ws::{Role, handshake};

const KEY: &[u8; 16] = b"the sample nonce";

/// What the server of [`Policy::default`] makes of these headers: its answer, no compression, or a refusal.
fn answered(extensions: &[&str]) -> Result<Option<String>, Status> {
    let mut head = Vec::new();
    let extra: Vec<_> = extensions.iter().map(|value| ("Sec-WebSocket-Extensions", *value)).collect();
    client::write_request(&mut head, "example.org", "/", KEY, None, &extra);
    let (request, _) = http::parse(&head, &HeadLimits::default()).expect("a good head").expect("a whole head");
    let upgrade = handshake::check(&request).map_err(|refusal| refusal.status)?;
    let params = upgrade.deflate(&Policy::default());
    let mut response = Vec::new();
    upgrade.write_response_with(&mut response, None, params);
    let response = String::from_utf8(response).expect("ASCII");
    let header = response.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    assert_eq!(header, params.map(|params| params.to_string()).as_deref());
    Ok(header.map(str::to_owned))
}

fn accepted(answer: &str) -> Result<Option<String>, Status> {
    Ok(Some(answer.to_owned()))
}

#[test]
fn each_parameter_is_answered_and_none_is_sent_unasked() {
    let table = [
        ("permessage-deflate", "permessage-deflate"),
        ("Permessage-DEFLATE", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits=10"),
        ("permessage-deflate; client_max_window_bits=15", "permessage-deflate; client_max_window_bits=10"),
        ("permessage-deflate; client_max_window_bits=9", "permessage-deflate; client_max_window_bits=9"),
        ("permessage-deflate; client_max_window_bits=8", "permessage-deflate; client_max_window_bits=8"),
        ("permessage-deflate; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=9"),
        ("permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=15"),
        ("permessage-deflate; server_max_window_bits=\"12\"", "permessage-deflate; server_max_window_bits=12"),
        ("permessage-deflate; server_max_window_bits=\"\\1\\2\"", "permessage-deflate; server_max_window_bits=12"),
        ("permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover"),
        ("permessage-deflate; client_no_context_takeover", "permessage-deflate; client_no_context_takeover"),
        (
            "permessage-deflate;client_max_window_bits ;\tserver_max_window_bits = 11; client_no_context_takeover;\
             SERVER_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11; \
             client_max_window_bits=10",
        ),
    ];
    for (offer, answer) in table {
        assert_eq!(answered(&[offer]), accepted(answer), "{offer}");
    }
}

#[test]
fn an_offer_that_makes_no_sense_is_declined_and_the_next_one_has_its_turn() {
    let declined = [
        "permessage-deflate; unknown",
        "permessage-deflate; unknown=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=true",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        // It would have to be 9 bits, which is more than was offered.
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=1x",
        "permessage-deflate; server_max_window_bits=100",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=08",
        "x-webkit-deflate-frame",
        "permessage-bzip2; client_max_window_bits",
    ];
    for offer in declined {
        assert_eq!(answered(&[offer]), Ok(None), "{offer}");
        let both = format!("{offer}, permessage-deflate; server_max_window_bits=10");
        let answer = "permessage-deflate; server_max_window_bits=10";
        assert_eq!(answered(&[&both]), accepted(answer), "{both}");
        assert_eq!(answered(&[offer, answer]), accepted(answer), "{offer} in a header of its own");
        // The first that can be accepted is; what comes behind it makes no difference.
        assert_eq!(answered(&[&format!("permessage-deflate, {offer}")]), accepted("permessage-deflate"), "{offer}");
    }
    assert_eq!(answered(&[]), Ok(None));
}

#[test]
fn a_header_that_breaks_the_grammar_is_refused_and_its_twin_is_not() {
    let table = [
        ("permessage-deflate;", "permessage-deflate; x"),
        ("permessage-deflate; ;x", "permessage-deflate; y;x"),
        ("permessage deflate", "permessage, deflate"),
        ("permessage-deflate; a=", "permessage-deflate; a=b"),
        ("permessage-deflate; =a", "permessage-deflate; b=a"),
        ("permessage-deflate; a=\"", "permessage-deflate; a=\"b\""),
        ("permessage-deflate; a=\"\"", "permessage-deflate; a=\"1\""),
        ("permessage-deflate; a=\"b c\"", "permessage-deflate; a=\"b-c\""),
        ("permessage-deflate; a=\"b\\\"", "permessage-deflate; a=\"b\\c\""),
        ("permessage-deflate; a=\"b\"c", "permessage-deflate; a=\"b\";c"),
        ("permessage-deflate; a b", "permessage-deflate; a;b"),
        ("permessage-deflate/1", "permessage-deflate-1"),
        ("; a", "b; a"),
        ("=", "a"),
        ("deflate, per(message)", "deflate, per-message-"),
        ("permessage-deflate, a b", "permessage-deflate, a,b"),
        ("d\u{e9}flate", "deflate"),
    ];
    for (bad, good) in table {
        assert_eq!(answered(&[bad]), Err(Status::BAD_REQUEST), "{bad}");
        assert_eq!(answered(&["permessage-deflate", bad]), Err(Status::BAD_REQUEST), "{bad}, in a second header");
        assert!(answered(&[good]).is_ok(), "{good}");
    }
}

#[test]
fn empty_elements_are_skipped_as_in_every_list() {
    for list in ["", " ", ",", " ,\t, "] {
        assert_eq!(answered(&[list]), Ok(None), "{list:?}");
        assert_eq!(answered(&[&format!("{list}, permessage-deflate,")]), accepted("permessage-deflate"), "{list:?}");
    }
}

/// What the client that offered `offer` makes of these headers.
fn agreed(offer: Option<&Offer>, answers: &[&str]) -> Result<Option<Params>, ResponseError> {
    let mut head = Vec::new();
    client::write_request(&mut head, "example.org", "/", KEY, None, &[]);
    let (request, _) = http::parse(&head, &HeadLimits::default()).expect("a good head").expect("a whole head");
    let mut response = Vec::new();
    handshake::check(&request).expect("a good request").write_response(&mut response, None);
    response.truncate(response.len() - 2);
    for answer in answers {
        response.extend_from_slice(format!("Sec-WebSocket-Extensions: {answer}\r\n").as_bytes());
    }
    response.extend_from_slice(b"\r\n");
    let answer = client::check_response_with(&response, KEY, None, offer, &HeadLimits::default())?;
    let answer = answer.expect("a whole head");
    assert_eq!(answer.head_len, response.len());
    Ok(answer.deflate)
}

fn full_offer() -> Offer {
    Offer {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: Some(12),
        client_max_window_bits: ClientWindow::Bits(13),
    }
}

#[test]
fn a_client_takes_the_answers_that_fit_its_offer() {
    let plain = Offer::default();
    let window = Offer { client_max_window_bits: ClientWindow::Any, ..plain };
    let table = [
        (plain, "permessage-deflate", (15, false), (15, false)),
        (plain, "permessage-deflate; server_max_window_bits=10", (10, false), (15, false)),
        (plain, "permessage-deflate; server_no_context_takeover", (15, true), (15, false)),
        (plain, "permessage-deflate; client_no_context_takeover", (15, false), (15, true)),
        (window, "permessage-deflate; client_max_window_bits=10", (15, false), (10, false)),
        (window, "permessage-deflate", (15, false), (15, false)),
        (
            full_offer(),
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=12",
            (12, true),
            (15, false),
        ),
        (
            full_offer(),
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits=13",
            (9, true),
            (13, false),
        ),
    ];
    for (offer, answer, incoming, outgoing) in table {
        let params = agreed(Some(&offer), &[answer]).expect(answer).expect(answer);
        let direction = params.incoming(Role::Client);
        assert_eq!((direction.window_bits(), direction.forgets()), incoming, "{answer}");
        let direction = params.outgoing(Role::Client);
        assert_eq!((direction.window_bits(), direction.forgets()), outgoing, "{answer}");
        assert_eq!(params.incoming(Role::Server), params.outgoing(Role::Client));
    }
    assert_eq!(agreed(Some(&plain), &[]), Ok(None));
    assert_eq!(agreed(None, &[]), Ok(None));
}

#[test]
fn a_client_refuses_the_answers_that_do_not_fit_its_offer() {
    let plain = Offer::default();
    let table = [
        (plain, "permessage-deflate; client_max_window_bits=10"),
        (plain, "permessage-deflate; server_max_window_bits"),
        (plain, "permessage-deflate; server_max_window_bits=16"),
        (plain, "permessage-deflate; unknown"),
        (plain, "permessage-deflate; server_no_context_takeover; server_no_context_takeover"),
        (plain, "permessage-deflate, permessage-deflate"),
        (plain, "permessage-bzip2"),
        (plain, "permessage-deflate;"),
        (Offer { client_max_window_bits: ClientWindow::Any, ..plain }, "permessage-deflate; client_max_window_bits"),
        (full_offer(), "permessage-deflate; server_max_window_bits=12"),
        (full_offer(), "permessage-deflate; server_no_context_takeover"),
        (full_offer(), "permessage-deflate; server_no_context_takeover; server_max_window_bits=13"),
        (
            full_offer(),
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=14",
        ),
    ];
    for (offer, answer) in table {
        assert_eq!(agreed(Some(&offer), &[answer]), Err(ResponseError::Extension), "{offer}: {answer}");
    }
    assert_eq!(agreed(None, &["permessage-deflate"]), Err(ResponseError::Extension));
    let twice = ["permessage-deflate", "permessage-deflate"];
    assert_eq!(agreed(Some(&plain), &twice), Err(ResponseError::Extension));
}

#[test]
fn what_the_server_answers_to_any_offer_its_client_takes_and_understands_alike() {
    let windows = (8..=15).map(ClientWindow::Bits).chain([ClientWindow::Unsaid, ClientWindow::Any]);
    for client_max_window_bits in windows {
        for server_max_window_bits in (9..=15).map(Some).chain([None]) {
            for flags in 0..4 {
                let offer = Offer {
                    server_no_context_takeover: flags & 1 != 0,
                    client_no_context_takeover: flags & 2 != 0,
                    server_max_window_bits,
                    client_max_window_bits,
                };
                let answer = answered(&[&offer.to_string()]).expect("well-formed").expect("acceptable");
                let ours = agreed(Some(&offer), &[&answer]).expect("fits").expect("compression");
                assert_eq!(ours.to_string(), answer, "{offer}");
            }
        }
    }
}
