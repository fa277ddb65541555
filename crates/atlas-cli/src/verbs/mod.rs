//! One file for each verb, or for each few that belong together.

pub(crate) mod token;
pub(crate) mod url;
