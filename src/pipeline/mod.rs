//! Jobs: pipelines of stages as data ([`stage`]), written as a script ([`render`]), and what their programs say
//! ([`messages`]).

pub(crate) mod messages;
pub(crate) mod places;
pub(crate) mod render;
pub(crate) mod stage;
