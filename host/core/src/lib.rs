//! What Tidegate decides. Facts in, orders out: no async, no clock, no I/O, no wasm.

pub mod barrier;
pub mod checkpoint;
pub mod compaction;
pub mod diagnosis;
pub mod error_rate;
pub mod in_flight;
pub mod job_graph;
pub mod job_state;
pub mod key_group;
pub mod limits;
pub mod problem;
pub mod rate_limit;
pub mod recovery;
pub mod replay;
pub mod reservation;
pub mod restart;
pub mod row;
pub mod state_schema;
pub mod two_phase_commit;
pub mod units;
pub mod watermark;
