//! How tests see Tidegate: from outside.
//!
//! * [`guest`]: one guest behind the host's boundary, in the test's own process; calls are made by hand;
//! * [`host`], [`client`], [`job`]: the real binary as a process of its own, driven over HTTP, killed and started again;
//! * [`damage`]: what lies on the disk, and what may happen to it;
//! * [`output`], [`generator`], [`totals`]: what came out, and what should have. They share no code with the host: an oracle that
//!   leans on the thing it judges proves nothing.
//!
//! Invariants:
//! * a test waits for a fact, never for a time; every wait has a name and a deadline, and says at the deadline what it last saw;
//! * every test has folders and ports of its own, so that tests can run side by side;
//! * a test that fails shows the end of its host's log.

pub mod chain;
pub mod cli;
pub mod client;
pub mod crash_points;
pub mod damage;
pub mod generator;
pub mod guest;
pub mod host;
pub mod io_steps;
pub mod job;
pub mod kill_loop;
pub mod logged;
pub mod output;
pub mod random;
pub mod rows;
pub mod totals;
pub mod wait;
