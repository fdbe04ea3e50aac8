//! Files of a host: opened by descriptors, walked, listed, digested, published and removed.
//!
//! Other users may rename directories and replace files at any moment. Everything here starts from a
//! directory that is held as a descriptor, takes one name at a time, follows no link, and compares device and
//! inode where the same thing is looked at twice.

pub(crate) mod archive;
pub(crate) mod attributes;
pub(crate) mod changed;
pub(crate) mod chown;
pub(crate) mod digest;
pub(crate) mod durable;
pub(crate) mod fill;
mod kept;
pub(crate) mod lacks;
pub(crate) mod list;
mod modes;
pub(crate) mod mounts;
pub(crate) mod open;
pub(crate) mod pattern;
pub(crate) mod place;
pub(crate) mod publish;
pub(crate) mod remove;
pub(crate) mod sort;
pub(crate) mod source;
pub(crate) mod staging;
pub(crate) mod strip;
pub(crate) mod twins;
pub(crate) mod undo;
pub(crate) mod walk;
