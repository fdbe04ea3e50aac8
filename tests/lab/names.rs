//! The final name: what is under it at every moment of a publication, who may write to it, what stays of a run that fails,
//! and what a run makes of changes under its eyes.

mod alone;
