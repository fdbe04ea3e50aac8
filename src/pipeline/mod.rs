//! Jobs: the directories in which their programs work ([`places`]), their pipelines in words ([`summary`]), and what
//! their programs say ([`messages`]).

pub(crate) mod messages;
pub(crate) mod places;
pub(crate) mod summary;
