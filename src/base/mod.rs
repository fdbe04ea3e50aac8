//! Words that every module uses, and services of the controller's machine. No dependency on any other room.

#[cfg(feature = "controller")]
pub mod endpoint;
#[cfg(feature = "controller")]
pub mod exit;
#[cfg(feature = "controller")]
pub mod json;
#[cfg(feature = "controller")]
pub mod log;
#[cfg(feature = "controller")]
pub mod memory;
pub mod printable;
#[cfg(feature = "controller")]
pub(crate) mod replace;
#[cfg(feature = "controller")]
pub mod run_id;
#[cfg(feature = "controller")]
pub mod signals;
pub(crate) mod statement;
#[cfg(feature = "controller")]
pub(crate) mod terminal;
#[cfg(feature = "controller")]
pub(crate) mod trust;
