//! Centrifugo's HTTP server API: `POST /api/<method>`, and the older `POST /api` with the method in the body.
//!
//! One request passes: key (401) → method name (404) → POST (405) → body (413, 408) → JSON (400) → the method itself,
//! whose errors travel as values (HTTP 200) unless the caller asks for [`ErrorMode::Transport`].

mod batch;
mod error;
mod methods;
mod request;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method as HttpMethod, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::error::{ApiError, Code};
use self::methods::Reply;
use crate::backend::Backend;
use crate::key;
use crate::limits;
use crate::metrics::{ApiMetrics, Method, Refused};
use crate::settings::{ApiSettings, CurrentSettings, ErrorMode};

/// What the API is made of.
pub(crate) struct Shared<B> {
    pub(crate) settings: CurrentSettings,
    pub(crate) backend: Arc<B>,
    pub(crate) metrics: Arc<ApiMetrics>,
}

/// The API as one request sees it: with the settings in force when it came.
pub(crate) struct Api<B> {
    pub(crate) settings: Arc<ApiSettings>,
    pub(crate) backend: Arc<B>,
    pub(crate) metrics: Arc<ApiMetrics>,
}

impl<B> Shared<B> {
    fn now(&self) -> Arc<Api<B>> {
        Arc::new(Api {
            settings: Arc::clone(&self.settings.borrow()),
            backend: Arc::clone(&self.backend),
            metrics: Arc::clone(&self.metrics),
        })
    }
}

/// The one handler of `/api` and all below it.
pub(crate) async fn call<B: Backend>(State(shared): State<Arc<Shared<B>>>, request: Request) -> Response {
    let api = shared.now();
    if let Some(refusal) = api.refused_by_key(request.headers(), request.uri()) {
        return refusal;
    }
    let mode = api.error_mode(request.headers());
    let name = request.uri().path().strip_prefix("/api").unwrap_or_default().trim_matches('/');
    let method = match name {
        "" => None,
        name => match Method::named(name) {
            Some(method) => Some(method),
            None => return api.unknown(name, mode),
        },
    };
    if request.method() != HttpMethod::POST {
        api.metrics.refused(Refused::Method);
        return method_not_allowed("POST");
    }
    let body = match api.read(request.into_body()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    match method {
        Some(method) => match api.run(method, &body).await {
            Ok(outcome) => answer(&outcome, mode),
            Err(malformed) => api.malformed(&malformed),
        },
        None => api.legacy(&body, mode).await,
    }
}

/// The older shape: one command per line.
#[derive(Deserialize)]
struct LegacyCommand<'a> {
    method: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

impl<B: Backend> Api<B> {
    /// 401 with an empty body unless the request carries a key, or none is asked for.
    fn refused_by_key(&self, headers: &HeaderMap, uri: &Uri) -> Option<Response> {
        if self.settings.insecure {
            return None;
        }
        let presented = key::presented(headers, uri);
        if presented.as_ref().is_some_and(|key| key::opens(&self.settings.keys, key)) {
            return None;
        }
        self.metrics.refused(Refused::Key);
        let reason = match (presented, self.settings.keys.is_empty()) {
            (_, true) => "no key is configured",
            (None, false) => "the request carries no key",
            (Some(_), false) => "the request's key is not one of the configured ones",
        };
        tracing::info!(target: "tidegate::api", option = "api.keys", "401: {reason}");
        // RFC 9110 wants the scheme named with every 401.
        Some((StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "apikey")]).into_response())
    }

    fn error_mode(&self, headers: &HeaderMap) -> ErrorMode {
        match headers.get("x-centrifugo-error-mode") {
            Some(value) if value.as_bytes().eq_ignore_ascii_case(b"transport") => ErrorMode::Transport,
            _ => self.settings.error_mode,
        }
    }

    /// A method that is not there is a wrong path, so the status is 404 in both modes.
    fn unknown(&self, name: &str, mode: ErrorMode) -> Response {
        self.metrics.refused(Refused::Path);
        let error = ApiError::new(Code::MethodNotFound, "path", "");
        let shown: String = name.chars().take(64).collect();
        error.clone().with_hint(format!("no API method {shown:?}")).log("other");
        failure(StatusCode::NOT_FOUND, &error, mode)
    }

    /// The whole body, within its bounds of bytes and time.
    async fn read(&self, body: Body) -> Result<Vec<u8>, Response> {
        let max = self.settings.body_bytes_max;
        // A declared length over the limit needs no byte to be read.
        if body.size_hint().lower() > max as u64 {
            return Err(self.too_large());
        }
        let collected = Limited::new(body, max).collect();
        match tokio::time::timeout(self.settings.body_timeout, collected).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes().into()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(self.too_large()),
            Ok(Err(error)) => {
                // The client went away or broke the chunked coding; hardly anybody reads this answer.
                self.metrics.refused(Refused::Body);
                tracing::debug!(target: "tidegate::api", "request body broke off: {error}");
                Err(plain_failure(StatusCode::BAD_REQUEST, "the body broke off"))
            }
            Err(_elapsed) => {
                self.metrics.refused(Refused::Body);
                let seconds = self.settings.body_timeout.as_secs();
                tracing::info!(target: "tidegate::api", option = "api.body_timeout",
                    "408: no whole body within {seconds} s");
                let text = "the body did not arrive in time";
                Err(closing(plain_failure(StatusCode::REQUEST_TIMEOUT, text)))
            }
        }
    }

    fn too_large(&self) -> Response {
        self.metrics.refused(Refused::Body);
        let max = self.settings.body_bytes_max;
        tracing::info!(target: "tidegate::api", option = "api.body_bytes_max",
            "413: a body has more than {max} bytes");
        let text = format!("the body has more than {max} bytes");
        closing(plain_failure(StatusCode::PAYLOAD_TOO_LARGE, text))
    }

    /// JSON that cannot be read is the one error of the API itself that is a status in both modes.
    fn malformed(&self, error: &serde_json::Error) -> Response {
        self.metrics.refused(Refused::Json);
        tracing::info!(target: "tidegate::api", option = "body", "400: {error}");
        plain_failure(StatusCode::BAD_REQUEST, error.to_string())
    }

    /// Runs one method, or several in a batch, and counts it. The outer error is JSON that does not fit the method's request.
    async fn run(
        self: &Arc<Self>,
        method: Method,
        params: &[u8],
    ) -> Result<Result<Reply, ApiError>, serde_json::Error> {
        if method != Method::Batch {
            return self.run_one(method, params).await;
        }
        let outcome = batch::run(self, serde_json::from_slice(params)?).await;
        Ok(self.counted(method, outcome))
    }

    async fn run_one(
        self: &Arc<Self>,
        method: Method,
        params: &[u8],
    ) -> Result<Result<Reply, ApiError>, serde_json::Error> {
        let outcome = methods::run(self, method, params).await?;
        Ok(self.counted(method, outcome))
    }

    fn counted(&self, method: Method, outcome: Result<Reply, ApiError>) -> Result<Reply, ApiError> {
        let code = match &outcome {
            Ok(_) => 0,
            Err(error) => {
                error.log(method.name());
                error.code.number()
            }
        };
        self.metrics.called(method, code);
        outcome
    }

    /// Several commands, one after the other; a body that cannot be read whole does nothing at all.
    async fn legacy(self: &Arc<Self>, body: &[u8], mode: ErrorMode) -> Response {
        let mut commands = Vec::new();
        for command in serde_json::Deserializer::from_slice(body).into_iter::<LegacyCommand<'_>>() {
            match command {
                Ok(command) if commands.len() < limits::LEGACY_COMMANDS_MAX => commands.push(command),
                Ok(_) => {
                    let max = limits::LEGACY_COMMANDS_MAX;
                    let error = ApiError::bad("body", format!("more than {max} commands"));
                    error.log("other");
                    return answer(&Err(error), mode);
                }
                Err(error) => return self.malformed(&error),
            }
        }
        if commands.is_empty() {
            return plain_failure(StatusCode::BAD_REQUEST, "the body is empty");
        }
        let single = commands.len() == 1;
        let mut lines = Vec::new();
        for command in commands {
            let outcome = match self.legacy_one(&command).await {
                Ok(outcome) => outcome,
                Err(error) if single => return self.malformed(&error),
                // Earlier commands are done, so from here on errors are per line.
                Err(error) => Err(ApiError::bad("params", error.to_string())),
            };
            if single {
                return answer(&outcome, mode);
            }
            lines.extend(encode(&Envelope::of(&outcome)));
            lines.push(b'\n');
        }
        json(StatusCode::OK, lines)
    }

    async fn legacy_one(
        self: &Arc<Self>,
        command: &LegacyCommand<'_>,
    ) -> Result<Result<Reply, ApiError>, serde_json::Error> {
        let Some(method) = Method::named(&command.method) else {
            let error = ApiError::new(Code::MethodNotFound, "method", "");
            error.log("other");
            return Ok(Err(error));
        };
        let params = command.params.map_or("{}", RawValue::get);
        self.run(method, params.as_bytes()).await
    }
}

