//! Centrifugo's bidirectional client protocol, version 2. JSON here; Protobuf will stand beside it.

pub(crate) mod json;
