//! Facts about a host.
