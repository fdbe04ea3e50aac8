//! Words that every module uses, and services of the controller's machine. No dependency on any other room.

pub mod archive;
pub mod endpoint;
pub mod exit;
pub mod json;
pub mod log;
pub mod memory;
pub(crate) mod printable;
pub(crate) mod replace;
pub mod run_id;
pub mod signals;
pub(crate) mod terminal;
pub(crate) mod trust;
