//! Who may connect: the checks made before a session exists.

pub mod host;
pub mod origin;
