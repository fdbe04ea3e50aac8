//! `transfer replica`: servers become replicas of a running one, or are as they were.

mod alone;
