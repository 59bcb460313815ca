//! Errors of the server API: code, message, and the option to look at.

use std::borrow::Cow;

use axum::http::StatusCode;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::backend::BackendError;

/// The codes of the server API; the numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Code {
    /// Our fault or a passing one: worth trying again.
    Internal = 100,
    /// No such namespace.
    UnknownChannel = 102,
    /// No such API method.
    MethodNotFound = 104,
    /// The request itself is wrong.
    BadRequest = 107,
    /// Right in itself, but this node does not do it.
    NotAvailable = 108,
    /// The position in a channel is gone.
    UnrecoverablePosition = 112,
}

impl Code {
    pub(crate) fn number(self) -> u16 {
        self as u16
    }

    /// The protocol's own words; a detail may follow them.
    fn words(self) -> &'static str {
        match self {
            Code::Internal => "internal server error",
            Code::UnknownChannel => "unknown channel",
            Code::MethodNotFound => "method not found",
            Code::BadRequest => "bad request",
            Code::NotAvailable => "not available",
            Code::UnrecoverablePosition => "unrecoverable position",
        }
    }

    /// The HTTP status in transport mode.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Code::UnknownChannel | Code::MethodNotFound => StatusCode::NOT_FOUND,
            Code::BadRequest | Code::NotAvailable => StatusCode::BAD_REQUEST,
            Code::UnrecoverablePosition => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }
}

/// One error as the caller sees it, plus what only the log says.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) code: Code,
    detail: Cow<'static, str>,
    /// The configuration key or request field to look at; goes to the log.
    pub(crate) option: &'static str,
    /// What the log adds for the operator (may name things the caller should not learn).
    hint: String,
}

impl ApiError {
    /// An error whose detail the caller may read.
    pub(crate) fn new(code: Code, option: &'static str, detail: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { code, detail: detail.into(), option, hint: String::new() }
    }

    pub(crate) fn bad(field: &'static str, detail: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(Code::BadRequest, field, detail)
    }

    pub(crate) fn not_available(field: &'static str, detail: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(Code::NotAvailable, field, detail)
    }

    /// Adds a line for the operator.
    pub(crate) fn with_hint(mut self, hint: String) -> ApiError {
        self.hint = hint;
        self
    }

    /// The text beside the code.
    pub(crate) fn message(&self) -> Cow<'static, str> {
        if self.detail.is_empty() {
            return Cow::Borrowed(self.code.words());
        }
        Cow::Owned(format!("{}: {}", self.code.words(), self.detail))
    }

    /// One line per error that a caller got. Ours are warnings; those of the caller are no news for the operator, until
    /// somebody asks why.
    pub(crate) fn log(&self, method: &str) {
        let (code, option, hint, message) = (self.code.number(), self.option, self.hint.as_str(), self.message());
        if self.code == Code::Internal {
            tracing::warn!(target: "tidegate::api", method, option, hint, "{code}: {message}");
        } else {
            tracing::info!(target: "tidegate::api", method, option, hint, "{code}: {message}");
        }
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> ApiError {
        match error {
            BackendError::Busy => ApiError::new(Code::Internal, "limits.mailbox", error.to_string()),
            BackendError::Timeout => ApiError::new(Code::Internal, "api.backend_timeout", error.to_string()),
            BackendError::UnknownChannel => ApiError::new(Code::UnknownChannel, "namespaces", ""),
            BackendError::NoHistory => ApiError::not_available("history_size", error.to_string()),
            BackendError::NoPresence => ApiError::not_available("presence", error.to_string()),
            BackendError::TooManyPresent => ApiError::not_available("presence", error.to_string()),
            BackendError::Unrecoverable => ApiError::new(Code::UnrecoverablePosition, "since", ""),
            BackendError::ShuttingDown => ApiError::new(Code::Internal, "drain", error.to_string()),
        }
    }
}

impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("error", 2)?;
        object.serialize_field("code", &self.code.number())?;
        object.serialize_field("message", &self.message())?;
        object.end()
    }
}
