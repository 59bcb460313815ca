//! Request bodies, by length and in chunks, however the bytes arrive.

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use support::{property, split};
use wire::http::body::Body;
use wire::http::{BodyKind, Refusal, Status};
use wire::limits::BODY_OVERHEAD_BYTES_MAX;

/// Content, what follows the body, and whether it ended.
type Outcome = Result<(Vec<u8>, Vec<u8>, bool), Status>;

/// Reads a body from chunks; whatever it leaves of a chunk stays in front of the next.
fn read<'c>(kind: BodyKind, max: u64, chunks: impl IntoIterator<Item = &'c [u8]>) -> Outcome {
    let status = |refusal: Refusal| refusal.status;
    let mut body = Body::new(kind, max).map_err(status)?;
    let (mut content, mut rest) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let mut input = chunk;
        while let Some(piece) = body.next(&mut input).map_err(status)? {
            assert!(!piece.is_empty());
            content.extend_from_slice(piece);
        }
        assert!(body.is_done() || input.is_empty());
        rest.extend_from_slice(input);
    }
    Ok((content, rest, body.is_done()))
}

fn chunked(bytes: &[u8]) -> Outcome {
    let whole = read(BodyKind::Chunked, 100, [bytes]);
    assert_eq!(read(BodyKind::Chunked, 100, bytes.chunks(1)), whole, "{}", bytes.escape_ascii());
    whole
}

fn ended(content: &[u8], rest: &[u8]) -> Outcome {
    Ok((content.to_vec(), rest.to_vec(), true))
}

#[test]
fn a_body_by_length_ends_where_it_says() {
    assert_eq!(read(BodyKind::None, 9, [&b"GET"[..]]), ended(b"", b"GET"));
    assert_eq!(read(BodyKind::Length(0), 9, [&b"GET"[..]]), ended(b"", b"GET"));
    assert_eq!(read(BodyKind::Length(2), 9, [&b"a"[..], b"bc"]), ended(b"ab", b"c"));
    let cut = Ok((b"ab".to_vec(), Vec::new(), false));
    assert_eq!(read(BodyKind::Length(3), 9, [&b"ab"[..], b""]), cut);
}

#[test]
fn a_body_over_the_limit_is_refused_as_soon_as_it_says_so() {
    assert_eq!(read(BodyKind::Length(9), 9, []), Ok((Vec::new(), Vec::new(), false)));
    assert_eq!(read(BodyKind::Length(10), 9, []), Err(Status::CONTENT_TOO_LARGE));
    assert_eq!(read(BodyKind::Chunked, 9, [&b"9"[..]]), Ok((Vec::new(), Vec::new(), false)));
    assert_eq!(read(BodyKind::Chunked, 9, [&b"a"[..]]), Err(Status::CONTENT_TOO_LARGE));
    let two = |second: &str| format!("5\r\naaaaa\r\n{second}\r\nbbbb\r\n0\r\n\r\n");
    let sum = |second| read(BodyKind::Chunked, 9, [two(second).as_bytes()]);
    assert_eq!(sum("4"), ended(b"aaaaabbbb", b""));
    assert_eq!(sum("5"), Err(Status::CONTENT_TOO_LARGE));
    let huge = read(BodyKind::Chunked, u64::MAX, [&b"ffffffffffffffff\r\n"[..]]);
    assert_eq!(huge, Ok((Vec::new(), Vec::new(), false)));
}

#[test]
fn chunks_extensions_and_trailers_are_read_and_only_content_is_kept() {
    assert_eq!(chunked(b"0\r\n\r\nGET"), ended(b"", b"GET"));
    assert_eq!(chunked(b"3\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n"), ended(b"abc0123456789", b""));
    assert_eq!(chunked(b"1;a=b\r\nx\r\n1 ; c=\"d\"\r\ny\r\n0\r\n\r\n"), ended(b"xy", b""));
    assert_eq!(chunked(b"1\r\nx\r\n0\r\nA: b\r\nC: \xc3\xa4\r\n\r\nGET"), ended(b"x", b"GET"));
    assert_eq!(chunked(b"000000000000000f\r\n"), Ok((Vec::new(), Vec::new(), false)));
}

#[test]
fn malformed_chunks_are_refused_and_their_twins_taken() {
    let table: [(&[u8], &[u8]); 13] = [
        (b"g\r\nx\r\n0\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        (b"+1\r\nx\r\n0\r\n\r\n", b"01\r\nx\r\n0\r\n\r\n"),
        (b" 1\r\nx\r\n0\r\n\r\n", b"01\r\nx\r\n0\r\n\r\n"),
        (b"\r\nx\r\n0\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        (b"1 \r\nx\r\n0\r\n\r\n", b"1;\r\nx\r\n0\r\n\r\n"),
        (b"1\nx\r\n0\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        (b"1\r\rx\r\n0\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        (b"1\r\nxy\r\n0\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        (b"2\r\nx\r\n0\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        (b"1\r\nx\n0\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        (b"1;a\nb\r\nx\r\n0\r\n\r\n", b"1;a b\r\nx\r\n0\r\n\r\n"),
        (b"1\r\nx\r\n0\r\nA:\0b\r\n\r\n", b"1\r\nx\r\n0\r\nA: b\r\n\r\n"),
        (b"00000000000000001\r\nx\r\n0\r\n\r\n", b"0000000000000001\r\nx\r\n0\r\n\r\n"),
    ];
    for (bad, twin) in table {
        assert_eq!(chunked(bad), Err(Status::BAD_REQUEST), "{}", bad.escape_ascii());
        assert_eq!(chunked(twin), ended(b"x", b""), "the twin {}", twin.escape_ascii());
    }
}

#[test]
fn extensions_and_trailers_together_have_a_limit() {
    let max = usize::from(BODY_OVERHEAD_BYTES_MAX);
    let body = |extension: usize, trailer: usize| {
        let (extension, trailer) = ("e".repeat(extension - 1), "t".repeat(trailer));
        format!("1;{extension}\r\nx\r\n0\r\n{trailer}\r\n\r\n")
    };
    assert_eq!(chunked(body(max / 2, max / 2).as_bytes()), ended(b"x", b""));
    let over = body(max / 2, max / 2 + 1);
    assert_eq!(chunked(over.as_bytes()), Err(Status::CONTENT_TOO_LARGE));
}

#[test]
fn content_is_the_same_however_the_bytes_are_cut() {
    let chunks = vec(vec(any::<u8>(), 1..40), 0..6);
    property((chunks, vec(0..300_usize, 0..9)), |(chunks, cuts)| {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\nrest");
        let outcome = read(BodyKind::Chunked, 1000, split(&bytes, &cuts));
        prop_assert_eq!(outcome, ended(&chunks.concat(), b"rest"));
        Ok(())
    });
}