/// `{"result":..}` or `{"error":..}`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Envelope<'a> {
    Result(&'a Reply),
    Error(&'a ApiError),
}

impl Envelope<'_> {
    pub(crate) fn of(outcome: &Result<Reply, ApiError>) -> Envelope<'_> {
        match outcome {
            Ok(reply) => Envelope::Result(reply),
            Err(error) => Envelope::Error(error),
        }
    }
}

fn answer(outcome: &Result<Reply, ApiError>, mode: ErrorMode) -> Response {
    match (outcome, mode) {
        (Err(error), ErrorMode::Transport) => failure(error.code.status(), error, mode),
        _ => json(StatusCode::OK, encode(&Envelope::of(outcome))),
    }
}

fn failure(status: StatusCode, error: &ApiError, mode: ErrorMode) -> Response {
    let body = match mode {
        ErrorMode::Envelope => encode(&Envelope::Error(error)),
        ErrorMode::Transport => encode(error),
    };
    json(status, body)
}

/// A request that is wrong as HTTP, answered in the API's shape so that a caller has one thing to parse.
pub(crate) fn plain_failure(status: StatusCode, detail: impl Into<std::borrow::Cow<'static, str>>) -> Response {
    let code = match status {
        StatusCode::NOT_FOUND => Code::MethodNotFound,
        _ => Code::BadRequest,
    };
    failure(status, &ApiError::new(code, "", detail), ErrorMode::Envelope)
}

/// 405 with the methods that would do.
pub(crate) fn method_not_allowed(allow: &'static str) -> Response {
    let text = format!("this path takes {allow}");
    let mut response = plain_failure(StatusCode::METHOD_NOT_ALLOWED, text);
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
    response
}

/// The rest of the request is not read, so the connection cannot carry another one.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own structs have string keys and no failing serializer")
}
