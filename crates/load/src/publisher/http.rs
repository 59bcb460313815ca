//! Publishing by HTTP: the server API's envelope, or the bare data to a path per channel.

use super::{ANSWER_BYTES_MAX, Answer};
use crate::dialect::CHANNEL_PLACE;
use crate::endpoint::Endpoint;
use serde::Deserialize;
use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::TcpStream;
use wire::http::BodyKind;
use wire::http::body::Body;

/// Headers of an answer.
const HEADERS_MAX: usize = 32;

/// An answer without a body and without a length.
const NO_CONTENT: u16 = 204;

/// Says what a status and a body mean.
pub(super) type Judge = fn(u16, &[u8]) -> Answer;

/// Appends a request of the server API.
pub(super) fn write_envelope(out: &mut Vec<u8>, api: &Endpoint, key: Option<&str>, channel: &str, data: &[u8]) {
    let (before, after) = (format!("{{\"channel\":\"{channel}\",\"data\":"), "}");
    let key = key.map(|key| format!("X-API-Key: {key}\r\n")).unwrap_or_default();
    let target = format!("{}/api/publish", api.target.trim_end_matches('/'));
    let extra = format!("Content-Type: application/json\r\n{key}");
    write_head(out, api, &target, &extra, before.len() + data.len() + after.len());
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(after.as_bytes());
}

/// Appends a request whose body is the data alone.
pub(super) fn write_raw(out: &mut Vec<u8>, api: &Endpoint, channel: &str, data: &[u8]) {
    write_head(out, api, &api.target.replace(CHANNEL_PLACE, channel), "Content-Type: text/plain\r\n", data.len());
    out.extend_from_slice(data);
}

fn write_head(out: &mut Vec<u8>, api: &Endpoint, target: &str, extra: &str, len: usize) {
    let host = &api.host;
    let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n{extra}Content-Length: {len}\r\n\r\n");
    out.extend_from_slice(head.as_bytes());
}

/// nchan answers 201, or 202 if nobody was there; others do as they like.
pub(super) fn judge_raw(status: u16, _: &[u8]) -> Answer {
    match status {
        200..=299 => Answer::Accepted,
        _ => Answer::Refused(format!("the server answered a publication with {status}")),
    }
}

/// Sends the request and reads its answer. The second value tells whether the connection may be used again.
pub(super) fn exchange(connection: &mut TcpStream, request: &[u8], judge: Judge) -> std::io::Result<(Answer, bool)> {
    connection.write_all(request)?;
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let len = match connection.read(&mut chunk) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        received.extend_from_slice(&chunk[..len]);
        if let Some(answer) = parse(&received, judge).map_err(std::io::Error::other)? {
            return Ok(answer);
        }
        if received.len() > ANSWER_BYTES_MAX {
            return Err(std::io::Error::other("its answer is too long"));
        }
    }
}

