//! One file for each verb, or for each few that belong together.

pub(crate) mod care;
pub(crate) mod gpus;
pub(crate) mod logs;
pub(crate) mod machine;
pub(crate) mod session;
pub(crate) mod sim;
pub(crate) mod spawn;
pub(crate) mod token;
pub(crate) mod url;
