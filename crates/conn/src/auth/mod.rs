//! Who may connect: the checks made before a session exists, and tokens.

pub mod host;
pub mod origin;
pub mod token;