/// `None` while more has to come.
fn parse(received: &[u8], judge: Judge) -> Result<Option<(Answer, bool)>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(status) = response.parse(received) else { return Err("its answer is not HTTP") };
    let httparse::Status::Complete(head_len) = status else { return Ok(None) };
    let value = |name: &str| response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    let keep = !value("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    let code = response.code.unwrap_or_default();
    let kind = if code == NO_CONTENT {
        BodyKind::Length(0)
    } else if value("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
        BodyKind::Chunked
    } else {
        let length = value("content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        BodyKind::Length(length.ok_or("its answer has no length")?)
    };
    let mut body = Body::new(kind, ANSWER_BYTES_MAX as u64).map_err(|_| "its answer is too long")?;
    let (mut rest, mut content) = (&received[head_len..], Vec::new());
    while let Some(piece) = body.next(&mut rest).map_err(|_| "its answer has a malformed body")? {
        content.extend_from_slice(piece);
    }
    Ok(body.is_done().then(|| (judge(code, &content), keep)))
}

/// Tidegate's and Centrifugo's: `{"result":{…}}` or `{"error":{"code":…,"message":…}}`, both with status 200.
pub(super) fn judge_envelope(status: u16, body: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        result: Option<&'a serde_json::value::RawValue>,
        #[serde(borrow)]
        error: Option<ApiError<'a>>,
    }
    #[derive(Deserialize)]
    struct ApiError<'a> {
        code: u32,
        #[serde(borrow)]
        message: Cow<'a, str>,
    }
    match (status, serde_json::from_slice::<Envelope<'_>>(body)) {
        (200, Ok(Envelope { error: Some(error), .. })) => {
            Answer::Refused(format!("the API refused a publication: {} {}", error.code, error.message))
        }
        (200, Ok(Envelope { result: Some(_), .. })) => Answer::Accepted,
        (401, _) => Answer::Refused("the API refused the key (401)".to_owned()),
        _ => Answer::Refused(format!("the API answered with {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::of_api;

    fn answer(text: &str) -> Option<(Result<(), String>, bool)> {
        parse(text.as_bytes(), judge_envelope).unwrap().map(|(answer, keep)| match answer {
            Answer::Accepted => (Ok(()), keep),
            Answer::Refused(reason) => (Err(reason), keep),
        })
    }

    #[test]
    fn only_a_result_is_an_acceptance() {
        let with = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let ok = with("{\"result\":{}}");
        assert_eq!(answer(&ok), Some((Ok(()), true)));
        assert_eq!(answer(&ok[..ok.len() - 1]), None);
        let chunked = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{\"result\":{}}\r\n0\r\n\r\n";
        assert_eq!(answer(chunked), Some((Ok(()), false)));
        let error = with("{\"error\":{\"code\":102,\"message\":\"no way\"}}");
        assert_eq!(answer(&error).unwrap().0, Err("the API refused a publication: 102 no way".to_owned()));
        let unauthorised = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answer(unauthorised).unwrap().0, Err("the API refused the key (401)".to_owned()));
        assert_eq!(answer(&with("{}")).unwrap().0, Err("the API answered with 200".to_owned()));
    }

    #[test]
    fn a_raw_publication_is_accepted_by_any_success() {
        let judged = |text: &str| parse(text.as_bytes(), judge_raw).unwrap().unwrap().0;
        // As nchan answers.
        let created = "HTTP/1.1 201 Created\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 00:28:14 GMT\r\n\
            Content-Type: text/plain\r\nContent-Length: 100\r\nConnection: keep-alive\r\n\r\nqueued messages: 1\r\n\
            last requested: 1 sec. ago\r\nactive subscribers: 1\r\nlast message id: 1795393694:0";
        assert_eq!(judged(created), Answer::Accepted);
        assert_eq!(judged("HTTP/1.1 204 No Content\r\n\r\n"), Answer::Accepted);
        let refused = created.replace("201 Created", "403 Forbidden");
        assert_eq!(judged(&refused), Answer::Refused("the server answered a publication with 403".to_owned()));
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        let parse = |bytes: &[u8]| parse(bytes, judge_envelope);
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").unwrap().is_none());
    }

    #[test]
    fn a_request_has_the_length_it_announces() {
        let request = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            let limits = wire::http::HeadLimits::default();
            let (request, head_len) = wire::http::parse(&out, &limits).unwrap().unwrap();
            let body = out[head_len..].to_vec();
            assert_eq!(request.body(), BodyKind::Length(body.len() as u64));
            (format!("{} {}", request.method_str(), request.path()), body)
        };
        let api = of_api("http://127.0.0.1:9000/sub/").unwrap();
        let (line, body) = request(&|out| write_envelope(out, &api, Some("k"), "b", b"\"x\""));
        assert_eq!(line, "POST /sub/api/publish");
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json, serde_json::json!({"channel": "b", "data": "x"}));
        let raw = of_api("http://127.0.0.1:9000/pub/{channel}").unwrap();
        assert_eq!(request(&|out| write_raw(out, &raw, "b", b"\"x\"")), ("POST /pub/b".to_owned(), b"\"x\"".to_vec()));
    }
}
