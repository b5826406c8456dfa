//! (in work)
#[derive(Debug)]
pub struct CommitPermit;
#[derive(Debug)]
pub struct Coordinator;
