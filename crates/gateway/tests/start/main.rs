//! The real binary on machines that allow less: which driver it runs on, how many clients it takes, and what it says.

mod drivers;
mod seccomp;
mod tables;

#[path = "../process/mod.rs"]
mod process;
