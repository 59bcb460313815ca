//! tidegate-load against a small server of the tests' own, which makes the faults that it is to find.

mod echo;
mod fake;
mod fanout;
mod hold;
mod loops;
mod report;
